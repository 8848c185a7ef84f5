"""The ingester, composed: the cluster's line, the intake, the worker and its database, the output; start, watch, stop."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import zstandard

from bridge.ingest.config import IngestConfig
from bridge.ingest.counters import Counters
from bridge.ingest.database import FILE_NAME, open_database
from bridge.ingest.emitter import Emitter
from bridge.ingest.file_sink import FileSink
from bridge.ingest.gaps import GapWatch
from bridge.ingest.intake import FAILURES, Intake
from bridge.ingest.lease import LeaseWriter
from bridge.ingest.line import Line
from bridge.ingest.outbox_sink import OutboxSink
from bridge.ingest.sink import Sink
from bridge.ingest.table_sink import TableSink
from bridge.ingest.worker import Report, Worker
from edge_broker.config.bind import parse_bind
from edge_broker.core.message import Message
from edge_broker.errors import StoreError
from edge_broker.store.connection import ThreadedConnection
from edge_broker.store.faults import explain, is_damage
from edge_broker.store.lock import DirectoryLock

if TYPE_CHECKING:
    from bridge.ingest.http import HttpServer

log: Final = logging.getLogger("bridge.ingest")

_WATCH_SECONDS: Final = 1.0
_SUMMARY_SECONDS: Final = 60.0
_BATCH_SECONDS: Final = 5.0
"""How long a stop waits for the batch at hand: each saves the cluster sending it again."""


class Ingester:
    """One ingester. `start`, then `stop` once. `counters`, `gateways`, `lanes`: of the last batch."""

    def __init__(self, config: IngestConfig) -> None:
        self.config = config
        self.counters = Counters()
        self.gateways = self.lanes = 0
        self.gaps = GapWatch(config.gaps.report_after_seconds)
        self.emitter: Emitter | None = None
        self.started_at = time.time()
        self._database: ThreadedConnection | None = None
        self._lock: DirectoryLock | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._summarized = 0
        self._http: HttpServer | None = None
        self._sink: Sink | None = None
        self.intake: Intake
        self.line: Line

    async def start(self) -> None:
        """Recover, and begin to connect; `StoreError` or `OSError` where the disk does not let us."""
        config = self.config
        config.data_dir.mkdir(parents=True, exist_ok=True)
        self._lock = DirectoryLock(config.data_dir, "an ingester")
        try:
            await self._start()
        except BaseException:
            await self._close()
            raise

    async def _start(self) -> None:
        config = self.config
        dictionaries = await asyncio.to_thread(_read_dictionaries, config.lease.dictionaries)
        database = open_database(config.data_dir)
        try:
            await database.start()
        except FAILURES as error:
            raise _explained(error) from None
        self._database = database
        sink = self._sink = self._choose_sink(database)
        worker = Worker(config, sink, dictionaries, time.time)
        keeper = _Keeper(database, worker, sink, self.emitter)
        try:
            report = await keeper.recover()
            if self.emitter is not None:
                await self.emitter.recover()
        except FAILURES as error:
            raise _explained(error) from None
        self._take_over(report)
        self.gaps.begin(report.gaps, time.monotonic())
        if len(self.gaps):
            log.warning("%d messages of %d lanes are missing from before", self.gaps.missing, len(self.gaps))
        lease = None
        if config.lease.topic:
            known = tuple(zstandard.ZstdCompressionDict(one).dict_id() for one in dictionaries)
            lease = LeaseWriter(
                config.lease.topic, config.cluster.client_id, config.lease.valid_seconds, known
            )
        self.intake = Intake(config, keeper, lease, self._on_report, report.counters.taken > 0)
        self.line = Line(config.cluster.as_bridge("cluster"), self.intake, "cluster")
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(self.intake.run(), name="ingest batches"),
            loop.create_task(self._watch(), name="ingest watch"),
        ]
        if config.http.bind:
            await self._serve_http()
        if self.emitter is not None:
            self.emitter.start()
        self.line.start()

    async def _serve_http(self) -> None:
        from bridge.ingest.http import HttpServer  # heavy, and often off

        self._http = HttpServer(self)
        await self._http.start(parse_bind(self.config.http.bind))
        log.info("health and metrics on %s", self._http.url)

    def _choose_sink(self, database: ThreadedConnection) -> Sink:
        config = self.config
        if config.output == "file":
            return FileSink(config.file_directory, config.file.format, config.file.rotate_bytes)
        if config.output == "table":
            return TableSink(config.table_path)
        assert config.target is not None
        sink = OutboxSink(config.mqtt.topic_prefix)
        self.emitter = Emitter(config.target, config.mqtt, config.limits, database, sink)
        return sink

    async def stop(self) -> None:
        """Withdraw the lease, finish the batch at hand, leave the brokers, close."""
        await self.intake.stop()
        await asyncio.wait(self._tasks[:1], timeout=_BATCH_SECONDS)
        await self.line.stop()
        if self.emitter is not None:
            await self.emitter.stop()
        await self._close()

    async def _close(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self._http is not None:
            await self._http.stop()
            self._http = None
        if self._database is not None:
            sink, self._sink = self._sink, None
            if sink is not None:
                await self._database.run(lambda _: sink.close())
            await self._database.close()
            self._database = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    # ---- while it runs

    def _take_over(self, report: Report) -> None:
        self.counters, self.gateways, self.lanes = report.counters, report.gateways, report.lanes

    def _on_report(self, report: Report) -> None:
        self._take_over(report)
        self.gaps.update(report.gaps, time.monotonic())
        if self.emitter is not None:
            self.emitter.wake()

    async def _watch(self) -> None:
        """Each second what is missing, each minute how it stands."""
        summary_at = time.monotonic() + _SUMMARY_SECONDS
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            now = time.monotonic()
            for line in self.gaps.due(now):
                log.warning("%s", line)
            if now >= summary_at:
                summary_at = now + _SUMMARY_SECONDS
                self._summarize()

    def _summarize(self) -> None:
        counters = self.counters
        if counters.taken == self._summarized:
            return
        self._summarized = counters.taken
        log.info(
            "%d messages written, %d duplicates dropped, %d rejected, %d missing in %d lanes",
            counters.written,
            counters.duplicates + counters.device_duplicates,
            sum(counters.rejected.values()),
            self.gaps.missing,
            len(self.gaps),
        )


class _Keeper:
    """The worker, reached from the event loop."""

    def __init__(
        self, database: ThreadedConnection, worker: Worker, sink: Sink, emitter: Emitter | None
    ) -> None:
        self._database = database
        self._worker = worker
        self._sink = sink
        self._emitter = emitter

    def process(self, messages: Sequence[Message]) -> Awaitable[Report]:
        """Keep a batch."""
        return self._database.run(partial(self._worker.process, messages))

    def recover(self) -> Awaitable[Report]:
        """Go back to the last one."""
        return self._database.run(self._worker.recover)

    def is_full(self) -> bool:
        """Whether too much waits for the target."""
        return self._emitter is not None and self._emitter.is_full


def _read_dictionaries(paths: Sequence[Path]) -> list[bytes]:
    return [path.read_bytes() for path in paths]


def _explained(error: Exception) -> Exception:
    """What SQLite said, in words that help; a file's error as it is."""
    if is_damage(error):
        return StoreError(
            "open",
            f"{FILE_NAME} is damaged: {error}",
            "move it away: a new one begins, and what the cluster sends again once may then come twice",
        )
    return error if isinstance(error, OSError | StoreError) else explain("open", error)
