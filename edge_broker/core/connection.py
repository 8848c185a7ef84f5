"""One client's network connection as the broker sees it: bytes in, packets handled, bytes out.

It takes the input apart and hands each packet to whom it concerns: PUBLISH to ``publishing``, CONNECT to ``handshake``,
SUBSCRIBE and UNSUBSCRIBE to ``subscribing``; the client's acknowledgements, pings and goodbyes it handles itself. What
goes out is in ``output``. It keeps these promises:

- One piece of bad input ends this connection with the reason code that fits, and nothing else.
- `receive` works within a budget and says when input is left, so that a flood waits for its next turn.

It never blocks, logs or looks at a clock.
"""

from __future__ import annotations

import struct
from functools import partial
from typing import TYPE_CHECKING, Final

from edge_broker.core.authenticating import Authentication
from edge_broker.core.handshake import handle_connect
from edge_broker.core.message import Message
from edge_broker.core.ports import Outlet
from edge_broker.core.publishing import Publishing
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
from edge_broker.wire.packets import Ack, Auth, Connect, Disconnect, Packet, Ping, Subscribe, Unsubscribe
from edge_broker.wire.properties import Properties
from edge_broker.wire.reasons import check_reason_code

if TYPE_CHECKING:
    from edge_broker.core.router import Router
    from edge_broker.core.session import Session, Subscription

_pack_ack: Final = struct.Struct(">HH").pack
_PUBREL_HEAD: Final = 0x6202

_CONNACK_CODES: Final = {
    const.MAXIMUM_CONNECT_TIME: const.NOT_AUTHORIZED,
    const.SERVER_SHUTTING_DOWN: const.SERVER_UNAVAILABLE,
    const.SESSION_TAKEN_OVER: const.UNSPECIFIED_ERROR,
}
"""DISCONNECT's reason codes that CONNACK does not have, and what stands for them there [3.2.2.2]."""
_DISCONNECT_CODES: Final = {
    const.BANNED: const.NOT_AUTHORIZED,
    const.BAD_USER_NAME_OR_PASSWORD: const.NOT_AUTHORIZED,
}
"""And the other way round [3.14.2.1]."""


SIGN_OF_LIFE_BYTES: Final = 500
"""What counts for keep alive is packets [MQTT-3.1.2-22]; but a large one may take its time, as long as it moves on."""


