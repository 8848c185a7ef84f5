"""One trace while it runs: which messages are wanted, how many, how much is told in a second, and to whom.

``followed`` is what it follows, ``traced`` where messages are met; while nobody traces none of it is there. What is held is
bounded; what it could not follow or tell is counted.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Final, Protocol

from edge_broker.core.followed import Delivery, Trace, Unfollowed, Watch
from edge_broker.core.message import Message
from edge_broker.core.session import Session
from edge_broker.core.trace_events import SENT, Event
from edge_broker.wire.topics import match

if TYPE_CHECKING:
    from edge_broker.core.queue import Queue
    from edge_broker.core.router import Router
    from edge_broker.core.session import Recipient

_MAX_DELIVERIES: Final = 10_000


class Bridged(Protocol):
    """A bridge, as far as a trace names it."""

    @property
    def name(self) -> str:
        """What events call it."""

    @property
    def queues(self) -> Collection[Queue]:
        """What waits for its upstream."""

    def not_taken(self) -> Mapping[str, int]:
        """Messages that it did not take, by reason; never falls."""

    def given_up(self) -> Mapping[str, int]:
        """Messages that it had taken and let go unsent, by reason; never falls."""


class Tracer:
    """One trace. `client_id` and `topic_filter` (checked, without `$share`): empty is any. `tell` gets each event.

    A client's trace follows what it publishes, to everybody, and what others publish as far as it goes to that client.
    `messages`: follow so many and no more, 0 is no limit; `is_over` then says when all of these are at rest. Of a topic
    these are messages published during the trace, so that their whole way is seen.
    `skipped`: events, or messages as one event each, that were too many for their second or for the memory.
    """

    def __init__(
        self,
        router: Router,
        tell: Callable[[Event], None],
        *,
        client_id: str = "",
        topic_filter: str = "",
        messages: int = 0,
        max_events_per_second: int = 200,
        bridges: Collection[Bridged] = (),
    ) -> None:
        self.router = router
        self.client_id = client_id
        self.topic_filter = topic_filter
        self.skipped = 0
        self.shown = 0
        self.deliveries = 0
        self.answer_code = 0  # of the acknowledgement that is being handled
        self._tell = tell
        self._messages = messages
        self._max_events = max_events_per_second
        self._second = self._told = 0
        self._bridges = {id(queue): bridge for bridge in bridges for queue in bridge.queues}
        self.bridge_queues = [queue for bridge in bridges for queue in bridge.queues]
        self._due: list[Delivery] = []  # sent by a bridge, unless it gives them up in the same breath
        self._unfinished: set[Trace] = set()
        self._unfollowed = Unfollowed()
        self._resting: dict[Delivery, None] = {}

    @property
    def is_over(self) -> bool:
        """Whether as many messages as wanted were followed, and each of them is acknowledged, on disk or gone."""
        return 0 < self._messages <= self.shown and not self._unfinished

    def wants_topic(self, topic: str) -> bool:
        """Whether messages of `topic` are looked at."""
        return not self.topic_filter or match(self.topic_filter, topic)

    def trace_of(self, message: Message) -> Trace | None:
        """The trace of `message` or of what it is a variant of; None where it is not followed."""
        trace = message.origin.trace
        return trace if isinstance(trace, Trace) and trace.tracer is self else None

    def begin_published(self, message: Message, publisher: str) -> Trace | None:
        """`message` comes in from `publisher`: follow it, if it is wanted."""
        trace = self.trace_of(message)
        if trace is not None or not self.wants_topic(message.topic):
            return trace
        is_mine = not self.client_id or publisher == self.client_id
        if not is_mine and not self._is_somebody(self.client_id):
            return None
        if self._is_full(counts=is_mine):
            message.trace = self._unfollowed
            return None
        trace = Trace(self, message, publisher, "" if is_mine else self.client_id)
        message.trace = trace
        return trace

    def begin_delivered(self, message: Message, recipient: str) -> Trace | None:
        """`message` goes to `recipient`, and may have come before the trace began: follow it, if it is wanted."""
        trace = self.trace_of(message)
        if trace is not None or message.origin.trace is self._unfollowed:
            return trace
        if self._messages and not self.client_id:
            return None
        if self.client_id not in ("", recipient) or not self.wants_topic(message.topic) or self._is_full():
            return None
        trace = message.origin.trace = Trace(self, message, "", self.client_id)
        trace.open()
        return trace

    def _is_somebody(self, client_id: str) -> bool:
        return client_id in self.router.sessions or any(b.name == client_id for b in self._bridges.values())

    def _is_full(self, counts: bool = True) -> bool:
        """Whether no further message can be followed now."""
        if 0 < self._messages <= self.shown:
            return True
        is_full = self.is_full_of_deliveries or self._is_spent()
        self.skipped += is_full and counts
        return is_full

    @property
    def is_full_of_deliveries(self) -> bool:
        """Whether as many are on their way as can be remembered."""
        return self.deliveries >= _MAX_DELIVERIES

    def _is_spent(self) -> bool:
        second = int(self.router.now)
        if second != self._second:
            self._second, self._told = second, 0
        return self._told >= self._max_events

    # ---- who is who

    def bridge_of(self, recipient: Recipient) -> Bridged | None:
        """The bridge behind `recipient`, None if it is a client's session."""
        if isinstance(recipient, Session):
            return None
        return self._bridges.get(id(getattr(recipient, "queue", None)))

    def name_of(self, recipient: Recipient | None) -> str:
        """How events call `recipient`; nobody is empty: a will, the broker itself."""
        if isinstance(recipient, Session):
            return recipient.client_id
        bridge = None if recipient is None else self.bridge_of(recipient)
        return "" if bridge is None else bridge.name

    def watch(self, queue: Queue) -> Watch:
        """What is to be noted of `queue` while this trace runs."""
        bridge = self._bridges.get(id(queue))
        if bridge is not None:
            return Watch(self, queue, bridge.name, bridge.given_up)
        owner = queue.owner
        return Watch(self, queue, owner.client_id if isinstance(owner, Session) else "", None)

    # ---- telling

    def end(self) -> None:
        """Tell nobody anything any more, whatever still comes."""
        self.tell_sent()
        self._tell = _tell_nobody

    def show(self, event: Event) -> None:
        """Tell `event`, or count it where there were too many in this second."""
        if self._is_spent():
            self.skipped += 1
        else:
            self._told += 1
            self._tell(event)

    def take_number(self, trace: Trace) -> int:
        """The next message's number; 0 where no more are wanted."""
        if 0 < self._messages <= self.shown:
            return 0
        self.shown += 1
        self._unfinished.add(trace)
        return self.shown

    def on_settled(self, trace: Trace, is_at_rest: bool) -> None:
        """Nothing happens to `trace` any more without somebody from outside; or something does again."""
        if is_at_rest:
            self._unfinished.discard(trace)
        elif trace.number:
            self._unfinished.add(trace)

    def keep_resting(self, delivery: Delivery) -> None:
        """`delivery` waits on the disk for its recipient; it is known again when that one comes, if it is not too old."""
        self._resting[delivery] = None
        if len(self._resting) > _MAX_DELIVERIES:
            oldest = next(iter(self._resting))
            del self._resting[oldest]
            oldest.forget()

    def end_resting(self, delivery: Delivery) -> None:
        """`delivery` has come to its end."""
        self._resting.pop(delivery, None)

    def send_later(self, delivery: Delivery) -> None:
        """`delivery` is as good as sent, if its bridge does not find at once that it cannot be."""
        self._due.append(delivery)

    def take_back(self, delivery: Delivery) -> None:
        """It did."""
        if delivery in self._due:
            self._due.remove(delivery)

    def tell_sent(self) -> None:
        """Tell what was sent and not told yet; to be called before anything else is, and now and then."""
        if self._due:
            due, self._due = self._due, []
            for delivery in due:
                delivery.tell(SENT)


def _tell_nobody(_: Event) -> None:
    """The trace is over."""
