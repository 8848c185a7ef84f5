"""Tells whoever reads a lane upstream which of its numbers will not come, because policy let them go here.

What is too old, superseded, withheld, expired, dropped from a full queue or refused for good had a number, and the ingester
would call that missing. `bridge.skip_record` keeps these numbers; here they are announced. What it keeps true:

- What was announced is let go only when the upstream has acknowledged it. It may be announced twice, which does no harm.
- One announcement is on its way at a time, under a packet identifier that no message has.
- An upstream that ends the connection whenever it gets one is not sent any more of them in this run: messages matter more.

What is lost by damage, or in a crash because it was kept in memory only, is not announced: that is missing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from bridge.answers import REFUSED_FOR_GOOD
from bridge.origin import topic_level
from bridge.skip_record import SkipRecord, encode, in_parts, stretches_of
from bridge.templates import GATEWAY
from bridge.windows import Stretch, Stretches
from edge_broker.core.client import Client
from edge_broker.wire import const

if TYPE_CHECKING:
    from bridge.config import BridgeConfig
    from bridge.forwarder import Forwarder
    from edge_broker.core.ops import Snapshot
    from edge_broker.core.router import Router

log: Final = logging.getLogger("bridge")

_MOST_RANGES: Final = 1_000
"""Of one announcement: some 20 KB. An ingester takes 10,000."""
_RANGE_BYTES: Final = 43
"""The longest range as text, with its comma."""
_HEAD_BYTES: Final = 10
"""Before topic and payload of a packet, at most."""
_GATHER_SECONDS: Final = 1.0
_SPARING_SECONDS: Final = 60.0
"""How long numbers are gathered before they are announced; and where the month's bytes are spent."""
_AGAIN_SECONDS: Final = 60.0
"""When an announcement is sent again that the upstream had no room for."""
_MOST_CUTS: Final = 3
"""Connections that may end, one after the other, while an announcement is on its way."""


def announce_skips(
    config: BridgeConfig, forwarder: Forwarder, router: Router, snapshot: Snapshot, lane: str
) -> None:
    """Have announced what `forwarder` and its queue, `lane`, let go, where numbers are sent and a topic is named."""
    if config.origin and config.skipped_topic:
        name = queue_name(lane)
        queue = router.outbox_queue(snapshot, name) if name in snapshot.outboxes else None
        topic = skipped_topic(config.skipped_topic, config.gateway)
        record = SkipRecord(forwarder.queue, queue, partial(router.new_outbox, name), router, lane)
        Skips(config.name, forwarder, record, router, lane, topic, config.puback_timeout_seconds)


def skipped_topic(template: str, gateway: str) -> str:
    """The topic of a gateway's announcements; its name is one level of it, whatever is in the name."""
    return template.replace(GATEWAY, topic_level(gateway))


def queue_name(lane: str) -> str:
    """What the store calls the queue of a lane's announcements; no bridge can be called that."""
    return f"$skipped-{lane}"


