"""Where a listener listens: `HOST:PORT` taken apart, and what can be said of it without asking the network.

    127.0.0.1:1883    [::1]:1883    localhost:1883    this machine only
    0.0.0.0:1883                                      every IPv4 interface
    *:1883            :1883         [::]:1883         every interface
    /run/edge-broker/mqtt.sock                        a Unix socket (transport = "unix")

Names are not resolved here, so a name other than `localhost` is never taken for loopback: the safe side. Port 0 asks the
system for a free port.
"""

from __future__ import annotations

import socket
from typing import Final, NamedTuple

from edge_broker.errors import ConfigError

_EVERY_IPV4: Final = "0.0.0.0"  # noqa: S104 - to be recognized, so that it is not taken for loopback
_EVERY_INTERFACE: Final = ("", "::")
_IPV6_LOOPBACK: Final = bytes(15) + b"\1"
_IPV4_MAPPED: Final = bytes(10) + b"\xff\xff"
_LONGEST_UNIX_PATH_BYTES: Final = 107  # unix(7), sun_path
_UNIX_HINT: Final = 'the path of a socket from the root on: "/run/edge-broker/mqtt.sock"'
_HINT: Final = 'an address and a port: "127.0.0.1:1883", "[::1]:1883", "0.0.0.0:1883" or ":1883"'


class Bind(NamedTuple):
    """A bind taken apart. `host` is without brackets; empty for every interface, IPv4 and IPv6."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        if self.host == "localhost":
            return True
        packed = _packed(self.host)
        if len(packed) == 16 and packed.startswith(_IPV4_MAPPED):
            packed = packed[12:]
        return packed == _IPV6_LOOPBACK or (len(packed) == 4 and packed[0] == 127)

    def overlaps(self, other: Bind | UnixBind) -> bool:
        """Whether the system would refuse to listen on both at once."""
        if isinstance(other, UnixBind) or self.port != other.port or self.port == 0:
            return False
        mine, others = _numeric(self.host), _numeric(other.host)
        return mine == others or _covers(mine, others) or _covers(others, mine)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host or "*"
        return f"{host}:{self.port}"


class UnixBind(NamedTuple):
    """The path of a Unix socket, as a bind."""

    path: str

    @property
    def is_loopback(self) -> bool:
        """Only this machine can reach it, and on it only those whom the file's permissions let."""
        return True

    def overlaps(self, other: Bind | UnixBind) -> bool:
        """Whether both are the same."""
        return self == other

    def __str__(self) -> str:
        return self.path


def parse_unix_bind(text: str) -> UnixBind:
    """Take the path of a Unix socket; `ConfigError` (key `bind`) says what is wrong with it."""
    if not text.startswith("/") or text.endswith("/") or "\0" in text:
        raise ConfigError("bind", f"{text!r} is no path of a Unix socket", _UNIX_HINT)
    if len(text.encode()) > _LONGEST_UNIX_PATH_BYTES:
        raise ConfigError(
            "bind", f"{text!r} is too long", f"the system takes {_LONGEST_UNIX_PATH_BYTES} bytes at most"
        )
    return UnixBind(text)


def parse_bind(text: str) -> Bind:
    """Take `HOST:PORT` apart; `ConfigError` (key `bind`) says what is wrong with it."""
    if text.startswith("/"):
        raise ConfigError("bind", f"{text!r} is a path", 'write transport = "unix", or an address and a port')
    if "://" in text:
        raise ConfigError("bind", f"{text!r} is a URL", _HINT)
    host, colon, port_text = text.rpartition(":")
    if not colon:
        raise ConfigError("bind", f"{text!r} has no port" if text else "is empty", _HINT)
    if not (port_text.isascii() and port_text.isdigit()) or int(port_text) > 65535:
        raise ConfigError(
            "bind", f"{port_text!r} is no port", "a whole number from 0 (any free port) to 65535"
        )
    port = int(port_text)
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        if len(_packed(host)) != 16:
            raise ConfigError("bind", f"{host!r} is no IPv6 address", _HINT)
    elif ":" in host:
        raise ConfigError(
            "bind", f"{text!r} is an IPv6 address without brackets", f'write it as "[{host}]:{port}"'
        )
    elif host == "*":
        host = ""
    elif any(character.isspace() or character in "[]/@" for character in host):
        raise ConfigError("bind", f"{host!r} is no address", _HINT)
    return Bind(host, port)


def _packed(host: str) -> bytes:
    """An address's 4 or 16 bytes; none for a name."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            return socket.inet_pton(family, host.partition("%")[0])
        except OSError:
            continue
    return b""


def _numeric(host: str) -> str:
    return "127.0.0.1" if host == "localhost" else host


def _covers(every: str, host: str) -> bool:
    """Whether listening on `every` takes `host` with it."""
    return every in _EVERY_INTERFACE or (every == _EVERY_IPV4 and len(_packed(host)) == 4)
