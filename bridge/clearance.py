"""Whether a message whose turn has come may go up, and at what pace.

- What a rule, or the month's allowance, does not want sent any more is let go and counted under its reason. Of QoS 2
  nothing that may have been sent before is: its identifier is known upstream.
- Messages that waited when the connection stood go at one pace, those that come at another (`bridge.pacing`).

The forwarder's second floor: it sends nothing either.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from bridge.answers import Answers
from bridge.latest import SUPERSEDED, Latest
from bridge.mapping import OutMapping, RemoteTopic
from bridge.pacing import Pace, drain_pace, live_pace
from bridge.packet_ids import PacketIds
from bridge.policy_config import PacingConfig
from edge_broker.core.message import Message
from edge_broker.core.queue import Queue

if TYPE_CHECKING:
    from edge_broker.core.router import Router


class Clearance(Answers):
    """What decides for one queue. `withholds`: what is dropped rather than sent. `wait_seconds`: until the pace lets more
    out. `latest`: who knows what a later message has superseded, None for nobody."""

    def __init__(
        self,
        queue: Queue,
        mapping: OutMapping,
        router: Router,
        puback_timeout_seconds: float,
        on_given_up: Callable[[str, str], None],
        packet_ids: PacketIds,
        pacing: PacingConfig,
    ) -> None:
        super().__init__(queue, mapping, router, puback_timeout_seconds, on_given_up, packet_ids)
        self.wait_seconds = 0.0
        self.withholds: Literal["", "all", "not urgent"] = ""
        self.latest: Latest | None = None
        self._live, self._drain = live_pace(pacing), drain_pace(pacing)
        self._is_paced = self._live.is_limited or self._drain.is_limited
        self._drain_to = 0  # numbers below it waited when the connection stood

    # ---- pace

    @property
    def draining(self) -> int:
        """Messages that waited when the connection stood and are not acknowledged yet, about."""
        return 0 if self._client is None else min(max(0, self._drain_to - self.queue.head), self.queue.depth)

    @property
    def drain_seconds(self) -> float | None:
        """How long those take at their pace; None where that has no limit, so that the line decides."""
        if not self._drain.is_limited or self._client is None:
            return None
        draining = self.draining
        typical_bytes = self.queue.packet_bytes / self.queue.depth if draining else 0.0
        return self._drain.seconds_for(draining, draining * typical_bytes)

    def _pace_of(self, number: int) -> Pace:
        return self._drain if number < self._drain_to else self._live

    def _must_wait(self, size_bytes: int | None = None) -> bool:
        """Whether its pace lets the next message wait; sets `wait_seconds`. `size_bytes`: where not its own count."""
        queue = self.queue
        number = queue.cursor
        message = queue.messages.get(number)
        if message is not None:  # else there is none, or it has to be read first
            if size_bytes is None:
                size_bytes = len(message.frame)
            self.wait_seconds = self._pace_of(number).wait_seconds(size_bytes, self._router.now)
        return self.wait_seconds > 0

    # ---- permission

    def _remote_of(self, number: int, message: Message) -> RemoteTopic | None:
        """Where `message`, which is due, goes; None where it does not, and is done with."""
        remote = self._mapping.known.get(message.topic) or self._mapping.find(message.topic)
        if remote is None:  # queued under a rule that is not there any more
            self._give_up(number, "no_rule", message.topic)
            return None
        if remote.may_be_skipped or self.withholds:
            reason = self._why_not(number, message, remote)
            if reason:
                self._skip(number, message, reason)
                return None
        return remote

    def _why_not(self, number: int, message: Message, remote: RemoteTopic) -> str:
        """Why the message `number` is not to be sent any more, empty where it is."""
        if message.qos == 2 and number < self.queue.sent_before:
            return ""
        now = self._router.now
        if remote.max_age_seconds and message.received_at + remote.max_age_seconds <= now:
            return "too_old"
        if (
            remote.keep_latest
            and self.latest is not None
            and self.latest.is_superseded(message.topic, number)
        ):
            return SUPERSEDED
        return "allowance" if self._is_withheld(remote) else ""

    def _is_withheld(self, remote: RemoteTopic) -> bool:
        return self.withholds == "all" or (self.withholds == "not urgent" and not remote.is_urgent)

    def _skip(self, number: int, message: Message, reason: str) -> None:
        """`message`, which is due, is not to be sent any more: count it, and go on without it."""
        queue = self.queue
        if queue.burials is not None and reason != SUPERSEDED:
            queue.burials.bury(message, reason)
        queue.count_drop(reason)
        queue.complete(number)
        queue.tell_skipped(number)
        if self.tracer is not None:
            self.tracer.on_done(number, self._router.now, reason)
