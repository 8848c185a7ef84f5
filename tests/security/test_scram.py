"""SCRAM-SHA-256 against RFC 7677's own example, against a client that nobody here wrote, and against liars."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from typing import Final

import pytest
import scramp
from hypothesis import given
from hypothesis import strategies as st

from edge_broker.errors import EdgeBrokerError
from edge_broker.security.scram import (
    DEFAULT_ITERATIONS,
    LEAST_ITERATIONS,
    METHOD,
    SALT_BYTES,
    Decoys,
    ScramError,
    ScramExchange,
    ScramVerifier,
    new_nonce,
    saslprep,
)
from tests.properties.strategies import quick

# RFC 7677, section 3: the user name 'user' and the password 'pencil'
RFC_SALT: Final = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
RFC_NONCE: Final = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
RFC_FIRST: Final = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
RFC_ANSWER: Final = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
RFC_FINAL: Final = (
    b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
    b"p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
)
RFC_END: Final = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="

PENCIL: Final = ScramVerifier.from_password("pencil", iterations=4096, salt=RFC_SALT)
USERS: Final = {"user": PENCIL}
WRONG: Final = ("invalid-proof", "the name or the password is wrong")


def exchange(nonce: str = RFC_NONCE) -> ScramExchange:
    return ScramExchange(USERS.get, lambda: nonce, Decoys(b"secret", iterations=4096))


def refused(step: object, message: bytes) -> tuple[str, str]:
    """How `step` (a method of an exchange) refuses `message`."""
    with pytest.raises(ScramError) as caught:
        step(message)  # type: ignore[operator]
    return caught.value.reason, caught.value.detail


def foreign(username: str, password: str, users: dict[str, ScramVerifier]) -> ScramExchange:
    """scramp's client against us, to the end: it checks the server's signature too."""
    client = scramp.ScramClient([METHOD], username, password)
    ours = ScramExchange(users.get)
    client.set_server_first(ours.start(client.get_client_first().encode()).decode())
    client.set_server_final(ours.finish(client.get_client_final().encode()).decode())
    return ours


class Forger:
    """A client of the test's own that knows the password and says what the test wants it to say."""

    SALTED: Final = hashlib.pbkdf2_hmac("sha256", b"pencil", RFC_SALT, 4096)

    def __init__(self, first: str = "n,,n=user,r=client") -> None:
        self.first = first
        self.exchange = exchange()
        self.answer = self.exchange.start(first.encode()).decode()

    def final(self, unproved: str) -> bytes:
        """Whatever it says before its proof, proved."""
        bare = self.first.split(",", 2)[2]
        client_key = hmac.digest(self.SALTED, b"Client Key", "sha256")
        signed = f"{bare},{self.answer},{unproved}".encode()
        signature = hmac.digest(hashlib.sha256(client_key).digest(), signed, "sha256")
        proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
        return f"{unproved},p={base64.b64encode(proof).decode()}".encode()


# ---- who comes in


def test_the_example_of_rfc_7677() -> None:
    ours = exchange()
    assert ours.start(RFC_FIRST) == RFC_ANSWER
    assert (ours.claimed_name, ours.username) == ("user", "")
    assert ours.finish(RFC_FINAL) == RFC_END
    assert ours.username == "user"


@pytest.mark.parametrize(
    ("username", "password"),
    [
        ("sensor-1", "pencil"),
        ("a=b,c=2C=3D", "p,=äßword"),
        ("Größe", "correct horse battery staple"),
        ("I\u00adX", "\u2168"),
        ("温度計", "\u00a0space\u3000space"),
        ("u" * 500, "p" * 500),
    ],
)
def test_a_foreign_client_comes_in(username: str, password: str) -> None:
    name = saslprep(username)
    users = {name: ScramVerifier.from_password(password, iterations=LEAST_ITERATIONS)}
    assert foreign(username, password, users).username == name


def test_a_foreign_server_would_keep_the_same() -> None:
    mechanism = scramp.ScramMechanism(METHOD)
    salt, stored_key, server_key, iterations = mechanism.make_auth_info("påss", 5000, b"salt" * 4)
    theirs = ScramVerifier(salt, iterations, stored_key, server_key)
    assert ScramVerifier.from_password("påss", iterations=5000, salt=b"salt" * 4) == theirs


