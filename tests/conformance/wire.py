"""A client as raw as it gets: one socket, packets of the judge's codec or any bytes, and what came back.

Every wait is bounded and ends with what the broker did instead. Nothing is answered by itself: a test that wants an
acknowledgement sent sends it, `acknowledge` for short.
"""

from __future__ import annotations

import itertools
import socket
import struct
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from tests.conformance.codec import (
    V5,
    V311,
    Ack,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Pingreq,
    Pingresp,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
    decode,
    encode,
)
from tests.conformance.properties import Text

WAIT_SECONDS: Final = 5.0
_names: Final = itertools.count(1)


class Closed(AssertionError):
    """The broker closed the connection where a packet was expected."""


def fresh(prefix: str) -> str:
    """A name that no other test has: for clients and topics on a broker that tests share."""
    return f"{prefix}{next(_names)}"


class Wire:
    """One connection in `version`. `settle` makes the broker finish what it has begun, for `expect_nothing`."""

    def __init__(self, port: int, version: int = V311, settle: Callable[[], None] | None = None) -> None:
        self.version = version
        self.client_id: Text = ""
        self.last_frame = b""
        self._settle = settle
        self._packet_ids = itertools.count(1)
        self._buffer = b""
        self._aside: deque[Packet] = deque()
        self._socket = self._open(port)
        self.address = "{}:{}".format(*self._socket.getsockname())  # as the broker knows it

    def _open(self, port: int) -> socket.socket:
        opened = socket.create_connection(("127.0.0.1", port), WAIT_SECONDS)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return opened

    # ---- out

    def send(self, *packets: Packet | bytes) -> Wire:
        """All in one write; bytes as they are."""
        self._write(b"".join(p if isinstance(p, bytes) else encode(p, self.version) for p in packets))
        return self

    def packet_id(self) -> int:
        """One that this client has not used yet."""
        return next(self._packet_ids)

    def connect(self, client_id: Text | None = None, *, code: int = 0, **fields: Any) -> Connack:
        """CONNECT, and the CONNACK with `code`. Without a `client_id` it is a fresh one; `fields` as in `Connect`."""
        self.client_id = fresh("client-") if client_id is None else client_id
        self.send(Connect(self.client_id, **fields))
        connack: Connack = self.expect(Connack)
        assert connack.code == code, f"CONNACK {connack.code:#04x} instead of {code:#04x}"
        return connack

    def subscribe(self, *filters: tuple[Text, int], properties: Any = None) -> Suback:
        """SUBSCRIBE to pairs of a filter and its options, and the SUBACK."""
        packet_id = self.packet_id()
        self.send(Subscribe(packet_id, filters, properties or {}))
        suback: Suback = self.expect(Suback)
        assert suback.packet_id == packet_id
        return suback

    def unsubscribe(self, *filters: Text) -> Unsuback:
        """UNSUBSCRIBE, and the UNSUBACK."""
        packet_id = self.packet_id()
        self.send(Unsubscribe(packet_id, filters))
        unsuback: Unsuback = self.expect(Unsuback)
        assert unsuback.packet_id == packet_id
        return unsuback

    def publish(self, topic: Text, payload: bytes = b"", qos: int = 0, **fields: Any) -> int | None:
        """PUBLISH and its whole handshake; at QoS 0 a ping, to know that it arrived. For a client that gets nothing."""
        packet_id = self.packet_id() if qos else None
        self.send(Publish(topic, payload, qos, packet_id=packet_id, **fields))
        if packet_id is None:
            self.ping()
        elif qos == 1:
            self.expect(Puback(packet_id, self._reason()))
        else:
            self.expect(Pubrec(packet_id, self._reason()))
            self.send(Pubrel(packet_id))
            self.expect(Pubcomp(packet_id))
        return packet_id

    def acknowledge(self, message: Publish) -> None:
        """Our side of the handshake of a QoS 1 or 2 message; what else comes meanwhile is taken later."""
        assert message.packet_id is not None
        if message.qos == 1:
            self.send(Puback(message.packet_id))
        else:
            self.send(Pubrec(message.packet_id))
            self._expect_among(Pubrel(message.packet_id))
            self.send(Pubcomp(message.packet_id))

    def ping(self) -> None:
        """PINGREQ, and that PINGRESP is what comes next."""
        self.send(Pingreq())
        self.expect(Pingresp())

    # ---- in

    def take(self) -> Packet:
        """The next packet, decoded; its bytes are in `last_frame`. `Closed` if the broker closed instead."""
        if self._aside:
            return self._aside.popleft()
        return decode(self.take_frame(), self.version)

    def _expect_among(self, wanted: Packet) -> None:
        """`wanted` comes; messages that come before it are put aside for `take`."""
        passed = []
        while (packet := self.take()) != wanted:
            assert isinstance(packet, Publish), f"{packet} instead of {wanted}"
            passed.append(packet)
        self._aside.extendleft(reversed(passed))

    def take_frame(self) -> bytes:
        """The next packet's bytes."""
        while (size := self._whole()) is None:
            self._buffer += self._read()
        self.last_frame, self._buffer = self._buffer[:size], self._buffer[size:]
        return self.last_frame

    def _whole(self) -> int | None:
        """The size of the packet that the buffer begins with, once all of it is there."""
        for at in range(1, min(5, len(self._buffer))):
            if not self._buffer[at] & 0x80:
                length = sum((byte & 0x7F) << 7 * i for i, byte in enumerate(self._buffer[1 : at + 1]))
                return at + 1 + length if len(self._buffer) > at + length else None
        assert len(self._buffer) < 5, f"not MQTT: {self._buffer[:20]!r}"
        return None

    def expect(self, wanted: Any) -> Any:
        """The next packet, which must be `wanted`: exact bytes, a packet equal to it, or of that class."""
        if isinstance(wanted, bytes):
            got: Any = self.take_frame()
        else:
            got = self.take()
        if isinstance(wanted, type):
            assert isinstance(got, wanted), f"{got} instead of a {wanted.__name__}"
        else:
            assert wanted == got, f"{got} instead of {wanted}"
        return got

    def expect_message(self, topic: Text, payload: bytes, qos: int = 0, **fields: Any) -> Publish:
        """The next packet is this message; then acknowledged. Packet identifier and properties are not looked at."""
        message: Publish = self.expect(Publish)
        got = {name: getattr(message, name) for name in fields}
        assert (message.topic, message.payload, message.qos, got) == (topic, payload, qos, fields)
        if qos:
            self.acknowledge(message)
        return message

    def expect_nothing(self) -> None:
        """Nothing has come and nothing is on its way: proven by the answer to a ping after the broker has settled."""
        if self._settle is not None:
            self._settle()
        self.ping()

    def expect_closed(self, code: int | None = None) -> None:
        """The broker closes, and before that sends nothing, but in MQTT 5 a DISCONNECT, with `code` if one is given."""
        try:
            last = self.take()
        except Closed:
            assert code is None or self.version < V5, f"closed without DISCONNECT {code:#04x}"
            return
        assert self.version >= V5, f"{last} instead of the end"
        assert isinstance(last, Disconnect), f"{last} instead of the end"
        assert code in (None, last.code), f"DISCONNECT {last.code:#04x} instead of {code:#04x}"
        self.expect_end()

    def expect_end(self) -> None:
        """The broker closes without another byte."""
        try:
            frame = self.take_frame()
        except Closed:
            return
        raise AssertionError(f"{frame!r} instead of the end")

    def expect_refused(self, code: int) -> None:
        """CONNACK with `code`, and the end."""
        connack: Connack = self.expect(Connack)
        assert (connack.code, connack.session_present) == (code, False)
        self.expect_end()

    # ---- the end

    def disconnect(self, code: int = 0, **properties: Any) -> None:
        """DISCONNECT, and wait until the broker has closed: it knows then that we are gone."""
        self.send(Disconnect(code, properties))
        self.drain()

    def drain(self) -> list[Packet]:
        """Every packet until the broker closes."""
        packets = []
        try:
            while True:
                packets.append(self.take())
        except Closed:
            return packets

    def abort(self) -> None:
        """Break the connection without a word, as a fallen network does: a TCP reset."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def finish(self) -> None:
        """Say that nothing more will be sent, and go on listening."""
        self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close the socket; harmless when it is closed."""
        self._socket.close()

    # ---- the socket

    def _write(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it was closed already: what the broker said before that is still to be read

    def _read(self) -> bytes:
        try:
            data = self._socket.recv(65536)
        except TimeoutError:
            raise AssertionError(f"the broker sent nothing; unfinished: {self._buffer[:60]!r}") from None
        except ConnectionResetError:
            data = b""
        if not data:
            raise Closed(f"the broker closed the connection; unfinished: {self._buffer[:60]!r}")
        return data

    def _reason(self) -> Any:
        """The reason code of an acknowledgement that is good: nobody subscribed is one too."""
        return _GOOD if self.version >= V5 else 0


class _Good:
    """Equal to the reason codes Success and No matching subscribers."""

    def __eq__(self, other: object) -> bool:
        return other in (0x00, 0x10)

    def __hash__(self) -> int:
        return 0

    def __repr__(self) -> str:
        return "0x00 or 0x10"


_GOOD: Final = _Good()

__all__ = ["Ack", "Closed", "Wire", "fresh"]
