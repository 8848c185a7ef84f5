"""The client's end of one MQTT connection: bytes in, events out, bytes out; MQTT 5 and 3.1.1.

It owns the protocol of one connection that somebody else opened: CONNECT and its answer, keep alive, DISCONNECT, and the
form of everything between. What is sent, under which packet identifier, and when a message is acknowledged is its
owner's to decide; it remembers what the server allows and says so. It keeps these promises:

- The first packet out is CONNECT, the first one in CONNACK; whatever else comes first ends the connection.
- Reason codes are MQTT 5's throughout: 3.1.1's return codes are translated.
- After `on_refused` or `on_closed`, exactly one of which comes unless the owner disconnects, there are no more events.
- `receive` works within a budget and says when input is left.

Output gathers in `output` and leaves with `take_output`. It never blocks, logs or looks at a clock.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from edge_broker.core.message import Message
from edge_broker.errors import MqttError, ProtocolError
from edge_broker.wire import const
from edge_broker.wire.decoder import Decoder
from edge_broker.wire.encoder import (
    PINGREQ,
    encode_ack,
    encode_connect,
    encode_disconnect,
    encode_subscribe,
    encode_unsubscribe,
)
from edge_broker.wire.packets import (
    Ack,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Ping,
    Suback,
    SubscriptionRequest,
)
from edge_broker.wire.properties import encode_varint
from edge_broker.wire.topics import TopicCache

_WORK_BUDGET_BYTES: Final = 16 << 10
_PING_AT: Final = 0.8
"""PINGREQ leaves when this part of the keep alive has passed in silence: `check` is called now and then only."""

_FROM_V3: Final = {
    const.V3_UNACCEPTABLE_PROTOCOL_VERSION: const.UNSUPPORTED_PROTOCOL_VERSION,
    const.V3_IDENTIFIER_REJECTED: const.CLIENT_IDENTIFIER_NOT_VALID,
    const.V3_SERVER_UNAVAILABLE: const.SERVER_UNAVAILABLE,
    const.V3_BAD_USER_NAME_OR_PASSWORD: const.BAD_USER_NAME_OR_PASSWORD,
    const.V3_NOT_AUTHORIZED: const.NOT_AUTHORIZED,
}


class ClientHandler(Protocol):
    """Whoever the events go to. Called from within `receive`, `work`, `check` and `on_lost`."""

    def on_connected(self, session_present: bool) -> None:
        """The server accepted; what it allows stands in the client's attributes."""

    def on_refused(self, reason_code: int, detail: str) -> None:
        """The server answered CONNECT with a refusal; `detail` is what it said beside the code, often empty."""

    def on_message(self, message: Message) -> None:
        """A PUBLISH came. At QoS > 0 it is the owner's to acknowledge with `send_ack`."""

    def on_puback(self, packet_id: int, reason_code: int) -> None:
        """The server acknowledged a PUBLISH of QoS 1, or refused it (`reason_code` >= 0x80)."""

    def on_pubrec(self, packet_id: int, reason_code: int) -> None:
        """The server received a PUBLISH of QoS 2, or refused it."""

    def on_pubrel(self, packet_id: int) -> None:
        """The server will not send the QoS 2 PUBLISH of this id again."""

    def on_pubcomp(self, packet_id: int, reason_code: int) -> None:
        """A QoS 2 delivery to the server is complete."""

    def on_suback(self, packet_id: int, reason_codes: list[int]) -> None:
        """The answer to SUBSCRIBE or UNSUBSCRIBE: a code for each filter; none to 3.1.1's UNSUBSCRIBE."""

    def on_closed(self, reason_code: int, detail: str) -> None:
        """The connection ended: the server said so, did not answer or broke the protocol, or the transport was lost."""