@pytest.mark.parametrize(
    ("first", "header"),
    [
        ("n,,n=user,r=client", "n,,"),
        ("y,,n=user,r=client", "y,,"),
        ("n,a=user,n=user,r=client", "n,a=user,"),
        ("n,,n=user,r=client,x=anything,Y=else", "n,,"),
    ],
)
def test_headers_and_optional_extensions(first: str, header: str) -> None:
    forger = Forger(first)
    binding = base64.b64encode(header.encode()).decode()
    forger.exchange.finish(forger.final(f"c={binding},r=client{RFC_NONCE},z=more"))
    assert forger.exchange.username == "user"


# ---- who does not


def test_a_wrong_password_and_an_unknown_name_are_refused_alike() -> None:
    said = []
    for username, password in (("user", "pen"), ("nobody", "pencil")):
        client = scramp.ScramClient([METHOD], username, password, c_nonce="client")
        ours = exchange()
        client.set_server_first(ours.start(client.get_client_first().encode()).decode())
        said.append(refused(ours.finish, client.get_client_final().encode()))
        assert ours.username == ""
    assert said == [WRONG, WRONG]


def test_a_decoy_lets_nobody_in_even_with_its_own_keys() -> None:
    """Whoever guessed the decoy's password would still not be anybody."""

    class Open(Decoys):
        def verifier(self, username: str) -> ScramVerifier:
            return PENCIL

    ours = ScramExchange({}.get, lambda: RFC_NONCE, Open(b""))
    assert ours.start(RFC_FIRST) == RFC_ANSWER
    assert refused(ours.finish, RFC_FINAL) == WRONG
    assert ours.username == ""


def test_an_unknown_name_looks_like_a_known_one() -> None:
    def answer(name: str, secret: bytes = b"secret") -> tuple[bytes, int]:
        decoys = Decoys(secret, iterations=DEFAULT_ITERATIONS)
        said = ScramExchange({}.get, lambda: "n", decoys).start(f"n,,n={name},r=c".encode()).decode()
        _, salt, iterations = said.split(",")
        return base64.b64decode(salt.removeprefix("s=")), int(iterations.removeprefix("i="))

    real = ScramVerifier.from_password("pencil")
    salt, iterations = answer("nobody")
    assert (len(salt), iterations) == (len(real.salt), real.iterations) == (SALT_BYTES, DEFAULT_ITERATIONS)
    assert answer("nobody") == (salt, iterations)
    assert answer("nobody-2")[0] != salt
    assert answer("nobody", b"another")[0] != salt


def test_a_process_keeps_its_decoys() -> None:
    said = {ScramExchange({}.get, lambda: "n").start(b"n,,n=nobody,r=c") for _ in range(3)}
    assert len(said) == 1


def test_every_name_is_the_same_work() -> None:
    made: list[str] = []

    class Counting(Decoys):
        def verifier(self, username: str) -> ScramVerifier:
            made.append(username)
            return Decoys.verifier(self, username)

    decoys = Counting(b"secret")
    made.clear()
    for name in ("user", "nobody"):
        ScramExchange(USERS.get, new_nonce, decoys).start(f"n,,n={name},r=c".encode())
    assert made == ["user", "nobody"]


def test_an_altered_nonce() -> None:
    for nonce in (
        "client",
        f"client{RFC_NONCE}x",
        f"Client{RFC_NONCE}",
        RFC_NONCE,
        f"client{RFC_NONCE[:-1]}",
    ):
        forger = Forger()
        reason, detail = refused(forger.exchange.finish, forger.final(f"c=biws,r={nonce}"))
        assert (reason, "nonce" in detail) == ("other-error", True)


def test_a_replay_of_both_messages() -> None:
    nonces: Iterator[int] = count()
    ours = ScramExchange(USERS.get, lambda: RFC_NONCE)
    ours.start(RFC_FIRST)
    ours.finish(RFC_FINAL)
    again = ScramExchange(USERS.get, lambda: str(next(nonces)))
    again.start(RFC_FIRST)
    assert refused(again.finish, RFC_FINAL)[0] == "other-error"
    once_more = ScramExchange(USERS.get)
    answer = once_more.start(RFC_FIRST).decode()
    nonce = answer.partition(",")[0]
    _, _, proof = RFC_FINAL.decode().rpartition(",")
    assert refused(once_more.finish, f"c=biws,{nonce},{proof}".encode()) == WRONG


