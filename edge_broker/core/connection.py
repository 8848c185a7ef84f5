"""One client's network connection as the broker sees it: bytes in, packets handled, bytes out.

It owns the protocol of a connection that stands: PUBLISH and acknowledgements both ways, ping, disconnect, and the end.
CONNECT is worked on in ``handshake``, SUBSCRIBE and UNSUBSCRIBE in ``subscribing``. It keeps these promises:

- One piece of bad input ends this connection with the reason code that fits, and nothing else.
- Acknowledgements leave in the order in which the messages came [MQTT-4.6.0-2, -3], each only when its message is safe.
- `receive` works within a budget and says when input is left, so that a flood waits for its next turn.

Output gathers in `output` and leaves with `flush`, once per turn of the event loop. It never blocks, logs or looks at a
clock.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from edge_broker.core.acknowledging import HeldAcknowledgements
from edge_broker.core.handshake import handle_connect
from edge_broker.core.message import Message
from edge_broker.core.ports import Outlet
from edge_broker.core.subscribing import RetainedDelivery, handle_subscribe, handle_unsubscribe
from edge_broker.errors import MqttError, ProtocolError
from edge_broker.wire import const
from edge_broker.wire.decoder import Decoder
from edge_broker.wire.encoder import (
    PINGRESP,
    encode_ack,
    encode_connack,
    encode_disconnect,
)
from edge_broker.wire.packets import Ack, Connect, Disconnect, Packet, Ping, Subscribe, Unsubscribe
from edge_broker.wire.pubacks import PUBACKS
from edge_broker.wire.topics import TopicCache

if TYPE_CHECKING:
    from edge_broker.core.router import Router
    from edge_broker.core.session import Session, Subscription

_pack_ack: Final = struct.Struct(">HH").pack
_PACKET_IDS: Final = [puback[2:] for puback in (PUBACKS[-1], *PUBACKS[1:-1])]
"""The packet identifier of each queue number modulo `MAX_PACKET_ID`, as bytes."""
_PUBREC_HEAD: Final = 0x5002
_PUBREL_HEAD: Final = 0x6202
_PUBCOMP_HEAD: Final = 0x7002

_CONNACK_CODES: Final = {
    const.SERVER_SHUTTING_DOWN: const.SERVER_UNAVAILABLE,
    const.SESSION_TAKEN_OVER: const.UNSPECIFIED_ERROR,
}
"""DISCONNECT's reason codes that CONNACK does not have, and what stands for them there [3.2.2.2]."""


