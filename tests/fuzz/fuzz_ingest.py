"""What anybody may send to the ingester: envelopes, announcements of skipped numbers, plain messages with an origin.

`fuzz_ingest` takes its first byte as the choice. What must hold: a message is written, dropped as a duplicate or set aside
as unreadable, never an exception; what is written can be read again, as often as was counted; the same message again adds
nothing.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Final

import msgspec

from bridge.envelope import Envelope
from bridge.ingest.config import BrokerConfig, DevicesConfig, IngestConfig, LimitsConfig
from bridge.ingest.database import connect
from bridge.ingest.file_sink import JsonLines
from bridge.ingest.unpacking import NO_EPOCH
from bridge.ingest.worker import Worker
from bridge.origin import NAME
from edge_broker.core.message import Message, build_message
from edge_broker.wire import const
from edge_broker.wire.properties import encode_properties

ENVELOPE, PLAIN_ENVELOPE, SKIPPED, ORIGIN, DEVICE = range(5)
"""The choices: a payload as it is, one behind the mark of a plain envelope, an announcement, the value of an origin, the
number of a device."""

LONGEST_BYTES: Final = 4096
_CONFIG: Final = IngestConfig(
    cluster=BrokerConfig(urls=("mqtt://127.0.0.1",)),
    data_dir=Path("/"),
    devices=DevicesConfig(deduplicate=True),
    limits=LimitsConfig(
        envelope_unpacked_bytes=1 << 16, envelope_spread_bytes=1 << 17, envelope_messages=500, gateways=3
    ),
)


class _Lines:
    """Writes as the files do, into memory. `count`: lines; `with_origin`: those that have one."""

    already_there = 0

    def __init__(self) -> None:
        self._lines = JsonLines()
        self.count = self.with_origin = 0

    def recover(self, connection: sqlite3.Connection) -> None:
        """Nothing was kept."""

    def write(self, connection: sqlite3.Connection, run: Envelope, received_at: float) -> None:
        """A line each, which can be read."""
        lines = self._lines.encode(run, run.messages, received_at).splitlines()
        assert len(lines) == len(run.messages) > 0
        for line, message in zip(lines, run.messages, strict=True):
            read = msgspec.json.decode(line)
            assert read["topic"] == message.topic
            assert read.get("sequence", NO_EPOCH) == message.sequence
        self.count += len(lines)
        self.with_origin += len(lines) if run.epoch != NO_EPOCH else 0

    def sync(self) -> None:
        """Nothing."""

    def commit(self, connection: sqlite3.Connection) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def fuzz_ingest(data: bytes) -> None:
    """One message, twice; AssertionError where a promise is broken, any other exception as it is."""
    if not data:
        return
    message = message_of(data[0] % 5, data[1 : 1 + LONGEST_BYTES])
    if message is None:
        return
    lines = _Lines()
    worker = Worker(_CONFIG, lines, (), lambda: 1000.0)
    with connect_in_memory() as connection:
        worker.recover(connection)
        first = worker.process([message], connection)
        assert first.counters.written == lines.count
        assert "internal_error" not in first.counters.rejected
        with_origin = lines.with_origin
        again = worker.process([message], connection)
        assert lines.with_origin == with_origin, "a duplicate was written"
        assert again.counters.rejected.get("unreadable", 0) in (0, 2)
        assert again.counters.written == lines.count


def connect_in_memory() -> sqlite3.Connection:
    """A database that costs no disk."""
    return connect(None)


def message_of(choice: int, data: bytes) -> Message | None:
    """The message that `data` stands for; None where a decoder would not have let it through."""
    if choice == ENVELOPE:
        return build_message("edge/g/envelopes", data, qos=1)
    if choice == PLAIN_ENVELOPE:
        return build_message("edge/g/envelopes", b"\x11" + data, qos=1)
    if choice == SKIPPED:
        return build_message("edge/g/skipped", data, qos=1)
    text = data.decode("utf-8", "replace").replace("\0", "")
    pairs = [(NAME, text)] if choice == ORIGIN else [("device", "d"), ("sequence", text)]
    return build_message("t", data, qos=1, property_block=encode_properties({const.USER_PROPERTY: pairs}))
