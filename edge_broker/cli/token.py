"""`edge-broker token show`: why a JSON Web Token would be taken or refused, for whoever has a device that is not let in.

It shows what the token says and what the configuration wants, and never the token itself: whoever has it comes in. It asks
no broker: keys and rules are those of the configuration file.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click

from edge_broker.cli.configuration import load_or_exit
from edge_broker.errors import ConfigError
from edge_broker.security.token_keys import TokenKeys, read_token_keys
from edge_broker.security.tokens import (
    TokenRefused,
    TokenRules,
    find_claim,
    find_key,
    parse,
    parse_claims,
    verify,
)
from edge_broker.wiring import make_token_rules

EXIT_REFUSED: Final = 1
_LARGEST_FILE_BYTES: Final = 1 << 20
_SHOWN: Final = 120
_EPILOG: Final = """\b
Examples:
  edge-broker token show -c /etc/edge-broker/edge-broker.toml sensor-1.jwt
  get-token | edge-broker token show -c edge-broker.toml -

\b
Exits with 0 if the token is taken, with 1 if it is refused, with 2 if the
configuration is wrong.
"""


@click.group()
def token() -> None:
    """Why a JSON Web Token is taken or refused."""


@token.command(epilog=_EPILOG)
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@click.option(
    "-c",
    "--config",
    "config_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    required=True,
    help="The configuration, for its keys and what a token has to say.",
)
def show(file: Path, config_file: Path) -> None:
    """Say why the token in FILE (- is standard input) would be taken or refused now. The token itself is not shown."""
    security = load_or_exit(config_file, "").security
    if not security.jwt_keys:
        raise click.ClickException(f"{config_file} takes no tokens: [security] jwt_keys is not there")
    try:
        keys = read_token_keys(security.jwt_keys)
    except ConfigError as error:
        raise click.ClickException(str(error)) from None
    rules = make_token_rules(security)
    data = _read(file).strip()
    now = time.time()
    for line in _describe(data, keys, rules, now):
        click.echo(line)
    try:
        found = verify(data, keys, rules, now)
    except TokenRefused as refused:
        click.echo(f"REFUSED: it {refused.detail}")
        raise SystemExit(EXIT_REFUSED) from None
    groups = f", in {', '.join(found.groups)}" if found.groups else ", in no group"
    click.echo(f"TAKEN: as {found.name}{groups}, for {found.expires_at - now:.0f} s from now")
    if security.jwt_user_name == "must_match":
        click.echo(f"       with the user name {found.name} beside it, or none")


def _read(file: Path) -> bytes:
    try:
        if str(file) == "-":
            return sys.stdin.buffer.read(_LARGEST_FILE_BYTES)
        with file.open("rb") as opened:
            return opened.read(_LARGEST_FILE_BYTES)
    except OSError as error:
        raise click.ClickException(f"{file} cannot be read: {error.strerror}") from None


def _describe(data: bytes, keys: TokenKeys, rules: TokenRules, now: float) -> Iterator[str]:
    """What it says, line by line, as far as it can be read; whether that is to be believed stands first."""
    try:
        parts = parse(data, rules.max_bytes)
    except TokenRefused:
        return
    yield f"signed   {parts.header['alg']}, kid {_shown(parts.header.get('kid'))}: {_signer(parts, keys)}"
    try:
        claims = parse_claims(parts.payload)
    except TokenRefused:
        return
    yield f"name     {_shown(find_claim(claims, rules.name_claim))}  ({rules.name_claim})"
    yield f"groups   {_shown(find_claim(claims, rules.groups_claim))}  ({rules.groups_claim})"
    yield f"for      {_shown(claims.get('aud'))}  (aud; wanted is {rules.audience!r})"
    wanted = repr(rules.issuer) if rules.issuer else "anybody"
    yield f"of       {_shown(claims.get('iss'))}  (iss; wanted is {wanted})"
    for name in ("iat", "nbf", "exp"):
        yield f"{name}      {_moment(claims.get(name), now)}"
    yield f"clock    {_utc(now)} here, {rules.leeway_seconds:g} s of leeway"


def _signer(parts: Any, keys: TokenKeys) -> str:
    try:
        return f"by our key {find_key(parts, keys).thumbprint[:16]}"
    except TokenRefused as refused:
        return f"it {refused.detail}, so nothing below is certain"


def _shown(value: object) -> str:
    if value is None:
        return "nothing"
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _moment(value: object, now: float) -> str:
    """A time claim for people."""
    if value is None:
        return "nothing"
    try:
        text = _utc(float(value))  # type: ignore[arg-type]
        seconds = float(value) - now  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError, OSError):
        return f"{_shown(value)}, which is no moment"
    return f"{text}, {abs(seconds):.0f} s {'from now' if seconds > 0 else 'ago'}"


def _utc(wall: float) -> str:
    return datetime.fromtimestamp(wall, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
