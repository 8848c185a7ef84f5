"""Who comes in by token: as whom, for how long, beside which user name, and what a wrong one costs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edge_broker.core.ports import Admission, Challenge, Credentials
from edge_broker.security.admission import ANONYMOUS, ListenerAdmission
from edge_broker.security.guessing import Guessing, GuessLimits
from edge_broker.security.token_admission import METHOD, TokenAdmission
from edge_broker.security.token_keys import read_token_keys
from edge_broker.security.tokens import TokenRules, looks_like_token
from edge_broker.wire import const
from tests.security.issuer import AUDIENCE, NOW, claims, forge, issue, jwk, write_set

CLOCK = 500.0
GOOD = issue(claims("anna", groups=["sensors"]))


class Door:
    """The admission by token, and what is called later, by how many seconds."""

    def __init__(self, folder: Path, *, match: bool = True, per_name: int = 3) -> None:
        keys = read_token_keys([write_set(folder / "keys.json", jwk())])
        self.guessing = Guessing(GuessLimits(per_name=per_name, per_address=5), lambda _: False, lambda: 0.5)
        self.later: list[tuple[float, Callable[[], None]]] = []
        self.wall = NOW
        self.tokens = TokenAdmission(
            keys,
            TokenRules(AUDIENCE, leeway_seconds=10),
            self.guessing,
            lambda seconds, callback: self.later.append((seconds, callback)),
            match_user_name=match,
            clock=lambda: CLOCK,
            wall=lambda: self.wall,
        )

    def ask(
        self,
        token: bytes,
        username: str | None = "anna",
        address: str = "192.0.2.1:5",
        names: tuple[str, ...] = (),
    ) -> tuple[Admission, float]:
        """The answer, and how long it was held back."""
        answers: list[Admission] = []
        credentials = Credentials("c", username, token, address, "closed", names)
        self.tokens.authenticate(credentials, answers.append)
        if answers:
            return answers[0], 0.0
        seconds, callback = self.later.pop()
        callback()
        (answer,) = answers
        return answer, seconds


@pytest.fixture
def door(tmp_path: Path) -> Door:
    return Door(tmp_path)


@pytest.mark.parametrize("username", ["anna", None, ""])
def test_a_good_token_admits_whom_it_names_as_long_as_it_lasts(door: Door, username: str | None) -> None:
    answer, seconds = door.ask(GOOD, username)
    (key,) = door.tokens.keys.keys
    assert answer == Admission(
        const.SUCCESS,
        "anna",
        method="token",
        groups=("sensors",),
        expires_at=CLOCK + 70,
        proof=key.thumbprint,
    )
    assert seconds == 0
    assert (door.tokens.counters.accepted, door.tokens.counters.refused) == (1, {})


def test_the_time_that_is_left_counts(door: Door) -> None:
    door.wall = NOW + 50
    assert door.ask(GOOD)[0].expires_at == CLOCK + 20


def test_a_token_of_somebody_else_than_the_user_name(door: Door, tmp_path: Path) -> None:
    answer, _ = door.ask(GOOD, "bob")
    assert answer.reason_code == const.BAD_USER_NAME_OR_PASSWORD
    assert (answer.identity, door.tokens.counters.refused) == ("", {"name": 1})
    assert Door(tmp_path, match=False).ask(GOOD, "bob")[0].identity == "anna"


@pytest.mark.parametrize("match", [True, False])
def test_a_token_of_somebody_else_than_the_certificate(tmp_path: Path, match: bool) -> None:
    door = Door(tmp_path, match=match)
    assert door.ask(GOOD, names=("bob",))[0].reason_code == const.BAD_USER_NAME_OR_PASSWORD
    assert door.ask(GOOD, names=("anna", "bob"))[0].identity == "anna"


def test_nobody_is_named_anonymous(door: Door) -> None:
    assert door.ask(issue(claims(ANONYMOUS)), None)[0].reason_code == const.BAD_USER_NAME_OR_PASSWORD


def test_a_wrong_token_is_a_wrong_password(door: Door) -> None:
    """Answered later each time; the same again is no new guess."""
    wrong = issue(number=99)
    delays = [door.ask(wrong)[1] for _ in range(5)]
    assert delays == sorted(delays)
    assert delays[0] > 0.1
    assert door.guessing.counters.failures == 5
    assert door.guessing.banned()["name"] == 0
    assert door.tokens.counters.refused == {"signature": 5}
    assert "signature" in door.ask(wrong)[0].detail


def test_who_guesses_is_banned_and_not_even_a_good_token_counts_then(door: Door) -> None:
    for number in range(3):
        door.ask(forge({"alg": "none"}, {"n": number}))
    assert door.ask(GOOD)[0].reason_code == const.BANNED
    assert door.ask(GOOD, address="198.51.100.7:5")[0].reason_code == const.SUCCESS
    door.ask(forge({"alg": "none"}, {"n": 8}), "bob")
    door.ask(forge({"alg": "none"}, {"n": 9}), "carl")
    assert door.guessing.banned() == {"name": 1, "address": 1}
    assert door.ask(GOOD, None)[0].reason_code == const.BANNED


def test_wrong_tokens_without_a_user_name_ban_no_others_without_one(door: Door) -> None:
    """Else any stranger behind a reverse proxy locks everybody out, and a few devices with old tokens their whole site."""
    for number in range(4):
        assert door.ask(forge({"alg": "none"}, {"n": number}), None)[0].reason_code != const.BANNED
    assert door.guessing.banned()["name"] == 0
    assert door.ask(GOOD, None)[0].reason_code == const.SUCCESS
    door.ask(forge({"alg": "none"}, {"n": 4}), None)
    assert door.guessing.banned() == {"name": 0, "address": 1}, "the address has its limit all the same"
    assert door.ask(GOOD, None)[0].reason_code == const.BANNED


def test_what_is_refused_is_not_repeated_anywhere(door: Door) -> None:
    for token in (issue(claims("SECRET"), number=99), forge({"alg": "SECRET"}, {"sub": "SECRET"})):
        assert "SECRET" not in door.ask(token, None)[0].detail


def test_keys_are_replaced(door: Door, tmp_path: Path) -> None:
    (old,) = door.tokens.keys.keys
    new = read_token_keys([write_set(tmp_path / "new.json", jwk("RS256", 1))])
    assert door.tokens.replace(new) == {old.thumbprint}
    assert door.ask(GOOD)[0].reason_code == const.BAD_USER_NAME_OR_PASSWORD
    assert door.ask(issue(number=1))[0].reason_code == const.SUCCESS


# ---- the method JWT


def step(
    door: Door, data: bytes, username: str | None = None, names: tuple[str, ...] = ()
) -> Admission | Challenge:
    credentials = Credentials("c", username, None, "192.0.2.1:5", "open", names)
    exchange = door.tokens.begin(credentials, METHOD)
    assert exchange is not None
    return exchange.step(data)


def test_the_method_takes_a_token_as_its_data(door: Door) -> None:
    answer = step(door, GOOD)
    assert isinstance(answer, Admission)
    assert (answer.identity, answer.expires_at, answer.groups) == ("anna", CLOCK + 70, ("sensors",))
    assert door.tokens.begin(Credentials("c", None, None, "x:1", "open"), "jwt") is None


def test_the_method_asks_once(door: Door) -> None:
    exchange = door.tokens.begin(Credentials("c", None, None, "x:1", "open"), METHOD)
    assert exchange is not None
    assert exchange.step(b"") == Challenge(b"")
    answer = exchange.step(b"")
    assert isinstance(answer, Admission)
    assert answer.reason_code == const.NOT_AUTHORIZED


@pytest.mark.parametrize(("username", "names"), [("bob", ()), (None, ("bob",))])
def test_the_method_looks_at_names_too(door: Door, username: str | None, names: tuple[str, ...]) -> None:
    answer = step(door, GOOD, username, names)
    assert isinstance(answer, Admission)
    assert answer.reason_code == const.NOT_AUTHORIZED


def test_guesses_by_the_method_count(door: Door) -> None:
    """Without a user name only for their address."""
    for number in range(5):
        answer = step(door, forge({"alg": "none"}, {"n": number}))
        assert isinstance(answer, Admission)
        assert answer.reason_code == const.NOT_AUTHORIZED
    answer = step(door, GOOD)
    assert isinstance(answer, Admission)
    assert (answer.reason_code, "too many" in answer.detail) == (const.NOT_AUTHORIZED, True)


# ---- beside passwords


class Taking:
    """Notes that it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def authenticate(self, credentials: Credentials, answer: Callable[[Admission], None]) -> None:
        self.asked += 1
        answer(Admission(const.SUCCESS, "somebody"))

    def begin(self, credentials: Credentials, method: str) -> None:
        return None


