"""How an ingester stands, read from its database: beside a running one, or of one that is stopped."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from bridge.failures import printable
from bridge.ingest.counters import Counters
from bridge.ingest.database import FILE_NAME, LANES, open_for_reading, read_fact, read_rejected, read_seen
from bridge.ingest.gaps import describe
from bridge.ingest.worker import LaneGaps
from bridge.windows import Windows
from edge_broker.errors import StoreError
from edge_broker.store.faults import explain
from edge_broker.store.lock import holder_of

_SHOWN_REJECTED: Final = 10
_EVERY: Final = 1 << 40


class LaneStatus(msgspec.Struct):
    """A lane. `heard_at`: Unix time of its last news. `missing`: how many messages; `gaps`: which, first and last."""

    gateway: str
    lane: str
    epochs: int
    highest: int
    heard_at: float
    missing: int
    gaps: list[tuple[int, int]]


class RejectedStatus(msgspec.Struct):
    """One that was set aside: `number` is what `ingest rejected` calls it."""

    number: int
    at: float
    topic: str
    reason: str
    bytes: int


class IngestStatus(msgspec.Struct):
    """Everything. `process`: the id of the ingester that runs, None where none does. `waiting`: for the target."""

    process: str | None
    counters: Counters
    lanes: list[LaneStatus]
    waiting: int
    rejected: list[RejectedStatus]


def read_status(data_dir: Path) -> IngestStatus:
    """How the ingester of `data_dir` stands; `StoreError` where that cannot be read."""
    try:
        with contextlib.closing(open_for_reading(data_dir)) as connection:
            return _read(connection, data_dir)
    except sqlite3.OperationalError as error:
        if not (data_dir / FILE_NAME).exists():
            raise StoreError("status", f"no ingester has run in {data_dir} yet", "check data_dir") from None
        raise explain("status", error) from None
    except (sqlite3.Error, msgspec.DecodeError) as error:
        raise explain("status", error) from None


def _read(connection: sqlite3.Connection, data_dir: Path) -> IngestStatus:
    connection.execute("BEGIN")  # one moment for everything
    windows = Windows(_EVERY, _EVERY)
    read_seen(connection, LANES, windows)
    lanes = []
    for key in sorted(windows.lanes):
        lane = windows.lanes[key]
        gaps = lane.gaps()
        everything = [*lane.epochs.values(), lane.past]
        highest = max((end - 1 for seen in everything for _, end in seen), default=0)
        missing = sum(end - start for start, end in gaps)
        shown = [(start, end - 1) for start, end in gaps]
        lanes.append(LaneStatus(*key, len(lane.epochs), highest, lane.heard_at, missing, shown))
    rejected = [
        RejectedStatus(number, one.at, one.topic, one.reason, len(one.payload))
        for number, one in read_rejected(connection)
    ]
    waiting = connection.execute("SELECT count(*) FROM outbox").fetchone()[0]
    counters = read_fact(connection, "counters", Counters) or Counters()
    holder = holder_of(data_dir)
    return IngestStatus(None if holder is None else holder.process, counters, lanes, waiting, rejected)


def status_lines(status: IngestStatus, now: float) -> Iterator[str]:
    """The same for people; `now`: Unix time."""
    counters = status.counters
    yield f"ingester    {f'runs, process {status.process}' if status.process else 'does not run'}"
    yield f"taken       {counters.taken} ({counters.envelopes} of them envelopes) in {counters.commits} batches"
    yield f"written     {counters.written}"
    yield f"duplicates  {counters.duplicates} dropped, {counters.device_duplicates} more by their devices' numbers"
    if counters.without_origin:
        yield f"            {counters.without_origin} had no origin: duplicates of these are not seen"
    if counters.untracked:
        yield f"            {counters.untracked} were of gateways beyond limits.gateways: nor of these"
    if status.waiting:
        yield f"waiting     {status.waiting} for the target"
    gapped = [lane for lane in status.lanes if lane.missing]
    gateways = len({lane.gateway for lane in status.lanes})
    yield f"lanes       {len(status.lanes)} of {gateways} gateways, {len(gapped)} of them miss messages"
    for lane in gapped:
        found = LaneGaps(lane.missing, [(first, last + 1) for first, last in lane.gaps])
        yield (
            f"  {printable(lane.gateway)} {printable(lane.lane)}  {describe(found)} missing, "
            f"heard {_ago(now - lane.heard_at)} ago"
        )
    if counters.rejected:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(counters.rejected.items()))
        yield f"rejected    {reasons}; {len(status.rejected)} are kept"
        for one in status.rejected[-_SHOWN_REJECTED:]:
            at = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(one.at))
            yield f"  {one.number}  {at} UTC  {printable(one.topic)}  {printable(one.reason)}  {one.bytes} bytes"


def _ago(seconds: float) -> str:
    for name, size in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{int(seconds // size)} {name}"
    return f"{max(0, int(seconds))} seconds"
