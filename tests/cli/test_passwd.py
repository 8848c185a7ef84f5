"""`edge-broker passwd`: what it writes is what the broker takes, and a password is seen by nobody."""

from __future__ import annotations

import os
import pty
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from edge_broker.cli import main
from edge_broker.security.passwords import read_passwords
from edge_broker.security.scram import DEFAULT_ITERATIONS, ScramExchange
from tests.secrets import secret

SECRET = secret("correct horse")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "passwords"


def passwd(file: Path, *arguments: str, typed: str = "") -> Result:
    return CliRunner().invoke(main, ["passwd", str(file), *arguments], input=typed)


def test_a_password_from_standard_input(file: Path) -> None:
    result = passwd(file, "anna", "--stdin", typed=f"{SECRET}\n")
    assert (result.exit_code, result.output) == (0, f"anna has a new password in {file}\n")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert SECRET not in file.read_text()
    read = read_passwords(file)
    kept = read.argon2("anna")
    assert kept is not None
    assert kept.is_of(SECRET.encode())
    assert not kept.is_of(b"correct horse ")
    assert not read.offers_scram


@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_the_end_of_the_line_is_not_part_of_it_and_spaces_are(file: Path, ending: str) -> None:
    assert passwd(file, "anna", "--stdin", typed=f" påss {ending}").exit_code == 0
    kept = read_passwords(file).argon2("anna")
    assert kept is not None
    assert kept.is_of(" påss ".encode())


@pytest.mark.parametrize(
    ("options", "iterations"), [((), DEFAULT_ITERATIONS), (("--iterations", "5000"), 5_000)]
)
def test_scram_beside_the_hash(file: Path, options: tuple[str, ...], iterations: int) -> None:
    import scramp

    assert passwd(file, "anna", "--scram", "--stdin", *options, typed=SECRET).exit_code == 0
    read = read_passwords(file)
    kept, verifier = read.argon2("anna"), read.scram("anna")
    assert kept is not None
    assert kept.is_of(SECRET.encode())
    assert verifier is not None
    assert verifier.iterations == iterations
    client, ours = scramp.ScramClient(["SCRAM-SHA-256"], "anna", SECRET), ScramExchange(read.scram)
    client.set_server_first(ours.start(client.get_client_first().encode()).decode())
    client.set_server_final(ours.finish(client.get_client_final().encode()).decode())


def test_a_change_replaces_both_lines_and_spares_the_rest(file: Path) -> None:
    passwd(file, "anna", "--scram", "--stdin", typed="one")
    file.write_text("# the cellar\n" + file.read_text())
    passwd(file, "bob", "--stdin", typed="two")
    before = file.read_text()
    assert passwd(file, "anna", "--stdin", typed="three").exit_code == 0
    after = file.read_text().splitlines()
    assert after[0] == "# the cellar"
    assert after[1].startswith("anna:$argon2id$")
    assert after[2] == before.splitlines()[3]
    assert len(after) == 3
    kept = read_passwords(file).argon2("anna")
    assert kept is not None
    assert kept.is_of(b"three")


def test_deleting(file: Path) -> None:
    for name in ("anna", "bob"):
        passwd(file, name, "--scram", "--stdin", typed="x")
    result = passwd(file, "anna", "--delete")
    assert (result.exit_code, result.output) == (0, f"anna is out of {file}\n")
    assert set(read_passwords(file).users) == {"bob"}
    again = passwd(file, "anna", "--delete")
    assert again.exit_code == 1
    assert "anna: is not in" in again.output
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("arguments", "typed", "code", "told"),
    [
        (("anna", "--stdin"), "", 1, "that cannot be a password: an empty password"),
        (("anna", "--stdin"), "\n", 1, "an empty password"),
        (("anna", "--stdin"), "hunter2\nhunter2\n", 1, "it is more than one line"),
        (("anna", "--stdin"), "p" * 1_025, 1, "more than 1024 bytes"),
        (("anna", "--stdin", "--scram"), "hunter2\u0007", 1, "prohibited"),
        (("an:na", "--stdin"), "hunter2", 1, "NAME: has a name that begins or ends with a space"),
        (("", "--stdin"), "hunter2", 1, "NAME: has no name"),
        (("anonymous", "--stdin"), "hunter2", 1, "NAME: has the name anonymous"),
        (("anna", "--delete", "--scram"), "", 2, "--delete needs no password"),
        (("anna", "--stdin", "--iterations", "5000"), "hunter2", 2, "--iterations is SCRAM's"),
        (("anna", "--stdin", "--scram", "--iterations", "4095"), "hunter2", 2, "4095 is not in the range"),
        (("anna", "hunter2"), "", 2, "unexpected extra argument"),
    ],
)
def test_what_cannot_be_is_refused(
    file: Path, arguments: tuple[str, ...], typed: str, code: int, told: str
) -> None:
    file.write_text("# untouched\n")
    result = passwd(file, *arguments, typed=typed)
    assert result.exit_code == code
    assert told in result.output
    assert "Traceback" not in result.output
    if typed:
        assert "hunter2" not in result.output
    assert file.read_text() == "# untouched\n"


def test_bytes_that_are_no_text(file: Path) -> None:
    result = CliRunner().invoke(main, ["passwd", str(file), "anna", "--stdin"], input=b"\xff\xfe")
    assert result.exit_code == 1
    assert "that cannot be a password: it is not UTF-8" in result.output
    assert not file.exists()


def test_a_broken_file_is_not_made_worse(file: Path) -> None:
    file.write_text("anna:plain\n")
    for arguments in (("bob", "--stdin"), ("anna", "--delete")):
        result = passwd(file, *arguments, typed="x")
        assert result.exit_code == 1
        assert "line 1: has a credential that is neither argon2id nor SCRAM-SHA-256" in result.output
        assert "plain\n" not in result.output
        assert file.read_text() == "anna:plain\n"


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    result = passwd(tmp_path / "nowhere" / "passwords", "anna", "--stdin", typed="x")
    assert result.exit_code == 1
    assert "cannot be written: No such file or directory" in result.output


def on_a_terminal(file: Path, *typed: str) -> tuple[int, str]:
    """Run it with a terminal of its own, answer each question; its exit code and what the terminal showed."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "edge_broker", "passwd", str(file), "anna"]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
    os.close(theirs)
    shown = b""

    def read_until(end: bytes) -> None:
        nonlocal shown
        at = len(shown)
        while end not in shown[at:]:
            shown += os.read(ours, 1024)

    for answer, question in zip(typed, (b"Password of anna: ", b"Once more: "), strict=True):
        read_until(question)
        os.write(ours, answer.encode() + b"\n")
    try:
        if len(set(typed)) > 1:
            read_until(b"Password of anna: ")  # it asks again
            process.kill()
        else:
            read_until(b"\n")
            while chunk := os.read(ours, 1024):
                shown += chunk
    except OSError:  # the other end is closed
        pass
    finally:
        os.close(ours)
    return process.wait(60), shown.decode()


def test_a_password_is_typed_twice_and_not_shown(file: Path) -> None:
    code, shown = on_a_terminal(file, SECRET, SECRET)
    assert code == 0, shown
    assert "anna has a new password" in shown
    assert SECRET not in shown
    kept = read_passwords(file).argon2("anna")
    assert kept is not None
    assert kept.is_of(SECRET.encode())


def test_a_password_typed_differently_is_asked_for_again(file: Path) -> None:
    code, shown = on_a_terminal(file, "hunter2", "hunter3")
    assert code != 0
    assert "do not match" in shown
    assert "hunter" not in shown
    assert not file.exists()
