"""The password file: read strictly, every mistake with its line, changed line by line, written whole."""

from __future__ import annotations

import logging
import multiprocessing
import os
import stat
from pathlib import Path

import pytest

from edge_broker.errors import ConfigError
from edge_broker.security.hashing import Argon2Cost, Argon2Hash
from edge_broker.security.passwords import (
    PasswordFileMistakes,
    Passwords,
    User,
    change_file,
    parse_passwords,
    read_passwords,
    with_user,
)
from edge_broker.security.scram import DEFAULT_ITERATIONS, LEAST_ITERATIONS, SALT_BYTES, ScramVerifier
from tests.security.serving import CHEAP, argon2_of, lines, scram_of

PATH = Path("/etc/edge-broker/passwords")
ARGON2 = argon2_of("secret").text
SCRAM = scram_of("secret").to_text()


def mistakes_in(text: str) -> list[tuple[str, str, str]]:
    with pytest.raises(PasswordFileMistakes) as raised:
        parse_passwords(text, PATH)
    assert str(raised.value).startswith(f"{PATH}: ")
    return [(mistake.key, mistake.problem, mistake.hint) for mistake in raised.value.mistakes]


# ---- what is read


def test_names_comments_and_empty_lines() -> None:
    text = f"# who may come in\n\nanna:{ARGON2}\r\nanna:{SCRAM}\nkøbenhavn 2:{SCRAM}\n  \nbob:{ARGON2}"
    read = parse_passwords(text, PATH)
    assert set(read.users) == {"anna", "københavn 2", "bob"}
    assert read.argon2("anna") == argon2_of("secret")
    assert read.scram("anna") == scram_of("secret")
    assert (read.argon2("københavn 2"), read.scram("bob")) == (None, None)
    assert (read.argon2("nobody"), read.scram("nobody")) == (None, None)


@pytest.mark.parametrize("text", ["", "\n", "# nobody yet\n", "\ufeff".encode().decode("utf-8-sig")])
def test_a_file_without_anybody(text: str) -> None:
    assert parse_passwords(text, PATH) == Passwords()
    assert not Passwords().offers_scram


def test_decoys_look_like_what_is_usual() -> None:
    dear = Argon2Hash.decoy(Argon2Cost(19_456, 3), os.urandom)
    odd = ScramVerifier.from_password("x", iterations=5_000, salt=b"s" * 24)
    users = {
        "a": User(argon2_of("1"), odd),
        "b": User(argon2_of("2")),
        "c": User(dear, odd),
        "d": User(None, scram_of("3")),
    }
    usual = Passwords.of(users)
    assert usual.cost == CHEAP
    assert (usual.iterations, usual.salt_bytes, usual.offers_scram) == (5_000, 24, True)
    nobody = Passwords.of({})
    assert (nobody.cost, nobody.iterations, nobody.salt_bytes) == (
        Argon2Cost(),
        DEFAULT_ITERATIONS,
        SALT_BYTES,
    )


MISTAKES = [
    ("anna", "has no colon", "NAME:CREDENTIAL"),
    (f":{ARGON2}", "has no name", "NAME:CREDENTIAL"),
    (f" anna:{ARGON2}", "begins or ends with a space", ""),
    (f"anna :{ARGON2}", "begins or ends with a space", ""),
    (f"anonymous:{ARGON2}", "has the name anonymous", "choose another"),
    (f"{'n' * 257}:{ARGON2}", "more than 256 bytes", "shorter"),
    (f"an\u00adna:{ARGON2}", "otherwise for SCRAM", "write 'anna'"),
    (f"an\u0007na:{ARGON2}", "prohibited", "another name"),
    ("anna:hunter2", "perhaps a plain password", "edge-broker passwd"),
    ("anna:", "neither argon2id", "edge-broker passwd"),
    ("anna:$7$101$hunter2$x", "neither argon2id nor SCRAM-SHA-256", "edge-broker passwd"),
    ("anna:$2b$12$hunter2", "neither argon2id nor SCRAM-SHA-256", "edge-broker passwd"),
    ("anna:$argon2i$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaA", "not $argon2id$v=19$", "edge-broker"),
    ("anna:$argon2id$v=16$m=19456,t=2,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaA", "not $argon2id$v=19$", "edge-broker"),
    ("anna:$argon2id$v=19$m=65536,t=3,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaA", "m=65536, from 7168 to 19456", "edge"),
    ("anna:$argon2id$v=19$m=1024,t=3,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaA", "m=1024, from 7168 to 19456", "edge"),
    ("anna:$argon2id$v=19$m=19456,t=9,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaA", "t=9, at most 8", "edge-broker"),
    ("anna:$argon2id$v=19$m=19456,t=2,p=4$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaA", "p=4, only 1", "edge-broker"),
    ("anna:$argon2id$v=19$m=19456,t=2,p=1$c2Fs$aGFzaGhhc2hoYXNoaGFzaA", "a salt that is not 8 to 64", "edge-broker"),
    ("anna:$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$aGFz", "a hash that is not 16 to 64 bytes", "edge-broker"),
    ("anna:$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhb$aGFzaGhhc2hoYXNoaGFzaA", "not base64", "edge-broker"),
    (f"anna:{ARGON2} ", "not $argon2id", "edge-broker passwd"),
    (f"anna:{SCRAM} ", "a space at the end", "edge-broker passwd"),
    ("anna:SCRAM-SHA-256$100:c2FsdA==$x:y", "not a line of the form", "edge-broker passwd"),
    (f"anna:{SCRAM.replace('4096', '4095')}", "4095 iterations, at least 4096", "edge-broker passwd"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "problem", "hint"), MISTAKES, ids=range(len(MISTAKES)))
