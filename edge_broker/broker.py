"""The broker: composes store, core, listeners and whoever rides along, and runs them from start to stop.

Once per turn of the event loop in which something happened, `_tick` tells the journal what is pending, asks the store
for the pages that queues and new subscribers want, and flushes every connection that has output: one write each.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from edge_broker import __version__, wiring
from edge_broker.config.model import Config, ListenerConfig
from edge_broker.core.connection import Connection
from edge_broker.core.correcting import correct_times
from edge_broker.core.histogram import Histogram
from edge_broker.core.ops import Lookup, Snapshot
from edge_broker.core.output import Output
from edge_broker.core.pending import Pending
from edge_broker.core.ports import Authorizer, Host
from edge_broker.core.queue import Queue
from edge_broker.core.router import Router
from edge_broker.errors import StoreError
from edge_broker.net.gate import Gate
from edge_broker.net.listeners import Listener
from edge_broker.ops import dead_letters
from edge_broker.ops.commands import Commands
from edge_broker.ops.disk import written_bytes
from edge_broker.ops.drops import DropLog
from edge_broker.ops.system_topics import SystemTopics
from edge_broker.renewing import Renewing
from edge_broker.store import Journal, Store, StoreClock, WriteBudget
from edge_broker.wire import const
from edge_broker.wire.topics import TopicCache

if TYPE_CHECKING:
    from edge_broker.core.retained_pages import RetainedPages
    from edge_broker.ops.audit import Audit, Value
    from edge_broker.ops.control import ControlServer, Handler
    from edge_broker.ops.http import HttpServer
    from edge_broker.ops.observed import ObservedStatus
    from edge_broker.security.password_admission import PasswordAdmission
    from edge_broker.security.token_admission import TokenAdmission

log: Final = logging.getLogger("edge_broker.broker")

_SWEEP_SECONDS: Final = 1.0
_SWITCH_SECONDS: Final = 0.0005
"""How long the store's thread waits for the interpreter while the event loop is busy. It asks a dozen times per commit:
at the default of 5 ms a flood of QoS 0 would delay every acknowledgement by a multiple of that."""
_PAGE_MESSAGES: Final = 1000
_CLOSING_SECONDS: Final = 2.0
_FLUSHING_SECONDS: Final = 10.0
_MOST_STRANGERS_LOGGED: Final = 5
"""Connections refused before they named themselves, per second: the log may be on an SD card."""


class Companion(Protocol):
    """What runs inside the broker and takes part in its traffic: a bridge."""

    @property
    def name(self) -> str:
        """How configuration, log and metrics call it."""

    def start(self, broker: Host, snapshot: Snapshot) -> None:
        """Subscribe to what it wants and begin its work; the store is open, clients are not yet admitted."""

    async def stop(self) -> None:
        """End its work; what it did not finish stays in the store."""

    @property
    def queue(self) -> Queue:
        """What waits for its upstream."""

    def status(self) -> ObservedStatus:
        """What it is doing now; to be asked after `start`."""


class Broker:
    """One broker. `start`, then `stop` once; `listening` says where it can be reached in between.

    `commands`: what the control socket answers, by name; `ops.control` says how to add one.
    """

    def __init__(self, config: Config, bridges: Sequence[Companion] = ()) -> None:
        self.config = config
        self.bridges = bridges
        self.connections: set[Connection] = set()
        self.max_connections = config.limits.max_connections
        self.card_endurance_bytes = config.store.card_endurance_terabytes * 10**12
        self._started_at = time.monotonic()
        self.loop_lag_seconds = Histogram()
        self.last_lag_seconds = 0.0
        self.swept_at = time.monotonic()
        self.read_errors = 0
        self.audit: Audit | None = None
        self.router: Router
        self.journal: Journal
        self.store: Store
        self._listeners: list[Listener] = []
        self.renewing = Renewing(config, self.request_tick, self._record_taken)
        self.watching = self.renewing.watching
        self.expiring = self.renewing.expiring
        self._passwords: PasswordAdmission | None = None
        self._tokens: TokenAdmission | None = None
        self._acl_file = config.security.acl_file
        self._http: HttpServer | None = None
        self._own_commands = Commands(self)
        self.commands: dict[str, Handler] = self._own_commands.registry() | dead_letters.commands(self)
        self._control: ControlServer | None = None
        self._system_topics: SystemTopics | None = None
        self.tick_requested = False
        self._strangers_logged = 0
        self._write_budget: WriteBudget | None = None
        self._drops = DropLog(self)
        self._authorizer: Authorizer | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._reads: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop

    # ---- from start to stop

    async def start(self) -> None:
        """Open the store, take over what it holds, and let clients in.

        `StoreError` or `OSError` where that fails, `ConfigError` for passwords, keys, an ACL or an audit log that will not
        do.
        """
        self._loop = asyncio.get_running_loop()
        sys.setswitchinterval(_SWITCH_SECONDS)
        self.renewing.prepare()
        self._passwords = wiring.make_passwords(self.config.security, self._call_later)
        self._tokens = wiring.make_tokens(self.config.security, self._call_later, self._passwords)
        self.watching.add("ACL", [self._acl_file], self._reload_acl)
        self._authorizer = self._read_acl()
        topics = TopicCache()
        self.store, snapshot = await Store.open(
            self.config.data_dir,
            topics=topics,
            wall_offset=_wall_offset,
            monotonic=_monotonic,
            vault=wiring.make_vault(self.config),
        )
        try:
            self.router = self._make_router(snapshot, topics)
            self.router.now = time.monotonic()
            self.router.observer = self.audit = wiring.make_audit(self.config.audit)
            self.router.restore(snapshot)
            self.journal = self._make_journal()
            if self.store.unwritable:  # health says so from the beginning, and when it is over
                self.router.pending.after_commit(lambda: log.warning("the store can be written now"))
                self.journal.poke()
            self._write_budget = wiring.make_write_budget(self.config.store)
            for bridge in self.bridges:
                bridge.start(self, snapshot)
            http = wiring.make_http(self, self.config.http)  # before clients come: its import takes long
            self._system_topics = self._make_system_topics()
            self._update_system_topics()
            await self._start_listeners()
            await self._start_http(http)
            await self._start_control()
        except BaseException:
            await self._stop_serving()
            if self.audit is not None:
                self.audit.close()
            await self.store.close()
            raise
        self._sweeper = self._loop.call_later(_SWEEP_SECONDS, self._sweep, self._loop.time() + _SWEEP_SECONDS)
        self._record("started", version=__version__, epoch=snapshot.epoch)
        self.renewing.start(self.router, self._passwords, self._tokens, self._http)
        log.info(
            "started: epoch %d, %d sessions, %d retained messages, data in %s",
            snapshot.epoch,
            len(snapshot.sessions),
            len(snapshot.retained),
            self.config.data_dir,
        )

    async def stop(self) -> None:
        """Say goodbye to everybody, commit what is pending, close the store."""
        await self._stop_serving()
        if self._sweeper is not None:
            self._sweeper.cancel()
        if self.router.delayed.in_memory:
            log.warning("%d delayed messages are in memory only and lost now", self.router.delayed.in_memory)
        for connection in list(self.connections):
            self._say_goodbye(connection)
        self._tick()
        await self._wait_until_closed()
        self._record("stopped")
        if self.audit is not None:
            self.audit.close()
        if self._passwords is not None:
            self._passwords.close()
        try:
            await asyncio.wait_for(self.journal.flush(), _FLUSHING_SECONDS)
        except TimeoutError:
            log.error("what was pending is not on disk, and acknowledged to nobody: %s", self.journal.problem)
        await self.journal.close()
        for read in self._reads:
            read.cancel()
        await self.store.close()
        log.info("stopped")

    def _say_goodbye(self, connection: Connection) -> None:
        reference = self.router.settings.server_reference
        reason_code = const.USE_ANOTHER_SERVER if reference else const.SERVER_SHUTTING_DOWN
        connection.fail(reason_code, "the broker is stopping", server_reference=reference)

    async def reload(self, config: Config) -> None:
        """Take over what can change while running: what is in the files that the configuration of the start names."""
        await self.watching.reload_all()
        self.config = config
        self._record("reloaded", what="configuration")
        log.info("reloaded: what is in the files it names; other changes take effect at the next start")

    def note_reload_refused(self, problem: str) -> None:
        """Put into the audit log that a new configuration was not taken over."""
        self._record("not reloaded", what="configuration", reason=problem)

    def record_action(self, action: str, by: str, **fields: Value) -> None:
        """Put into the audit log, where there is one, what an administrator did: in a word or two, `by` whom.

        `fields`: what it was done to. Never a password, token, key or payload.
        """
        if self.audit is not None:
            self.audit.record_action(action, by, **fields)

    def _record(self, event: str, **fields: Value) -> None:
        if self.audit is not None:
            self.audit.record(event, **fields)

    def _record_taken(self, what: str, refusal: str) -> None:
        """Files were taken anew, or were not, and why."""
        if refusal:
            self._record("not reloaded", what=what, reason=refusal)
        else:
            self._record("reloaded", what=what)

    async def _reload_acl(self) -> None:
        """Ask the ACL of now from now on, also for those who are here. `ConfigError` where it cannot be used."""
        authorizer = await asyncio.to_thread(self._read_acl)
        removed = self.router.replace_authorizer(authorizer)
        self.request_tick()
        log.info("the ACL in %s is in force; it took %d subscriptions away", self._acl_file, removed)

    def _read_acl(self) -> Authorizer | None:
        return wiring.make_authorizer(self._acl_file, [bridge.name for bridge in self.bridges])

    @property
    def clock(self) -> StoreClock:
        """What time it is, and how far that is known."""
        return self.store.clock

    @property
    def started_at(self) -> float:
        """When it started, in wall seconds as known by now."""
        return self.store.clock.wall(self._started_at)

    @property
    def listening(self) -> list[str]:
        """Where clients can connect, as URLs."""
        return [listener.url for listener in self._listeners if listener.accepting]

    @property
    def not_listening(self) -> list[str]:
        """Where clients should be able to connect and cannot, as URLs."""
        return [listener.url for listener in self._listeners if not listener.accepting]

    def _make_router(self, snapshot: Snapshot, topics: TopicCache) -> Router:
        config = self.config
        pending = Pending(snapshot.epoch, config.sessions.window_bytes)
        self._anonymous: dict[str, bool] = {}
        return Router(
            wiring.make_settings(config),
            pending,
            self.renewing.denying(wiring.make_admission(self._anonymous, self._passwords, self._tokens)),
            new_client_id=lambda: f"auto-{secrets.token_hex(10)}",
            topics=topics,
            authorizer=self._authorizer,
            max_uncommitted_bytes=config.limits.max_uncommitted_bytes,
            next_queue_id=snapshot.next_queue_id,
        )

    def _call_later(self, seconds: float, callback: Callable[[], None]) -> None:
        """Have `callback` called in `seconds`, in a turn whose output is flushed."""

        def call() -> None:
            self.request_tick()
            callback()

        self._loop.call_later(seconds, call)

    def _make_journal(self) -> Journal:
        store = self.config.store
        return Journal(
            self.store,
            self.router.pending,
            commit_delay_seconds=store.commit_delay_ms / 1000,
            leisurely_delay_seconds=store.removal_delay_ms / 1000,
            early_messages=store.early_commit_messages,
            early_bytes=store.early_commit_bytes,
            before_settle=self._read_clock,
            after_settle=self._on_settled,
        )

    async def _start_listeners(self) -> None:
        limits = self.config.limits
        gate = Gate(self, limits.max_connections_per_address, limits.max_unfinished_handshakes)
        for config in self.config.listeners:
            on_listening = partial(self._on_listening, config)
            listener = wiring.make_listener(self, config, gate, self.renewing.deny_list, on_listening)
            self._listeners.append(listener)
            self.renewing.watch_listener(config, listener)
            await listener.start()

    def _on_listening(self, config: ListenerConfig, listener: Listener) -> None:
        self._anonymous[listener.name] = config.anonymous
        log.info("listening on %s", listener.url)

    async def _start_http(self, http: HttpServer | None) -> None:
        address = self.config.http.address
        if http is None or address is None:
            return
        self._http = http
        await http.start(address.host, address.port)
        log.info("health and metrics on %s", http.url)

    async def _start_control(self) -> None:
        """Open the control socket. Without one the broker does its work all the same, so that it cannot be had is said."""
        control = wiring.make_control(self.config, self.commands)
        if control is None:
            return
        try:
            await control.start()
        except OSError as error:
            log.error(
                "no control socket, so no `edge-broker status` or `trace`: %s: %s ([control] path puts it elsewhere)",
                self.config.control_path,
                error.strerror or error,
            )
        else:
            self._control = control

    def _make_system_topics(self) -> SystemTopics | None:
        interval_seconds = self.config.sys_interval_seconds
        if not interval_seconds:
            return None
        return SystemTopics(self, self.router.publish_system, interval_seconds, self.router.now)

    async def _stop_serving(self) -> None:
        if self._control is not None:
            await self._control.stop()
        await self._own_commands.close()
        await self.watching.stop()
        for listener in self._listeners:
            listener.stop_accepting()
        for bridge in self.bridges:
            await bridge.stop()
        if self._http is not None:
            await self._http.stop()

    async def _wait_until_closed(self) -> None:
        deadline = self._loop.time() + _CLOSING_SECONDS
        while self.connections and self._loop.time() < deadline:  # noqa: ASYNC110 - it ends with the broker
            await asyncio.sleep(0.01)

    # ---- every turn of the event loop

    def request_tick(self) -> None:
        """Have `_tick` run at the end of this turn, and the core know the time of the turn."""
        if not self.tick_requested:
            self.tick_requested = True
            self.router.now = time.monotonic()
            self._loop.call_soon(self._tick)

    def _tick(self) -> None:
        self.tick_requested = False
        router = self.router
        pending = router.pending
        if not pending.empty:
            self.journal.poke()
        if pending.reads or pending.lookups or pending.retained_reads:
            self._start_reads()
        dirty = router.dirty
        if dirty:
            router.dirty = []
            for connection in dirty:
                try:
                    connection.flush()
                except Exception:
                    self._break(connection)
                if connection.closing:
                    self._log_end(connection)

    def _read_clock(self) -> None:
        self.router.now = time.monotonic()

    def _on_settled(self) -> None:
        self.router.on_settled()
        self._tick()  # the acknowledgements have waited long enough

    def _break(self, connection: Output) -> None:
        """Called from an except block: a fault of ours ends the one connection that met it."""
        log.exception(
            "internal error on the connection of %s (%s)", connection.client_id or "?", connection.address
        )
        self.router.counters.refuse("internal_error")
        connection.on_lost("internal error")

    def _log_end(self, connection: Output) -> None:
        assert connection.end is not None
        connection.closing = False
        reason_code, detail = connection.end
        level = logging.DEBUG if reason_code < 0x80 else logging.INFO
        if level == logging.INFO and not connection.client_id:  # anybody can have us write these
            self._strangers_logged += 1
            if self._strangers_logged > _MOST_STRANGERS_LOGGED:
                return
        log.log(level, "%s from %s: %s", connection.client_id or "a client", connection.address, detail)

    # ---- pages of queues and of retained messages

    def _start_reads(self) -> None:
        pending = self.router.pending
        queues, pending.reads = pending.reads, []
        lookups, pending.lookups = pending.lookups, []
        deliveries, pending.retained_reads = pending.retained_reads, []
        for read in [
            *map(self._read, queues),
            *map(self._look_up, lookups),
            *map(self._read_retained, deliveries),
        ]:
            task = self._loop.create_task(read)
            self._reads.add(task)
            task.add_done_callback(self._reads.discard)

    async def _read(self, queue: Queue) -> None:
        """Answer one `want_page`; where the store cannot, the queue asks again a little later."""
        if queue.reading is None:
            return
        try:
            page = await self.store.read_page(
                queue.queue_id, queue.reading[0], _PAGE_MESSAGES, self.router.pending.window_bytes
            )
        except StoreError as error:
            self.read_errors += 1
            log.debug("a queue could not be read, it is tried again: %s", error)  # the store has told it
            queue.take_page(None)
            await asyncio.sleep(self.store.read_retry_seconds)
            page = None
            if queue.owner is not None:
                queue.owner.pump()
        else:
            self.router.now = time.monotonic()
            queue.take_page(page)
        self.request_tick()

    async def _look_up(self, lookup: Lookup) -> None:
        """Answer one `Lookup`; where the store cannot, a little later."""
        page = None
        try:
            page = await self.store.read_page(
                lookup.queue_id,
                lookup.from_number,
                lookup.max_messages,
                self.router.pending.window_bytes,
            )
        except StoreError as error:
            self.read_errors += 1
            log.debug("a queue could not be read, it is tried again: %s", error)  # the store has told it
            await asyncio.sleep(self.store.read_retry_seconds)
        self.router.now = time.monotonic()
        lookup.take(page)
        self.request_tick()

    async def _read_retained(self, pages: RetainedPages) -> None:
        """Answer those who want retained messages; where the store cannot, they ask again a little later."""
        topics = pages.wanted
        if not topics:
            return
        try:
            messages = await self.store.read_retained(topics)
        except StoreError as error:
            self.read_errors += 1
            log.debug("retained messages could not be read, it is tried again: %s", error)
            await asyncio.sleep(self.store.read_retry_seconds)
            pages.take(None)
        else:
            self.router.now = time.monotonic()
            pages.take(messages)
        self.request_tick()

    # ---- every second

    def _sweep(self, due_at: float) -> None:
        started_at = self._loop.time()
        self._sweeper = self._loop.call_at(
            started_at + _SWEEP_SECONDS, self._sweep, started_at + _SWEEP_SECONDS
        )
        self.last_lag_seconds = max(0.0, started_at - due_at)
        self.loop_lag_seconds.observe(self.last_lag_seconds)
        if self._strangers_logged > _MOST_STRANGERS_LOGGED:
            log.info("%d more like these in this second", self._strangers_logged - _MOST_STRANGERS_LOGGED)
        self._strangers_logged = 0
        now = self.swept_at = time.monotonic()
        self._own_commands.note(now)
        if self._write_budget is not None:
            self.journal.commit_delay_seconds = self._write_budget.commit_delay(now, written_bytes() or 0)
        self._look_at_clock()
        for connection in list(self.connections):
            try:
                connection.check_idle(now)
            except Exception:
                self._break(connection)
        try:
            self.router.sweep(now)
        except Exception:
            log.exception("internal error while ending sessions and publishing wills")
        if self._passwords is not None:
            self._passwords.sweep(now)
        elif self._tokens is not None:  # else they share what is swept
            self._tokens.guessing.sweep(now)
        if self.audit is not None:
            self.audit.sweep(now)
        try:
            self._drops.look(now)
        except Exception:
            log.exception("internal error while looking for lost messages")
        self._update_system_topics()
        self.request_tick()

    def _look_at_clock(self) -> None:
        """Where the clock has come right, what is in memory from before this run is older than it seemed."""
        correction = self.store.look_at_clock()
        if correction is not None:
            outboxes = [bridge.queue for bridge in self.bridges]
            correct_times(self.router, outboxes, correction.before, correction.seconds)

    def _update_system_topics(self) -> None:
        """Publish what changed of them, if it is time to."""
        if self._system_topics is None:
            return
        try:
            self._system_topics.update(self.router.now)
        except Exception:
            log.exception("internal error in the topics under $SYS")


def _monotonic() -> float:
    return time.monotonic()


def _wall_offset() -> float:
    """Wall clock minus monotonic clock, in seconds."""
    return time.time() - time.monotonic()
