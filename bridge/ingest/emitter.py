"""Output to a broker, second half: from the outbox to the target at QoS 2, in order, each message exactly once.

What it keeps true:

- A message is in the outbox before its PUBLISH leaves, and noted as received before its PUBREL does, so a crash at any
  instant repeats a step under the same packet identifier and no message.
- Packet identifiers follow from the outbox's numbers, which never begin anew: the same message has the same one on each
  connection and after each restart. Numbers in flight never span more than `_LONGEST_SPAN`.
- A session at the target that is older than the outbox is wiped before anything is sent. Where the target has lost the
  session, what was on its way goes again, and the log says so: only it could have told what it had.

A message that the target refuses for good is set aside as rejected; any other refusal is tried again after a pause.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import Final, NamedTuple, TypeVar

from bridge import failures
from bridge.answers import REFUSED_FOR_GOOD
from bridge.identity import Credentials
from bridge.ingest.config import BrokerConfig, EmitConfig, LimitsConfig
from bridge.ingest.database import Rejected, read_fact, transaction, write_fact, write_rejected
from bridge.ingest.intake import FAILURES
from bridge.ingest.line import Line
from bridge.ingest.outbox_sink import RECEIVED, OutboxSink
from bridge.ingest.talk import Talk
from edge_broker.core.client import Client
from edge_broker.core.message import Message
from edge_broker.errors import UpstreamError
from edge_broker.store.connection import ThreadedConnection
from edge_broker.wire import const
from edge_broker.wire.packets import Connect
from edge_broker.wire.properties import encode_string

log: Final = logging.getLogger("bridge.ingest")

T = TypeVar("T")
_PAGE: Final = 500
_LONGEST_SPAN: Final = 10_000
_RETRY_SECONDS: Final = 1.0
_SESSION: Final = "target_session"


class _Row(NamedTuple):
    """A message of the outbox."""

    number: int
    step: int
    retain: bool
    topic: str
    properties: bytes
    payload: bytes


class Emitter:
    """The user of the target's line, and that line. `emitted`, `refused`: since the start; `waiting`: in the outbox."""

    def __init__(
        self,
        target: BrokerConfig,
        config: EmitConfig,
        limits: LimitsConfig,
        database: ThreadedConnection,
        sink: OutboxSink,
    ) -> None:
        self._target = target
        self._config = config
        self._limits = limits
        self._database = database
        self._sink = sink
        self.line = Line(target.as_bridge("target"), self, "target")
        self._identity = f"{target.client_id} {' '.join(target.urls)}"
        self._has_session = self._wiped = False
        self._talk: Talk | None = None
        self._client: Client | None = None
        self._rows: dict[int, _Row] = {}  # read and not completed, in the order of their numbers
        self._unsent: deque[int] = deque()
        self._in_flight: dict[int, int] = {}  # number of each packet id that the target has not completed
        self._read_to = 0
        self._maybe_sent_to = 0
        self._received: dict[int, int] = {}  # packet id to number: PUBREC came, not on disk yet
        self._completed: list[int] = []
        self._rejected: list[Rejected] = []
        self._work = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._waiting_before = 0  # what the outbox will have had in all, less the highest number committed
        self.emitted = 0
        self.refused = 0

    @property
    def is_full(self) -> bool:
        """Whether no more should be put into the outbox now."""
        return self.waiting > self._config.max_waiting

    @property
    def waiting(self) -> int:
        """Messages in the outbox."""
        return self._waiting_before + self._sink.committed

    # ---- start and stop

    async def recover(self) -> None:
        """See what the outbox has."""

        def look(connection: sqlite3.Connection) -> tuple[int, int, str | None]:
            count, first = connection.execute("SELECT count(*), min(number) FROM outbox").fetchone()
            return count, first or self._sink.committed + 1, read_fact(connection, _SESSION, str)

        count, first, session = await self._database.run(look)
        self._waiting_before = count - self._sink.committed
        self._read_to = first - 1
        self._maybe_sent_to = first - 1 + _LONGEST_SPAN
        self._has_session = session == self._identity

    def start(self) -> None:
        """Begin to connect and to send."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="emitter")
        self.line.start()

    async def stop(self) -> None:
        """Leave the target; what is on its way goes on at the next start."""
        await self.line.stop()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))
            self._task = None

    def wake(self) -> None:
        """There may be something to do."""
        self._work.set()

    # ---- the disk's side

    async def _run(self) -> None:
        """Note what the target said and read what is next, for as long as we run."""
        while True:
            await self._work.wait()
            self._work.clear()
            try:
                await self._note()
                await self._read()
            except Exception as error:
                known = isinstance(error, FAILURES)
                log.error(
                    "the outbox cannot be used: %s (it is tried again)",
                    error,
                    exc_info=None if known else error,
                )
                await asyncio.sleep(_RETRY_SECONDS)
                self._work.set()

    async def _note(self) -> None:
        """Write what was received and completed; the PUBRELs leave behind that."""
        received, completed, rejected = dict(self._received), self._completed[:], self._rejected[:]
        if not (received or completed or rejected):
            return
        client = self._client
        await self._database.run(partial(self._write, list(received.values()), completed, rejected))
        del self._completed[: len(completed)]
        del self._rejected[: len(rejected)]
        for number in received.values():
            row = self._rows.get(number)
            if row is not None:
                self._rows[number] = row._replace(step=RECEIVED, payload=b"")
        if client is not None and client is self._client:
            for packet_id in received:
                self._received.pop(packet_id, None)
                client.send_ack(const.PUBREL, packet_id)

    def _write(
        self,
        received: Sequence[int],
        completed: Sequence[int],
        rejected: Sequence[Rejected],
        connection: sqlite3.Connection,
    ) -> None:
        with transaction(connection):
            connection.executemany(
                "UPDATE outbox SET step = ?, payload = x'' WHERE number = ?",
                [(RECEIVED, one) for one in received],
            )
            connection.executemany("DELETE FROM outbox WHERE number = ?", [(one,) for one in completed])
            if rejected:
                write_rejected(connection, rejected, self._limits.rejected, self._limits.rejected_bytes)

    async def _read(self) -> None:
        """Have enough rows at hand for the window."""
        if len(self._unsent) >= self._config.window or self._read_to >= self._sink.committed:
            return
        found = await self._database.run(partial(_read_page, self._read_to, max(_PAGE, self._config.window)))
        for row in found:
            self._rows[row.number] = row
            self._unsent.append(row.number)
            self._read_to = row.number
        if found and self._talk is not None:
            self._talk.wake()

    # ---- the line's user

    def request(self, version: int, credentials: Credentials) -> Connect:
        """The CONNECT; clean where the target may have a session of an outbox that is gone."""
        target = self._target
        return Connect(
            version,
            target.client_id,
            clean_start=not self._has_session and not (self._wiped and version < const.MQTT_5),
            keep_alive=target.keep_alive_seconds,
            username=credentials.username,
            password=credentials.password,
            properties={const.SESSION_EXPIRY_INTERVAL: target.session_expiry_seconds},
        )

    def on_online(self, talk: Talk, client: Client) -> UpstreamError | None:
        """Begin with what was on its way."""
        if client.maximum_qos < 2:
            return failures.lost(
                self.line.upstream, "it takes no QoS 2, so nothing could arrive exactly once"
            )
        if not self._has_session and client.version < const.MQTT_5 and not self._wiped:
            self._wiped = True  # a session that starts clean ends with its connection there
            return failures.session_wiped(self.line.upstream)
        self._talk, self._client = talk, client
        if self._has_session and not client.session_present and self._in_flight:
            log.warning(
                "the target has lost our session: up to %d messages that were on their way may come twice",
                len(self._in_flight),
            )
        self._begin_again(client)
        if not self._has_session:
            self._has_session = True
            asyncio.get_running_loop().create_task(self._note_session())
        self.wake()
        return None

    async def _note_session(self) -> None:
        def note(connection: sqlite3.Connection) -> None:
            with transaction(connection):
                write_fact(connection, _SESSION, self._identity)

        try:
            await self._database.run(note)
        except FAILURES as error:
            log.error("the target's session cannot be noted: %s", error)

    def _begin_again(self, client: Client) -> None:
        """Send from the oldest on, in order; what the target has by now, only its PUBREL."""
        self._received.clear()
        self._in_flight.clear()
        self._unsent = deque(sorted(self._rows))
        if not client.session_present:  # nothing to release there: it has those messages for good
            for number in [one for one in self._unsent if self._rows[one].step == RECEIVED]:
                self._complete(number)
            self._unsent = deque(sorted(self._rows))
            self._maybe_sent_to = 0

    def on_offline(self) -> None:
        """What was on its way goes again on the next connection."""
        self._talk = self._client = None
        if self._in_flight:
            self._maybe_sent_to = max(self._maybe_sent_to, *self._in_flight.values())

    def send_due(self) -> None:
        """Fill the window."""
        client = self._client
        if client is None:
            return
        window = min(self._config.window, client.receive_maximum)
        lowest = next(iter(self._rows), 0)
        while self._unsent and len(self._in_flight) < window and client.writable:
            number = self._unsent[0]
            if number - lowest >= _LONGEST_SPAN:
                break
            self._unsent.popleft()
            row = self._rows.get(number)
            if row is not None:
                self._send(client, row)
        if len(self._unsent) < window and self._read_to < self._sink.committed:
            self.wake()

    def _send(self, client: Client, row: _Row) -> None:
        packet_id = (row.number - 1) % const.MAX_PACKET_ID + 1
        self._in_flight[packet_id] = row.number
        if row.step == RECEIVED:
            client.send_ack(const.PUBREL, packet_id)
            return
        rest = row.properties + row.payload if client.version >= const.MQTT_5 else row.payload
        dup = client.session_present and row.number <= self._maybe_sent_to
        retain = bool(row.retain) and client.retain_available
        if not client.send_publish(encode_string(row.topic), rest, 2, retain, dup, packet_id):
            self._refuse(packet_id, const.PACKET_TOO_LARGE)

    # ---- what the target answers

    def on_ack(self, packet_type: int, packet_id: int, reason_code: int) -> None:
        """PUBREC or PUBCOMP."""
        number = self._in_flight.get(packet_id)
        client = self._client
        if client is None:
            return
        if packet_type == const.PUBREC:
            if number is None:
                unknown = (
                    const.PACKET_IDENTIFIER_NOT_FOUND if client.version >= const.MQTT_5 else const.SUCCESS
                )
                client.send_ack(const.PUBREL, packet_id, unknown)
            elif reason_code < 0x80:
                self._received[packet_id] = number
            elif reason_code in REFUSED_FOR_GOOD:
                self._refuse(packet_id, reason_code)
            elif self._talk is not None:
                self._talk.leave(failures.cannot_take(self.line.upstream, reason_code))
                return
        elif packet_type == const.PUBCOMP and number is not None:
            del self._in_flight[packet_id]
            self._complete(number)
            self.emitted += 1
        self.wake()

    def _complete(self, number: int) -> None:
        if self._rows.pop(number, None) is not None:
            self._completed.append(number)
            self._waiting_before -= 1

    def _refuse(self, packet_id: int, reason_code: int) -> None:
        """The target will never take this one."""
        number = self._in_flight.pop(packet_id)
        row = self._rows[number]
        reason = const.REASON_NAMES[reason_code]
        if not self.refused:
            log.error(
                "a message to %s is set aside, the target refuses it: %s (further ones are counted)",
                failures.printable(row.topic),
                reason,
            )
        self.refused += 1
        self._rejected.append(Rejected(time.time(), row.topic, f"target: {reason}", row.payload))
        self._complete(number)
        self.wake()

    def on_message(self, message: Message) -> None:
        """Nothing is subscribed there."""

    def on_suback(self, packet_id: int, reason_codes: list[int]) -> None:
        """Nor asked for."""


def _read_page(after: int, count: int, connection: sqlite3.Connection) -> list[_Row]:
    rows = connection.execute(
        "SELECT number, step, retain, topic, properties, payload FROM outbox WHERE number > ? ORDER BY number LIMIT ?",
        (after, count),
    )
    return [_Row(*row) for row in rows]
