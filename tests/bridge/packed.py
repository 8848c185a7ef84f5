"""A bridge in memory whose messages go in envelopes, and what an ingester makes of the packets that it sends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bridge.config import BridgeConfig, RuleConfig
from bridge.envelope import Enclosed, Envelope, EnvelopeReader
from bridge.envelopes_config import EnvelopesConfig
from bridge.enveloping import pack_lanes
from bridge.ingest.lease import LeaseWriter
from bridge.lease import Lease
from bridge.lease_watch import LeaseWatch
from bridge.origin import OriginWriter, find_origin
from bridge.priorities import HIGH, LOW, NORMAL
from bridge.stamps import Stamp
from bridge.way_up import WayUp
from edge_broker.core.message import Message
from edge_broker.core.ops import QueueState
from edge_broker.core.queue import Queue
from edge_broker.core.stored_queue import StoredQueue
from edge_broker.wire import const
from tests.bridge.memory import Bridged

TOPIC = "edge/gw/envelopes"
LANES = {NORMAL: "cloud-1", HIGH: "cloud!high-1", LOW: "cloud!low-1"}
"""What they are called upstream."""
Seen = tuple[int, int]
"""Epoch and number."""


class Packed(Bridged):
    """Like `Bridged`; `lease` None: only what goes by itself."""

    def __init__(self, out: Sequence[RuleConfig], *, has_lease: bool = True, **settings: Any) -> None:
        names = ("max_messages", "max_bytes", "delay_ms")
        config = EnvelopesConfig(
            enabled=has_lease, **{name: settings.pop(name) for name in names if name in settings}
        )
        super().__init__(out, **settings)
        self.on_disk = QueueState(self.queue.queue_id, 1, 1, [], [], 0)
        self.refusals: list[str] = []
        self.lease = Lease() if has_lease else None
        watch = None if self.lease is None else LeaseWatch("cloud", config.lease_topic, self.lease)
        for priority, forwarder in self.forwarders.items():
            forwarder.stamp = Stamp(OriginWriter("gw", LANES[priority]), None, 1)
        way = WayUp(self.queues, self.forwarders, LANES, self.forwarder, True, True)
        bridge = BridgeConfig(urls=("mqtt://h",), gateway="gw", envelopes=config)
        pack_lanes(bridge, way, 1, watch, self.refusals.append)
        packing = self.forwarders[NORMAL].envelopes
        assert packing is not None
        self.packing = packing

    def commit(self) -> None:
        """Everything up to now is on disk; `on_disk` is what a start would find of the queue."""
        super().commit()
        before = self.on_disk
        for write in self.last_batch.queues:
            if write.queue_id == self.queue.queue_id:
                ends = [number + 1 for number, _ in write.messages]
                self.on_disk = QueueState(
                    write.queue_id,
                    write.head,
                    max([before.next_number, write.head, *ends]),
                    write.acknowledged,
                    write.released,
                    len(self.stored),
                )

    def restart_from(self, before: Packed) -> None:
        """Be the next run of `before`, which was killed."""
        self.router.now = before.router.now
        self.pending.epoch = before.pending.epoch + 1
        self.stored, self.on_disk = before.stored, before.on_disk
        self.stored_of[self.queue.queue_id] = self.stored
        restored = Queue.restore(before.on_disk, self.pending)
        for name in StoredQueue.__slots__:
            if name not in ("burials", "owner", "queue_id"):
                setattr(self.queue, name, getattr(restored, name))
        self.packing.plain_below = self.queue.sent_before

    def connect_with_lease(self, version: int = const.MQTT_5, **more: Any) -> None:
        """The upstream accepts a connection, and an ingester is there."""
        if self.lease is not None:
            self.lease.forget()
        self.connect(version, **more)
        self.announce()

    def announce(self, valid_seconds: int = 3600) -> None:
        """The ingester says that it is there."""
        assert self.lease is not None
        payload = LeaseWriter("t", "in", valid_seconds, ()).announcement(const.MQTT_3_1_1, 0.0)
        self.lease.on_announcement(payload, False, None, self.router.now, 0.0)

    def withdraw(self) -> None:
        """It says that it is not."""
        assert self.lease is not None
        self.lease.on_announcement(b"", False, None, self.router.now, 0.0)

    def later(self, seconds: float) -> None:
        """Time passes."""
        self.router.now += seconds


def opened(message: Message) -> Envelope:
    """What is in an envelope."""
    assert message.topic == TOPIC
    assert (message.qos, message.retain) == (1, False)
    return EnvelopeReader().open(message.payload)


def enclosed(messages: Sequence[Message]) -> list[list[Enclosed]]:
    """What is in each of them."""
    return [list(opened(message).messages) for message in messages]


def contents(message: Message) -> list[tuple[Seen, bytes]]:
    """Each message in a packet, as an ingester knows it."""
    if message.topic == TOPIC:
        envelope = opened(message)
        assert (envelope.gateway, envelope.lane) == ("gw", "cloud-1")
        return [((envelope.epoch, one.sequence), one.payload) for one in envelope.messages]
    origin = find_origin(message.properties.get(const.USER_PROPERTY, ()))
    assert origin is not None
    return [((origin.epoch, origin.sequence), message.payload)]
