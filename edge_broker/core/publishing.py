"""What a client publishes: routed at once, acknowledged when its message is safe, each in its turn.

- Acknowledgements leave in the order in which the messages came [MQTT-4.6.0-2, -3], each only when its message is safe.
- Where the store is behind, or more waits than we allow, input is paused rather than kept.
- What may not be published is answered, not routed.
"""

from __future__ import annotations

import struct
from functools import partial
from typing import TYPE_CHECKING, Final

from edge_broker.core.acknowledging import HeldAcknowledgements
from edge_broker.core.delayed import target_of
from edge_broker.core.guarding import Allowance, is_as_its_format_says
from edge_broker.core.message import Message
from edge_broker.core.output import Output
from edge_broker.core.permitting import what_is_refused
from edge_broker.core.ports import Outlet, Permissions
from edge_broker.core.session import Session
from edge_broker.core.settings import Settings
from edge_broker.errors import MessageRefused, MqttError, NotPermitted, ProtocolError, QueueFull
from edge_broker.wire import const
from edge_broker.wire.encoder import encode_ack
from edge_broker.wire.pubacks import PUBACKS
from edge_broker.wire.topics import TopicCache

if TYPE_CHECKING:
    from edge_broker.core.router import Router

_pack_ack: Final = struct.Struct(">HH").pack
_PUBREC_HEAD: Final = 0x5002
_PUBCOMP_HEAD: Final = 0x7002
_NONE_YET: Final[tuple[set[str], ...]] = (set(), set(), set())
"""Shared by all who have none, and never added to."""
_MAX_REMEMBERED: Final = 1000
_REFUSALS: Final = {
    "publish": "a topic that the client may not publish to",
    "qos": "a higher QoS than the client may publish at",
    "retain": "a message that the client may not have retained",
}


