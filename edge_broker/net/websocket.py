"""WebSocket (RFC 6455) as a pipe: HTTP's upgrade, then MQTT in binary frames, no socket.

The `websockets` library's sans-I/O protocol does the protocol; here are its bounds. MQTT packets and frames need not be
aligned: a frame may hold many packets and a packet many frames [MQTT-6.0.0-2]. The request is bounded, so are frame and
message, there are no extensions, so nothing is decompressed, and one call handles a bounded number of frames: a flood
of tiny ones waits for its next turn as any other. The library is imported with this module, so only by a broker that has
such a listener; it logs nothing but its own faults, because it would log payloads.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final, cast

from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.typing import Origin, Subprotocol

from edge_broker.net.pipes import PipeError

_SUBPROTOCOLS: Final = (
    Subprotocol("mqtt"),
    Subprotocol("mqttv3.1"),
)  # [MQTT-6.0.0-3], and what old clients send
_REQUEST_BYTES: Final = 16 << 10  # a browser's cookies included
_SLACK_BYTES: Final = 64 << 10  # clients gather packets in one message
_OUTPUT_FRAME_BYTES: Final = 64 << 10  # clients have limits too
_LOGGED_CHARACTERS: Final = 200  # the library repeats what the peer sent
_STEP_BYTES: Final = 2 << 10
_FRAMES_A_TURN: Final = 64
_NORMAL_CLOSURE: Final = 1000
_UNSUPPORTED_DATA: Final = 1003

_library_log: Final = logging.getLogger("edge_broker.net.websocket")
_library_log.setLevel(logging.ERROR)


class WebSocketPipe:
    """The server's side of one WebSocket connection at one of `paths`, as `net.pipes.Pipe` says.

    `max_packet_bytes` bounds a frame and a message, with some room for those who gather packets. `origins`: from which
    pages a browser may connect, empty for any; a client that sends no origin is no browser and always welcome.
    """

    __slots__ = (
        "_failure",
        "_output",
        "_paths",
        "_protocol",
        "_request",
        "_rest",
        "established",
        "mid_frame",
    )

    def __init__(self, max_packet_bytes: int, paths: Sequence[str], origins: Sequence[str] = ()) -> None:
        self._protocol = ServerProtocol(
            origins=[*(Origin(origin) for origin in origins), None] if origins else None,
            extensions=None,
            subprotocols=_SUBPROTOCOLS,
            max_size=max_packet_bytes + _SLACK_BYTES,
            logger=_library_log,
        )
        self._paths = paths
        self._request: bytearray | None = bytearray()  # as long as it is not whole
        self._rest = b""  # input for the next turn
        self._output = b""  # an answer that ends it
        self._failure: PipeError | None = None
        self.established = False
        self.mid_frame = False

    @property
    def ended(self) -> bool:
        """The peer has sent its close frame, and has ours."""
        return self.established and self._failure is None and self._protocol.eof_sent

    @property
    def has_more(self) -> bool:
        """There are frames, or a mistake of the peer's, for another turn."""
        return bool(self._rest) or self._failure is not None

    @property
    def lingers(self) -> bool:
        """Our close frame is out and the peer's not there; a connection closed now might lose what was sent last."""
        return self.established and self._protocol.state is State.CLOSING and not self._protocol.eof_sent

    def receive(self, data: bytes) -> bytes:
        """Take the peer's bytes; returns the MQTT in the frames that are whole. `PipeError` only after all of that."""
        parts: list[bytes] = []
        if self._failure is None:
            rest = self._rest + data if self._rest else data
            self._rest = b""
            if self._request is not None:
                rest = self._receive_request(rest)
            if rest:
                self._receive_frames(rest, parts)
        if self._failure is not None and not parts:
            raise self._failure
        return b"".join(parts)

    def send(self, data: bytes) -> None:
        """Put MQTT into binary frames [MQTT-6.0.0-1]; nothing after a goodbye."""
        if self._protocol.state is State.OPEN:
            for at in range(0, len(data), _OUTPUT_FRAME_BYTES):
                self._protocol.send_binary(data[at : at + _OUTPUT_FRAME_BYTES])

    def take_output(self) -> bytes:
        """Frames and answers for the peer."""
        output, self._output = self._output, b""
        return b"".join((*self._protocol.data_to_send(), output))

    def shut(self) -> None:
        """Send a close frame; before the upgrade there is nobody to understand one."""
        if self._protocol.state is State.OPEN:
            self._protocol.send_close(_NORMAL_CLOSURE)

    def peer(self) -> None:
        """WebSocket proves nothing."""

    def encryption(self) -> tuple[str, str] | None:
        """WebSocket encrypts nothing."""
        return None

    # ---- the upgrade

    def _receive_request(self, data: bytes) -> bytes:
        """Gather the HTTP request, bounded, and answer it when it is whole; returns what came behind it."""
        request = self._request
        assert request is not None
        searched = max(0, len(request) - 3)
        request += data
        if not request[:1].isalpha() and request:
            self._fail(
                "what came is no HTTP request: is the client set to WebSocket, and to TLS as the listener is?"
            )
            return b""
        end = request.find(b"\r\n\r\n", searched, _REQUEST_BYTES) + 4
        if end < 4:
            if len(request) >= _REQUEST_BYTES:
                self._reject(431, f"The request is larger than {_REQUEST_BYTES} bytes.\n")
            return b""
        self._request = None
        self._protocol.receive_data(bytes(request[:end]))
        events = self._protocol.events_received()
        if events:
            self._answer(cast(Request, events[0]))
        elif answer := b"".join(
            self._protocol.data_to_send()
        ):  # newer versions of the library refuse by themselves
            self._output = answer
            status = answer.removeprefix(b"HTTP/1.1 ").partition(b"\r\n")[0].decode()
            self._fail(f"no WebSocket: HTTP {status}")
        else:
            self._reject(400, "MQTT is here over WebSocket: GET, HTTP/1.1, Upgrade: websocket.\n")
        return bytes(request[end:]) if self.established else b""

    def _answer(self, request: Request) -> None:
        """101 and on with frames, or what is wrong."""
        try:
            response = self._protocol.accept(request)
        except UnicodeError:  # it wants to repeat a value that is no text
            self._reject(400, "A header of the request is not ASCII.\n")
            return
        if response.status_code != 101:
            self._refuse(response)
        elif request.path.partition("?")[0].rstrip("/") not in [path.rstrip("/") for path in self._paths]:
            self._reject(404, f"MQTT is at {' and '.join(self._paths)}.\n")
        else:
            self._protocol.send_response(response)  # with the subprotocol [MQTT-6.0.0-4]
            self.established = True

    def _reject(self, status: int, text: str) -> None:
        self._refuse(self._protocol.reject(status, text))

    def _refuse(self, response: Response) -> None:
        self._output = response.serialize()
        said = response.body.decode().partition("\n")[0]
        self._fail(f"no WebSocket: HTTP {response.status_code}, {said[:_LOGGED_CHARACTERS]}")

    def _fail(self, detail: str) -> None:
        if self._failure is None:
            self._failure = PipeError("websocket", detail)

    # ---- frames

    def _receive_frames(self, data: bytes, parts: list[bytes]) -> None:
        """Work through a turn's frames; what they carried goes to `parts`, what is left stays."""
        at = frames = 0
        while (
            at < len(data)
            and frames < _FRAMES_A_TURN
            and self._failure is None
            and not self._protocol.eof_sent
        ):
            self._protocol.receive_data(data[at : at + _STEP_BYTES])
            at += _STEP_BYTES
            frames += self._take_frames(parts)
        self.mid_frame = not frames
        if self._failure is None and not self._protocol.eof_sent:
            self._rest = data[at:]

    def _take_frames(self, parts: list[bytes]) -> int:
        frames = cast(list[Frame], self._protocol.events_received())
        for frame in frames:
            if frame.opcode is Opcode.BINARY or frame.opcode is Opcode.CONT:
                parts.append(cast(bytes, frame.data))
            elif frame.opcode is Opcode.TEXT:
                self._protocol.fail(_UNSUPPORTED_DATA, "MQTT is sent in binary frames")
                self._fail("a text frame")  # [MQTT-6.0.0-1]
                break
        if self._protocol.parser_exc is not None:
            self._fail(f"a frame that cannot be: {self._protocol.parser_exc}")
        return len(frames)
