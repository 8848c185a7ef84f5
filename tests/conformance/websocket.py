"""A raw client over WebSocket, its frames made by hand: part of the judge, so it uses no library that the broker uses."""

from __future__ import annotations

import base64
import hashlib
import os
import socket
from collections.abc import Callable
from typing import Final

from tests.conformance.codec import V311
from tests.conformance.wire import Closed, Wire

CONTINUATION: Final = 0x0
TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
_ACCEPT_SUFFIX: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3


class WebSocketWire(Wire):
    """`Wire` through a WebSocket. `subprotocol`: which one the server chose. `opcodes`: of every data frame that came.

    `send` puts all it is given into one binary frame; `send_frame` makes any frame. The server's CLOSE ends the stream.
    """

    def __init__(
        self,
        port: int,
        version: int = V311,
        settle: Callable[[], None] | None = None,
        path: str = "/mqtt",
        offers: str = "mqtt",
    ) -> None:
        self.subprotocol: str | None = None
        self.opcodes: list[int] = []
        self._path, self._offers = path, offers
        self._frames = b""
        super().__init__(port, version, settle)

    def _open(self, port: int) -> socket.socket:
        opened = super()._open(port)
        key = base64.b64encode(os.urandom(16))
        lines = [
            f"GET {self._path} HTTP/1.1",
            f"Host: 127.0.0.1:{port}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {key.decode()}",
            "Sec-WebSocket-Version: 13",
        ]
        if self._offers:
            lines.append(f"Sec-WebSocket-Protocol: {self._offers}")
        opened.sendall("\r\n".join([*lines, "", ""]).encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            data = opened.recv(4096)
            assert data, f"no WebSocket: {answer!r}"
            answer += data
        head, _, self._frames = answer.partition(b"\r\n\r\n")
        status, *rest = head.decode().split("\r\n")
        assert status.split()[1] == "101", f"no WebSocket: {answer!r}"
        headers = {
            name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in rest)
        }
        accept = base64.b64encode(hashlib.sha1(key + _ACCEPT_SUFFIX).digest()).decode()
        assert headers["sec-websocket-accept"] == accept
        self.subprotocol = headers.get("sec-websocket-protocol")
        return opened

    def send_frame(self, opcode: int, payload: bytes, final: bool = True) -> None:
        """One frame, masked as a client's must be."""
        mask = os.urandom(4)
        size = len(payload)
        if size < 126:
            head = bytes((final << 7 | opcode, 0x80 | size))
        elif size < 1 << 16:
            head = bytes((final << 7 | opcode, 0x80 | 126)) + size.to_bytes(2, "big")
        else:
            head = bytes((final << 7 | opcode, 0x80 | 127)) + size.to_bytes(8, "big")
        masked = bytes(byte ^ mask[i & 3] for i, byte in enumerate(payload))
        super()._write(head + mask + masked)

    def _write(self, data: bytes) -> None:
        self.send_frame(BINARY, data)

    def _read(self) -> bytes:
        """The payload of the next data frame."""
        while True:
            opcode, payload = self._next_frame()
            if opcode == CLOSE:
                raise Closed(f"the broker closed the WebSocket: {payload!r}")
            if opcode in (CONTINUATION, TEXT, BINARY):
                self.opcodes.append(opcode)
                return payload

    def _next_frame(self) -> tuple[int, bytes]:
        first, second = self._exactly(2)
        assert not second & 0x80, "a server's frames are not masked"
        size = second
        if size >= 126:
            size = int.from_bytes(self._exactly(2 if size == 126 else 8), "big")
        return first & 15, self._exactly(size)

    def _exactly(self, size: int) -> bytes:
        while len(self._frames) < size:
            self._frames += super()._read()
        data, self._frames = self._frames[:size], self._frames[size:]
        return data
