"""A tiny MQTT server that answers as the test says: for what no well-behaved broker does on demand.

It speaks as much of 3.1.1 and 5.0 as a device needs, decoded here from the specification, not by paho. What it received
is the ground truth: a PUBLISH is noted before it is answered.
"""

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

CONNECT, CONNACK, PUBLISH, PUBACK, SUBSCRIBE, SUBACK, PINGREQ, PINGRESP, DISCONNECT = (
    1,
    2,
    3,
    4,
    8,
    9,
    12,
    13,
    14,
)


@dataclass(frozen=True)
class Published:
    connection: int
    packet_id: int
    qos: int
    topic: str
    payload: bytes
    user: dict[str, str]


@dataclass
class Script:
    """How to answer. `connack`: the bytes after the fixed header, None for silence, b"" to close at once."""

    connack: Callable[[int], bytes | None] = lambda version: b"\0\0\0" if version == 5 else b"\0\0"
    # The reason code of a PUBACK, or None to withhold it; CLOSE to close the connection instead.
    puback: Callable[[Published], int | None] = lambda published: 0
    # What is sent in one piece with the CONNACK.
    greeting: bytes = b""
    versions: list[int] = field(default_factory=list)


CLOSE = -1


class ScriptedBroker:
    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.script = Script()
        self._tls = tls
        self.published: list[Published] = []
        self.disconnects = 0
        self.most_unanswered = 0
        self._changed = threading.Condition()
        self._listener = socket.create_server(("127.0.0.1", 0))
        scheme = "mqtts" if tls is not None else "mqtt"
        self.url = f"{scheme}://127.0.0.1:{self._listener.getsockname()[1]}"
        self._connections: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def wait(self, condition: Callable[[], bool], timeout_seconds: float = 20.0) -> None:
        with self._changed:
            assert self._changed.wait_for(condition, timeout_seconds), f"in vain; {self.script.versions}"

    def sequences(self, connection: int | None = None) -> list[int]:
        return [
            int(one.user["sequence"])
            for one in self.published
            if connection is None or one.connection == connection
        ]

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
            self._connections.append(connection)
            number = len(self._connections)
            threading.Thread(target=self._serve, args=(connection, number), daemon=True).start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        version, unanswered = 0, 0
        with contextlib.suppress(OSError, EOFError), connection:
            while True:
                kind, flags, body = _read_packet(connection)
                if kind == CONNECT:
                    version = body[6]
                    with self._changed:
                        self.script.versions.append(version)
                        self._changed.notify_all()
                    answer = self.script.connack(version)
                    if answer == b"":
                        return
                    if answer is not None:
                        connection.sendall(bytes((CONNACK << 4, len(answer))) + answer + self.script.greeting)
                elif kind == PUBLISH:
                    published = _decode_publish(flags, body, version, number)
                    unanswered += 1
                    with self._changed:
                        self.published.append(published)
                        self.most_unanswered = max(self.most_unanswered, unanswered)
                        self._changed.notify_all()
                    code = self.script.puback(published)
                    if code == CLOSE:
                        return
                    if code is not None and published.qos:
                        unanswered -= 1
                        connection.sendall(_encode_puback(published.packet_id, code, version))
                elif kind == SUBSCRIBE:
                    connection.sendall(bytes((SUBACK << 4, 4)) + body[:2] + b"\0\1" if version == 5 else b"")
                elif kind == PINGREQ:
                    connection.sendall(bytes((PINGRESP << 4, 0)))
                elif kind == DISCONNECT:
                    with self._changed:
                        self.disconnects += 1
                        self._changed.notify_all()
                    return


def _read_exactly(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        if not (more := connection.recv(count - len(data))):
            raise EOFError
        data += more
    return data


def _read_packet(connection: socket.socket) -> tuple[int, int, bytes]:
    first = _read_exactly(connection, 1)[0]
    length, shift = 0, 0
    while True:
        byte = _read_exactly(connection, 1)[0]
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    return first >> 4, first & 0x0F, _read_exactly(connection, length)


def _text(body: bytes, at: int) -> tuple[str, int]:
    end = at + 2 + int.from_bytes(body[at : at + 2], "big")
    return body[at + 2 : end].decode(), end


def _decode_publish(flags: int, body: bytes, version: int, connection: int) -> Published:
    topic, at = _text(body, 0)
    qos = (flags >> 1) & 3
    packet_id = 0
    if qos:
        packet_id = int.from_bytes(body[at : at + 2], "big")
        at += 2
    user: dict[str, str] = {}
    if version == 5:
        end = at + 1 + body[at]
        assert body[at] < 0x80
        at += 1
        while at < end:
            identifier = body[at]
            if identifier == 0x26:  # user property
                name, at = _text(body, at + 1)
                user[name], at = _text(body, at)
            elif identifier == 0x03:  # content type
                user["content_type"], at = _text(body, at + 1)
            elif identifier == 0x01:  # payload format indicator
                at += 2
            else:
                raise AssertionError(f"a property {identifier} that no device sends")
    return Published(connection, packet_id, qos, topic, body[at:], user)


def _encode_puback(packet_id: int, code: int, version: int) -> bytes:
    body = packet_id.to_bytes(2, "big")
    if version == 5 and code:
        body += bytes((code, 0))
    return bytes((PUBACK << 4, len(body))) + body
