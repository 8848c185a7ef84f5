"""`edge-broker passwd FILE NAME`: sets, changes or takes away one name's password in a password file.

The password is typed twice where nobody sees it, or comes as one line on standard input; never on the command line, where
everybody on the machine could read it. Nothing but its hash is written.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import click

from edge_broker.errors import ConfigError
from edge_broker.security.hashing import Argon2Hash
from edge_broker.security.passwords import change_file, check_name, parse_passwords, read_text, with_user
from edge_broker.security.scram import DEFAULT_ITERATIONS, LEAST_ITERATIONS, ScramVerifier

_MOST_ITERATIONS: Final = 10_000_000
_EPILOG: Final = """\b
Examples:
  edge-broker passwd /etc/edge-broker/passwords sensor-1
  edge-broker passwd passwords sensor-1 --scram
  openssl rand -base64 24 | tee sensor-1.secret | edge-broker passwd passwords sensor-1 --stdin
  edge-broker passwd passwords sensor-1 --delete

\b
A running broker reads the file again on SIGHUP, and ends the connections of names
that are gone or changed.
"""


@click.command(epilog=_EPILOG)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.argument("name")
@click.option("--scram", is_flag=True, help="Also write what SCRAM-SHA-256 needs, beside the argon2id hash.")
@click.option(
    "--iterations",
    type=click.IntRange(LEAST_ITERATIONS, _MOST_ITERATIONS),
    metavar="N",
    help=f"SCRAM's, {DEFAULT_ITERATIONS} if not given: the device counts them at each connect.",
)
@click.option("--stdin", "from_stdin", is_flag=True, help="Take the password from standard input, one line.")
@click.option("--delete", is_flag=True, help="Take the name out of the file.")
def passwd(
    file: Path, name: str, scram: bool, iterations: int | None, from_stdin: bool, delete: bool
) -> None:
    """Set the password of NAME in FILE, which is made where there is none."""
    if delete and (scram or iterations or from_stdin):
        raise click.UsageError("--delete needs no password")
    if iterations and not scram:
        raise click.UsageError("--iterations is SCRAM's: add --scram")
    try:
        if delete:
            _change(file, name, ())
            click.echo(f"{name} is out of {file}")
            return
        check_name(name, "NAME")
        _refuse_broken(file)  # before anybody types
        password = _read_line() if from_stdin else _ask(name)
        _change(file, name, _credentials(password, iterations or DEFAULT_ITERATIONS if scram else None))
    except ConfigError as error:
        raise click.ClickException(str(error)) from None
    except OSError as error:
        raise click.ClickException(f"{file} cannot be written: {error.strerror}") from None
    except ValueError as error:
        raise click.ClickException(f"that cannot be a password: {error}") from None
    click.echo(f"{name} has a new password in {file}")


def _refuse_broken(file: Path) -> None:
    if file.exists():
        parse_passwords(read_text(file), file)


def _ask(name: str) -> str:
    question = f"Password of {name}"
    return str(click.prompt(question, hide_input=True, confirmation_prompt="Once more", err=True))


def _read_line() -> str:
    """The first line; its end is not part of the password, spaces are."""
    try:
        line, *rest = sys.stdin.buffer.read().decode().split("\n")
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8") from None
    if any(rest):
        raise ValueError("it is more than one line")
    return line.removesuffix("\r")


def _credentials(password: str, iterations: int | None) -> tuple[str, ...]:
    """What is kept of it; `iterations` None: without SCRAM."""
    argon2 = Argon2Hash.from_password(password).text
    if iterations is None:
        return (argon2,)
    return argon2, ScramVerifier.from_password(password, iterations=iterations).to_text()


def _change(file: Path, name: str, credentials: tuple[str, ...]) -> None:
    """Replace the lines of `name`; `ConfigError` for a file with mistakes, or to take away who is not there."""

    def change(text: str) -> str:
        parse_passwords(text, file)
        changed, found = with_user(text, name, credentials)
        if not credentials and not found:
            raise ConfigError(name, f"is not in {file}")
        return changed

    change_file(file, change)