class Connection(Publishing):
    """The server's end of one connection. `session` is set from an accepted CONNECT on.

    `authenticated_by`: how the client proved who it is, in a word, once it is admitted.
    """

    __slots__ = (
        "_decoder",
        "_retained",
        "authenticated_by",
        "authentication",
        "certificate_names",
        "expires_at",
        "keep_alive",
        "listener",
        "opened_at",
        "proof",
        "send_window",
        "will",
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
        super().__init__(router, outlet, address)
        self.listener = listener
        self.certificate_names = certificate_names
        self.opened_at = self.last_received_at = now
        self.keep_alive = 0
        self.send_window = settings.send_window
        self.will: Message | None = None
        self.authenticated_by = ""
        self.authentication: Authentication | None = None  # where CONNECT named a method
        self.expires_at: float | None = None  # when what it authenticated with does; see `Admission`
        self.proof = ""  # likewise
        self._decoder = Decoder(
            router.topics,
            min(settings.max_packet_bytes, settings.max_connect_bytes),
            topic_alias_maximum=settings.topic_alias_maximum,
            publish_type=Message,
            max_user_properties=settings.max_user_properties,
        )
        self._retained: RetainedDelivery | None = None  # while it is owed any

    # ---- input

    def receive(self, data: bytes, now: float) -> bool:
        """Take `data` from the socket and handle what is whole in it; True if input is left for another turn."""
        self.router.now = now
        if not self.paused and self.end is None:
            packet = self._decoder.take_whole(data)
            if packet is not None:
                self.last_received_at = now
                try:
                    if type(packet) is Message:
                        self._handle_publish(packet)
                    elif type(packet) is tuple:
                        session = self.session
                        if session is None:
                            raise ProtocolError("the first packet is not a CONNECT")
                        queue = session.queue
                        packet_id, count = packet
                        if queue.complete_run(packet_id, count) and (
                            queue.cursor < queue.next_number or self._retained is not None
                        ):
                            self._on_completed(session)
                except MqttError as error:
                    self.fail(error.reason_code, error.detail)
                return False
        self._decoder.feed(data)
        if len(data) >= SIGN_OF_LIFE_BYTES:
            self.last_received_at = now
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
                    if self.session is None and decoder.waiting_for not in (-1, const.CONNECT << 4):
                        raise ProtocolError(
                            "the first packet is not a CONNECT"
                        )  # no need to wait for all of it
                    return False
                if type(packet) is Message:
                    deliveries += self._handle_publish(packet)
                elif type(packet) is Ack:
                    self._handle_ack(packet)
                else:
                    self._handle(packet)
                if not decoder.more:
                    self.last_received_at = self.router.now
                    return False
                settings = self.router.settings
                if not stop_at:
                    self.last_received_at = self.router.now
                    stop_at = decoder.at + settings.work_budget_bytes
                elif decoder.at >= stop_at or deliveries >= settings.work_budget_deliveries:
                    return not self.paused and self.end is None
        except MqttError as error:
            self.fail(error.reason_code, error.detail)
        return False

    def encryption(self) -> tuple[str, str] | None:
        """TLS version and cipher of its transport; None where nothing is encrypted."""
        return self._outlet.encryption()

    @property
    def buffered_bytes(self) -> int:
        """Input that was taken and not handled."""
        return self._decoder.buffered_bytes

    def _handle(self, packet: Packet) -> None:
        """Everything but PUBLISH and acknowledgements."""
        if isinstance(packet, Connect):
            if self.client_id or self.session is not None:
                raise ProtocolError("a second CONNECT")  # [MQTT-3.1.0-2]
            self.version = packet.version
            self._decoder.max_packet_bytes = self.router.settings.max_packet_bytes
            handle_connect(self, packet)
        elif isinstance(packet, Auth):
            check_reason_code(const.AUTH, packet.reason_code)
            if self.authentication is None:
                raise ProtocolError("AUTH without an authentication method in CONNECT")  # [MQTT-4.12.0-6]
            self.authentication.handle_auth(packet)
        elif self.session is None:
            if isinstance(packet, Disconnect) and self.authentication is not None:
                self._finish(const.SUCCESS, "the client gave up its authentication")
                return
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
        if router.pending.uncommitted_bytes > router.max_uncommitted_bytes:
            router.stalled[self] = None
        return not retained.is_blocked

    # ---- acknowledgements from the client

    def _handle_ack(self, ack: Ack) -> None:
        session = self.session
        if session is None:
            raise ProtocolError("the first packet is not a CONNECT")
        queue = session.queue
        kind = ack.packet_type
        if ack.reason_code:
            check_reason_code(kind, ack.reason_code)
        if (
            kind == const.PUBACK
            or kind == const.PUBCOMP
            or (kind == const.PUBREC and ack.reason_code >= 0x80)
        ):
            # One of nothing in flight is late, or the client's mistake: no harm either way.
            if queue.complete(queue.number_of(ack.packet_id)):
                if ack.reason_code >= const.UNSPECIFIED_ERROR:
                    self.router.counters.drop("subscriber_refused")  # and nobody else gets it [MQTT-4.8.2-6]
                self._on_completed(session)
        elif kind == const.PUBREC:
            self._handle_pubrec(session, queue.number_of(ack.packet_id), ack.packet_id)
        else:
            self._handle_pubrel(session, ack.packet_id)

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

    def on_writable(self, writable: bool) -> None:
        """The transport's buffer is full, or has room again."""
        self.writable = writable
        if writable and self.session is not None:
            self.session.pump()
            if self._retained is not None:
                self._outlet.wake()

    # ---- the end

    def _handle_disconnect(self, session: Session, packet: Disconnect) -> None:
        check_reason_code(const.DISCONNECT, packet.reason_code)
        interval = packet.properties.get(const.SESSION_EXPIRY_INTERVAL)
        if interval is not None:
            if interval and not session.expiry_interval:
                raise ProtocolError("a session expiry interval where CONNECT had none")  # [3.14.2.2.2]
            session.expiry_interval = min(interval, self.router.settings.max_session_expiry_seconds)
        if packet.reason_code == const.SUCCESS:
            self.will = session.will = None  # [MQTT-3.14.4-3]: an error, or a wish for the will, leaves it
        self._finish(const.SUCCESS, "the client disconnected")

    def fail(self, reason_code: int, detail: str, tell: bool = True, server_reference: str = "") -> None:
        """End this connection, telling the client why where its version has a packet for that.

        `detail` is for the log, and where `tell` is set for the client too. `server_reference`: where to go instead.
        """
        if self.end is not None:
            return
        properties: Properties = {const.SERVER_REFERENCE: server_reference} if server_reference else {}
        if self.session is None:
            code = _CONNACK_CODES.get(reason_code, reason_code)
            version = self.version or self._decoder.version
            if (
                self.version or version >= const.MQTT_5
            ):  # a CONNECT was there to be answered; 3.1.1 wants it sound
                encode = partial(encode_connack, version, False, code)
                self.send_explained(encode, detail if tell else "", properties)
            elif reason_code == const.UNSUPPORTED_PROTOCOL_VERSION:
                self.send(encode_connack(const.MQTT_3_1_1, False, reason_code))
        elif self.version >= const.MQTT_5:
            encode = partial(encode_disconnect, self.version, _DISCONNECT_CODES.get(reason_code, reason_code))
            self.send_explained(encode, detail if tell else "", properties)
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
        self.router.stalled.pop(self, None)
        session, self.session = self.session, None
        if self.router.observer is not None:
            self.router.observer.on_end(self, session)
        if session is not None and session.claimed_by is self:
            will, self.will = self.will, None
            self.router.leave(session, will)

    def check_idle(self, now: float) -> None:
        """About once a second: end what is silent for too long [MQTT-3.1.2-22] or whose proof expired, let go on what was
        too fast.
        """
        if self.end is not None:
            return
        if self.expires_at is not None and now >= self.expires_at:
            self.fail(const.MAXIMUM_CONNECT_TIME, "what it authenticated with has expired")
            return
        self.renew_allowance()
        try:
            self.try_again(now)
        except MqttError as error:
            self.fail(error.reason_code, error.detail)
            return
        if self._retained is not None:
            self._outlet.wake()
        if self.session is None:
            if not self.paused and now - self.opened_at > self.router.settings.connect_timeout_seconds:
                self.router.counters.refuse("connect_timeout")
                self._finish(const.KEEP_ALIVE_TIMEOUT, "no CONNECT in time")
        elif self.keep_alive and not self.paused and now - self.last_received_at > self.keep_alive * 1.5:
            self.fail(const.KEEP_ALIVE_TIMEOUT, f"silent for more than 1.5 × {self.keep_alive} s")
