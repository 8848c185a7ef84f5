"""The bridge as a recipient of local messages: takes what its rules match and keeps it in a durable queue.

It is one recipient, whatever the priorities: a message goes into the one queue that its topic's rule says.

The QoS of a rule is the QoS at which its messages go up, whatever the publisher used: sensors that publish at QoS 0 to
save their batteries are stored and forwarded all the same. At a rule's QoS 0 a message goes up at once or not at all.
What came down over this bridge is published in its name and does not come here: its subscriptions are no local.

It sends nothing: `sender` does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Protocol

from bridge.hops import HopLimit
from bridge.latest import Latest
from bridge.mapping import OutMapping, RemoteTopic
from bridge.priorities import NORMAL
from bridge.room import LaneRoom
from bridge.tracing import MessageTracer
from edge_broker.core.dead_letters import BRIDGE
from edge_broker.core.message import Message
from edge_broker.core.permitting import may_publish, permitted
from edge_broker.core.ports import Permissions
from edge_broker.core.queue import Queue
from edge_broker.core.quota import KEEP_LATEST, REJECT, Holder, Numbers, Quota
from edge_broker.core.retained import Entry
from edge_broker.core.session import Subscription
from edge_broker.core.shedding import QUEUE_FULL

if TYPE_CHECKING:
    from edge_broker.core.router import Router

_NO_LANES: Final[Mapping[int, Queue]] = MappingProxyType({})


class Sender(Protocol):
    """Whoever sends what the outbox holds."""

    @property
    def online(self) -> bool:
        """Whether the upstream is there."""

    @property
    def has_room(self) -> bool:
        """Whether a message would leave at once."""

    def send_live(self, message: Message, remote: RemoteTopic) -> str:
        """Send `message` at QoS 0 now; the reason where that cannot be, empty if it is done."""


class Outbox:
    """The recipient behind the `out` rules of one bridge. `dropped`: messages not taken, by reason.

    `queue`: that of priority `normal`, which each bridge has; `lanes`: those of others, by priority; `queues`: all of them.
    `canary`: the outbox that gets the topics which are the canary's; None while there is none.
    `wake` is called when a message was queued. `permissions`: what an ACL leaves of the rules, None where that is all.
    `limit`: who looks at a message's hops, `tracer`: who follows messages to the upstream; None for nobody.
    """

    durable = True

    def __init__(
        self,
        name: str,
        queue: Queue,
        mapping: OutMapping,
        router: Router,
        quota: Quota,
        lanes: Mapping[int, Queue] = _NO_LANES,
    ) -> None:
        self.queue = queue
        self.queues = {NORMAL: queue, **lanes}
        for one in self.queues.values():
            one.on_dropped = self.drop
            if router.dead_letters is not None:
                one.burials = router.dead_letters.burials_of(one, BRIDGE + name)
        if router.dead_letters is not None:
            router.dead_letters.recipients[BRIDGE + name] = self
        self.dropped: dict[str, int] = {}
        self.permissions: Permissions | None = None
        self.sender: Sender | None = None
        self.canary: Outbox | None = None
        self.wake: Callable[[], None] = _nobody_to_wake
        self.limit: HopLimit | None = None
        self.tracer: MessageTracer | None = None
        self._mapping = mapping
        self._known = mapping.known
        self._router = router
        self._pending = router.pending
        self._quota = quota
        self.latest = {priority: Latest(one) for priority, one in self.queues.items()}
        self._rooms: dict[int, Holder] = {NORMAL: queue}
        if len(self.queues) > 1:
            self._rooms = {priority: LaneRoom(self.queues, priority) for priority in self.queues}
        self._by_topic: dict[int, Numbers] | None = None
        if quota.when_full == KEEP_LATEST:
            self._by_topic = {priority: Numbers() for priority in self.queues}
        if self.may_reject:
            router.full[self] = None

    @property
    def online(self) -> bool:
        """Whether the upstream is there."""
        return self.sender is not None and self.sender.online

    @property
    def ready(self) -> bool:
        """Whether a message would leave at once."""
        return self.sender is not None and self.sender.has_room

    @property
    def may_reject(self) -> bool:
        """Whether its queue may have no room for a message that comes now."""
        return self._quota.may_reject(self._rooms[NORMAL])

    def rejects(self, size_bytes: int) -> bool:
        """Whether it has none for a packet of that size, whose publisher is to be told."""
        return self._quota.rejects(self._rooms[NORMAL], size_bytes)

    @property
    def taken(self) -> int:
        """Grows with each message that it queues, the canary's among them."""
        own = sum(queue.next_number for queue in self.queues.values())
        return own if self.canary is None else own + self.canary.taken

    def subscribe(self) -> None:
        """Be a recipient from now on. All rules share one QoS here: which one a message goes up with is settled later."""
        for topic_filter in self._mapping.local_filters:
            self._router.table.add(
                Subscription(self, topic_filter, 2, no_local=True, retain_as_published=True)
            )

    def take_retained(self, stored: Iterable[Message]) -> None:
        """Take the retained messages that are here already: for a new bridge, whose upstream does not know them.

        `stored`: those that the store kept, among them all that are on disk only.
        """
        on_disk = {message.topic: message for message in stored}
        found: dict[str, Entry] = {}
        for topic_filter in self._mapping.local_filters:
            found |= {entry.topic: entry for entry in self._router.retained.match(topic_filter)}
        counters = self._router.counters
        for topic, entry in found.items():
            remote = self._mapping.find(topic)
            is_kept = remote is not None and remote.qos > 0
            is_kept = is_kept and permitted(Subscription(self, topic, 2), topic, counters) is not None
            if is_kept and (entry.expires_at is None or entry.expires_at > self._router.now):
                message = entry if isinstance(entry, Message) else on_disk[topic]
                self.deliver(message.copy(message.qos, True))

    def may_publish(self, message: Message) -> bool:
        """Whether `message`, which came down, may be published here in the bridge's name; counts what may not."""
        is_allowed = may_publish(self.permissions, message.topic, message.qos, message.retain)
        if not is_allowed:
            self._router.counters.deny("publish")
        return is_allowed

    def deliver(self, message: Message) -> None:
        """Queue `message` at the QoS of its rule, or at QoS 0 have it sent at once."""
        remote = self._known.get(message.topic)
        if remote is None:
            remote = self._mapping.find(message.topic)
            if remote is None:
                if message.topic not in self._mapping.excepted:
                    self.drop("no_topic_upstream")
                return
        if remote.elsewhere and self.canary is not None:
            self.canary.deliver(message)
            return
        if self.limit is not None and self.limit.refuses(message):
            self.drop("loop")
            return
        if remote.shape is not None:
            shaped = remote.shape.apply(message, self._router.now)
            if shaped is None:
                self.drop("not_transformed")
                return
            message = shaped
        if self.tracer is not None:
            message = self.tracer.begin(message, remote.trace_rate)
        qos = remote.qos
        if not qos:
            self._deliver_live(message, remote)
            return
        if message.qos != qos:
            if not message.origin.qos and self._is_store_behind():
                self.drop("store_behind")
                return
            message = message.variant(qos, message.retain)
        queue = self.queues[remote.priority]
        if message.volatile and queue.bytes_in_memory >= self._router.settings.max_queue_bytes_in_memory:
            queue.refuse(message, QUEUE_FULL)
            return
        if self._quota.is_limited and not self._make_room(message, remote.priority):
            return
        number = queue.append(message)
        if remote.keep_latest:
            self.latest[remote.priority].note(message.topic, number)
        self.wake()

    def _make_room(self, message: Message, priority: int) -> bool:
        """Whether `message` has a place in its queue; counts what has none, be it `message` or what gives way to it."""
        queue, room, quota = self.queues[priority], self._rooms[priority], self._quota
        by_topic = None if self._by_topic is None else self._by_topic[priority]
        if by_topic is not None:
            by_topic.add(message.topic, queue.next_number)
        problem = quota.make_room(room, message, by_topic)
        if problem:
            queue.refuse(message, problem)
        if quota.when_full == REJECT and quota.may_reject(room, 1, len(message.frame)):
            self._router.full[self] = None
        return not problem

    def _is_store_behind(self) -> bool:
        """Whether too much waits for the disk; publishers of QoS 0 cannot be made to wait for it."""
        return self._pending.uncommitted_bytes > self._router.max_uncommitted_bytes

    def _deliver_live(self, message: Message, remote: RemoteTopic) -> None:
        origin = message.origin
        if origin.qos == 2 and origin.unsafe:  # before its packet id is kept, it could come a second time
            self._pending.after_commit(partial(self._send_live, message, remote))
        else:
            self._send_live(message, remote)

    def _send_live(self, message: Message, remote: RemoteTopic) -> None:
        reason = "offline" if self.sender is None else self.sender.send_live(message, remote)
        if reason:
            self.drop(reason)

    def drop(self, reason: str) -> None:
        """Count a message that was not taken."""
        self.dropped[reason] = self.dropped.get(reason, 0) + 1


def _nobody_to_wake() -> None:
    """Nothing sends now: what is queued waits."""
