"""What the control socket tells of the running broker: `status`, one screen of health; `bridges`, each bridge in full.

`bridge canary` changes what share of the topics goes to a bridge's canary.
"""

from __future__ import annotations

import os
import time
from typing import Any, Final

from edge_broker import __version__
from edge_broker.core.queue import Queue
from edge_broker.errors import CommandError
from edge_broker.ops import disk
from edge_broker.ops.backlog import Backlog, BacklogView
from edge_broker.ops.control import Answer, Handler, Request, wanted
from edge_broker.ops.facts import gather
from edge_broker.ops.health import assess
from edge_broker.ops.observed import (
    Observed,
    ObservedBridge,
    ObservedEnvelopes,
    ObservedPolicy,
    dropped_messages,
    queue_names,
)
from edge_broker.ops.rates import Rates
from edge_broker.ops.trace import TraceCommand

_DEEPEST_QUEUES: Final = 10


class Commands:
    """The commands of one broker. `note` about once a second; `close` before the store is closed."""

    def __init__(self, observed: Observed) -> None:
        self._observed = observed
        self._backlogs = BacklogView(observed)
        self._rates = Rates(observed)
        self._today = disk.WrittenToday(time.time())

    def registry(self) -> dict[str, Handler]:
        """All of them, by name."""
        return {
            "status": self.status,
            "bridges": self.bridges,
            "bridge canary": self.canary,
            "trace": TraceCommand(self._observed).run,
        }

    def note(self, now: float) -> None:
        """Another second has passed; `now` is the monotonic clock."""
        self._rates.note(now)
        self._today.note(time.time())

    async def close(self) -> None:
        """Read nothing more."""
        await self._backlogs.close()

    async def status(self, _: Request) -> Answer:
        """Everything that a person wants to know first."""
        observed = self._observed
        backlogs = await self._backlogs.look()
        facts = gather(observed, time.monotonic())
        health = assess(facts)
        return {
            "version": __version__,
            "pid": os.getpid(),
            "started_at": observed.started_at,
            "uptime_seconds": observed.clock.wall(time.monotonic()) - observed.started_at,
            "live": health.live,
            "ready": health.ready,
            "problems": [problem._asdict() for problem in health.problems],
            "listeners": {"up": list(facts.listening), "down": list(facts.not_listening)},
            "clients": self._clients(),
            "messages": self._messages(),
            "queues": _deepest(backlogs),
            "store": self._store(),
            "bridges": self._bridges(backlogs),
            "event_loop_lag_seconds": facts.loop_lag_seconds,
        }

    async def bridges(self, _: Request) -> Answer:
        """Every bridge."""
        return {"bridges": self._bridges(await self._backlogs.look())}

    async def canary(self, request: Request) -> Answer:
        """How many percent of the topics go to the canary of the bridge `name`; with `percent`, so many from now on."""
        name, percent = wanted(request, "name", str, ""), request.get("percent")
        bridge = next((one for one in self._observed.bridges if one.name == name), None)
        if bridge is None:
            there = ", ".join(one.name for one in self._observed.bridges) or "none"
            raise CommandError(f"there is no bridge {name!a}", f"there are {there}")
        before = bridge.status().canary_percent
        if before is None:
            raise CommandError(
                f"the bridge {name!a} has no canary", "[bridges.canary] in the configuration makes one"
            )
        if percent is None:
            return {"name": name, "percent": before}
        if isinstance(percent, bool) or not isinstance(percent, int | float) or not 0 <= percent <= 100:
            raise CommandError("percent must be a number from 0 to 100")
        bridge.set_canary_percent(float(percent))
        self._observed.record_action(
            "bridge canary", request["by"], bridge=name, percent=float(percent), before=before
        )
        return {"name": name, "percent": float(percent), "before": before}

    def _clients(self) -> dict[str, int]:
        sessions = self._observed.router.sessions.values()
        connected = sum(session.online for session in sessions)
        return {
            "connections": len(self._observed.connections),
            "connected": connected,
            "away": len(sessions) - connected,
            "subscriptions": sum(len(session.subscriptions) for session in sessions),
        }

    def _messages(self) -> dict[str, Any]:
        router = self._observed.router
        return {
            "received": sum(router.counters.received),
            "sent": sum(router.counters.sent),
            "received_per_second": round(self._rates.received, 1),
            "sent_per_second": round(self._rates.sent, 1),
            "dropped": {reason: n for reason, n in dropped_messages(self._observed).items() if n},
            "denied": sum(router.counters.denied.values()),
            "retained": router.retained_messages,
            "elided": router.pending.elided,
        }

    def _store(self) -> dict[str, Any]:
        observed = self._observed
        written = disk.written_bytes()
        seconds = observed.clock.wall(time.monotonic()) - observed.started_at
        try:
            size = observed.store.file_bytes
        except OSError:  # health says what is wrong with the disk
            size = None
        return {
            "healthy": observed.journal.healthy,
            "problem": observed.journal.problem,
            "bytes": size,
            "commits": observed.store.commits,
            "uncommitted_bytes": observed.router.pending.uncommitted_bytes,
            "written_bytes": written,
            "written_today_bytes": self._today.bytes(),
            "card_years": None
            if written is None
            else disk.card_years(observed.card_endurance_bytes, written, seconds),
        }

    def _bridges(self, backlogs: list[Backlog]) -> list[dict[str, Any]]:
        by_name = {backlog.name: backlog for backlog in backlogs}
        return [self._bridge(bridge, by_name) for bridge in self._observed.bridges]

    def _bridge(self, bridge: ObservedBridge, backlogs: dict[str, Backlog]) -> dict[str, Any]:
        status = bridge.status()
        names = queue_names(bridge)
        lanes = [
            _lane(priority, queue, backlogs.get(name))
            for priority, (name, queue) in zip(bridge.queues, names.items(), strict=True)
        ]
        ages = [lane["oldest_age_seconds"] for lane in lanes]
        drain = self._rates.drain(bridge.name)
        return {
            "name": status.name,
            "state": status.state,
            "connected": status.connected,
            "upstream": status.upstream,
            "version": status.version,
            "depth": status.depth,
            "bytes": sum(lane["bytes"] for lane in lanes),
            "oldest_age_seconds": None if None in ages else max(ages),
            "lanes": lanes,
            "in_flight": status.in_flight,
            "sent": list(status.sent),
            "acknowledged": status.acknowledged,
            "resent": status.resent,
            "received": list(status.received),
            "connects": status.connects,
            "dropped": _losses(status.dropped, expired=status.expired, lost=status.lost),
            "given_up": dict(status.refused),
            "skipped": {
                "announced": status.skipped_announced,
                "refused": status.skipped_refused,
                "waiting": status.skipped_waiting,
            },
            "late": status.late,
            "last_acknowledged_at": status.last_acknowledged_wall,
            "failures": {kind: count for kind, count in status.failures.items() if count},
            "last_error": status.last_error,
            "last_hint": status.last_hint,
            "drain_per_second": round(drain, 1),
            "drained_in_seconds": round(status.depth / drain, 1) if drain > 0 and status.depth else None,
            "policy": _policy(status.policy),
            "canary_percent": status.canary_percent,
            "envelopes": None if status.envelopes is None else _envelopes(status.envelopes),
        }


