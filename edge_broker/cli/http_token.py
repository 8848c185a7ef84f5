"""`edge-broker http-token`: makes, lists and takes away the tokens of the HTTP port.

A token is printed once, on standard output alone, and kept nowhere; the file has its hash.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from edge_broker.errors import ConfigError
from edge_broker.security.http_tokens import SCOPES, new_token, parse_http_tokens, read_http_tokens
from edge_broker.security.passwords import change_file, with_user

F = TypeVar("F", bound=Callable[..., Any])

_EPILOG: Final = """\b
Examples:
  edge-broker http-token add prometheus --file /etc/edge-broker/http-tokens
  edge-broker http-token add prometheus --scope read > prometheus.token
  edge-broker http-token list
  edge-broker http-token remove prometheus

\b
A running broker reads the file again on SIGHUP.
"""
_OPTION: Final[Callable[[F], F]] = click.option(
    "--file",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("http-tokens"),
    show_default=True,
    help="The file with the hashes: [http] token_file of the configuration.",
)


@click.group("http-token", epilog=_EPILOG)
def http_token() -> None:
    """Make, list and take away the tokens of the HTTP port."""


@http_token.command()
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    type=click.Choice(SCOPES),
    multiple=True,
    default=("read",),
    show_default=True,
    help="What it is for: read is health and metrics. Give it twice for both.",
)
@_OPTION
def add(name: str, scopes: tuple[str, ...], file: Path) -> None:
    """Make a token called NAME and print it, once."""
    try:
        token, line = new_token(name, scopes)
    except ValueError as error:
        raise click.ClickException(f"NAME {error}") from None

    def change(text: str) -> str:
        if any(known.name == name for known in parse_http_tokens(text, file).tokens):
            raise ConfigError(name, f"is in {file} already", f"edge-broker http-token remove {name}")
        return with_user(text, name, (line.partition(":")[2],))[0]

    _change(file, change)
    click.echo(token)
    click.echo(f"{name} is in {file}; its token is the line above, and will not be shown again", err=True)


@http_token.command()
@click.argument("name")
@_OPTION
def remove(name: str, file: Path) -> None:
    """Take the token called NAME away."""

    def change(text: str) -> str:
        parse_http_tokens(text, file)
        changed, found = with_user(text, name, ())
        if not found:
            raise ConfigError(name, f"is not in {file}")
        return changed

    _change(file, change)
    click.echo(f"{name} is out of {file}")


@http_token.command("list")
@_OPTION
def list_tokens(file: Path) -> None:
    """The names, and what each token is for."""
    try:
        tokens = read_http_tokens(file).tokens
    except ConfigError as error:
        raise click.ClickException(str(error)) from None
    for token in tokens:
        click.echo(f"{token.name}  {', '.join(sorted(token.scopes))}")


def _change(file: Path, change: Callable[[str], str]) -> None:
    try:
        change_file(file, change)
    except ConfigError as error:
        raise click.ClickException(str(error)) from None
    except OSError as error:
        raise click.ClickException(f"{file} cannot be written: {error.strerror}") from None
