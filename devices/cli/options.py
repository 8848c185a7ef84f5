"""What `replay` and `sense` share: the options of a connection, and ending on a signal."""

import functools
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import click

from devices.address import BrokerAddress, parse_broker_url
from devices.errors import BrokerUrlError
from devices.protocol_choice import MqttVersion

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@dataclass(frozen=True)
class Connection:
    """Where to connect and how, as the options say."""

    address: BrokerAddress
    mqtt_version: MqttVersion | None


def connection_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of a connection; it receives them as one `connection`."""

    @click.option(
        "--broker",
        metavar="URL",
        default="mqtt://127.0.0.1:1883",
        show_default=True,
        help="mqtt://HOST:PORT, or mqtts:// for TLS.",
    )
    @click.option("--username", metavar="NAME", help="The name to log in with.")
    @click.option(
        "--password-file", type=_FILE, metavar="FILE", help="A file whose first line is the password."
    )
    @click.option(
        "--ca", type=_FILE, metavar="FILE", help="The CA of the broker's certificate (default: the system's)."
    )
    @click.option("--cert", type=_FILE, metavar="FILE", help="A client certificate, PEM.")
    @click.option("--key", type=_FILE, metavar="FILE", help="The client certificate's key, PEM.")
    @click.option(
        "--mqtt-version",
        type=click.Choice(["5", "3.1.1"]),
        help="Insist on a version (default: 5, and 3.1.1 where the broker does not speak it).",
    )
    @functools.wraps(command)
    def with_connection(
        broker: str,
        username: str | None,
        password_file: Path | None,
        ca: Path | None,
        cert: Path | None,
        key: Path | None,
        mqtt_version: MqttVersion | None,
        **others: Any,
    ) -> None:
        password = _first_line(password_file) if password_file is not None else None
        try:
            address = parse_broker_url(
                broker, username=username, password=password, ca=ca, certificate=cert, key=key
            )
        except BrokerUrlError as error:
            raise click.UsageError(str(error)) from error
        command(connection=Connection(address, mqtt_version), **others)

    return with_connection


def _first_line(path: Path) -> str:
    lines = path.read_text().splitlines()
    if not lines:
        raise click.UsageError(f"the password file {path} is empty")
    return lines[0]


def show_log(verbose: bool) -> None:
    """Have what the devices log on stderr: troubles always, connections when asked."""
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING, format="%(levelname)s %(message)s"
    )


class StopRequest:
    """Whether SIGINT or SIGTERM came; `wait` sleeps until then."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self.signal_number: int | None = None

    def __call__(self, signal_number: int, frame: FrameType | None) -> None:
        if self.signal_number is not None:
            raise KeyboardInterrupt  # asked twice: at once
        self.signal_number = signal_number
        self._event.set()

    def wait(self, timeout_seconds: float) -> bool:
        return self._event.wait(timeout_seconds)

    @property
    def exit_code(self) -> int | None:
        """What a shell expects of a program that a signal ended: 130 after Ctrl-C."""
        return None if self.signal_number is None else 128 + self.signal_number


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Turn SIGINT and SIGTERM into a request to stop, and put the former handlers back afterwards."""
    request = StopRequest()
    former = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
