"""Promise 1 under fire: a message acknowledged to its publisher reaches a durable session, crash or no crash.

`Keeper` is a writer that is connected and a reader that mostly is not. What the writer has a PUBACK for must come when
the reader does, in order and before anything later; what was never acknowledged may come too.
"""

from __future__ import annotations

from typing import Final

from edge_broker.wire import const
from edge_broker.wire.packets import Ack, Connack, Publish
from tests.pump.pump import Pump, TestClient

TOPIC: Final = "kept-2b9e41/words"
READER: Final = "kept-reader-2b9e41"
WRITER: Final = "kept-writer-2b9e41"
SESSION_SECONDS: Final = 3600
VISIT_SECONDS: Final = 1000
"""The reader does not stay away so long that its session ends."""
MOST_UNACKNOWLEDGED: Final = 2
"""Less than the lowest receive maximum of any script."""


class Keeper:
    """`acknowledged` are the words that the reader has yet to get; `written` those that the writer has no PUBACK for."""

    def __init__(self, pump: Pump) -> None:
        self._pump = pump
        self._sequence = 0
        self._acknowledged: list[int] = []
        self._written: list[int] = []
        self._visited_at = pump.now
        self._reader = pump.client(READER, clean=False, expiry=SESSION_SECONDS, username=READER)
        self._reader.subscribed(TOPIC, 1).vanish()
        pump.commit()
        self.writer = pump.client(WRITER, username=WRITER)
        self.publishes = 0
        """PUBLISH packets that the reader got from this broker process."""

    def write(self) -> None:
        """One word more, unless too many wait for their PUBACK."""
        self._read_acks()
        if len(self._written) < MOST_UNACKNOWLEDGED:
            self._sequence += 1
            self._written.append(self._sequence)
            self.writer.publish(TOPIC, b"%d" % self._sequence, 1, self._sequence % 60_000 + 1)

    def _read_acks(self) -> None:
        packets, self.writer.inbox = self.writer.inbox, []
        for packet in packets:
            assert isinstance(packet, Ack)
            word = self._written.pop(0)
            assert (packet.packet_type, packet.packet_id) == (const.PUBACK, word % 60_000 + 1)
            self._acknowledged.append(word)

    def on_crash(self) -> None:
        """The process is about to end; an answer that is with the client counts."""
        self._read_acks()

    def come_back(self) -> None:
        """After the crash: the writer connects anew, the reader looks at once."""
        self._written.clear()
        self.publishes = 0
        self.writer = self._pump.client(WRITER, username=WRITER)
        self.visit()

    def visit_if_due(self) -> None:
        if self._pump.now - self._visited_at > VISIT_SECONDS:
            self.visit()

    def visit(self) -> None:
        """The reader comes, takes all there is, and goes."""
        pump = self._pump
        pump.commit()
        self._read_acks()
        reader = self._reader = TestClient(pump)
        reader.connect(READER, clean=False, expiry=SESSION_SECONDS, username=READER)
        pump.commit()
        connack = reader.take(Connack)
        assert (connack.reason_code, connack.session_present) == (const.SUCCESS, True)
        words = []
        while reader.inbox:
            publish = reader.take(Publish)
            self.publishes += 1
            words.append(int(publish.payload))
            reader.ack(const.PUBACK, publish.packet_id)
            pump.commit()
        pump.commit()
        assert words == sorted(set(words)), f"out of order, or twice: {words}"
        lost = set(self._acknowledged) - set(words)
        assert not lost, f"acknowledged and lost: {sorted(lost)}"
        self._acknowledged.clear()
        self._visited_at = pump.now
        reader.vanish()
        pump.commit()