def test_each_mistake_says_where_and_what_to_do(line: str, problem: str, hint: str) -> None:
    ((key, said, advice),) = mistakes_in(f"# users\nbob:{ARGON2}\n{line}\n")
    assert key == "line 3"
    assert problem in said
    assert hint in advice
    for told in (said, advice):
        assert "hunter2" not in told
        assert "aGFz" not in told


def test_all_mistakes_at_once() -> None:
    found = mistakes_in(f"anna\nbob:{ARGON2}\ncarl:plain\nbob:{SCRAM}\nbob:{argon2_of('other').text}\n")
    assert [key for key, *_ in found] == ["line 1", "line 3", "line 5"]
    assert found[2][1] == "is the second argon2id line of its name, the first is line 2"


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    missing = tmp_path / "passwords"
    with pytest.raises(ConfigError, match=r"No such file.*edge-broker passwd .*passwords NAME") as raised:
        read_passwords(missing)
    assert raised.value.key == str(missing)
    with pytest.raises(ConfigError, match="Is a directory"):
        read_passwords(tmp_path)
    missing.write_bytes(f"anna:{ARGON2}\nb\xf6b:".encode("latin-1"))
    with pytest.raises(PasswordFileMistakes, match="line 2: is not UTF-8"):
        read_passwords(missing)


def test_a_file_that_everybody_may_read_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "passwords"
    path.write_text(lines("anna", "secret"))
    for mode, told in ((0o600, False), (0o640, False), (0o644, True)):
        caplog.clear()
        path.chmod(mode)
        with caplog.at_level(logging.WARNING):
            read_passwords(path)
        assert (f"chmod 600 {path}" in caplog.text) is told


# ---- what has changed


def test_whose_password_has_changed() -> None:
    both, argon2, scram = User(argon2_of("1"), scram_of("1")), User(argon2_of("1")), User(None, scram_of("1"))
    other = User(argon2_of("2"))
    before = Passwords(
        {"same": both, "more": argon2, "gone": argon2, "less": both, "other": argon2, "scram": scram}
    )
    after = Passwords(
        {"same": both, "more": both, "less": argon2, "other": other, "scram": scram, "new": other}
    )
    assert before.changed_in(after) == {"gone", "less", "other"}


# ---- changing


def test_lines_of_one_name_are_replaced_and_nothing_else() -> None:
    text = "# users\nanna:1\n\n# the cellar\nbob:2\nanna:3\n#anna:4"
    assert with_user(text, "anna", ("x", "y")) == (
        "# users\nanna:x\nanna:y\n\n# the cellar\nbob:2\n#anna:4\n",
        True,
    )
    assert with_user(text, "carl", ("x",)) == (f"{text}\ncarl:x\n", False)
    assert with_user(text, "anna", ()) == ("# users\n\n# the cellar\nbob:2\n#anna:4\n", True)
    assert with_user("", "anna", ("x",)) == ("anna:x\n", False)
    assert with_user("anna:x\n", "anna", ()) == ("", True)


def test_a_file_is_replaced_whole_and_for_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "passwords"
    change_file(path, lambda text: text + "anna:1\n")
    path.chmod(0o644)
    link = tmp_path / "link"
    link.symlink_to(path)
    change_file(link, lambda text: text + "bob:2\n")
    assert link.is_symlink()
    assert path.read_text() == "anna:1\nbob:2\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["link", "passwords"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to write a file of another user")
def test_a_file_keeps_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "passwords"
    path.write_text("anna:1\n")
    os.chown(path, 12_345, 23_456)
    change_file(path, str.upper)
    assert (path.stat().st_uid, path.stat().st_gid) == (12_345, 23_456)
    assert path.read_text() == "ANNA:1\n"


def test_a_change_that_fails_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "passwords"
    path.write_text("anna:1\n")

    def refuse(_text: str) -> str:
        raise ConfigError("NAME", "no")

    with pytest.raises(ConfigError):
        change_file(path, refuse)

    def fail(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        change_file(path, lambda _text: "nothing")
    assert path.read_text() == "anna:1\n"
    assert [entry.name for entry in tmp_path.iterdir()] == ["passwords"]


def _add_names(path: Path, prefix: str) -> None:
    for number in range(20):
        change_file(path, lambda text, number=number: f"{text}{prefix}{number}\n")  # type: ignore[misc]


def test_two_that_change_it_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "passwords"
    context = multiprocessing.get_context("spawn")
    others = [context.Process(target=_add_names, args=(path, prefix)) for prefix in "ab"]
    for other in others:
        other.start()
    for other in others:
        other.join(60)
        assert other.exitcode == 0
    assert len(path.read_text().splitlines()) == 40


def test_hashes_of_ours_are_what_the_file_takes() -> None:
    made = Argon2Hash.from_password("påss")
    assert Argon2Hash.from_text(made.text) == made
    assert made.cost == Argon2Cost(19_456, 2)
    assert made.is_of("påss".encode())
    assert not made.is_of(b"pass")
    assert made.text not in repr(made)
    decoy = Argon2Hash.decoy(made.cost, os.urandom)
    assert Argon2Hash.from_text(decoy.text) == decoy
    assert len(decoy.text) == len(made.text)
    assert not decoy.is_of(b"")
    for bad, why in (("", "empty"), ("p" * 1_025, "more than 1024"), ("\udcff", "not UTF-8")):
        with pytest.raises(ValueError, match=why) as raised:
            Argon2Hash.from_password(bad)
        assert "dcff" not in str(raised.value)
    assert LEAST_ITERATIONS == 4_096
