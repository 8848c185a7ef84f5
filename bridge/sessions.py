"""What is remembered of the bridge's session at each upstream, from one connection there to the next.

Each upstream has a session of its own, with packet identifiers of its own. The identifiers of QoS 2 messages that were
received and not released outlive a restart, under an id of the store: the first upstream's under the outbox's, as if there
were no other; another one's under an id that it gets when there is something to keep.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from bridge.places import Service, Upstream

if TYPE_CHECKING:
    from edge_broker.core.ops import Snapshot
    from edge_broker.core.router import Router


class UpstreamSession:
    """At one upstream. `inbound`: packet identifiers of QoS 2 messages whose PUBREL has not come. `is_subscribed`: in this
    run, to all that the rules name. `left_at`: when the last connection ended, None before one did in this run."""

    __slots__ = ("_name", "_owner_id", "_router", "inbound", "is_subscribed", "left_at")

    def __init__(self, router: Router, name: str, owner_id: int | None, inbound: set[int]) -> None:
        self.inbound = inbound
        self.is_subscribed = False
        self.left_at: float | None = None
        self._router = router
        self._name = name
        self._owner_id = owner_id

    def receive(self, packet_id: int) -> None:
        """A message came under `packet_id`, and its PUBREL is to come."""
        pending = self._router.pending
        if self._owner_id is None:
            self._owner_id = self._router.new_queue_id()
            pending.batch.outboxes.append((self._owner_id, self._name))
        self.inbound.add(packet_id)
        pending.receive_id(self._owner_id, packet_id)

    def release(self, packet_id: int) -> None:
        """Its PUBREL has come."""
        self.inbound.remove(packet_id)
        if self._owner_id is not None:
            self._router.pending.release_id(self._owner_id, packet_id)

    def forget_inbound(self) -> None:
        """The upstream has no session of ours: it will use these identifiers for other messages."""
        for packet_id in list(self.inbound):
            self.release(packet_id)


class Sessions:
    """Of the bridge `name`, whose outbox is `queue_id` in the store; `first`: the place that is configured first."""

    def __init__(
        self, name: str, first: Upstream | Service, queue_id: int, router: Router, snapshot: Snapshot
    ) -> None:
        self._bridge = name
        self._first = str(first)
        self._queue_id = queue_id
        self._router = router
        self._ids = {known: snapshot.outboxes[known] for known in snapshot.outboxes if known.startswith("$")}
        self._inbound: dict[int, set[int]] = {}
        for owner_id, packet_id in snapshot.inbound:
            self._inbound.setdefault(owner_id, set()).add(packet_id)
        self._sessions: dict[str, UpstreamSession] = {}

    def at(self, upstream: str) -> UpstreamSession:
        """The one at `upstream`, a URL."""
        session = self._sessions.get(upstream)
        if session is None:
            name = f"$session-{self._bridge}-{quote(upstream, safe='')}"
            owner_id = self._queue_id if upstream == self._first else self._ids.get(name)
            inbound = set() if owner_id is None else self._inbound.pop(owner_id, set())
            session = self._sessions[upstream] = UpstreamSession(self._router, name, owner_id, inbound)
        return session
