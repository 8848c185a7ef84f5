"""Delayed messages through commits and crashes in any order: what was acknowledged arrives, at QoS 2 once, none early."""

from __future__ import annotations

import random

import pytest

from edge_broker.core import delayed
from edge_broker.wire import const
from edge_broker.wire.packets import Ack, Connack
from tests.pump.pump import Pump, TestClient


class Walk:
    """One broker with a durable subscriber that is away, and a publisher that gives each message its own payload."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.pump = Pump(page_messages=3, max_queue_bytes=1 << 20)
        self.pump.client("s", clean=False, expiry=const.NEVER_EXPIRES).subscribed("t", 2).vanish()
        self.pump.commit()
        self.serial = 0
        self.qos: dict[bytes, int] = {}
        self.due_at: dict[bytes, float] = {}
        self.safe: set[bytes] = set()
        self._connect()

    def _connect(self) -> None:
        self.publisher = self.pump.client("p")
        self.sent: dict[int, bytes] = {}

    def publish(self) -> None:
        self.serial += 1
        payload, seconds, qos = (
            b"%d" % self.serial,
            self.dice.choice((0, 1, 1, 2, 5, 40)),
            self.dice.choice((1, 2)),
        )
        self.qos[payload], self.due_at[payload] = qos, self.pump.now + seconds
        packet_id = self.serial % 60_000 + 1
        self.sent[packet_id] = payload
        self.publisher.publish(f"$delayed/{seconds}/t", payload, qos, packet_id)

    def note_acknowledged(self) -> None:
        for packet in self.publisher.inbox:
            assert isinstance(packet, Ack)
            if packet.packet_type in (const.PUBACK, const.PUBREC):
                self.safe.add(self.sent[packet.packet_id])
        self.publisher.inbox.clear()

    def crash(self) -> None:
        if self.pump.sealed and self.dice.random() < 0.5:  # on the disk, and nobody heard of it
            self.pump.store.apply(self.pump.sealed[0].batch)
        self.pump.crash()
        self._connect()

    def settle(self) -> None:
        if self.pump.sealed:
            self.pump.settle()

    def step(self) -> None:
        act = self.dice.choices(
            (
                self.publish,
                lambda: self.pump.wait(self.dice.choice((0.3, 1.0, 3.0))),
                lambda: self.pump.pending.empty or self.pump.seal(),
                self.settle,
                self.pump.answer_reads,
                self.pump.commit,
                self.crash,
            ),
            (6, 2, 2, 2, 2, 0.7, 0.3),
        )[0]
        act()
        self.note_acknowledged()

    def arrived(self) -> list[bytes]:
        """Everything, once nothing waits any more."""
        for _ in range(60):
            self.pump.commit()
            self.pump.wait(1)
        self.pump.commit()
        self.note_acknowledged()
        subscriber = TestClient(self.pump)
        subscriber.connect("s", clean=False, expiry=const.NEVER_EXPIRES)
        self.pump.commit()
        subscriber.take(Connack)
        payloads = []
        while subscriber.inbox:
            message = subscriber.inbox.pop(0)
            payloads.append(message.payload)  # type: ignore[union-attr]
            subscriber.ack(
                const.PUBACK if message.qos == 1 else const.PUBREC,  # type: ignore[union-attr]
                message.packet_id,  # type: ignore[union-attr]
            )
            self.pump.commit()
            subscriber.inbox = [packet for packet in subscriber.inbox if not isinstance(packet, Ack)]
        return payloads


@pytest.mark.parametrize("seed", range(40))
def test_walks(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delayed, "_GAPS", 4)
    walk = Walk(seed)
    for _ in range(250):
        walk.step()
    arrived = walk.arrived()
    assert walk.safe <= set(arrived), "acknowledged and lost"
    assert len(arrived) == len(set(arrived)), "delivered twice"
    waiting = walk.pump.router.delayed
    assert (len(waiting), waiting.size_bytes) == (0, 0)
    assert walk.pump.pending.uncommitted_bytes == 0


@pytest.mark.parametrize("seed", range(10))
def test_none_is_early(seed: int) -> None:
    walk = Walk(seed)
    watcher = walk.pump.client("w").subscribed("t")
    for _ in range(150):
        if walk.dice.random() < 0.4:
            walk.publish()
        else:
            walk.pump.wait(walk.dice.choice((0.3, 1.0, 3.0)))
        walk.pump.commit()
        for payload in watcher.take_payloads():
            assert 0 <= walk.pump.now - walk.due_at[payload] < 4