def _lane(priority: str, queue: Queue, backlog: Backlog | None) -> dict[str, Any]:
    """One of a bridge's queues."""
    return {
        "priority": priority,
        "depth": queue.depth,
        "bytes": queue.packet_bytes,
        "oldest_age_seconds": None if backlog is None else backlog.oldest_age_seconds,
    }


def _envelopes(envelopes: ObservedEnvelopes) -> dict[str, Any]:
    return {
        "lease": envelopes.lease,
        "lease_seconds": round(envelopes.lease_seconds, 1),
        "ingester": envelopes.ingester,
        "malformed": envelopes.malformed,
        "sent": envelopes.sent,
        "messages": envelopes.messages,
        "bytes_before": envelopes.bytes_before,
        "bytes_after": envelopes.bytes_after,
        "fallen_apart": envelopes.fallen_apart,
    }


def _policy(policy: ObservedPolicy) -> dict[str, Any]:
    return {
        "breaker": policy.breaker,
        "breaker_opened": policy.breaker_opened,
        "failovers": policy.failovers,
        "ejections": policy.ejections,
        "draining": policy.draining,
        "drain_seconds": None if policy.drain_seconds is None else round(policy.drain_seconds, 1),
        "month_used_bytes": policy.month_used_bytes,
        "month_bytes": policy.month_bytes,
        "upstreams": [
            {
                "url": upstream.url,
                "priority": upstream.priority,
                "chosen": upstream.chosen,
                "ejected": upstream.ejected,
                "seconds": {kind: round(seconds, 4) for kind, seconds in upstream.seconds.items()},
            }
            for upstream in policy.upstreams
        ],
    }


def _deepest(backlogs: list[Backlog]) -> list[dict[str, Any]]:
    """Queues in which something waits, the deepest first."""
    waiting = sorted((b for b in backlogs if b.messages), key=lambda b: (-b.messages, b.name))
    return [
        {"name": b.name, "messages": b.messages, "oldest_age_seconds": b.oldest_age_seconds}
        for b in waiting[:_DEEPEST_QUEUES]
    ]


def _losses(by_reason: dict[str, int], **others: int) -> dict[str, int]:
    return {reason: count for reason, count in {**by_reason, **others}.items() if count}
