"""Listens for the ingester's announcements on a bridge's connection, and says in the log what they change.

The subscription is made anew on each connection, at QoS 0: what was announced while we were away is old, and the upstream
shall not queue it; what holds is retained. What is announced itself is `lease`'s to judge.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

from bridge import failures
from bridge.lease import Lease, LeaseState
from edge_broker.core.client import Client
from edge_broker.core.message import Message
from edge_broker.wire.packets import SubscriptionRequest

log: Final = logging.getLogger("bridge")

_SAYS: Final[dict[LeaseState, str]] = {
    "held": "the ingester %s takes envelopes",
    "expired": "the ingester %s has not announced itself in time: messages go plain",
    "withdrawn": "the ingester %s takes no envelopes any more: messages go plain",
    "unfit": "the ingester %s does not take our envelopes: messages go plain (look at its version, and its dictionaries)",
}


class LeaseWatch:
    """One bridge's. `is_shared`: rules bring the lease's topic down too. `clock`: Unix time."""

    def __init__(
        self,
        bridge: str,
        topic: str,
        lease: Lease,
        is_shared: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.lease = lease
        self._bridge = bridge
        self._topic = topic
        self._is_shared = is_shared
        self._clock = clock
        self._packet_id = 0
        self._told: LeaseState = "none"
        self._was_refused = False

    def attach(self, client: Client, packet_id: int, now: float) -> None:
        """`client` is connected. `packet_id`: one that nothing uses."""
        self.lease.forget()
        self._packet_id = packet_id
        client.subscribe(packet_id, [SubscriptionRequest(self._topic, 0)], now)

    def on_suback(self, packet_id: int, reason_codes: list[int]) -> bool:
        """Whether that was the answer to us."""
        if packet_id != self._packet_id:
            return False
        self._packet_id = 0
        refused = [reason_code for reason_code in reason_codes if reason_code >= 0x80]
        if refused:
            self.lease.give_up()
            if not self._was_refused:
                log.error(
                    "bridge %s: the upstream refused the subscription to %s: %s (messages go plain; look at its access "
                    "rules)",
                    self._bridge,
                    self._topic,
                    failures.describe(refused[0], ""),
                )
        self._was_refused = bool(refused)
        return True

    def on_message(self, message: Message, now: float) -> bool:
        """Look at what came down; True where it was for us alone."""
        if message.topic != self._topic:
            return False
        lease = self.lease
        is_readable = lease.on_announcement(
            message.payload, message.retain, message.expiry_interval, now, self._clock()
        )
        if not is_readable and lease.malformed == 1:
            log.warning(
                "bridge %s: what came on %s is no announcement of an ingester (further ones are counted; only the ingester "
                "should be allowed to publish there)",
                self._bridge,
                self._topic,
            )
        self.check(now)
        return not (self._is_shared or message.qos)

    def check(self, now: float) -> None:
        """Tell what has changed; now and then."""
        state = self.lease.state(now)
        if state not in ("none", self._told):
            self._told = state
            if state in _SAYS:
                log.info(f"bridge %s: {_SAYS[state]}", self._bridge, failures.printable(self.lease.ingester))