def test_nonces_are_new_each_time() -> None:
    nonces = {new_nonce() for _ in range(100)}
    assert len(nonces) == 100
    assert all(len(nonce) >= 22 and nonce.isascii() and "," not in nonce for nonce in nonces)


def test_headers_that_differ() -> None:
    """A man in the middle who made `n` of the client's `y`, or the other way round."""
    for first, binding in (("n,,n=user,r=client", "eSws"), ("y,,n=user,r=client", "biws")):
        forger = Forger(first)
        final = forger.final(f"c={binding},r=client{RFC_NONCE}")
        assert refused(forger.exchange.finish, final)[0] == "channel-bindings-dont-match"


@pytest.mark.parametrize(
    ("first", "reason"),
    [
        (b"", "invalid-encoding"),
        (b"n,,n=user", "invalid-encoding"),
        (b"n,,r=client,n=user", "invalid-encoding"),
        (b"n,,n=user,r=", "invalid-encoding"),
        (b"n,,n=user,r=cli ent", "invalid-encoding"),
        (b"n,,n=user,r=cli\xc3\xa9nt", "invalid-encoding"),
        (b"n,,n=,r=client", "invalid-encoding"),
        (b"n,n=user,r=client", "invalid-encoding"),
        (b"N,,n=user,r=client", "invalid-encoding"),
        (b"x,,n=user,r=client", "invalid-encoding"),
        (b"n,,n=user,r=client,", "invalid-encoding"),
        (b"n,,n=user,r=client,x", "invalid-encoding"),
        (b"n,,n=us\0er,r=client", "invalid-encoding"),
        (b"n,,n=us\xffer,r=client", "invalid-encoding"),
        (b"n,,n=us\xed\xa0\x80er,r=client", "invalid-encoding"),
        (b"p,,n=user,r=client", "invalid-encoding"),
        (b"p=tls-unique,,n=user,r=client", "channel-binding-not-supported"),
        (b"n,,m=must,n=user,r=client", "extensions-not-supported"),
        (b"n,a=admin,n=user,r=client", "other-error"),
        (b"n,a==00,n=user,r=client", "invalid-username-encoding"),
        (b"n,,n=us=er,r=client", "invalid-username-encoding"),
        (b"n,,n=us=2cer,r=client", "invalid-username-encoding"),
        (b"n,,n=us\x07er,r=client", "invalid-username-encoding"),
        (b"n,,n=us\ner,r=client", "invalid-username-encoding"),
        ("n,,n=\u00ad,r=client".encode(), "invalid-username-encoding"),
        ("n,,n=\u06271,r=client".encode(), "invalid-username-encoding"),
        (b"n,,n=" + b"u" * 3000 + b",r=client", "other-error"),
    ],
)
def test_a_malformed_first_message(first: bytes, reason: str) -> None:
    ours = exchange()
    assert refused(ours.start, first)[0] == reason
    assert refused(ours.finish, RFC_FINAL)[0] == "other-error", "it went on"


@pytest.mark.parametrize(
    ("final", "reason"),
    [
        (b"", "invalid-encoding"),
        (RFC_FINAL.rpartition(b",")[0], "invalid-encoding"),
        (RFC_FINAL.replace(b"c=biws,", b""), "invalid-encoding"),
        (RFC_FINAL.replace(b"c=biws", b"c=!"), "invalid-encoding"),
        (RFC_FINAL.replace(b"c=biws", b"c=biw="), "channel-bindings-dont-match"),
        (RFC_FINAL[:-1], "invalid-encoding"),
        (RFC_FINAL + b"=", "invalid-encoding"),
        (RFC_FINAL.replace(b"dVQ=", b"dVR="), "invalid-encoding"),  # bits that base64 does not have
        (RFC_FINAL[:-9] + b"=", "invalid-encoding"),
        (RFC_FINAL + b",x=y", "invalid-encoding"),
        (RFC_FINAL + b"\n", "invalid-encoding"),
        (RFC_FINAL.replace(b",p=", b",,p="), "invalid-encoding"),
        (RFC_FINAL.replace(b"p=dH", b"p=eH"), "invalid-proof"),
        (RFC_FINAL.replace(b",p=", b",x=y,p="), "invalid-proof"),
        (RFC_FINAL.replace(b"c=biws", b"c=biws,"), "invalid-encoding"),
        (b"p=" * 2000, "other-error"),
    ],
)
def test_a_malformed_final_message(final: bytes, reason: str) -> None:
    ours = exchange()
    ours.start(RFC_FIRST)
    assert refused(ours.finish, final)[0] == reason
    assert refused(ours.finish, RFC_FINAL)[0] == "other-error", "it had a second chance"
    assert ours.username == ""


