"""The PROXY header, every kind, whole, byte by byte, with what follows, and everything that is none."""

from __future__ import annotations

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_broker.net.proxy_header import ProxyHeader, ProxyHeaderError, read_proxy_header

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def v2(command: int, family: int, block: bytes, length: int | None = None) -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, family, len(block) if length is None else length) + block


def block_4(source: str = "192.0.2.7", port: int = 51234) -> bytes:
    return socket.inet_aton(source) + socket.inet_aton("198.51.100.1") + struct.pack("!HH", port, 1883)


def block_6(source: str = "2001:db8::7", port: int = 51234) -> bytes:
    return (
        socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, "::1")
    ) + struct.pack("!HH", port, 1883)


GOOD = [
    (b"PROXY TCP4 192.0.2.7 198.51.100.1 51234 1883\r\n", "192.0.2.7:51234"),
    (b"PROXY TCP6 2001:db8:0::7 ::1 65535 1\r\n", "2001:db8::7:65535"),
    (b"PROXY TCP6 ::ffff:192.0.2.7 ::1 1 1\r\n", "192.0.2.7:1"),
    (b"PROXY UNKNOWN\r\n", None),
    (b"PROXY UNKNOWN what ever 1 2\r\n", None),
    (b"PROXY TCP6 " + b"ffff:f:f:f:f:f:f:ffff " * 2 + b"65535 65535\r\n", "ffff:f:f:f:f:f:f:ffff:65535"),
    (v2(0x21, 0x11, block_4()), "192.0.2.7:51234"),
    (v2(0x21, 0x21, block_6()), "2001:db8::7:51234"),
    (v2(0x21, 0x21, block_6("::ffff:192.0.2.7")), "192.0.2.7:51234"),
    (v2(0x21, 0x11, block_4() + b"\x04\x00\x03xyz"), "192.0.2.7:51234"),
    (v2(0x21, 0x11, block_4() + bytes(524)), "192.0.2.7:51234"),
    (v2(0x20, 0x00, b""), None),
    (v2(0x20, 0x11, block_4()), None),
    (v2(0x21, 0x00, b"whatever"), None),
    (v2(0x21, 0x31, bytes(216)), None),
]


@pytest.mark.parametrize(("data", "address"), GOOD)
def test_a_header(data: bytes, address: str | None) -> None:
    for rest in (b"", b"\x10\x0c\x00\x04MQTT", b"PROXY UNKNOWN\r\n"):
        assert read_proxy_header(data + rest) == ProxyHeader(len(data), address)
    for size in range(len(data)):
        assert read_proxy_header(data[:size]) is None, size


@pytest.mark.parametrize(
    "data",
    [
        b"\x10\x0c\x00\x04MQTT",
        b"\x16\x03\x01",
        b"proxy TCP4",
        b"PROXY\tTCP4",
        b"PROXY  TCP4 192.0.2.7 198.51.100.1 1 2\r\n",
        b"PROXY UDP4 192.0.2.7 198.51.100.1 1 2\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 1\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 1 2 3\r\n",
        b"PROXY TCP4 192.0.2 198.51.100.1 1 2\r\n",
        b"PROXY TCP4 192.0.2.7 nowhere 1 2\r\n",
        b"PROXY TCP4 2001:db8::7 ::1 1 2\r\n",
        b"PROXY TCP6 192.0.2.7 198.51.100.1 1 2\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 65536 2\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 -1 2\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 1 x\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 " + b"9" * 20 + b" 2\r\n",
        b"PROXY TCP4 \xff\xfe 198.51.100.1 1 2\r\n",
        b"PROXY TCP4 192.0.2.7\0 198.51.100.1 1 2\r\n",
        b"PROXY\r\n",
        b"PROXY \r\n",
        b"PROXY " + b"x" * 101,
        b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n",
        SIGNATURE[:11] + b"x",
        v2(0x11, 0x11, block_4()),
        v2(0x22, 0x11, block_4()),
        v2(0x21, 0x12, block_4()),
        v2(0x21, 0x41, block_4()),
        v2(0x21, 0x11, block_4()[:-1]),
        v2(0x21, 0x21, block_6()[:-1]),
        v2(0x21, 0x11, b""),
        v2(0x21, 0x11, b"", 537),
        v2(0x21, 0x11, b"", 0xFFFF),
    ],
)
def test_what_is_no_header(data: bytes) -> None:
    with pytest.raises(ProxyHeaderError):
        read_proxy_header(data)


def test_nothing_is_not_known_yet() -> None:
    assert read_proxy_header(b"") is None


@given(
    st.sampled_from([data for data, _ in GOOD]),
    st.integers(0, 60),
    st.integers(0, 10),
    st.binary(max_size=20),
)
def test_anything_in_a_header(data: bytes, at: int, cut: int, put: bytes) -> None:
    """A header, or that it is none, and nothing else; never one longer than what is there."""
    changed = data[:at] + put + data[at + cut :]
    try:
        header = read_proxy_header(changed)
    except ProxyHeaderError:
        return
    if header is not None:
        assert header.length <= len(changed)
    else:
        assert len(changed) < 16 + 536
