"""The broker: composes store, core, listeners and whoever rides along, and runs them from start to stop.

It stands on two floors: `turns`, what happens in every turn of the event loop, and `serving`, where it can be reached. Here
is what happens once: the start, which admits nobody before the store is open and everything of it is taken over; the stop,
which commits before it closes; and in between what happens every second and on request.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, Protocol

from edge_broker import __version__, wiring
from edge_broker.config.model import Config
from edge_broker.core.connection import Connection
from edge_broker.core.correcting import correct_times, shift_expiry
from edge_broker.core.histogram import Histogram
from edge_broker.core.ops import Snapshot
from edge_broker.core.pending import Pending
from edge_broker.core.ports import Authorizer, Host
from edge_broker.core.queue import Queue
from edge_broker.core.router import Router
from edge_broker.ops import dead_letters
from edge_broker.ops.commands import Commands
from edge_broker.ops.disk import written_bytes
from edge_broker.ops.drops import DropLog
from edge_broker.ops.system_topics import SystemTopics
from edge_broker.reading import Reading
from edge_broker.renewing import Renewing
from edge_broker.serving import Serving
from edge_broker.store import Journal, Store, StoreClock, WriteBudget
from edge_broker.wire import const
from edge_broker.wire.topics import TopicCache

if TYPE_CHECKING:
    from edge_broker.ops.audit import Audit, Value
    from edge_broker.ops.observed import ObservedStatus
    from edge_broker.security.password_admission import PasswordAdmission
    from edge_broker.security.token_admission import TokenAdmission

log: Final = logging.getLogger("edge_broker.broker")

_SWEEP_SECONDS: Final = 1.0
_SWITCH_SECONDS: Final = 0.0005
"""How long the store's thread waits for the interpreter while the event loop is busy. It asks a dozen times per commit:
at the default of 5 ms a flood of QoS 0 would delay every acknowledgement by a multiple of that."""
_CLOSING_SECONDS: Final = 2.0
_FLUSHING_SECONDS: Final = 10.0


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
    def queues(self) -> Mapping[str, Queue]:
        """What waits for its upstream, by priority."""

    def status(self) -> ObservedStatus:
        """What it is doing now; to be asked after `start`."""

    def set_canary_percent(self, percent: float) -> None:
        """Have so many of the topics go to its canary, which it has."""


class Broker(Serving):
    """One broker. `start`, then `stop` once; `listening` says where it can be reached in between."""

    def __init__(self, config: Config, bridges: Sequence[Companion] = ()) -> None:
        super().__init__(config)
        self.bridges = bridges
        self.card_endurance_bytes = config.store.card_endurance_terabytes * 10**12
        self._started_at = time.monotonic()
        self.loop_lag_seconds = Histogram()
        self.last_lag_seconds = 0.0
        self.swept_at = time.monotonic()
        self.audit: Audit | None = None
        self.store: Store
        self.renewing = Renewing(config, self.request_tick, self._record_taken)
        self.watching = self.renewing.watching
        self.expiring = self.renewing.expiring
        self._passwords: PasswordAdmission | None = None
        self._tokens: TokenAdmission | None = None
        self._acl_file = config.security.acl_file
        self._own_commands = Commands(self)
        self.commands = self._own_commands.registry() | dead_letters.commands(self)
        self._system_topics: SystemTopics | None = None
        self._write_budget: WriteBudget | None = None
        self._drops = DropLog(self)
        self._authorizer: Authorizer | None = None
        self._sweeper: asyncio.TimerHandle | None = None

    # ---- from start to stop

    async def start(self) -> None:
        """Open the store, take over what it holds, and let clients in.

        `StoreError` or `OSError` where that fails, `ConfigError` for passwords, keys, an ACL or an audit log that will not
        do.
        """
        self._loop = asyncio.get_running_loop()
        sys.setswitchinterval(_SWITCH_SECONDS)
        self._read_who_may_what()
        topics = TopicCache()
        self.store, snapshot = await Store.open(
            self.config.data_dir,
            topics=topics,
            wall_offset=_wall_offset,
            monotonic=_monotonic,
            vault=wiring.make_vault(self.config),
        )
        try:
            self._take_over(snapshot, topics)
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

    def _read_who_may_what(self) -> None:
        """Whoever may come in, and what each may do then; changes of these files are seen from now on."""
        self.renewing.prepare()
        self._passwords = wiring.make_passwords(self.config.security, self._call_later)
        self._tokens = wiring.make_tokens(
            self.config.security, self._call_later, self._passwords, self._wall_now
        )
        self.watching.add("ACL", [self._acl_file], self._reload_acl)
        self._authorizer = self._read_acl()

    def _take_over(self, snapshot: Snapshot, topics: TopicCache) -> None:
        """Make the core as the store has it, and have whoever rides along begin."""
        self.router = self._make_router(snapshot, topics)
        self.router.now = time.monotonic()
        self.router.observer = self.audit = wiring.make_audit(self.config.audit)
        self.router.restore(snapshot)
        self.journal = self._make_journal()
        self.reading = Reading(self.router, self.store, self.request_tick)
        if self.store.unwritable:  # health says so from the beginning, and when it is over
            self.router.pending.after_commit(lambda: log.warning("the store can be written now"))
            self.journal.poke()
        self._write_budget = wiring.make_write_budget(self.config.store)
        for bridge in self.bridges:
            bridge.start(self, snapshot)

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
        self.reading.cancel()
        await self.store.close()
        log.info("stopped")

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

    def _say_goodbye(self, connection: Connection) -> None:
        reference = self.router.settings.server_reference
        reason_code = const.USE_ANOTHER_SERVER if reference else const.SERVER_SHUTTING_DOWN
        connection.fail(reason_code, "the broker is stopping", server_reference=reference)

    def _make_router(self, snapshot: Snapshot, topics: TopicCache) -> Router:
        config = self.config
        pending = Pending(snapshot.epoch, config.sessions.window_bytes)
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

    def _make_journal(self) -> Journal:
        store = self.config.store
        return Journal(
            self.store,
            self.router.pending,
            commit_delay_seconds=store.commit_delay_ms / 1000,
            leisurely_delay_seconds=store.removal_delay_ms / 1000,
            early_messages=store.early_commit_messages,
            early_bytes=store.early_commit_bytes,
            before_settle=self._before_settle,
            after_settle=self._after_settle,
        )

    def _make_system_topics(self) -> SystemTopics | None:
        interval_seconds = self.config.sys_interval_seconds
        if not interval_seconds:
            return None
        return SystemTopics(self, self.router.publish_system, interval_seconds, self.router.now)

    # ---- what changes while it runs, and the account of it

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
        names = {
            bridge.name.partition("!")[0] for bridge in self.bridges
        }  # a canary may do what its bridge may
        return wiring.make_authorizer(self._acl_file, names)

    # ---- to be looked at

    @property
    def clock(self) -> StoreClock:
        """What time it is, and how far that is known."""
        return self.store.clock

    def _wall_now(self) -> float:
        """What time it is, by the clock that a step of the system's does not turn back."""
        return self.store.clock.wall(time.monotonic())

    @property
    def started_at(self) -> float:
        """When it started, in wall seconds as known by now."""
        return self.store.clock.wall(self._started_at)

    @property
    def read_errors(self) -> int:
        """Pages that the store could not read."""
        return self.reading.errors

    # ---- every second

    def _sweep(self, due_at: float) -> None:
        started_at = self._loop.time()
        self._sweeper = self._loop.call_at(
            started_at + _SWEEP_SECONDS, self._sweep, started_at + _SWEEP_SECONDS
        )
        self.last_lag_seconds = max(0.0, started_at - due_at)
        self.loop_lag_seconds.observe(self.last_lag_seconds)
        self._count_strangers_anew()
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
        believed = self.clock.wall(0.0)
        correction = self.store.look_at_clock()
        moved = self.clock.wall(0.0) - believed
        if moved:
            shift_expiry(self.connections, moved)
        if correction is not None:
            outboxes = [queue for bridge in self.bridges for queue in bridge.queues.values()]
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
