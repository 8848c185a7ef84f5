"""How `edge-broker store` looks: tables and progress on a terminal, plain lines anywhere else, JSON for programs.

rich is imported only for a terminal.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from edge_broker.store.status import QueueStatus, SessionStatus, StoreStatus
    from edge_broker.store.verification import Verification

_NEVER_EXPIRES: Final = 0xFFFFFFFF
_UNITS: Final = ("kB", "MB", "GB", "TB")
_QUEUE_COLUMNS: Final = ("queue", "waiting", "numbers", "oldest", "newest", "on disk")
_SESSION_COLUMNS: Final = ("session", "identity", "away since", "expires after", "subscriptions")


def size(count: int) -> str:
    """Bytes for a person, decimal units."""
    if count < 1000:
        return f"{count} B"
    value = float(count)
    for unit in _UNITS:
        value /= 1000
        if value < 999.95 or unit == _UNITS[-1]:
            return f"{value:.1f} {unit}"
    raise AssertionError


def duration(seconds: float) -> str:
    """Seconds for a person, in the one or two units that count."""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"


# ---- status


def status_as_json(status: StoreStatus, now: float) -> str:
    """One object, with ages in seconds beside times. `now` in wall seconds."""
    import msgspec

    described: dict[str, Any] = msgspec.to_builtins(status)
    for queue in described["queues"]:
        for end in ("oldest", "newest"):
            at = queue[f"{end}_at"]
            queue[f"{end}_age_seconds"] = None if at is None else round(max(0.0, now - at), 3)
    return msgspec.json.format(msgspec.json.encode(described), indent=2).decode()


def status_lines(status: StoreStatus, now: float) -> Iterator[str]:
    """The same for a file or a pipe, a line for each thing."""
    yield from _summary(status, now)
    for queue in status.queues:
        cells = dict(zip(_QUEUE_COLUMNS, _queue_cells(queue, now), strict=True))
        yield f"{queue.name}: " + ", ".join(f"{key} {value}" for key, value in list(cells.items())[1:])
    for session in status.sessions:
        cells = dict(zip(_SESSION_COLUMNS, _session_cells(session, now), strict=True))
        yield f"client {session.client_id}: " + ", ".join(
            f"{key} {value}" for key, value in list(cells.items())[1:]
        )


def show_status(status: StoreStatus, now: float) -> None:
    """On the terminal."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    for line in _summary(status, now):
        console.print(Text(line), soft_wrap=True)
    for columns, cells in (
        (_QUEUE_COLUMNS, [_queue_cells(queue, now) for queue in status.queues]),
        (_SESSION_COLUMNS, [_session_cells(session, now) for session in status.sessions]),
    ):
        if cells:
            table = Table(*columns, box=None, padding=(0, 2, 0, 0), header_style="bold")
            for row in cells:
                table.add_row(*(Text(cell) for cell in row))
            console.print()
            console.print(table)


def _summary(status: StoreStatus, now: float) -> Iterator[str]:
    runs = f"process {status.holder} runs on it" if status.holder else "no broker runs on it"
    if status.holder_is not in (None, "a broker"):
        runs = f"{status.holder_is} works on it (process {status.holder})"
    yield f"{status.directory}: {runs}"
    yield (
        f"file {size(status.database_bytes)} ({size(status.free_bytes)} free inside),"
        f" write-ahead log {size(status.wal_bytes)}, reserve {size(status.reserve_bytes)}"
    )
    yield f"schema {status.schema_version}, epoch {status.epoch}"
    yield f"retained messages: {status.retained}, {size(status.retained_bytes)}"
    if status.keys:
        yield f"messages are encrypted (key {', '.join(status.keys)})"
    yield from status.log_problems
    for damaged in status.damaged:
        yield f"damaged, taken out of {damaged.queue}: messages {damaged.first} to {damaged.last}"
    for aside in status.set_aside:
        yield f"set aside as damaged {duration(now - aside.at)} ago: {aside.file}, {size(aside.bytes)}"
        yield from (f"  {line}" for line in aside.report)


def _queue_cells(queue: QueueStatus, now: float) -> tuple[str, ...]:
    numbers = "-" if queue.first is None else f"{queue.first} to {queue.last}"
    if queue.lost:
        numbers += f", {queue.lost} lost"
    return (
        queue.name,
        str(queue.depth),
        numbers,
        _age(queue.oldest_at, now),
        _age(queue.newest_at, now),
        size(queue.bytes),
    )


def _session_cells(session: SessionStatus, now: float) -> tuple[str, ...]:
    forever = session.expiry_interval == _NEVER_EXPIRES
    return (
        session.client_id,
        session.identity or "-",
        "-" if session.disconnected_at is None else f"{duration(now - session.disconnected_at)}",
        "never" if forever else duration(session.expiry_interval),
        str(session.subscriptions),
    )


def _age(at: float | None, now: float) -> str:
    if at is None:
        return "-"
    if at > now + 1:  # the clock was set back
        return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
    return duration(now - at)


# ---- verify, compact


def verdict(found: Verification) -> str:
    """The last line of `verify`."""
    read = f"{found.messages} messages in {len(found.queues)} queues, {sum(found.rows.values())} other rows"
    structure = (
        "" if found.structure_checked else "; the structure of the file was not checked (--whole does)"
    )
    return f"{'sound' if found.sound else 'DAMAGED'}: {read}{structure}"


@contextlib.contextmanager
def counting(what: str) -> Iterator[Callable[[int], None]]:
    """Shows a growing number on the terminal's standard error; nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console

    with Console(stderr=True).status(what) as shown:
        yield lambda count: shown.update(f"{count} {what}")


@contextlib.contextmanager
def share_done(what: str) -> Iterator[Callable[[float], None]]:
    """Shows a bar on the terminal's standard error; nothing elsewhere. Takes the share, 0 to 1."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=1.0)
        yield lambda share: progress.update(task, completed=share)
