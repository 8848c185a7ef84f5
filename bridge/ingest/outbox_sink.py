"""Output to a broker, first half: what is new goes into the outbox within the batch's own transaction.

The emitter takes it from there and sends it at QoS 2. Numbers have no gaps and are never used twice, not even after the
outbox was empty: packet identifiers follow from them.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from bridge.envelope import Envelope
from bridge.ingest.database import read_fact, write_fact
from bridge.origin import OriginWriter
from edge_broker.wire.properties import decode_varint, encode_varint

WAITING: Final = 0
RECEIVED: Final = 1
"""The steps of a message in the outbox: to be sent, or sent and received, so that only its PUBREL is due."""

_Row = tuple[int, int, bool, str, bytes, bytes]
_KNOWN_WRITERS: Final = 1_000


class OutboxSink:
    """The table `outbox`. `committed`: the highest number that is in it for good, or was."""

    already_there = 0

    def __init__(self, topic_prefix: str) -> None:
        self._prefix = topic_prefix
        self._next = 1
        self._writers: dict[tuple[str, str], OriginWriter] = {}
        self.committed = 0

    def recover(self, connection: sqlite3.Connection) -> None:
        """Go on behind the last number that was committed."""
        self._next = (read_fact(connection, "outbox", int) or 0) + 1
        self.committed = self._next - 1

    def write(self, connection: sqlite3.Connection, run: Envelope, received_at: float) -> None:
        """Put the messages of `run` into the outbox, each with its origin as a property."""
        writer = None if run.epoch < 0 else self._writer(run.gateway, run.lane)
        rows: list[_Row] = []
        for message in run.messages:
            block = message.property_block
            if writer is not None:
                block = _with(block, writer.encode(run.epoch, message.sequence))
            topic = self._prefix + message.topic
            rows.append((self._next, WAITING, message.retain, topic, block, message.payload))
            self._next += 1
        connection.executemany("INSERT INTO outbox VALUES (?, ?, ?, ?, ?, ?)", rows)

    def sync(self) -> None:
        """Nothing: the transaction is all there is."""

    def commit(self, connection: sqlite3.Connection) -> None:
        """Note which number is next."""
        if self._next - 1 > self.committed:
            write_fact(connection, "outbox", self._next - 1)
        self.committed = self._next - 1  # read once the batch is reported, that is after its commit

    def close(self) -> None:
        """Nothing is open."""

    def _writer(self, gateway: str, lane: str) -> OriginWriter:
        writer = self._writers.get((gateway, lane))
        if writer is None:
            if len(self._writers) >= _KNOWN_WRITERS:
                self._writers.clear()
            writer = self._writers[gateway, lane] = OriginWriter(gateway, lane)
        return writer


def _with(block: bytes, encoded: bytes) -> bytes:
    """A property block with one more property."""
    length, at = decode_varint(block, 0, len(block))
    return encode_varint(length + len(encoded)) + block[at:] + encoded