def test_each_message_once_and_in_its_order() -> None:
    ours = exchange()
    assert refused(ours.finish, RFC_FINAL)[0] == "other-error"
    assert refused(ours.start, RFC_FIRST)[0] == "other-error", "it was over"
    ours = exchange()
    ours.start(RFC_FIRST)
    assert refused(ours.start, RFC_FIRST)[0] == "other-error"
    assert refused(ours.finish, RFC_FINAL)[0] == "other-error", "it was over"
    ours = exchange()
    ours.start(RFC_FIRST)
    ours.finish(RFC_FINAL)
    assert refused(ours.finish, RFC_FINAL)[0] == "other-error"
    assert refused(ours.start, RFC_FIRST)[0] == "other-error"
    assert ours.username == "user"


def test_what_is_said_has_no_secret_and_one_root() -> None:
    ours = exchange()
    ours.start(b"n,,n=user,r=client")
    with pytest.raises(EdgeBrokerError) as caught:
        ours.finish(RFC_FINAL)
    assert str(caught.value) == "SCRAM-SHA-256: its nonce is not the one of this exchange (other-error)"


# ---- whatever comes


letters: Final = st.characters(codec="utf-8", max_codepoint=0x33FF) | st.sampled_from(
    "=,\u00ad\u00a0\u2168\u0627\u0628\ufdfa\uff0c\uff1d\U0001f321"
)


def changed(message: bytes) -> st.SearchStrategy[bytes]:
    """`message` with some of it replaced, or gone, or with something in between."""
    at = st.integers(0, len(message))
    grammar = st.text("nyp=,acrmi2CD3x/+ é\0\u00ad\u0627", max_size=6).map(str.encode)
    return st.tuples(at, at, grammar | st.binary(max_size=6)).map(
        lambda cut: message[: min(cut[:2])] + cut[2] + message[max(cut[:2]) :]
    )


@quick
@given(first=changed(RFC_FIRST) | st.binary(max_size=60), final=changed(RFC_FINAL) | st.binary(max_size=60))
def test_only_our_error_ever_comes_out(first: bytes, final: bytes) -> None:
    ours = exchange()
    with suppress(ScramError):
        assert ours.start(first).startswith(b"r=")
    assert ours.username == ""
    try:
        ours.finish(final)
    except ScramError:
        assert ours.username == ""
    else:
        assert ours.username == "user"
        assert (first.partition(b"n=")[2], final) == (RFC_FIRST.partition(b"n=")[2], RFC_FINAL)


@quick
@given(final=changed(RFC_FINAL))
def test_nothing_but_the_proof_proves(final: bytes) -> None:
    ours = exchange()
    ours.start(RFC_FIRST)
    if final == RFC_FINAL:
        assert ours.finish(final) == RFC_END
    else:
        refused(ours.finish, final)


@quick
@given(text=st.text(letters, min_size=1, max_size=20))
def test_any_name_is_prepared_once_and_for_all(text: str) -> None:
    escaped = text.replace("=", "=3D").replace(",", "=2C")
    ours = exchange()
    with suppress(ScramError):
        ours.start(f"n,,n={escaped},r=client".encode())
        assert ours.claimed_name == saslprep(text) == saslprep(ours.claimed_name)


# ---- verifiers


def test_a_verifier_as_a_line_of_text() -> None:
    text = PENCIL.to_text()
    assert text == (
        "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$"
        "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
    )
    assert ScramVerifier.from_text(text) == ScramVerifier.from_text(f" {text}\n") == PENCIL


