"""One of the queues that share a bridge's connection: a forwarder that sends as much as it is let, and no more.

Whose turn it is and how much room there is, `lanes` decides; what may go and what answers mean is as in any forwarder.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from bridge.config import BridgeConfig
from bridge.forwarder import Forwarder
from bridge.mapping import OutMapping
from bridge.packet_ids import SHARE, SharedPacketIds
from bridge.priorities import HIGH
from edge_broker.core.queue import Queue

if TYPE_CHECKING:
    from edge_broker.core.router import Router


class Lane(Forwarder):
    """The queue of one `priority`."""

    def __init__(
        self,
        priority: int,
        queue: Queue,
        mapping: OutMapping,
        router: Router,
        config: BridgeConfig,
        on_given_up: Callable[[str, str], None],
    ) -> None:
        super().__init__(
            queue,
            mapping,
            router,
            config.window,
            config.puback_timeout_seconds,
            on_given_up,
            config.pacing,
        )
        self.priority = priority
        self.may_announce = False

    def share_identifiers(self) -> None:
        """From now on its packet identifiers are those of its place among the lanes. Nothing may be in flight."""
        self.packet_ids = SharedPacketIds(self.queue, self.priority)
        self.queue.span = SHARE
        self.may_announce = True

    def share_pace_with(self, other: Lane) -> None:
        """Have one rate with `other`. What waited goes at the drain's, but what is urgent at that of what comes."""
        self._live, self._drain = other._live, other._drain
        if self.priority == HIGH:
            self._drain = self._live
        self._is_paced = self._live.is_limited or self._drain.is_limited

    @property
    def waits(self) -> bool:
        """Whether something is to be sent, now or when it has been read or committed."""
        return self.queue.cursor < self.queue.next_number or self._unsent > 0

    def send_some(self, most: int) -> tuple[bool, int]:
        """Send up to `most` packets of what is due: True where a turn's budget ended before that, and how many left."""
        whole, before = self._window, self.packets_in_flight
        self._window = min(whole, before + most)
        has_more = self.send_due()
        self._window = whole
        return has_more, self.packets_in_flight - before

    def send_taken(self, most: int) -> None:
        """Send up to `most` packets of what gathers or goes by itself, which the queue has given out, and nothing else."""
        whole = self._window
        self._window = min(whole, self.packets_in_flight + most)
        self._send_unsent()
        self._window = whole

    def close_window_after(self, most: int) -> None:
        """Send nothing new but what gathers, in `most` packets."""
        self._window = min(self._window, self.packets_in_flight + most)
        self.close_window()

    def seconds_to_drain(self, lanes: Collection[Lane]) -> float | None:
        """How long what waited in `lanes` takes at this one's pace; None where that has no limit."""
        if not self._drain.is_limited or self._client is None:
            return None
        size_bytes = sum(
            lane.draining * lane.queue.packet_bytes / lane.queue.depth for lane in lanes if lane.draining
        )
        return self._drain.seconds_for(sum(lane.draining for lane in lanes), size_bytes)
