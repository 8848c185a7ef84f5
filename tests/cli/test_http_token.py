"""`edge-broker http-token`: a token is printed once, its hash is kept, and a file with a mistake stays as it is."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from edge_broker.cli import main
from edge_broker.security.http_tokens import read_http_tokens


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["http-token", *arguments])


def test_a_token_is_printed_once_and_kept_as_a_hash(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    result = run("add", "prometheus", "--file", str(file))
    assert result.exit_code == 0
    token = result.stdout.strip()
    assert "\n" not in token
    assert "will not be shown again" in result.stderr
    assert token not in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    found = read_http_tokens(file).find(token)
    assert found is not None
    assert (found.name, found.scopes) == ("prometheus", {"read"})


def test_several_scopes_list_and_remove(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text("# who may look\n")
    both = run("add", "admin", "--scope", "write", "--scope", "read", "--file", str(file)).stdout.strip()
    run("add", "grafana", "--file", str(file))
    assert run("list", "--file", str(file)).output == "admin  read, write\ngrafana  read\n"
    assert run("remove", "admin", "--file", str(file)).exit_code == 0
    assert read_http_tokens(file).find(both) is None
    assert file.read_text().startswith("# who may look\ngrafana:read:sha256:")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("add", "grafana"), 1, "is in"),
        (("add", "a b"), 1, "a name that is not"),
        (("add", "new", "--scope", "admin"), 2, "'admin' is not one of"),
        (("remove", "nobody"), 1, "is not in"),
    ],
)
def test_what_cannot_be(tmp_path: Path, arguments: tuple[str, ...], code: int, said: str) -> None:
    file = tmp_path / "tokens"
    run("add", "grafana", "--file", str(file))
    before = file.read_text()
    result = run(*arguments, "--file", str(file))
    assert (result.exit_code, said in result.output) == (code, True), result.output
    assert file.read_text() == before


@pytest.mark.parametrize("command", [("add", "a"), ("remove", "a"), ("list",)])
def test_a_file_with_a_mistake(tmp_path: Path, command: tuple[str, ...]) -> None:
    file = tmp_path / "tokens"
    file.write_text("nonsense\n")
    result = run(*command, "--file", str(file))
    assert result.exit_code == 1
    assert "line 1: is not such a line" in result.output
    assert file.read_text() == "nonsense\n"


def test_a_place_that_is_not_there(tmp_path: Path) -> None:
    result = run("add", "a", "--file", str(tmp_path / "nowhere" / "tokens"))
    assert result.exit_code == 1
    assert "cannot be written: No such file" in result.output
