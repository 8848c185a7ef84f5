"""Messages as a PUBLISH each: what is queued, and what goes at QoS 0 at once.

The forwarder's third floor: it sends the message that it is given.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from bridge.clearance import Clearance
from bridge.forms import rest_for
from bridge.mapping import OutMapping, RemoteTopic
from bridge.packet_ids import PacketIds
from bridge.policy_config import PacingConfig
from bridge.stamps import Stamp
from edge_broker.core.client import Client
from edge_broker.core.message import Message
from edge_broker.core.queue import Queue
from edge_broker.wire import const

if TYPE_CHECKING:
    from edge_broker.core.router import Router


class PlainSending(Clearance):
    """`resent`: messages since the start; `sent`: by QoS. `stamp`: what it writes into messages towards MQTT 5."""

    def __init__(
        self,
        queue: Queue,
        mapping: OutMapping,
        router: Router,
        puback_timeout_seconds: float,
        on_given_up: Callable[[str, str], None],
        packet_ids: PacketIds,
        pacing: PacingConfig,
    ) -> None:
        super().__init__(queue, mapping, router, puback_timeout_seconds, on_given_up, packet_ids, pacing)
        self.resent = 0
        self.sent = [0, 0, 0]
        self.stamp: Stamp | None = None
        self._stamp: Stamp | None = None  # on this connection
        self._window = 0  # packets that may be unacknowledged; 0 while nothing may be sent
        self._sent_below = 0  # numbers below it were sent in this run; of an earlier run nobody knows

    def _send_plain(self, client: Client, number: int, message: Message, remote: RemoteTopic) -> bool:
        """`message` goes by itself; False where the upstream takes none as large."""
        qos = message.qos
        stamp, now = self._stamp, self._router.now
        fits = client.send_publish(
            remote.encoded,
            rest_for(message, client.version, now) if stamp is None else stamp.rest(message, number, now),
            qos if qos <= client.maximum_qos else client.maximum_qos,
            message.retain and client.retain_available,
            number < self.queue.sent_before,
            self.packet_ids.of(number),
        )
        if not fits:
            self._give_up(number, "packet_too_large", message.topic)
            return False
        if self._is_paced:
            self._pace_of(number).take(len(message.frame), self._router.now)
        self.sent[qos] += 1
        if not self._timed:
            self._timed, self._timed_at = number, self._router.now
        if number < self._sent_below:
            self.resent += 1
        if self.tracer is not None:
            self.tracer.on_sent(message, number, remote.topic, now)
        return True

    def _release(self, client: Client, number: int) -> None:
        """PUBREC came for `number` on an earlier connection."""
        if client.session_present:
            client.send_ack(const.PUBREL, self.packet_ids.of(number))
        else:  # the upstream has it, and forgot the identifier: there is nothing to release
            self._complete(number)

    def send_live(self, message: Message, remote: RemoteTopic) -> str:
        """Send `message` at QoS 0 now; the reason where that cannot be, empty if it is done."""
        client = self._client
        if client is None:
            return "offline"
        if not client.writable:
            return "slow_upstream"
        if self.withholds and self._is_withheld(remote):
            return "allowance"
        if self._live.wait_seconds(len(message.frame), self._router.now):
            return "paced"
        retain = message.retain and client.retain_available
        stamp, now = self._stamp, self._router.now
        rest = rest_for(message, client.version, now) if stamp is None else stamp.rest(message, 0, now)
        if not client.send_publish(remote.encoded, rest, 0, retain, False, 0):
            return "packet_too_large"
        self._live.take(len(message.frame), self._router.now)
        self.sent[0] += 1
        if self.tracer is not None:
            self.tracer.on_sent(message, 0, remote.topic, now)
        return ""
