"""Where a client is, as text: `192.0.2.7:51234`, `2001:db8::7:51234`, `unix:uid=1000`. The port always comes last."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Final

GONE: Final = "unknown:0"
"""Of whom had left before anybody could ask: a load balancer that only looked whether the port is open."""
_UNIX: Final = "unix"
_IPV4_IN_IPV6: Final = "::ffff:"
_CREDENTIALS: Final = struct.Struct("3i")  # pid, uid, gid (unix(7), SO_PEERCRED)


def address_of(transport: asyncio.BaseTransport) -> str:
    """The address of the other side of an accepted connection; over a Unix socket the user, as the kernel knows it."""
    peer = transport.get_extra_info("peername")
    if isinstance(peer, tuple):
        return text_of(peer[0], peer[1])
    sock = transport.get_extra_info("socket")
    if sock is None or sock.family != socket.AF_UNIX:
        return GONE
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return f"{_UNIX}:uid={_CREDENTIALS.unpack(credentials)[1]}"


def text_of(host: str, port: int) -> str:
    """An IP address and a port as text; IPv4 stays IPv4 where an IPv6 socket took it."""
    return f"{host.removeprefix(_IPV4_IN_IPV6)}:{port}"


def host_of(address: str) -> str:
    """The IP address in it; `unix` for a Unix socket's."""
    return address.rpartition(":")[0]


def site_of(host: str) -> str:
    """Whoever counts as one for a limit: an IPv4 address, of an IPv6 one the /64, as any machine may have all of it."""
    if ":" not in host:
        return host
    try:
        packed = socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    except OSError:
        return host
    return packed[:8].hex()


def is_local(host: str) -> bool:
    """Whether it is this machine."""
    return host == _UNIX or host == "::1" or host.startswith("127.")
