"""The audit log: who came and went, who was not let in, what was denied, what an administrator did. JSON, a line each.

    {"time":"2025-05-01T12:00:00.123Z","event":"connected","client_id":"cellar","address":"192.168.1.20:51234", …}

- Writing is a thread's work: a slow disk, or none, never holds up the event loop. Lines are gathered and written every few
  seconds, or when there are many; so many wait at most, and what has no room is counted and told in a line of its own.
- A flood does not fill the card: `audit_limits` says how many lines of a kind a minute may have.
- What a stranger says stays inside its line: everything but printable ASCII is escaped, and cut where it is long.
- Passwords, tokens, keys and payloads are never given to it. Nor are user names of clients that were not let in, since
  people type passwords there. Client identifiers and topics are.
"""

from __future__ import annotations

import json
import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from edge_broker.errors import ConfigError
from edge_broker.ops.audit_file import AuditFile
from edge_broker.ops.audit_limits import OTHERS, WINDOW_SECONDS, Allowed, AuditLimits, LeftOut

if TYPE_CHECKING:
    from edge_broker.core.connection import Connection
    from edge_broker.core.output import Output
    from edge_broker.core.ports import Principal
    from edge_broker.core.session import Session

log: Final = logging.getLogger("edge_broker.ops")

Value = str | int | float | bool | None
Record = dict[str, Value]

FLUSH_SECONDS: Final = 3.0
FLUSH_LINES: Final = 200
MAX_WAITING_LINES: Final = 5_000
_LONGEST_TEXT: Final = 512
_CLOSING_SECONDS: Final = 3.0
_ALLOWED: Final = {
    "connected": Allowed(3_000, 1_000),
    "disconnected": Allowed(3_000, 1_000),
    "refused": Allowed(300, 20),
    "denied": Allowed(300, 20),
    "removed": Allowed(300, 300),
}
"""A fleet that comes back at once is to be seen whole, also behind one NAT; strangers have less."""
_NO_ROOM: Final = "waiting"
_RATE: Final = "rate"


