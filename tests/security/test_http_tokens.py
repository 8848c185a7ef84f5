"""The tokens of the HTTP port: made, kept as hashes, found again, and a file that will not do."""

from __future__ import annotations

import hmac
from pathlib import Path

import pytest

from edge_broker.errors import ConfigError
from edge_broker.security import http_tokens
from edge_broker.security.http_tokens import new_token, parse_http_tokens, read_http_tokens

FILE = Path("http-tokens")
HASH = "0" * 64


def test_a_token_is_found_by_what_is_kept_of_it() -> None:
    first, first_line = new_token("prometheus", ["read"])
    second, second_line = new_token("admin", ["write", "read"])
    tokens = parse_http_tokens(f"# who may look\n{first_line}\n\n{second_line}\r\n", FILE)
    assert first.removeprefix("ebh_") not in first_line
    found = tokens.find(first)
    assert found is not None
    assert (found.name, found.scopes) == ("prometheus", {"read"})
    found = tokens.find(second)
    assert found is not None
    assert (found.name, found.scopes) == ("admin", {"read", "write"})
    for wrong in ("", first[:-1], first + "a", first.upper(), first_line, "x" * 100_000, "\udcff", "ü"):
        assert tokens.find(wrong) is None


def test_tokens_are_random_and_long() -> None:
    made = {new_token("a", ["read"])[0] for _ in range(20)}
    assert len(made) == 20
    assert {len(token) for token in made} == {4 + 43}


def test_every_token_is_compared_whatever_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [new_token(f"t{number}", ["read"]) for number in range(5)]
    tokens = parse_http_tokens("\n".join(line for _, line in lines), FILE)
    compared: list[bool] = []
    really = hmac.compare_digest

    def compare(one: bytes, other: bytes) -> bool:
        compared.append(really(one, other))
        return compared[-1]

    monkeypatch.setattr(http_tokens.hmac, "compare_digest", compare)
    assert tokens.find(lines[0][0]) is not None
    assert tokens.find("nobody's") is None
    assert compared == [True, False, False, False, False] + [False] * 5


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nonsense", "line 1: is not such a line"),
        (f"# c\na:read:sha256:{HASH}\nb:read:ebh_SECRETSECRET", "line 3: is not such a line"),
        (f"a:read:sha256:{HASH[:-1]}", "is not such a line"),
        (f"a:read:md5:{HASH}", "is not such a line"),
        (f"a:read:sha256:{HASH.replace('0', 'A')}", "is not such a line"),
        (f"a:admin:sha256:{HASH}", "a scope that is neither read nor write"),
        (f"a::sha256:{HASH}", "a scope that is neither"),
        (f"a b:read:sha256:{HASH}", "a name that is not"),
        (f":read:sha256:{HASH}", "a name that is not"),
        (f"a:read:sha256:{HASH}\na:write:sha256:{HASH}", "line 2: is the second of a"),
        ("\n".join(f"a{number}:read:sha256:{HASH}" for number in range(101)), "has 101 tokens"),
    ],
)
def test_a_file_that_will_not_do(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_http_tokens(text, FILE)
    assert said in str(caught.value)
    assert "SECRET" not in str(caught.value)


def test_what_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "http-tokens"
    with pytest.raises(ConfigError, match="edge-broker http-token add"):
        read_http_tokens(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8"):
        read_http_tokens(path)
    path.write_bytes(b"#" * ((1 << 20) + 1))
    with pytest.raises(ConfigError, match="larger than 1 MiB"):
        read_http_tokens(path)
    path.write_text("")
    assert read_http_tokens(path).tokens == ()


@pytest.mark.parametrize("name", ["", "a b", "a:b", "x" * 65, "ü", "#a"])
def test_names_that_cannot_be(name: str) -> None:
    with pytest.raises(ValueError, match="a name that is not"):
        new_token(name, ["read"])
