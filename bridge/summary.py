"""What a bridge is doing, gathered from its parts and summed over its lanes, as `bridge.status` has it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from bridge.status import EnvelopesStatus, PolicyStatus, Status

if TYPE_CHECKING:
    from bridge.downlink import Downlink
    from bridge.lease_watch import LeaseWatch
    from bridge.line import Line
    from bridge.outbox import Outbox
    from bridge.way_up import WayUp


def summarize(
    outbox: Outbox,
    way: WayUp,
    downlink: Downlink,
    line: Line,
    watch: LeaseWatch | None,
    *,
    month_used_bytes: int,
    spans_lost: int,
    canary_percent: float | None,
) -> Status:
    """This moment."""
    queues, forwarders, now = way.queues.values(), way.forwarders.values(), time.monotonic()
    acknowledged = [one.last_acknowledged_at for one in forwarders if one.last_acknowledged_at is not None]
    sent = [sum(counts) for counts in zip(*(one.sent for one in forwarders), strict=True)]
    skips = [one.skips for one in forwarders if one.skips is not None]
    error = line.last_error
    return Status(
        name=line.config.name,
        state=line.state,
        upstream=str(line.upstream),
        version=line.version,
        depth=sum(queue.depth for queue in queues),
        in_flight=way.uplink.in_flight,
        sent=(sent[0], sent[1], sent[2]),
        acknowledged=way.uplink.acknowledged,
        resent=sum(one.resent for one in forwarders),
        received=(downlink.received[0], downlink.received[1], downlink.received[2]),
        connects=line.connects,
        dropped=_together([outbox.dropped, downlink.dropped]),
        refused=_together([one.refused for one in forwarders]),
        expired=sum(queue.expired for queue in queues),
        lost=sum(queue.lost for queue in queues),
        late=downlink.late,
        subscriptions_refused=downlink.subscriptions_refused,
        last_acknowledged_wall=time.time() - (now - max(acknowledged)) if acknowledged else None,
        failures=dict(line.failures),
        last_error="" if error is None else error.problem,
        last_hint="" if error is None else error.hint,
        skipped_announced=sum(one.announced for one in skips),
        skipped_refused=sum(one.refused for one in skips),
        skipped_waiting=sum(one.waiting for one in skips),
        spans_lost=spans_lost,
        policy=_policy(way, line, month_used_bytes, now),
        canary_percent=canary_percent,
        envelopes=_envelopes(way, watch, now),
    )


def _policy(way: WayUp, line: Line, month_used_bytes: int, now: float) -> PolicyStatus:
    policy = line.policy
    return PolicyStatus(
        breaker=policy.breaker.state(now),
        breaker_opened=policy.breaker.opened,
        failovers=policy.failovers,
        ejections=policy.ejections,
        upstreams=line.roaming.status(line.upstream),
        draining=way.uplink.draining,
        drain_seconds=way.uplink.drain_seconds,
        month_used_bytes=month_used_bytes,
        month_bytes=line.config.pacing.monthly_bytes,
    )


def _envelopes(way: WayUp, watch: LeaseWatch | None, now: float) -> EnvelopesStatus | None:
    found = [one.envelopes for one in way.forwarders.values() if one.envelopes is not None]
    if not found:
        return None
    return EnvelopesStatus(
        lease="off" if watch is None else watch.lease.state(now),
        lease_seconds=0.0 if watch is None else watch.lease.seconds_left(now),
        ingester="" if watch is None else watch.lease.ingester,
        malformed=0 if watch is None else watch.lease.malformed,
        sent=sum(one.sent for one in found),
        messages=sum(one.messages for one in found),
        bytes_before=sum(one.bytes_before for one in found),
        bytes_after=sum(one.bytes_after for one in found),
        fallen_apart=sum(one.fallen_apart for one in found),
    )


def _together(counts: Sequence[Mapping[str, int]]) -> dict[str, int]:
    """The sums, by reason."""
    total: Counter[str] = Counter()
    for each in counts:
        total.update(each)
    return dict(total)
