"""Who a client is, and what goes out to it: deliveries and answers, gathered in a turn, handed over at its end.

It knows the forms that a packet takes for this client: its version, its maximum packet size, its topic aliases. What
does not fit is counted. It never blocks, logs or looks at a clock.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from edge_broker.core.aliases import TopicAliases
from edge_broker.core.message import Message
from edge_broker.core.ports import Outlet
from edge_broker.wire import const
from edge_broker.wire.packets import NO_PROPERTIES
from edge_broker.wire.properties import Properties
from edge_broker.wire.pubacks import PUBACKS

if TYPE_CHECKING:
    from edge_broker.core.router import Router
    from edge_broker.core.session import Session

_PACKET_IDS: Final = [puback[2:] for puback in (PUBACKS[-1], *PUBACKS[1:-1])]
"""The packet identifier of each queue number modulo `MAX_PACKET_ID`, as bytes."""


class Output:
    """The outward half of a connection.

    `writable`: the transport takes more; while not, QoS 0 is dropped and the rest waits in the queue.
    `end`: why the connection ended, as (reason code, detail), for the log; None while it stands.
    `max_packet_bytes`: the client's own limit, 0 = none. `aliases`: None where the client takes none.
    `wants_reasons`: what went wrong may be told in words too [MQTT-3.1.2-29].
    `write_out`: where a turn's output goes, the outlet's `write` or, as long as nothing speaks against it, what is below.
    """

    __slots__ = (
        "_outlet",
        "address",
        "aliases",
        "client_id",
        "closing",
        "end",
        "max_packet_bytes",
        "output",
        "router",
        "session",
        "version",
        "wants_reasons",
        "writable",
        "write_out",
    )

    def __init__(self, router: Router, outlet: Outlet, address: str) -> None:
        self.router = router
        self.address = address
        self.client_id = ""
        self.session: Session | None = None
        self.version = 0  # before CONNECT
        self.max_packet_bytes = 0
        self.wants_reasons = True
        self.aliases: TopicAliases | None = None
        self.output: list[bytes] = []
        self.writable = True
        self.closing = False
        self.end: tuple[int, str] | None = None
        self._outlet = outlet
        self.write_out = outlet.write

    def on_lost(self, detail: str) -> None:
        """The transport is gone, whoever closed it: `Connection` knows what ends with it."""
        raise NotImplementedError

    def send(self, data: bytes) -> None:
        """Put one packet into the output; one larger than the client takes is discarded [MQTT-3.1.2-24, -25]."""
        if not self.fits(data):
            self.router.counters.drop("packet_too_large")
        elif self.end is None:
            if not self.output:
                self.router.dirty.append(self)
            self.output.append(data)

    def fits(self, data: bytes) -> bool:
        """Whether the client takes a packet of that size."""
        return not self.max_packet_bytes or len(data) <= self.max_packet_bytes

    def send_explained(
        self, encode: Callable[[Properties], bytes], reason: str, properties: Properties = NO_PROPERTIES
    ) -> None:
        """Send what `encode` makes of properties, with a reason string where there is one and it fits."""
        packet = encode(properties | {const.REASON_STRING: reason} if reason else properties)
        self.send(packet if self.fits(packet) else encode(properties))

    def send_qos_0(self, message: Message) -> None:
        """A delivery at QoS 0; dropped and counted where the client does not keep up."""
        router = self.router
        if not self.writable:
            router.counters.drop("slow_subscriber")
            return
        frame = message.frame
        if self.aliases is not None:
            frame = self._aliased(message, self.aliases)[0]
        elif message.version != self.version or message.expires_at is not None:
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
        if self.aliases is not None:
            frame, at = self._aliased(message, self.aliases)
            head, tail = frame[:at], frame[at + 2 :]
        elif parts is not None:
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

    def _aliased(self, message: Message, aliases: TopicAliases) -> tuple[bytes, int]:
        """The packet with an alias where the topic has one: (whole packet, offset of the packet identifier)."""
        chosen = aliases.take(message.topic)
        if chosen is None:
            return message.encode(self.version, self.router.now)
        alias, is_known = chosen
        frame, at = message.encode(self.version, self.router.now, alias, is_known)
        if not is_known and self.max_packet_bytes and len(frame) > self.max_packet_bytes:
            aliases.give_back(message.topic)  # it may fit without
            return message.encode(self.version, self.router.now)
        return frame, at

    def send_pubrel(self, number: int) -> None:
        """The second half of a QoS 2 delivery."""
        self.send(b"\x62\x02" + _PACKET_IDS[number % const.MAX_PACKET_ID])

    def flush(self) -> None:
        """Hand the output to the transport, in one write."""
        output = self.output
        if output:
            if len(output) == 1:
                self.write_out(output.pop())
            else:
                data = b"".join(output)
                output.clear()
                self.write_out(data)
        if self.closing:
            self._outlet.close()