class Audit:
    """A broker's audit log; an `Observer` of its router. `open`, then `sweep` about once a second, then `close`.

    `written`, `left_out` (by reason) and `write_errors` count since the start. `wall` is the time that lines show.
    """

    def __init__(
        self,
        file: AuditFile,
        now: float,
        origin_of: Callable[[str], str],
        *,
        allowed: Mapping[str, Allowed] = _ALLOWED,
        max_waiting: int = MAX_WAITING_LINES,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.written = 0
        self.left_out = {_NO_ROOM: 0, _RATE: 0}
        self.write_errors = 0
        self._file = file
        self._limits = AuditLimits(allowed, origin_of, now)
        self._max_waiting = max_waiting
        self._wall = wall
        self._waiting: list[Record] = []
        self._no_room: dict[str, int] = {}  # by kind, not told yet
        self._flushed_at = now
        self._work: queue.SimpleQueue[list[Record] | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[tuple[list[Record], int, str]] = queue.SimpleQueue()
        self._is_writing = False
        self._problem = ""
        self._writer = threading.Thread(target=self._write_all, name="audit", daemon=True)

    def open(self) -> None:
        """Begin; `ConfigError` where the file cannot be written."""
        try:
            self._file.open()
        except OSError as error:
            raise ConfigError(
                "audit.file",
                f"cannot be written: {error.strerror}",
                "give a plain file in a folder that the broker may write to, such as data_dir; or leave [audit] out",
            ) from error
        self._writer.start()

    def close(self) -> None:
        """Write what waits, for a few seconds at most."""
        if not self._writer.is_alive():
            return
        self._tell_left_out(self._limits.begin_anew(0.0))
        self._collect()
        self._tell_no_room()
        self._work.put(self._waiting)
        self._work.put(None)
        self._waiting = []
        self._writer.join(_CLOSING_SECONDS)
        if self._writer.is_alive():
            log.error("the audit log could not be written to its end: the disk does not answer")
            return
        self._collect()
        if self._waiting:
            log.error("the last %d lines of the audit log are lost: %s", len(self._waiting), self._problem)

    # ---- what goes in

    def record(self, event: str, **fields: Value) -> None:
        """Note that something happened now. `fields`: none of them secret; `address` is a client's."""
        address = fields.get("address")
        if not self._limits.admit(event, address if isinstance(address, str) else ""):
            self.left_out[_RATE] += 1
            return
        self._put({"time": self._time(), "event": event, **fields})

    def record_action(self, action: str, by: str, **fields: Value) -> None:
        """Note what an administrator did: `action` in a word or two, `by` whom, as far as that is known."""
        self.record("action", action=action, by=by, **fields)

    def _put(self, record: Record) -> None:
        if len(self._waiting) >= self._max_waiting:
            self.left_out[_NO_ROOM] += 1
            event = str(record["event"])
            self._no_room[event] = self._no_room.get(event, 0) + 1
            return
        self._waiting.append(record)
        if len(self._waiting) >= FLUSH_LINES and not self._is_writing:
            self._flush()

    def _time(self) -> str:
        wall = self._wall()
        return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(wall)) + f".{int(wall % 1 * 1000):03}Z"

    # ---- what the router tells

    def on_connect(self, connection: Connection, session: Session) -> None:
        """A client was let in."""
        version, cipher = connection.encryption() or (None, None)
        self.record(
            "connected",
            client_id=connection.client_id,
            identity=session.identity,
            address=connection.address,
            listener=connection.listener,
            by=connection.authenticated_by,
            tls=version,
            cipher=cipher,
            protocol=connection.version,
            durable=session.durable,
        )

    def on_end(self, connection: Connection, session: Session | None) -> None:
        """A connection is at its end; one that was never let in was refused, or has given up."""
        assert connection.end is not None
        reason_code, reason = connection.end
        self.record(
            "refused" if session is None else "disconnected",
            client_id=connection.client_id or None,
            identity=None if session is None else session.identity,
            address=connection.address,
            listener=connection.listener,
            reason=reason,
            reason_code=reason_code,
        )

    def on_refused(self, address: str, listener: str, reason: str) -> None:
        """A connection was turned away unread."""
        self.record("refused", address=address, listener=listener or None, reason=reason)

    def on_denied(self, connection: Output, action: str, topic: str, identity: str) -> None:
        """A client may not do something with a topic."""
        self.record(
            "denied",
            client_id=connection.client_id,
            identity=identity,
            address=connection.address,
            action=action,
            topic=topic,
        )

    def on_removed(self, principal: Principal, topic_filters: list[str]) -> None:
        """New rules, or other groups, took subscriptions from a client, which may be away: one line for all of them."""
        self.record(
            "removed",
            client_id=principal.client_id,
            identity=principal.identity,
            topic=topic_filters[0],
            count=len(topic_filters),
        )

    # ---- what goes out

    def sweep(self, now: float) -> None:
        """About once a second: hand over what has waited, tell what was left out."""
        self._collect()
        self._tell_left_out(self._limits.end_window(now))
        if now - self._flushed_at >= FLUSH_SECONDS and not self._is_writing:
            self._flushed_at = now
            self._tell_no_room()
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            self._is_writing = True
            self._work.put(self._waiting)
            self._waiting = []

    def _collect(self) -> None:
        """What the thread has done: count it, take back what it could not write."""
        while not self._done.empty():
            unwritten, written, problem = self._done.get()
            self._is_writing = False
            self.written += written
            if problem and not self._problem:
                log.error("the audit log cannot be written, its lines wait in memory: %s", problem)
            elif self._problem and not problem:
                log.info("the audit log can be written again")
            self.write_errors += bool(problem)
            self._problem = problem
            room = self._max_waiting - len(self._waiting)
            for record in unwritten[room:]:
                self._no_room[str(record["event"])] = self._no_room.get(str(record["event"]), 0) + 1
                self.left_out[_NO_ROOM] += 1
            self._waiting[:0] = unwritten[:room]

    def _tell_left_out(self, left_out: list[LeftOut]) -> None:
        for event, address, count in left_out:
            self._put(
                {
                    "time": self._time(),
                    "event": "left_out",
                    "of": event,
                    "from": "other addresses" if address == OTHERS else address,
                    "count": count,
                    "why": f"too many within {WINDOW_SECONDS:.0f} s",
                }
            )

    def _tell_no_room(self) -> None:
        """In the place of the lines that have none: these may be a few more than fit."""
        if not self._no_room or len(self._waiting) >= self._max_waiting:
            return
        for event, count in self._no_room.items():
            fields: Record = {
                "of": event,
                "count": count,
                "why": "the disk was too slow or could not be written",
            }
            self._waiting.append({"time": self._time(), "event": "left_out", **fields})
        self._no_room.clear()

    # ---- in the thread

    def _write_all(self) -> None:
        while (records := self._work.get()) is not None:
            written, problem = 0, ""
            try:
                if records:
                    written = self._file.append([encode_line(record) for record in records])
            except OSError as error:
                problem = error.strerror or str(error)
            except Exception as error:  # noqa: BLE001 - told by `_collect`, and the thread goes on
                problem = repr(error)
            self._done.put((records[written:], written, problem))
        self._file.close()


def encode_line(record: Record) -> bytes:
    """`record` as a line: JSON in printable ASCII, without what is None, long texts cut."""
    fields = {name: _cut(value) for name, value in record.items() if value is not None}
    return (json.dumps(fields, separators=(",", ":")).replace("\x7f", "\\u007f") + "\n").encode("ascii")


def _cut(value: Value) -> Value:
    if isinstance(value, str) and len(value) > _LONGEST_TEXT:
        return value[:_LONGEST_TEXT] + "…"
    return value
