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