@pytest.mark.parametrize(
    ("listener", "password", "names", "asked"),
    [
        ("closed", GOOD, (), "tokens"),
        ("closed", forge({"alg": "none"}, {}), (), "tokens"),
        ("closed", b"red.green.blue", (), "passwords"),
        ("closed", b"secret", (), "passwords"),
        ("open", GOOD, (), None),
        ("closed", GOOD, ("bob",), None),
    ],
)
def test_a_password_that_can_only_be_a_token_is_one(
    listener: str, password: bytes, names: tuple[str, ...], asked: str | None
) -> None:
    passwords, tokens = Taking(), Taking()
    admission = ListenerAdmission({"open": True}, passwords, tokens, looks_like_token)
    admission.authenticate(Credentials("c", "anna", password, "x:1", listener, names), lambda _: None)
    assert (passwords.asked, tokens.asked) == (int(asked == "passwords"), int(asked == "tokens"))


@pytest.mark.parametrize("password", [None, b"secret"])
def test_tokens_alone_say_that_one_is_missing(password: bytes | None) -> None:
    answers: list[Admission] = []
    admission = ListenerAdmission({}, None, Taking(), looks_like_token)
    admission.authenticate(Credentials("c", "anna", password, "x:1", "closed"), answers.append)
    assert [(answer.reason_code, "a token" in answer.detail) for answer in answers] == [
        (const.NOT_AUTHORIZED, True)
    ]


def test_without_tokens_a_token_is_a_password_like_any(tmp_path: Path) -> None:
    passwords = Taking()
    ListenerAdmission({}, passwords).authenticate(
        Credentials("c", "anna", GOOD, "x:1", "closed"), lambda _: None
    )
    assert passwords.asked == 1


def test_the_methods_of_both_are_offered(door: Door) -> None:
    admission = ListenerAdmission({}, Taking(), door.tokens, looks_like_token)
    credentials = Credentials("c", None, None, "x:1", "closed")
    assert admission.begin(credentials, METHOD) is not None
    assert admission.begin(credentials, "SCRAM-SHA-256") is None