class Connection:
    """The server's end of one connection. `session` is set from an accepted CONNECT on.

    `paused`: input is left alone until somebody calls `go_on` (a CONNECT being decided, the store behind).
    `writable`: the transport takes more; while not, QoS 0 is dropped and the rest waits in the queue.
    `end`: why it ended, as (reason code, detail), for the log; None while it stands.
    """

    __slots__ = (
        "_decoder",
        "_denied",
        "_held",
        "_outlet",
        "_permitted",
        "_retained",
        "address",
        "certificate_names",
        "client_id",
        "closing",
        "end",
        "keep_alive",
        "last_received_at",
        "listener",
        "max_packet_bytes",
        "opened_at",
        "output",
        "paused",
        "router",
        "send_window",
        "session",
        "version",
        "will",
        "writable",
    )

    def __init__(
        self,
        router: Router,
        outlet: Outlet,
        now: float,
        address: str,
        listener: str,
        certificate_names: tuple[str, ...] = (),
    ) -> None:
        settings = router.settings
        self.router = router
        self.address = address
        self.listener = listener
        self.certificate_names = certificate_names
        self.client_id = ""
        self.session: Session | None = None
        self.version = const.MQTT_3_1_1
        self.opened_at = self.last_received_at = now
        self.keep_alive = 0
        self.send_window = settings.send_window
        self.max_packet_bytes = 0  # the client's own limit, 0 = none
        self.will: Message | None = None
        self.output: list[bytes] = []
        self.writable = True
        self.paused = False
        self.closing = False
        self.end: tuple[int, str] | None = None
        self._outlet = outlet
        self._decoder = Decoder(
            router.topics,
            settings.max_packet_bytes,
            topic_alias_maximum=settings.topic_alias_maximum,
            publish_type=Message,
        )
        self._held: HeldAcknowledgements | None = None
        self._denied: set[Message] | None = None  # of those held: not allowed
        self._permitted: dict[str, bool] | None = None
        self._retained: RetainedDelivery | None = None  # while it is owed any

    # ---- input

    def receive(self, data: bytes, now: float) -> bool:
        """Take `data` from the socket and handle what is whole in it; True if input is left for another turn."""
        self.last_received_at = self.router.now = now
        if not self.paused and self.end is None:
            packet = self._decoder.take_whole(data)
            if packet is not None:
                try:
                    if packet.__class__ is Message:
                        self._handle_publish(packet)
                    elif packet.__class__ is tuple:
                        self._handle_pubacks(*packet)
                except MqttError as error:
                    self.fail(error.reason_code, error.detail)
                return False
        self._decoder.feed(data)
        return self.work()

    def take_turn(self) -> bool:
        """What was left for this turn of the event loop; True if something is left for the next."""
        more = self._give_retained()
        return self.work() or more

    def work(self) -> bool:
        """Handle buffered input up to the budget; True if some is left that could be handled now."""
        decoder = self._decoder
        stop_at = deliveries = 0
        try:
            while not self.paused and self.end is None:
                packet = decoder.next_packet()
                if packet is None:
                    if self.session is None and decoder.waiting_for not in (0, const.CONNECT):
                        raise ProtocolError(
                            "the first packet is not a CONNECT"
                        )  # no need to wait for all of it
                    return False
                if packet.__class__ is Message:
                    deliveries += self._handle_publish(packet)
                elif packet.__class__ is Ack:
                    self._handle_ack(packet)
                else:
                    self._handle(packet)
                if not decoder.more:
                    return False
                settings = self.router.settings
                if not stop_at:
                    stop_at = decoder.at + settings.work_budget_bytes
                elif decoder.at >= stop_at or deliveries >= settings.work_budget_deliveries:
                    return not self.paused and self.end is None
        except MqttError as error:
            self.fail(error.reason_code, error.detail)
        return False

    @property
    def buffered_bytes(self) -> int:
        """Input that was taken and not handled."""
        return self._decoder.buffered_bytes

    def pause(self) -> None:
        """Handle no more input until `go_on`."""
        self.paused = True

    def go_on(self) -> None:
        """Handle input again."""
        self.paused = False
        if self.end is None:
            self.last_received_at = self.router.now  # meanwhile it could say nothing that we would have heard
            self._outlet.wake()

    def _handle(self, packet: Packet) -> None:
        """Everything but PUBLISH and acknowledgements."""
        if isinstance(packet, Connect):
            if self.client_id or self.session is not None:
                raise ProtocolError("a second CONNECT")  # [MQTT-3.1.0-2]
            self.version = packet.version
            handle_connect(self, packet)
        elif self.session is None:
            raise ProtocolError("the first packet is not a CONNECT")  # [MQTT-3.1.0-1]
        elif isinstance(packet, Ping) and packet.packet_type == const.PINGREQ:
            self.send(PINGRESP)
        elif isinstance(packet, Subscribe):
            handle_subscribe(self, self.session, packet)
        elif isinstance(packet, Unsubscribe):
            handle_unsubscribe(self, self.session, packet)
        elif isinstance(packet, Disconnect):
            self._handle_disconnect(self.session, packet)
        else:
            raise ProtocolError(f"{type(packet).__name__.upper()} is not for a server")

    def owe_retained(self, subscriptions: list[Subscription]) -> None:
        """Give the retained messages for new subscriptions: at once, or a stretch per turn if they are many."""
        assert self.session is not None
        if self._retained is not None:
            self._retained.add(subscriptions)
            return
        self._retained = RetainedDelivery(self, self.session)
        self._retained.add(subscriptions)
        if self._give_retained():
            self._outlet.wake()

    def _give_retained(self) -> bool:
        """Go on giving; whether there is more for the next turn. Else room for more, or the store, wakes us."""
        retained = self._retained
        if retained is None or self.end is not None:
            return False
        if retained.step():
            self._retained = None
            return False
        router = self.router
        if router.pending.uncommitted_bytes > router.max_uncommitted_bytes and self not in router.stalled:
            router.stalled.append(self)
        return not retained.is_blocked

    # ---- messages from the client

    def _handle_publish(self, message: Message) -> int:
        """Route a PUBLISH and acknowledge it when that may be; returns how much work it was, in deliveries."""
        session = self.session
        if session is None:
            raise ProtocolError("the first packet is not a CONNECT")
        router = self.router
        if router.authorizer is not None and not self._may_publish(message.topic):
            self._deny(message)
            return 1
        qos = message.qos
        router.received[qos] += 1
        if not qos:
            return router.publish(message, session) + 1
        if qos == 2:
            return self._handle_publish_2(message, session)
        recipients = router.publish(message, session)
        if message.unsafe or self._held:
            self._hold(message)
        else:
            output = self.output
            if not output:
                router.dirty.append(self)
            output.append(PUBACKS[message.packet_id])
        return recipients + 1

    def _handle_publish_2(self, message: Message, session: Session) -> int:
        """QoS 2, method B's other half: route it at once, remember its packet id until PUBREL [4.3.3]."""
        packet_id = message.packet_id
        inbound = session.inbound
        if inbound is None:
            inbound = session.inbound = set()
        if packet_id in inbound:  # sent again: it was routed already [MQTT-4.3.3-10]
            if self._held is None or packet_id not in self._held:
                self.send(_pack_ack(_PUBREC_HEAD, packet_id))
            return 1
        if len(inbound) >= self.router.settings.receive_maximum and self.version >= const.MQTT_5:
            raise MqttError(const.RECEIVE_MAXIMUM_EXCEEDED, "more unreleased QoS 2 publishes than we allowed")
        inbound.add(packet_id)
        if session.durable:
            pending = self.router.pending
            pending.receive_id(session.session_id, packet_id)
            pending.hold(message)
        try:
            recipients = self.router.publish(message, session)
        except MqttError:
            self._forget_inbound(session, packet_id)
            raise
        if message.unsafe or self._held:
            self._hold(message)
        else:
            self.send(_pack_ack(_PUBREC_HEAD, packet_id))
        return recipients + 1

    def _hold(self, message: Message) -> None:
        """`message` is acknowledged later, after what came before it."""
        held = self._held
        if held is None:
            held = self._held = HeldAcknowledgements(self._acknowledge)
        router = self.router
        is_full = len(held) >= router.settings.receive_maximum
        if is_full and self.version >= const.MQTT_5:
            raise MqttError(const.RECEIVE_MAXIMUM_EXCEEDED, "more unacknowledged publishes than we allowed")
        held.hold(message)
        if is_full or router.pending.uncommitted_bytes > router.max_uncommitted_bytes:
            self.pause()  # a 3.1.1 client cannot know our receive maximum
            router.stalled.append(self)

    def _acknowledge(self, message: Message) -> None:
        """`message` is safe at last."""
        router = self.router
        router.counters.acknowledge_seconds.observe(router.now - message.received_at)
        if self.end is None:
            if self._denied and message in self._denied:
                self._denied.remove(message)
                self._send_denial(message)
                return
            if not self.output:
                router.dirty.append(self)
            self.output.append(
                PUBACKS[message.packet_id] if message.qos == 1 else _pack_ack(_PUBREC_HEAD, message.packet_id)
            )

    def _may_publish(self, topic: str) -> bool:
        permitted = self._permitted
        if permitted is None:
            permitted = self._permitted = {}
        answer = permitted.get(topic)
        if answer is None:
            authorizer, session = self.router.authorizer, self.session
            assert authorizer is not None
            assert session is not None
            if len(permitted) >= 1000:
                permitted.clear()
            answer = authorizer.may_publish(session.identity, session.client_id, topic)
            if len(topic) <= TopicCache.LONGEST_BYTES:
                permitted[topic] = answer
        return answer

    def _deny(self, message: Message) -> None:
        """Answer a PUBLISH that is not allowed: MQTT 5 has a code for it, 3.1.1 only silence [3.3.5]."""
        self.router.counters.denied += 1
        if not message.qos:
            return
        if self._held:  # in its turn
            self._denied = self._denied or set()
            self._denied.add(message)
            self._hold(message)
        else:
            self._send_denial(message)

    def _send_denial(self, message: Message) -> None:
        reason = const.NOT_AUTHORIZED if self.version >= const.MQTT_5 else const.SUCCESS
        kind = const.PUBACK if message.qos == 1 else const.PUBREC
        self.send(encode_ack(self.version, kind, message.packet_id, reason))

    # ---- acknowledgements from the client

    def _handle_ack(self, ack: Ack) -> None:
        session = self.session
        if session is None:
            raise ProtocolError("the first packet is not a CONNECT")
        queue = session.queue
        kind = ack.packet_type
        if (
            kind == const.PUBACK
            or kind == const.PUBCOMP
            or (kind == const.PUBREC and ack.reason_code >= 0x80)
        ):
            # One of nothing in flight is late, or the client's mistake: no harm either way.
            if queue.complete(queue.number_of(ack.packet_id)):
                self._on_completed(session)
        elif kind == const.PUBREC:
            self._handle_pubrec(session, queue.number_of(ack.packet_id), ack.packet_id)
        else:
            self._handle_pubrel(session, ack.packet_id)

    def _handle_pubacks(self, packet_id: int, count: int) -> None:
        session = self.session
        if session is None:
            raise ProtocolError("the first packet is not a CONNECT")
        if session.queue.complete_run(packet_id, count):
            self._on_completed(session)

    def _on_completed(self, session: Session) -> None:
        """The client's window has room again."""
        if session.queue.cursor < session.queue.next_number:
            session.pump()
        if self._retained is not None and self._give_retained():
            self._outlet.wake()

    def _handle_pubrec(self, session: Session, number: int, packet_id: int) -> None:
        """The client has our QoS 2 message: PUBREL follows once that is on disk [4.3.3]."""
        if not session.queue.release(number):
            self.send(
                encode_ack(self.version, const.PUBREL, packet_id, const.PACKET_IDENTIFIER_NOT_FOUND)
                if self.version >= const.MQTT_5
                else _pack_ack(_PUBREL_HEAD, packet_id)
            )
        elif session.durable:
            self.router.pending.after_commit(lambda: self.send_pubrel(number))
        else:
            self.send_pubrel(number)

    def _handle_pubrel(self, session: Session, packet_id: int) -> None:
        """The client will not send this id's message again: forget the id, once that is on disk answer."""
        inbound = session.inbound
        if inbound is None or packet_id not in inbound:
            code = const.PACKET_IDENTIFIER_NOT_FOUND if self.version >= const.MQTT_5 else const.SUCCESS
            self.send(encode_ack(self.version, const.PUBCOMP, packet_id, code))
            return
        self._forget_inbound(session, packet_id)
        answer = _pack_ack(_PUBCOMP_HEAD, packet_id)
        if session.durable:
            self.router.pending.after_commit(lambda: self.send(answer))
        else:
            self.send(answer)

    def _forget_inbound(self, session: Session, packet_id: int) -> None:
        assert session.inbound is not None
        session.inbound.remove(packet_id)
        if session.durable:
            self.router.pending.release_id(session.session_id, packet_id)

    # ---- output

    def send(self, data: bytes) -> None:
        """Put one packet into the output."""
        if self.end is None:
            if not self.output:
                self.router.dirty.append(self)
            self.output.append(data)

    def send_qos_0(self, message: Message) -> None:
        """A delivery at QoS 0; dropped and counted where the client does not keep up."""
        router = self.router
        if not self.writable:
            router.counters.drop("slow_subscriber")
            return
        frame = message.frame
        if message.version != self.version or message.expires_at is not None:
            frame = message.frame_for(self.version, router.now)
        if self.max_packet_bytes and len(frame) > self.max_packet_bytes:
            router.counters.drop("packet_too_large")  # [MQTT-3.1.2-25]
            return
        router.sent[0] += 1
        output = self.output
        if not output:
            router.dirty.append(self)
        output.append(frame)

    def send_publish(self, message: Message, number: int, dup: bool = False) -> None:
        """A delivery at QoS 1 or 2, number `number` of the session's queue."""
        router = self.router
        parts = message.parts_3 if self.version < const.MQTT_5 else message.parts_5
        if parts is not None:
            head, tail = parts
        elif message.version == self.version and message.expires_at is None:
            frame = message.frame
            at = message.packet_id_at
            head = frame[:at]
            tail = frame[at + 2 :]
        else:
            head, tail = message.parts_for(self.version, router.now)
        if self.max_packet_bytes and len(head) + len(tail) + 2 > self.max_packet_bytes:
            router.counters.drop("packet_too_large")
            assert self.session is not None
            self.session.queue.complete(number)
            return
        if dup:
            head = bytes((head[0] | const.FLAG_DUP,)) + head[1:]
        router.sent[message.qos] += 1
        output = self.output
        if not output:
            router.dirty.append(self)
        output += (head, _PACKET_IDS[number % const.MAX_PACKET_ID], tail)

    def send_pubrel(self, number: int) -> None:
        """The second half of a QoS 2 delivery."""
        self.send(_pack_ack(_PUBREL_HEAD, (number - 1) % const.MAX_PACKET_ID + 1))

    def flush(self) -> None:
        """Hand the output to the transport, in one write."""
        output = self.output
        if output:
            data = output[0] if len(output) == 1 else b"".join(output)
            output.clear()
            self._outlet.write(data)
        if self.closing:
            self._outlet.close()

    def on_writable(self, writable: bool) -> None:
        """The transport's buffer is full, or has room again."""
        self.writable = writable
        if writable and self.session is not None:
            self.session.pump()
            if self._retained is not None:
                self._outlet.wake()

    # ---- the end

    def _handle_disconnect(self, session: Session, packet: Disconnect) -> None:
        interval = packet.properties.get(const.SESSION_EXPIRY_INTERVAL)
        if interval is not None:
            if interval and not session.expiry_interval:
                raise ProtocolError("a session expiry interval where CONNECT had none")  # [3.14.2.2.2]
            session.expiry_interval = min(interval, self.router.settings.max_session_expiry_seconds)
        if packet.reason_code == const.SUCCESS:
            self.will = session.will = None  # [MQTT-3.14.4-3]: an error, or a wish for the will, leaves it
        self._finish(const.SUCCESS, "the client disconnected")

    def fail(self, reason_code: int, detail: str) -> None:
        """End this connection, telling the client why where its version has a packet for that."""
        if self.end is not None:
            return
        if self.session is None:
            if self.client_id or self._decoder.version:  # a CONNECT was there to be answered
                self.send(encode_connack(self.version, False, _CONNACK_CODES.get(reason_code, reason_code)))
            elif reason_code == const.UNSUPPORTED_PROTOCOL_VERSION:
                self.send(encode_connack(const.MQTT_3_1_1, False, reason_code))
        elif self.version >= const.MQTT_5:
            self.send(encode_disconnect(self.version, reason_code))
        self.router.counters.refuse(const.REASON_NAMES.get(reason_code, "other").replace(" ", "_"))
        self._finish(reason_code, detail)

    def take_over(self) -> None:
        """Another connection came for the same client identifier [MQTT-3.1.4-3]."""
        self.fail(const.SESSION_TAKEN_OVER, "the session was taken over by a new connection")

    def on_lost(self, detail: str) -> None:
        """The transport is gone, whoever closed it."""
        if self.end is None:
            self._finish(const.UNSPECIFIED_ERROR, detail)

    def _finish(self, reason_code: int, detail: str) -> None:
        self.end = (reason_code, detail)
        self.closing = True
        self.router.dirty.append(self)
        session, self.session = self.session, None
        if session is not None and session.claimed_by is self:
            will, self.will = self.will, None
            self.router.leave(session, will)

    def check_idle(self, now: float) -> None:
        """About once a second: end what is silent for too long [MQTT-3.1.2-22]."""
        if self.end is not None:
            return
        if self._retained is not None:
            self._outlet.wake()
        if self.session is None:
            if not self.paused and now - self.opened_at > self.router.settings.connect_timeout_seconds:
                self.router.counters.refuse("connect_timeout")
                self._finish(const.KEEP_ALIVE_TIMEOUT, "no CONNECT in time")
        elif self.keep_alive and not self.paused and now - self.last_received_at > self.keep_alive * 1.5:
            self.fail(const.KEEP_ALIVE_TIMEOUT, f"silent for more than 1.5 × {self.keep_alive} s")