class Publishing(Output):
    """The inward half of a connection, for messages.

    `paused`: input is left alone until somebody calls `go_on` (a CONNECT being decided, the store behind). `_permitted`:
    by QoS, of the topics that the client has tried those where it may publish at that QoS, so that one look on the way of
    a message is enough; empty where each message has to be looked at, None where none has.
    """

    __slots__ = (
        "_allowance",
        "_denied",
        "_held",
        "_permitted",
        "_waiting",
        "last_received_at",
        "paused",
    )

    def __init__(self, router: Router, outlet: Outlet, address: str) -> None:
        super().__init__(router, outlet, address)
        self.paused = False
        self.last_received_at = 0.0
        self._held: HeldAcknowledgements | None = None
        self._denied: dict[Message, MessageRefused] | None = None  # of those held, the refused ones
        self._allowance: Allowance | None = None
        self._waiting: tuple[Message, float] | None = None  # for room, and until when
        self._permitted: tuple[set[str], ...] | None = _NONE_YET if router.guarded else None

    def permit(self, permissions: Permissions | None) -> None:
        """What the client may publish is asked anew, from its session's permissions, which are these now."""
        self._permitted = _NONE_YET if self.router.guarded or permissions is not None else None

    def pause(self) -> None:
        """Handle no more input until `go_on`."""
        self.paused = True

    def go_on(self) -> None:
        """Handle input again."""
        self.paused = False
        if self.end is None:
            self.last_received_at = self.router.now  # meanwhile it could say nothing that we would have heard
            self._outlet.wake()

    def _handle_publish(self, message: Message) -> int:
        """Route a PUBLISH and acknowledge it when that may be; returns how much work it was, in deliveries."""
        session = self.session
        if session is None:
            raise ProtocolError("the first packet is not a CONNECT")
        router = self.router
        qos = message.qos
        router.received[qos] += 1
        try:
            permitted = self._permitted
            if permitted is not None and (message.retain or message.topic not in permitted[qos]):
                self._check(message, session)
            if qos == 2:
                return self._handle_publish_2(message, session)
            recipients = router.publish(message, session)
        except QueueFull as refusal:
            if qos and self.version < const.MQTT_5:
                self._wait_for_room(message)
            else:
                self._refuse(message, refusal)
            return 1
        except MessageRefused as refusal:
            self._refuse(message, refusal)
            return 1
        if not qos:
            return recipients + 1
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
        settings = self.router.settings
        limit = settings.receive_maximum if self.version >= const.MQTT_5 else settings.max_inbound_qos_2
        if len(inbound) >= limit:
            raise MqttError(const.RECEIVE_MAXIMUM_EXCEEDED, "more unreleased QoS 2 publishes than we allow")
        inbound.add(packet_id)
        if session.durable:
            pending = self.router.pending
            pending.receive_id(session.session_id, packet_id)
            pending.hold(message)
        try:
            recipients = self.router.publish(message, session)
        except (MqttError, MessageRefused):
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
            router.stalled[self] = None

    def _acknowledge(self, message: Message) -> None:
        """`message` is safe at last."""
        router = self.router
        router.counters.acknowledge_seconds.observe(router.now - message.received_at)
        if self.end is None:
            if self._denied and message in self._denied:
                self._send_refusal(message, self._denied.pop(message))
                return
            if not self.output:
                router.dirty.append(self)
            self.output.append(
                PUBACKS[message.packet_id] if message.qos == 1 else _pack_ack(_PUBREC_HEAD, message.packet_id)
            )

    def renew_acknowledging(self) -> None:
        """This connection's class was exchanged: what is held calls the new one's `_acknowledge`."""
        if self._held is not None:
            self._held.call(self._acknowledge)

    def _wait_for_room(self, message: Message) -> None:
        """A full queue rejects `message` and its sender cannot be told: try again later, and read no further meanwhile."""
        self._waiting = (message, self.router.now + self.router.settings.hold_seconds)
        self.pause()

    def try_again(self, now: float) -> None:
        """About once a second: is there room for the message that waits? If not for too long, let the client go."""
        waiting = self._take_waiting()
        if waiting is None:
            return
        message, until = waiting
        self.router.received[message.qos] -= 1
        self._handle_publish(message)
        if self._take_waiting() is None:
            self.go_on()
        elif now < until:
            self._waiting = (message, until)
        else:
            raise MqttError(const.QUOTA_EXCEEDED, "a full queue rejects its message")  # it sends it anew

    def _take_waiting(self) -> tuple[Message, float] | None:
        waiting, self._waiting = self._waiting, None
        return waiting

    def _check(self, message: Message, session: Session) -> None:
        """What a PUBLISH must pass beyond its form, where configuration asks for it; raises what it is refused with."""
        if self.router.guarded:
            self._check_limits(message)
        if session.permissions is not None:
            self._require_permission(message, session, session.permissions)

    def _check_limits(self, message: Message) -> None:
        settings = self.router.settings
        if message.qos > settings.maximum_qos:
            raise MqttError(const.QOS_NOT_SUPPORTED, "a higher QoS than we offer")  # [MQTT-3.2.2-11]
        if message.retain and not settings.retain_available:
            raise MqttError(const.RETAIN_NOT_SUPPORTED, "a retained message")  # [MQTT-3.2.2-14]
        if settings.max_publishes_per_second or settings.max_publish_bytes_per_second:
            self._spend(message, settings)
        if settings.check_payload_format and not is_as_its_format_says(message):
            raise MessageRefused(const.PAYLOAD_FORMAT_INVALID, "not the UTF-8 that it says it is")

    def _spend(self, message: Message, settings: Settings) -> None:
        """Count `message` against what the client may send in this second; when that is used up, read no further."""
        allowance = self._allowance
        if allowance is None:
            allowance = self._allowance = Allowance(settings)
        if allowance.spend(len(message.frame)):
            self.router.counters.throttled += 1
            self.pause()

    def renew_allowance(self) -> None:
        """Another second has begun."""
        if self._allowance is not None and self._allowance.renew():
            self.go_on()

    def _require_permission(self, message: Message, session: Session, permissions: Permissions) -> None:
        """`NotPermitted` where the client may not publish that; what it may is remembered."""
        if message.qos == 2 and session.inbound is not None and message.packet_id in session.inbound:
            return  # sent again: it was let in when it came first, and its identifier must not be taken for free
        topic = message.topic
        right = permissions.publish_right(target_of(topic))
        refused = what_is_refused(right, message.qos, message.retain)
        if refused:
            raise NotPermitted(refused, _REFUSALS[refused])
        if len(topic) <= TopicCache.LONGEST_BYTES and not self.router.guarded:
            permitted = self._permitted
            if permitted is None or permitted is _NONE_YET or len(permitted[0]) >= _MAX_REMEMBERED:
                permitted = self._permitted = (set(), set(), set())
            for topics in permitted[: right[0] + 1]:
                topics.add(topic)

    def _refuse(self, message: Message, refusal: MessageRefused) -> None:
        """Answer a PUBLISH that is not taken: MQTT 5 has a code for it, 3.1.1 only silence [3.3.5]."""
        counters = self.router.counters
        if isinstance(refusal, NotPermitted):
            identity = "" if self.session is None else self.session.identity
            self.router.deny(self, refusal.kind, message.topic, identity)
        else:
            counters.drop(const.REASON_NAMES[refusal.reason_code].replace(" ", "_"))
        if not message.qos:
            return
        if self._held:  # in its turn
            if self._denied is None:
                self._denied = {}
            self._denied[message] = refusal
            self._hold(message)
        else:
            self._send_refusal(message, refusal)

    def _send_refusal(self, message: Message, refusal: MessageRefused) -> None:
        kind = const.PUBACK if message.qos == 1 else const.PUBREC
        if self.version < const.MQTT_5:
            self.send(encode_ack(self.version, kind, message.packet_id))
            return
        encode = partial(encode_ack, self.version, kind, message.packet_id, refusal.reason_code)
        self.send_explained(encode, refusal.detail if self.wants_reasons else "")

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