@pytest.mark.parametrize(
    "text",
    [
        "",
        "pencil",
        "SCRAM-SHA-1$4096:c2FsdA==$WG5d:wfPL",
        PENCIL.to_text().replace("4096", "4_096"),
        PENCIL.to_text().replace("4096", "٤٠٩٦"),
        PENCIL.to_text().replace("4096", "1" * 10),
        PENCIL.to_text().replace("4096", "1000"),
        PENCIL.to_text().replace("4096", "-4096"),
        PENCIL.to_text().replace("gQ==", "gQ"),
        PENCIL.to_text().replace("W22ZaJ0SNY7soEsUEjb6gQ==", ""),
        PENCIL.to_text().replace("WG5d", ""),
        PENCIL.to_text().replace("2dU=", "2dU=$"),
        PENCIL.to_text().replace("2dU=", "2dU=:"),
        PENCIL.to_text().replace("WG5d", "é£!?"),
    ],
)
def test_a_line_that_is_not_one(text: str) -> None:
    with pytest.raises(
        ValueError, match=r"not a line of the form|not the salt and keys|1000 iterations"
    ) as caught:
        ScramVerifier.from_text(text)
    assert caught.value.__context__ is None or caught.value.__suppress_context__
    assert "wfPL" not in str(caught.value)


def test_no_key_is_shown() -> None:
    assert repr(PENCIL) == "ScramVerifier(iterations=4096)"
    assert "secret" not in repr(Decoys(b"secret"))


def test_salts_are_new_and_passwords_count() -> None:
    one, other = (ScramVerifier.from_password("pencil") for _ in range(2))
    assert len(one.salt) == SALT_BYTES
    assert one.salt != other.salt
    again = ScramVerifier.from_password("Pencil", salt=one.salt)
    assert (again.stored_key == one.stored_key, again.server_key == one.server_key) == (False, False)


@pytest.mark.parametrize("password", ["", "\u00ad", "a\x07b", "\u06271", "\U0001f321"])
def test_a_password_that_cannot_be(password: str) -> None:
    with pytest.raises(ValueError, match=r"empty|character|directions") as caught:
        ScramVerifier.from_password(password)
    assert not password or password not in str(caught.value)


@pytest.mark.parametrize("iterations", [0, LEAST_ITERATIONS - 1])
def test_too_few_iterations(iterations: int) -> None:
    with pytest.raises(ValueError, match="iterations"):
        ScramVerifier.from_password("pencil", iterations=iterations)
    with pytest.raises(ValueError, match="iterations"):
        Decoys(b"secret", iterations=iterations)


# ---- SASLprep


@pytest.mark.parametrize(
    ("text", "prepared"),
    [
        ("I\u00adX", "IX"),  # RFC 4013, section 3, down to the line
        ("user", "user"),
        ("USER", "USER"),
        ("\u00aa", "a"),
        ("\u2168", "IX"),
        ("a\u00a0b\u2003c", "a b c"),
        ("\u0627\u0628", "\u0627\u0628"),
        ("\U0001f321", "\U0001f321"),  # later than Unicode 3.2: only stored text has to be older
    ],
)
def test_saslprep(text: str, prepared: str) -> None:
    assert saslprep(text) == prepared


@pytest.mark.parametrize(
    "text",
    [
        "\x07",
        "\x7f",
        "\u06271",
        "a\u0627",
        "\u0627a\u0627",
        "\ue000",
        "\u202e",
        "\ufffd",
        "\u2028",
        "\U000e0001",
    ],
)
def test_what_saslprep_prohibits(text: str) -> None:
    with pytest.raises(ValueError, match=r"prohibited|directions"):
        saslprep(text)


def test_stored_text_is_of_unicode_3_2() -> None:
    with pytest.raises(ValueError, match=r"Unicode 3\.2"):
        saslprep("\U0001f321", stored=True)


@quick
@given(text=st.text(letters, max_size=20))
def test_saslprep_is_as_a_foreign_one(text: str) -> None:
    from scramp.core import saslprep as theirs

    try:
        expected: str | None = theirs(text)
    except scramp.ScramException:
        expected = None
    try:
        found: str | None = saslprep(text, stored=True)
    except ValueError:
        found = None
    assert found == expected
