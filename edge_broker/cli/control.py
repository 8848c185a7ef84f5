"""The command line's end of the control socket: which broker is meant, what is asked of it, what came back.

Whatever keeps the broker from answering becomes one line that says what to do, and the end with 1.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import click

from edge_broker.cli.configuration import load_or_exit
from edge_broker.config.model import CONTROL_SOCKET

EXIT_PROBLEM: Final = 1
_CONNECT_SECONDS: Final = 5.0
_ANSWER_SECONDS: Final = 30.0
_Command = Callable[..., None]


class BrokerProblem(click.ClickException):
    """The broker cannot be asked, or said no."""

    exit_code = EXIT_PROBLEM

    def show(self, file: Any = None) -> None:
        """One line, without more around it."""
        click.echo(self.message, err=True)


def which_broker(command: _Command) -> _Command:
    """The options that say which broker is meant, for `socket_path`."""
    command = click.option(
        "--data-dir", "data_dir", type=click.Path(path_type=Path), metavar="DIR", help="Its data directory."
    )(command)
    return click.option(
        "-c", "--config", "config", type=click.Path(path_type=Path), metavar="FILE",
        help="The configuration that the broker runs with.",
    )(command)  # fmt: skip


def socket_path(config: Path | None, data_dir: Path | None) -> Path:
    """Where the control socket is: in the directory that was said, or as the configuration says."""
    if config is not None and data_dir is not None:
        raise click.UsageError("--config and --data-dir: one of them is enough")
    if data_dir is not None:
        return data_dir / CONTROL_SOCKET
    path = load_or_exit(config, "").control_path
    if path is None:
        raise BrokerProblem("the configuration has the control socket off ([control] enabled = false)")
    return path


def ask(path: Path, command: str, **arguments: object) -> dict[str, Any]:
    """The one answer to `command`."""
    with _connection(path) as connection:
        connection.settimeout(_ANSWER_SECONDS)
        return next(_answers(connection, command, arguments))


def follow(path: Path, command: str, **arguments: object) -> Iterator[dict[str, Any]]:
    """The answers to `command` as they come, for as long as they do and the caller wants more."""
    with _connection(path) as connection:
        connection.settimeout(None)
        for answer in _answers(connection, command, arguments):
            if answer.get("end") is True:
                return
            yield answer


def _answers(
    connection: socket.socket, command: str, arguments: dict[str, object]
) -> Iterator[dict[str, Any]]:
    request = {"command": command, **{key: value for key, value in arguments.items() if value is not None}}
    connection.sendall(json.dumps(request).encode() + b"\n")
    with connection.makefile("rb") as lines:
        for line in lines:
            answer = json.loads(line)
            if "error" in answer:
                hint = answer.get("hint")
                raise BrokerProblem(answer["error"] + (f" ({hint})" if hint else ""))
            yield answer
    raise BrokerProblem("the broker ended the connection: it was stopped, or we did not keep up")


@contextmanager
def _connection(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_CONNECT_SECONDS)
        try:
            connection.connect(str(path))
        except OSError as error:
            raise BrokerProblem(_why_not(path, error)) from None
        try:
            yield connection
        except TimeoutError:
            raise BrokerProblem(f"the broker on {path} does not answer: see its log") from None
        except OSError as error:
            raise BrokerProblem(f"the connection to the broker was lost: {error.strerror}") from None


def _why_not(path: Path, error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return f"no broker runs here: there is no {path} (--config or --data-dir says which one is meant)"
    if isinstance(error, ConnectionRefusedError):
        return f"no broker runs here any more: {path} was left behind by one that was killed"
    if isinstance(error, PermissionError):
        return f"{path} may not be opened: run this as the broker's user, or with sudo"
    return f"{path} cannot be opened: {error.strerror or error}"
