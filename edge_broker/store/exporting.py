"""Messages out of a store, one after the other, oldest first: a queue's, or the retained ones.

They are read in pages, each in a short transaction of its own, so that a reader as slow as it likes does not hold the
write-ahead log. Beside a running broker a queue's export begins at its head and ends at the number that was its last
when it began: what comes meanwhile is not in it, and what is acknowledged meanwhile may not be.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from edge_broker.core.message import Message
from edge_broker.store import rows
from edge_broker.store.faults import READ_ERRORS, Damaged
from edge_broker.store.inspection import Inspection, Place

_PAGE_BYTES = 1 << 20
_PLACES_AT_ONCE = 64
_TOPICS_AT_ONCE = 200


@dataclass(slots=True)
class Exported:
    """One message; `number` in its queue, None of a retained one. Times in wall seconds are in `message`."""

    number: int | None
    message: Message


@dataclass(slots=True)
class Gaps:
    """What could not be exported, filled while an export runs: lines for a person."""

    lines: list[str] = field(default_factory=list)


def export_queue(
    inspection: Inspection, queue_id: int, gaps: Gaps, from_number: int = 0, to_number: int | None = None
) -> Iterator[Exported]:
    """The messages of a queue that are not acknowledged, with numbers from `from_number` to `to_number`, both included."""
    end = inspection.last_number(queue_id)
    if to_number is not None:
        end = min(end, to_number)
    number = from_number
    while number <= end:
        page, behind = _read_page(inspection, queue_id, number, end, gaps)
        yield from page
        if behind == number:
            return
        number = behind


def _read_page(
    inspection: Inspection, queue_id: int, number: int, end: int, gaps: Gaps
) -> tuple[list[Exported], int]:
    """Some messages from `number` on, and the number behind them; `number` itself where nothing is stored from there on."""
    page: list[Exported] = []
    size_bytes = 0
    with inspection.moment():
        marks = inspection.marks(queue_id)
        behind = number
        for place in inspection.places(queue_id, max(number, marks.head), _PLACES_AT_ONCE):
            if place.first > end or size_bytes > _PAGE_BYTES:
                break
            for present, message in _messages(inspection, queue_id, place, gaps):
                if max(number, marks.head) <= present <= end and present not in marks.acknowledged:
                    page.append(Exported(present, message))
                    size_bytes += len(message.frame)
            behind = place.last + 1
    return page, behind


def _messages(inspection: Inspection, queue_id: int, place: Place, gaps: Gaps) -> list[tuple[int, Message]]:
    try:
        return inspection.messages(queue_id, place)
    except (Damaged, *READ_ERRORS) as error:
        gaps.lines.append(f"messages {place.first} to {place.last} cannot be read: {error}")
        return []


def export_retained(inspection: Inspection, gaps: Gaps) -> Iterator[Exported]:
    """The retained messages, in the order of their topics."""
    after = ""
    while page := _read_retained(inspection, after, gaps):
        yield from page[1]
        after = page[0]


def _read_retained(inspection: Inspection, after: str, gaps: Gaps) -> tuple[str, list[Exported]] | None:
    """Some retained messages behind the topic `after`, and the last topic that was looked at; None at the end."""
    page: list[Exported] = []
    size_bytes = 0
    times = inspection.times()
    select = "SELECT topic, crc, body FROM retained WHERE topic > ? ORDER BY topic LIMIT ?"
    cursor = inspection.connection.execute(select, (after, _TOPICS_AT_ONCE))
    last = None
    try:
        for row in cursor:
            last = row[0]
            try:
                opened = inspection.vault.open_retained(row)
                page.append(Exported(None, rows.retained_message(opened, inspection.topics, times)))
                size_bytes += len(row[2])
            except Damaged as error:
                gaps.lines.append(f"the retained message of {last!a} cannot be read: {error}")
            if size_bytes > _PAGE_BYTES:
                break
    finally:
        cursor.close()
    return None if last is None else (last, page)