class Client:
    """One connection to a server. `start`, then `receive` what comes and send what `take_output` gives.

    What the server allows, set before `on_connected`: `receive_maximum` QoS > 0 publishes unacknowledged,
    `max_packet_bytes` (0 = no limit), `maximum_qos`, `retain_available`, `topic_alias_maximum`, `keep_alive` in seconds.
    `wake` is called when there is output where there was none. `writable` is the transport's: its owner sets it.
    `sent_away`: the server itself ended the connection, with DISCONNECT.
    `ping_seconds`: how long the last PINGRESP took that was asked for by `check`; None before one, or once its owner has
    taken it. `pongs`: how many came; `on_pong` is called after each.
    """

    __slots__ = (
        "_deadline",
        "_decoder",
        "_expected",
        "_handler",
        "_longest",
        "_pinged_at",
        "_pings",
        "_request",
        "_timeouts",
        "_wake",
        "assigned_client_id",
        "closed",
        "connected",
        "keep_alive",
        "last_received_at",
        "last_sent_at",
        "max_packet_bytes",
        "maximum_qos",
        "on_pong",
        "output",
        "ping_seconds",
        "pongs",
        "receive_maximum",
        "retain_available",
        "sent_away",
        "session_present",
        "topic_alias_maximum",
        "version",
        "writable",
    )

    def __init__(
        self,
        handler: ClientHandler,
        request: Connect,
        topics: TopicCache,
        wake: Callable[[], None],
        *,
        connack_timeout_seconds: float = 10.0,
        answer_timeout_seconds: float = 30.0,
    ) -> None:
        properties = request.properties
        self._handler = handler
        self._request = request
        self._wake = wake
        self._timeouts = (connack_timeout_seconds, answer_timeout_seconds)
        self._decoder = Decoder(
            topics,
            properties.get(const.MAXIMUM_PACKET_SIZE, const.MAX_REMAINING_LENGTH + 5),
            version=request.version,
            topic_alias_maximum=properties.get(const.TOPIC_ALIAS_MAXIMUM, 0),
            publish_type=Message,
            from_server=True,
        )
        self.version = request.version
        self.output: list[bytes] = []
        self.connected = self.closed = self.sent_away = False
        self.writable = True
        self.last_sent_at = self.last_received_at = self._pinged_at = 0.0
        self.ping_seconds: float | None = None
        self._pings = self.pongs = 0
        self.on_pong: Callable[[], None] | None = None
        self._deadline: float | None = None  # for CONNACK, later for PINGRESP
        self._expected: dict[int, float] = {}  # packet ids of SUBSCRIBE and UNSUBSCRIBE: answer due at
        self._longest = const.MAX_REMAINING_LENGTH
        self.session_present = False
        self.assigned_client_id = ""
        self.keep_alive = request.keep_alive
        self.receive_maximum = const.MAX_PACKET_ID
        self.max_packet_bytes = 0
        self.maximum_qos = 2
        self.retain_available = True
        self.topic_alias_maximum = 0

    # ---- input

    def start(self, now: float) -> None:
        """Send CONNECT, as the transport stands."""
        self.last_sent_at = self.last_received_at = now
        self._deadline = now + self._timeouts[0]
        self._send(encode_connect(self._request))

    def receive(self, data: bytes, now: float) -> bool:
        """Take `data` from the transport and handle what is whole in it; True if input is left for another turn."""
        self.last_received_at = now
        if self.connected:
            self._deadline = None  # whatever comes is as good as the PINGRESP
        self._decoder.feed(data)
        return self.work()

    def work(self) -> bool:
        """Handle buffered input up to the budget; True if some is left that could be handled now."""
        decoder = self._decoder
        handler = self._handler
        stop_at = decoder.at + _WORK_BUDGET_BYTES
        try:
            while not self.closed:
                packet = decoder.next_packet()
                if packet is None:
                    return False
                if type(packet) is Ack and self.connected:
                    kind = packet.packet_type
                    if kind == const.PUBACK:
                        handler.on_puback(packet.packet_id, packet.reason_code)
                    elif kind == const.PUBREC:
                        handler.on_pubrec(packet.packet_id, packet.reason_code)
                    elif kind == const.PUBCOMP:
                        handler.on_pubcomp(packet.packet_id, packet.reason_code)
                    else:
                        handler.on_pubrel(packet.packet_id)
                elif type(packet) is Message and self.connected:
                    handler.on_message(packet)
                else:
                    self._handle(packet)
                if decoder.at >= stop_at:
                    return decoder.buffered_bytes > 0 and not self.closed
        except MqttError as error:
            self.fail(error.reason_code, error.detail)
        return False

    @property
    def awaits_suback(self) -> bool:
        """Whether the packet identifier of a SUBSCRIBE or UNSUBSCRIBE is in use."""
        return bool(self._expected)

    @property
    def buffered_bytes(self) -> int:
        """Input that was taken and not handled."""
        return self._decoder.buffered_bytes

    def _handle(self, packet: Packet) -> None:
        """Everything but messages and their acknowledgements."""
        if isinstance(packet, Connack):
            self._handle_connack(packet)
        elif not self.connected:
            raise ProtocolError("the first packet is not a CONNACK")  # [MQTT-3.2.0-1]
        elif isinstance(packet, Ping) and packet.packet_type == const.PINGRESP:
            self._handle_pingresp()
        elif isinstance(packet, Suback):
            self._expected.pop(packet.packet_id, None)
            self._handler.on_suback(packet.packet_id, packet.reason_codes)
        elif isinstance(packet, Disconnect) and self.version >= const.MQTT_5:
            self.sent_away = True
            self._close()
            self._handler.on_closed(packet.reason_code, _said(packet.properties))
        else:
            raise ProtocolError(f"{type(packet).__name__.upper()} is not for a client")

    def _handle_pingresp(self) -> None:
        """That it came, for the keep alive, is noticed in `receive`."""
        self.pongs += 1
        if self._pinged_at and self.pongs == self._pings:
            self.ping_seconds = self.last_received_at - self._pinged_at
        if self.on_pong is not None:
            self.on_pong()

    def _handle_connack(self, packet: Connack) -> None:
        if self.connected:
            raise ProtocolError("a second CONNACK")
        if packet.reason_code:
            self._close()
            reason_code = packet.reason_code
            if self.version < const.MQTT_5:
                reason_code = _FROM_V3.get(reason_code, const.UNSPECIFIED_ERROR)
            self._handler.on_refused(reason_code, _said(packet.properties))
            return
        properties = packet.properties
        self.connected = True
        self._deadline = None
        self.session_present = packet.session_present
        self.assigned_client_id = properties.get(const.ASSIGNED_CLIENT_IDENTIFIER, "")
        self.keep_alive = properties.get(const.SERVER_KEEP_ALIVE, self.keep_alive)  # [MQTT-3.1.2-21]
        self.receive_maximum = properties.get(const.RECEIVE_MAXIMUM, const.MAX_PACKET_ID)
        self.max_packet_bytes = properties.get(const.MAXIMUM_PACKET_SIZE, 0)
        self.maximum_qos = properties.get(const.MAXIMUM_QOS, 2)
        self.retain_available = properties.get(const.RETAIN_AVAILABLE, 1) == 1
        self.topic_alias_maximum = properties.get(const.TOPIC_ALIAS_MAXIMUM, 0)
        if self.max_packet_bytes:
            self._longest = _remaining_length_within(self.max_packet_bytes)
        self._handler.on_connected(packet.session_present)

    # ---- output

    def send_publish(
        self, topic: bytes, rest: bytes, qos: int, retain: bool, dup: bool, packet_id: int
    ) -> bool:
        """PUBLISH. `topic` behind its two-byte length; `rest`: the property block (MQTT 5 only) and the payload.

        False, and nothing sent, where the packet is larger than the server accepts [MQTT-3.2.2-15].
        """
        length = len(topic) + len(rest) + (2 if qos else 0)
        if length > self._longest:
            return False
        first = 0x30 | dup << 3 | qos << 1 | retain
        if length < 0x80:
            head = (first << 8 | length).to_bytes(2, "big")
        else:
            head = bytes((first,)) + encode_varint(length)
        output = self.output
        if not output:
            self._wake()
        if qos:
            output += (head, topic, packet_id.to_bytes(2, "big"), rest)
        else:
            output += (head, topic, rest)
        return True

    def send_ack(self, packet_type: int, packet_id: int, reason_code: int = const.SUCCESS) -> None:
        """PUBACK, PUBREC, PUBREL or PUBCOMP."""
        self._send(encode_ack(self.version, packet_type, packet_id, reason_code))

    def subscribe(self, packet_id: int, requests: list[SubscriptionRequest], now: float) -> None:
        """SUBSCRIBE; `packet_id` must not be in use. The answer is due within the answer timeout."""
        self._expected[packet_id] = now + self._timeouts[1]
        self._send(encode_subscribe(self.version, packet_id, requests))

    def ping(self, now: float) -> int:
        """PINGREQ, to see when what was sent before it has been dealt with; returns which of the `pongs` answers it.

        It is not timed: what waits upstream may come first.
        """
        self._pings += 1
        self._pinged_at = 0.0
        self._deadline = now + self._timeouts[1]
        self._send(PINGREQ)
        return self._pings

    def unsubscribe(self, packet_id: int, topic_filters: list[str], now: float) -> None:
        """UNSUBSCRIBE, likewise."""
        self._expected[packet_id] = now + self._timeouts[1]
        self._send(encode_unsubscribe(self.version, packet_id, topic_filters))

    def take_output(self, now: float) -> bytes:
        """Everything to be sent now, in one piece."""
        output = self.output
        if not output:
            return b""
        self.last_sent_at = now
        data = output[0] if len(output) == 1 else b"".join(output)
        output.clear()
        return data

    def _send(self, data: bytes) -> None:
        if not self.closed:
            if not self.output:
                self._wake()
            self.output.append(data)

    # ---- the end

    def disconnect(self, reason_code: int = const.SUCCESS) -> None:
        """Say goodbye: DISCONNECT is in the output, and no event follows."""
        if not self.closed:
            if self.connected:
                self._send(encode_disconnect(self.version, reason_code))
            self._close()

    def fail(self, reason_code: int, detail: str) -> None:
        """End the connection over what the server did or failed to do, telling it where its version can be told."""
        if self.closed:
            return
        if self.connected and self.version >= const.MQTT_5:
            self._send(encode_disconnect(self.version, reason_code))
        self._close()
        self._handler.on_closed(reason_code, detail)

    def on_lost(self, detail: str) -> None:
        """The transport is gone, whoever closed it."""
        if not self.closed:
            self._close()
            self._handler.on_closed(const.UNSPECIFIED_ERROR, detail)

    def _close(self) -> None:
        self.closed = True
        self._deadline = None
        self._expected.clear()

    # ---- time

    def check(self, now: float, sending: bool = False) -> None:
        """About once a second: send PINGREQ when it is due, end the connection where an answer is overdue.

        `sending`: the transport is still busy with earlier output, so an answer cannot be expected yet.
        """
        if self.closed:
            return
        deadline = self._deadline
        if not self.connected:
            if deadline is not None and now > deadline:
                self.fail(const.KEEP_ALIVE_TIMEOUT, f"no CONNACK within {self._timeouts[0]:g} s")
            return
        if sending:
            self._push_deadlines(now)
        elif deadline is not None and now > deadline:
            self.fail(const.KEEP_ALIVE_TIMEOUT, f"no PINGRESP within {self._timeouts[1]:g} s")
            return
        elif any(now > due_at for due_at in self._expected.values()):
            self.fail(const.KEEP_ALIVE_TIMEOUT, f"no SUBACK within {self._timeouts[1]:g} s")
            return
        silent_since = min(self.last_sent_at, self.last_received_at)
        if self.keep_alive and self._deadline is None and now - silent_since >= self.keep_alive * _PING_AT:
            self._pings += 1
            self._pinged_at = now
            self._deadline = now + self._timeouts[1]  # [MQTT-3.1.2-20]
            self._send(PINGREQ)

    def _push_deadlines(self, now: float) -> None:
        due_at = now + self._timeouts[1]
        if self._deadline is not None:
            self._deadline = due_at
        for packet_id in self._expected:
            self._expected[packet_id] = due_at


def _said(properties: dict[int, object]) -> str:
    """What the server added to a reason code in words: its reason string, and the server it names instead."""
    parts = [str(properties[const.REASON_STRING])] if const.REASON_STRING in properties else []
    if const.SERVER_REFERENCE in properties:
        parts.append(f"it names {properties[const.SERVER_REFERENCE]}")
    return ", ".join(parts)


def _remaining_length_within(max_packet_bytes: int) -> int:
    """The longest remaining length whose packet, with its fixed header, has no more than `max_packet_bytes`."""
    longest = max_packet_bytes - 2
    while longest > 0 and 1 + len(encode_varint(longest)) + longest > max_packet_bytes:
        longest -= 1
    return longest
