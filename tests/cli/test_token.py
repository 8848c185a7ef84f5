"""`edge-broker token show`: the verdict and its reasons, and never the token."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from edge_broker.cli import main
from tests.security.issuer import claims, forge, issue, jwk, sign_anyhow, write_set

CONFIG = """
[[listeners]]
anonymous = false
[security]
jwt_keys = ["issuer.json"]
jwt_audience = "mqtt"
jwt_issuer = "https://issuer.example"
"""


def show(folder: Path, token: bytes, *, config: str = CONFIG, stdin: bool = False) -> Result:
    write_set(folder / "issuer.json", jwk("ES256", kid="first"))
    (folder / "broker.toml").write_text(config)
    (folder / "token").write_bytes(token + b"\n")
    arguments = ["token", "show", "-c", str(folder / "broker.toml"), "-" if stdin else str(folder / "token")]
    result = CliRunner().invoke(main, arguments, input=token if stdin else None)
    for part in token.split(b"."):
        assert len(part) < 8 or part.decode() not in result.output
    return result


def said(**more: Any) -> dict[str, Any]:
    return claims(now=time.time(), lasts=86_400, iss="https://issuer.example", **more)


@pytest.mark.parametrize("stdin", [True, False])
def test_one_that_is_taken(tmp_path: Path, stdin: bool) -> None:
    token = issue(said(groups=["cellar"]), "ES256", headers={"kid": "first"})
    result = show(tmp_path, token, stdin=stdin)
    assert result.exit_code == 0, result.output
    assert "TAKEN: as anna, in cellar, for 86" in result.output
    assert "kid 'first': by our key " in result.output
    assert "the user name anna" in result.output
    assert "wanted is 'mqtt'" in result.output


@pytest.mark.parametrize(
    ("token", "verdict", "also"),
    [
        (issue(said(aud="web"), "ES256"), "is for 'web', not for 'mqtt'", "(aud; wanted is 'mqtt')"),
        (issue(said(exp=time.time() - 3_600), "ES256"), "expired ", " s ago"),
        (issue(said(nbf=time.time() + 3_600), "ES256"), "is valid only in ", "s from now"),
        (issue(said(), "ES256", 99), "has a signature of none of our keys", "nothing below is certain"),
        (issue(said(), "ES256", headers={"kid": "2"}), "is signed by a key that we do not have", "kid '2'"),
        (sign_anyhow({"alg": "ES256"}, said(exp="soon"), "ES256"), "no moment", "'soon', which is no moment"),
        (sign_anyhow({"alg": "ES256"}, b"[]", "ES256"), "claims that are no object", "signed   ES256"),
        (forge({"alg": "none"}, said()), "is not signed by one of", "REFUSED"),
        (b"hello", "is not three parts of base64url", "REFUSED"),
        (b"", "is not three parts of base64url", "REFUSED"),
        (b"eyJ" + b"x" * 9_000 + b".a.b", "is longer than 8192 bytes", "REFUSED"),
    ],
)  # fmt: skip
def test_one_that_is_refused(tmp_path: Path, token: bytes, verdict: str, also: str) -> None:
    result = show(tmp_path, token)
    assert result.exit_code == 1
    assert verdict in result.output.splitlines()[-1]
    assert also in result.output


def test_without_keys_there_is_nothing_to_say(tmp_path: Path) -> None:
    result = show(tmp_path, b"hello", config="")
    assert result.exit_code == 1
    assert "takes no tokens" in result.output


def test_a_wrong_configuration(tmp_path: Path) -> None:
    assert show(tmp_path, b"hello", config="[security]\njwt_keys = 5").exit_code == 2


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    show(tmp_path, b"hello")
    result = CliRunner().invoke(
        main, ["token", "show", "-c", str(tmp_path / "broker.toml"), str(tmp_path / "no")]
    )
    assert result.exit_code == 1
    assert "cannot be read: No such file" in result.output
