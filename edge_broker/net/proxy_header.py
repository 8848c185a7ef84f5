"""The PROXY protocol's header, versions 1 and 2: whom a proxy connects for, told before anything else. Pure.

https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt. Of the extensions of version 2 (TLVs) none is looked at.
"""

from __future__ import annotations

import socket
import struct
from typing import Final, NamedTuple

from edge_broker.net.addresses import text_of

_V1_START: Final = b"PROXY "
_V1_BYTES: Final = 107  # with its end of line
_V2_START: Final = b"\r\n\r\n\0\r\nQUIT\n"
_V2_FIXED: Final = struct.Struct("!12xBBH")  # version and command, family and protocol, bytes that follow
_V2_FOLLOWING_BYTES: Final = 536  # three times what proxies send
_LOCAL: Final = 0x20
_PROXY: Final = 0x21
_TCP4: Final = 0x11
_TCP6: Final = 0x21
_UNSPECIFIED: Final = (0x00, 0x31)  # nothing, a Unix socket on the proxy's machine
_V1_FAMILIES: Final = {b"TCP4": socket.AF_INET, b"TCP6": socket.AF_INET6}


class ProxyHeaderError(Exception):
    """What stands where the header belongs is none."""


class ProxyHeader(NamedTuple):
    """`length`: its bytes. `address`: the client's, as text; None where the proxy speaks for itself or does not know."""

    length: int
    address: str | None


def read_proxy_header(data: bytes) -> ProxyHeader | None:
    """The header that `data` begins with; None while it is not whole. `ProxyHeaderError` where it cannot be one."""
    if data.startswith(_V1_START):
        return _read_v1(data)
    if data.startswith(_V2_START):
        return _read_v2(data)
    if _V1_START.startswith(data) or _V2_START.startswith(data):
        return None
    raise ProxyHeaderError("no PROXY header, although it comes from an address in proxy_protocol_from")


def _read_v1(data: bytes) -> ProxyHeader | None:
    end = data.find(b"\r\n", 0, _V1_BYTES)
    if end < 0:
        if len(data) >= _V1_BYTES:
            raise ProxyHeaderError(f"a PROXY line without an end in {_V1_BYTES} bytes")
        return None
    words = data[:end].split(b" ")
    if words[1] == b"UNKNOWN":
        return ProxyHeader(end + 2, None)
    family = _V1_FAMILIES.get(words[1])
    if family is None or len(words) != 6:
        raise ProxyHeaderError("a PROXY line that is not protocol, two addresses, two ports")
    host, _ = (_checked_host(family, word) for word in words[2:4])
    port, _ = (_checked_port(word) for word in words[4:])
    return ProxyHeader(end + 2, text_of(host, port))


def _checked_host(family: int, word: bytes) -> str:
    try:
        return socket.inet_ntop(family, socket.inet_pton(family, word.decode("ascii")))
    except (OSError, ValueError):
        raise ProxyHeaderError("a PROXY line with what is no address") from None


def _checked_port(word: bytes) -> int:
    if not word.isdigit() or len(word) > 5 or int(word) > 65535:
        raise ProxyHeaderError("a PROXY line with what is no port")
    return int(word)


def _read_v2(data: bytes) -> ProxyHeader | None:
    if len(data) < _V2_FIXED.size:
        return None
    command, family, following = _V2_FIXED.unpack_from(data)
    if command not in (_LOCAL, _PROXY):
        raise ProxyHeaderError(f"a PROXY header of version and command {command:#04x}")
    if following > _V2_FOLLOWING_BYTES:
        raise ProxyHeaderError(f"a PROXY header of {following} bytes")
    length = _V2_FIXED.size + following
    if len(data) < length:
        return None
    if command == _LOCAL:  # the proxy looks whether we live
        return ProxyHeader(length, None)
    return ProxyHeader(length, _v2_address(family, data[_V2_FIXED.size : length]))


def _v2_address(family: int, block: bytes) -> str | None:
    """Who is told; `block`: source, destination, source port, destination port, extensions."""
    if family in _UNSPECIFIED:
        return None
    if family not in (_TCP4, _TCP6):
        raise ProxyHeaderError(f"a PROXY header of family and protocol {family:#04x}")
    size = 4 if family == _TCP4 else 16
    if len(block) < 2 * size + 4:
        raise ProxyHeaderError("a PROXY header too short for its addresses")
    host = socket.inet_ntop(socket.AF_INET if size == 4 else socket.AF_INET6, block[:size])
    return text_of(host, int.from_bytes(block[2 * size : 2 * size + 2]))
