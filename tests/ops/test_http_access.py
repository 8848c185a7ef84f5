"""Who may look over HTTP, and what is counted and logged of those who may not."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from edge_broker.ops.http_access import Denial, HttpAccess, Pass
from edge_broker.security.http_tokens import HttpTokens, new_token, parse_http_tokens

READ, READ_LINE = new_token("prometheus", ["read"])
WRITE, WRITE_LINE = new_token("admin", ["write"])
TOKENS = parse_http_tokens(f"{READ_LINE}\n{WRITE_LINE}", Path("http-tokens"))


def look(
    *authorizations: str, method: str = "GET", path: str = "/metrics", access: HttpAccess | None = None
) -> Pass | tuple[int, str]:
    """Passed, or the status and the reason."""
    verdict = (access or HttpAccess(TOKENS)).look(method, path, authorizations)
    return verdict if isinstance(verdict, Pass) else (verdict.status, verdict.reason)


def test_where_nobody_is_asked_everybody_may() -> None:
    assert look(access=HttpAccess()) == Pass(True)


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "Bearer "])
def test_a_token_with_its_scope(scheme: str) -> None:
    assert look(f"{scheme} {READ}") == Pass(True)
    assert look(f"{scheme} {READ}", method="HEAD") == Pass(True)
    assert look(f"{scheme} {WRITE}", method="POST") == Pass(True)


@pytest.mark.parametrize(
    ("authorizations", "method", "answer"),
    [
        ((), "GET", (401, "no_token")),
        ((f"Bearer {WRITE}",), "GET", (403, "scope")),
        ((f"Bearer {READ}",), "POST", (403, "scope")),
        ((f"Bearer {READ}",), "BREW", (403, "scope")),
        ((f"Bearer {READ}", f"Bearer {READ}"), "GET", (401, "wrong_token")),
        ((f"Bearer {READ}x",), "GET", (401, "wrong_token")),
        ((f"Bearer {READ}, Bearer {READ}",), "GET", (401, "wrong_token")),
        ((f"Bearer\t{READ}",), "GET", (401, "wrong_token")),
        ((f"Basic {READ}",), "GET", (401, "wrong_token")),
        ((READ,), "GET", (401, "wrong_token")),
        (("",), "GET", (401, "wrong_token")),
        (("Bearer",), "GET", (401, "wrong_token")),
    ],
)
def test_who_may_not(authorizations: tuple[str, ...], method: str, answer: tuple[int, str]) -> None:
    assert look(*authorizations, method=method) == answer


@pytest.mark.parametrize("path", ["/healthz", "/livez", "/readyz"])
def test_open_health_is_brief_without_a_token(path: str) -> None:
    access = HttpAccess(TOKENS, open_health=True)
    assert look(path=path, access=access) == Pass(False)
    assert look("Bearer wrong", path=path, access=access) == Pass(False)
    assert look(f"Bearer {READ}", path=path, access=access) == Pass(True)
    assert look(path=path) == (401, "no_token")
    assert look(path=path, method="POST", access=access) == (401, "no_token")


@pytest.mark.parametrize(
    "path", ["/metrics", "/", "//livez", "/livez/", "/livez/../metrics", "/%6civez", "/LIVEZ", "/livez;x", ""]
)
def test_open_health_opens_nothing_else(path: str) -> None:
    assert look(path=path, access=HttpAccess(HttpTokens(), open_health=True)) == (401, "no_token")


# ---- what is logged


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "edge_broker.ops")
    return caplog


def deny(access: HttpAccess, address: str, now: float, reason: str = "no_token") -> None:
    access.deny(Denial(401, reason, "no"), address, now)


def test_denials_are_counted_and_logged_once_a_second_for_an_address(lines: pytest.LogCaptureFixture) -> None:
    access = HttpAccess(TOKENS)
    for number in range(10):
        deny(access, "192.0.2.1", number / 20)
    deny(access, "192.0.2.2", 0.5, "wrong_token")
    deny(access, "192.0.2.1", 1.1)
    assert access.refused == {"no_token": 11, "wrong_token": 1}
    assert lines.messages == [
        "HTTP from 192.0.2.1 was denied: no token",
        "HTTP from 192.0.2.2 was denied: wrong token",
        "HTTP from 192.0.2.1 was denied: no token (and 9 times before)",
    ]


def test_many_addresses_write_few_lines_and_take_little_room(lines: pytest.LogCaptureFixture) -> None:
    access = HttpAccess(TOKENS)
    for second in range(3):
        for number in range(2_000):
            deny(access, f"2001:db8::{number:x}", 100.0 + second + number / 10_000)
    assert len(lines.messages) == 15
    assert len(access._log._addresses) <= 1_000
    assert access.refused == {"no_token": 6_000}
