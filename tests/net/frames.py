"""WebSocket by hand, the client's side: an upgrade's bytes, masked frames, and the server's frames taken apart."""

from __future__ import annotations

import base64
import hashlib
import struct

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
KEY = base64.b64encode(bytes(range(16))).decode()
ACCEPT = base64.b64encode(
    hashlib.sha1(KEY.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
).decode()
_MASK = b"\x12\x34\x56\x78"


def upgrade(path: str = "/mqtt", *, leave_out: str = "", **headers: str) -> bytes:
    """The request. `headers` by name, `_` for `-`, go in place of what is usual."""
    fields = {
        "Host": "localhost",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": KEY,
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Protocol": "mqtt",
    } | {name.replace("_", "-"): value for name, value in headers.items()}
    fields.pop(leave_out, None)
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"GET {path} HTTP/1.1\r\n{lines}\r\n".encode("latin-1")


def frame(
    payload: bytes, opcode: int = BINARY, *, fin: bool = True, mask: bool = True, reserved: int = 0
) -> bytes:
    """One frame."""
    head = bytes([fin << 7 | reserved << 4 | opcode])
    size, masked = len(payload), mask << 7
    if size < 126:
        head += bytes([masked | size])
    elif size < 65536:
        head += struct.pack("!BH", masked | 126, size)
    else:
        head += struct.pack("!BQ", masked | 127, size)
    if not mask:
        return head + payload
    repeated = _MASK * (size // 4 + 1)
    return head + _MASK + bytes(a ^ b for a, b in zip(payload, repeated, strict=False))


class ServerFrames:
    """Takes apart what a server sends after its 101. `take` gives (opcode, payload) of each whole frame."""

    def __init__(self) -> None:
        self._data = b""

    def take(self, data: bytes) -> list[tuple[int, bytes]]:
        self._data += data
        frames = []
        while (found := self._one()) is not None:
            frames.append(found)
        return frames

    def _one(self) -> tuple[int, bytes] | None:
        data = self._data
        if len(data) < 2:
            return None
        assert data[0] & 0xF0 == 0x80, "whole messages without extensions"
        assert not data[1] & 0x80, "a server masks nothing"
        size, at = data[1], 2
        if size == 126:
            size, at = int.from_bytes(data[2:4], "big"), 4
        elif size == 127:
            size, at = int.from_bytes(data[2:10], "big"), 10
        if len(data) < at + size:
            return None
        self._data = data[at + size :]
        return data[0] & 0x0F, data[at : at + size]