class Skips:
    """Announces what `record` has, beside the messages of `forwarder`, on `topic`.

    `announced`: numbers that the upstream acknowledged as such, `refused` those that it never will; since the start.
    `is_muted`: nothing is announced, since the upstream ends connections over it.
    """

    def __init__(
        self,
        name: str,
        forwarder: Forwarder,
        record: SkipRecord,
        router: Router,
        lane: str,
        topic: str,
        timeout_seconds: float,
    ) -> None:
        self.announced = self.refused = 0
        self.is_muted = False
        self._name = name
        self._forwarder = forwarder
        self._record = record
        self._router = router
        self._lane = lane
        self._topic = topic
        self._timeout = timeout_seconds
        self._client: Client | None = None
        self._wake: Callable[[], None]
        self._due_at = 0.0
        self._entries: list[
            int
        ] = []  # that are being announced, in these parts, the first of which goes next
        self._parts: list[list[Stretch]] = []
        self._has_more = False  # whether not all that waited is in them
        self._packet_id = 0  # of the announcement that is on its way, 0 while none is
        self._sent_at = 0.0
        self._cuts = 0
        record.owner = self
        forwarder.skips = self

    @property
    def waiting(self) -> int:
        """Entries of the record that are not announced yet."""
        return self._record.waiting

    # ---- coming and going of the connection

    def attach(self, client: Client, wake: Callable[[], None]) -> None:
        """`client` is connected. What waits goes out at the next look (`is_overdue`): the subscriptions come first."""
        self._client = client
        self._wake = wake
        self._due_at = self._router.now
        self._record.attach()

    def detach(self) -> None:
        """The connection is gone."""
        self._client = None
        self._let_go()
        self._record.detach()
        if self._packet_id:
            self._packet_id = 0
            self._cuts += 1
            if self._cuts == _MOST_CUTS:
                self._mute()

    def _let_go(self) -> None:
        self._entries, self._parts = [], []

    def _mute(self) -> None:
        self.is_muted = True
        log.error(
            "bridge %s: %d connections in a row ended while an announcement to %s was on its way, so none is sent any more "
            "before the next start (let the upstream allow that topic, or set skipped_topic to another one or to nothing)",
            self._name,
            _MOST_CUTS,
            self._topic,
        )

    # ---- sending

    def pump(self) -> None:
        """As the owner of the record's queue: a page has come, or a commit."""
        self._send_due()

    def is_overdue(self, now: float, sending: bool) -> bool:
        """About once a second: send what is due; whether the upstream has left one unanswered for too long.

        `sending`: earlier output is still on its way out, so an answer cannot be expected yet.
        """
        if not self._packet_id:
            self._send_due()
        elif sending:
            self._sent_at = now
        return self._packet_id > 0 and now - self._sent_at > self._timeout

    def _send_due(self) -> None:
        client = self._client
        if client is None or self._packet_id or self.is_muted or not client.maximum_qos:
            return
        if not self._forwarder.may_announce:
            return
        if not client.writable or client.awaits_suback:  # its identifier may be the one that is free
            return
        if not self._parts and self.waiting and self._router.now >= self._due_at:
            self._take_entries(client)
            self._wake()  # the store may have been asked
        while self._parts and not self._packet_id:
            self._send(client)

    def _take_entries(self, client: Client) -> None:
        """What is to be announced now."""
        self._record.write()
        queue, stretches = self._record.queue, Stretches()
        while queue is not None and len(stretches) < _MOST_RANGES:
            due = queue.next_to_send(self._router.now)
            if due is None or due[1] is None:
                break
            self._entries.append(due[0])
            for start, end in stretches_of(due[1]):
                stretches.add(start, end)
        most = _MOST_RANGES
        if client.max_packet_bytes:
            room = client.max_packet_bytes - len(self._topic.encode()) - len(self._payload([])) - _HEAD_BYTES
            most = max(1, min(most, room // _RANGE_BYTES))
        self._parts = list(in_parts(stretches, most))
        self._has_more = len(stretches) >= _MOST_RANGES
        if not self._parts:
            self._finish_entries()  # nothing readable in them

    def _payload(self, part: list[Stretch]) -> bytes:
        ranges = [(start, end - 1) for start, end in part]
        return encode(self._lane, self._router.pending.epoch, ranges)

    def _send(self, client: Client) -> None:
        """Under a new identifier each time: of QoS 1 the upstream keeps nothing, and a repetition does no harm."""
        topic = self._topic.encode()
        payload = self._payload(self._parts[0])
        rest = b"\0" + payload if client.version >= const.MQTT_5 else payload
        packet_id = self._forwarder.free_packet_id
        if client.send_publish(len(topic).to_bytes(2, "big") + topic, rest, 1, False, False, packet_id):
            self._packet_id, self._sent_at = packet_id, self._router.now
        else:
            self._give_up(const.PACKET_TOO_LARGE)

    # ---- what the upstream answers

    def on_puback(self, packet_id: int, reason_code: int) -> None:
        """An acknowledgement that is no message's."""
        if not self._packet_id or packet_id != self._packet_id:
            return
        self._packet_id = self._cuts = 0
        if reason_code in REFUSED_FOR_GOOD:
            self._give_up(reason_code)
        elif reason_code >= 0x80:
            self._let_go()
            self._record.attach()  # from the oldest on, as at the beginning
            self._due_at = self._router.now + _AGAIN_SECONDS
        else:
            self.announced += _count(self._parts.pop(0))
            self._end_part()
        self._send_due()

    def _give_up(self, reason_code: int) -> None:
        """The first part will never be taken upstream: count it, and go on without it."""
        if not self.refused:
            log.error(
                "bridge %s: the upstream does not take the announcement of skipped numbers on %s: %s; an ingester "
                "will call them missing (let the upstream allow it, or set skipped_topic; further ones are counted)",
                self._name,
                self._topic,
                const.REASON_NAMES[reason_code],
            )
        self.refused += _count(self._parts.pop(0))
        self._end_part()

    def _end_part(self) -> None:
        """One part is done with; after the last one more may be gathered first."""
        if not self._parts:
            self._finish_entries()
            if not self._has_more:
                seconds = _SPARING_SECONDS if self._forwarder.withholds else _GATHER_SECONDS
                self._due_at = self._router.now + seconds

    def _finish_entries(self) -> None:
        entries, self._entries = self._entries, []
        for number in entries:
            self._record.complete(number)


def _count(stretches: list[Stretch]) -> int:
    return sum(end - start for start, end in stretches)
