"""Plain counters, written where things happen and read by ``ops`` when somebody asks."""

from __future__ import annotations

from edge_broker.core.histogram import Histogram


class Counters:
    """What went through the router since the start. `received` and `sent` are by QoS; `dropped` by reason.

    `acknowledge_seconds`: how long QoS > 0 publishes waited for their durable recipients; those that no durable recipient
    wanted were acknowledged at once and are not in it. `connections`: sockets that came; `connects`: clients let in.
    `denied`: what was not allowed, by kind: messages published, subscriptions, wills; of `receive` each decision, which
    holds for all messages of a topic. `throttled`: how often a client that published faster than it may was made to
    wait. `refused`: connections not let in or ended for what the peer did, by reason.
    """

    __slots__ = (
        "acknowledge_seconds",
        "connections",
        "connects",
        "denied",
        "dropped",
        "received",
        "refused",
        "sent",
        "sessions_expired",
        "throttled",
    )

    def __init__(self) -> None:
        self.received = [0, 0, 0]
        self.sent = [0, 0, 0]
        self.dropped: dict[str, int] = {}
        self.refused: dict[str, int] = {}
        self.connections = 0
        self.connects = 0
        self.sessions_expired = 0
        self.denied: dict[str, int] = {}
        self.throttled = 0
        self.acknowledge_seconds = Histogram()

    def drop(self, reason: str, messages: int = 1) -> None:
        """Messages that their recipient should have had and did not get."""
        self.dropped[reason] = self.dropped.get(reason, 0) + messages

    def deny(self, kind: str, times: int = 1) -> None:
        """Something that its client may not do."""
        self.denied[kind] = self.denied.get(kind, 0) + times

    def refuse(self, reason: str) -> None:
        """One connection that was not let in, or was closed for what its peer did."""
        self.refused[reason] = self.refused.get(reason, 0) + 1
