"""What a trace follows and tells: the way of single messages through the broker, from their publisher to each recipient.

A `Tracer` is one trace while it runs: which messages are wanted, how many, how much is told in a second. A `Trace` is one
message that it follows, a `Delivery` that message on its way to one recipient, a `Watch` what is followed in one queue.
``traced`` calls these from the places that messages pass; while nobody traces none of it is there.

What it keeps true:

- It tells sizes, never payloads.
- What it holds is bounded; what it could not follow or tell is counted.
- The events of one message are told in the order of cause: accepted first, and nobody is answered before what that
  answer waited for is told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from edge_broker.core.message import Message
from edge_broker.core.session import Session
from edge_broker.wire.topics import match

if TYPE_CHECKING:
    from edge_broker.core.queue import Queue
    from edge_broker.core.router import Router
    from edge_broker.core.session import Recipient

ACCEPTED: Final = "accepted"
"""The broker took it from its publisher; the detail says for how many recipients."""
REFUSED: Final = "refused"
"""It was not taken, or a recipient refused it; the detail says why."""
REPEATED: Final = "repeated"
"""A QoS 2 message that its publisher sent again: it was taken the first time."""
WAITING: Final = "waiting"
"""A full queue rejects it and its publisher cannot be told: it is tried again."""
QUEUED: Final = "queued"
"""It has a place in a durable queue."""
SENT: Final = "sent"
"""It went out to the recipient."""
RECEIVED: Final = "received"
"""QoS 2: the recipient has it, and has still to forget its packet identifier."""
ACKNOWLEDGED: Final = "acknowledged"
"""The recipient answered for good."""
ELIDED: Final = "elided"
"""Acknowledged before it was written: this recipient's copy never goes to the disk."""
WRITTEN: Final = "written"
"""It is on the disk, synced."""
EXPIRED: Final = "expired"
"""It was older than it may be when its turn came."""
DROPPED: Final = "dropped"
"""A recipient does not get it; the detail says why."""
ANSWERED: Final = "answered"
"""PUBACK or PUBREC went to the publisher."""
UNANSWERED: Final = "unanswered"
"""It was taken, and its publisher was gone before it could be told."""

_MAX_DELIVERIES: Final = 10_000
_MAX_HELD: Final = 1_000


class Event(NamedTuple):
    """One step. `at`: monotonic seconds; `message`: its number in this trace; `client`: who published or receives it.

    `queue_number`: its number in the recipient's queue, 0 where it has none.
    """

    at: float
    message: int
    what: str
    client: str
    topic: str
    qos: int
    payload_bytes: int
    queue_number: int = 0
    detail: str = ""


class Bridged(Protocol):
    """A bridge, as far as a trace names it."""

    @property
    def name(self) -> str:
        """What events call it."""

    @property
    def queue(self) -> Queue:
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
        bridges: Iterable[Bridged] = (),
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
        self._bridges = {id(bridge.queue): bridge for bridge in bridges}
        self.bridge_queues = [bridge.queue for bridge in self._bridges.values()]
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
        is_full = self.deliveries >= _MAX_DELIVERIES or self._is_spent()
        self.skipped += is_full and counts
        return is_full

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


class Unfollowed:
    """Marks a message that was one too many, so that it is not taken up again half way."""

    __slots__ = ()


class Trace:
    """One message that is followed. `number` is given when the first event of it is told.

    `only`: where the message came from somebody else than the traced client, that client: what happens to other
    recipients is left out, and if it never goes to that one, nothing is told at all.
    """

    __slots__ = (
        "_answered",
        "_held",
        "_open",
        "_open_deliveries",
        "_waits",
        "is_refused",
        "number",
        "only",
        "payload_bytes",
        "publisher",
        "qos",
        "sealed",
        "topic",
        "tracer",
    )

    def __init__(self, tracer: Tracer, message: Message, publisher: str, only: str) -> None:
        origin = message.origin
        self.tracer = tracer
        self.publisher = publisher
        self.only = only
        self.topic = message.topic
        self.qos = origin.qos
        self.payload_bytes = len(origin.frame) - origin.payload_at
        self.number = 0
        self.is_refused = False
        self.sealed: list[Delivery] = []  # on their way to the disk
        self._held: list[Event] = []  # until it is known whether it was accepted
        self._open = False
        self._answered = origin.qos == 0
        self._waits = False
        self._open_deliveries = 0

    # ---- the publisher's side

    def open(self, answered: bool = True) -> None:
        """From now on events are told as they come."""
        self._open = True
        self._answered = self._answered or answered

    def accept(self, recipients: int, retain: bool, answered: bool) -> None:
        """The router took it for `recipients`. `answered`: nobody waits for an answer that could be seen here."""
        whom = "1 recipient" if recipients == 1 else f"{recipients or 'no'} recipients"
        self._held.insert(
            0, self._event(ACCEPTED, self.publisher, detail=whom + (", retained" if retain else ""))
        )
        self.open(answered)
        held, self._held = self._held, []
        if self.only and not any(event.client == self.only for event in held[1:]):
            self._held = held
        else:
            for event in held:
                self._show(event)
        self._settle()

    def refuse(self, detail: str) -> None:
        """It was not taken."""
        self.is_refused = self._answered = True
        self.open()
        self.tell(REFUSED, self.publisher, detail=detail)
        self._settle()

    def wait(self, detail: str) -> None:
        """It is tried again later."""
        if not self._waits:
            self._waits = True
            if not self.only:
                self._show(self._event(WAITING, self.publisher, detail=detail))

    def on_handled(self, is_held: bool) -> None:
        """Its connection is done with it for now. `is_held`: its acknowledgement waits."""
        if not self._open:
            if not self._waits:
                self.open()
                self.tell(REPEATED, self.publisher, detail="it was taken the first time")
                self._settle()
        elif not self._answered and not is_held:
            self.answer(is_gone=False)

    def answer(self, is_gone: bool) -> None:
        """Its acknowledgement left, or would have if its publisher were still there."""
        if self._answered:
            return
        for delivery in self.sealed:
            delivery.on_written()  # that is what was waited for
        self._answered = True
        self.tell(UNANSWERED if is_gone else ANSWERED, self.publisher)
        self._settle()

    def fail(self, detail: str) -> None:
        """Its connection ends over it."""
        if self._open and not self.is_refused:
            self._answered = True
            self.tell(UNANSWERED, self.publisher, detail=detail)
            self._settle()
        elif not self._open:
            self.refuse(detail)

    # ---- the recipients' side

    def concerns(self, recipient: str) -> bool:
        """Whether what happens to `recipient` is told."""
        return not self.only or recipient == self.only

    def on_delivery(self, is_new: bool) -> None:
        """One recipient more that something will happen to, or one less."""
        self._open_deliveries += 1 if is_new else -1
        self._settle()

    def _settle(self) -> None:
        if self._open:
            self.tracer.on_settled(self, self._answered and not self._open_deliveries)

    # ---- telling

    def tell(
        self, what: str, client: str, *, qos: int | None = None, queue_number: int = 0, detail: str = ""
    ) -> None:
        """Tell it now, or when it is known what became of the message."""
        self.tracer.tell_sent()
        event = self._event(what, client, qos, queue_number, detail)
        if not self._open or (self.only and not self.number and client != self.only):
            if len(self._held) < _MAX_HELD:
                self._held.append(event)
            else:
                self.tracer.skipped += 1
            return
        held, self._held = self._held, []
        for earlier in held:
            self._show(earlier)
        self._show(event)

    def _event(
        self, what: str, client: str, qos: int | None = None, queue_number: int = 0, detail: str = ""
    ) -> Event:
        qos = self.qos if qos is None else qos
        now = self.tracer.router.now
        return Event(now, 0, what, client, self.topic, qos, self.payload_bytes, queue_number, detail)

    def _show(self, event: Event) -> None:
        if not self.number:
            self.number = self.tracer.take_number(self)
        if self.number:
            self.tracer.show(event._replace(message=self.number))


class Delivery:
    """One message on its way to one recipient, with a number in that one's queue."""

    __slots__ = ("_at_rest", "_watch", "is_leaving", "is_written", "number", "qos", "trace")

    def __init__(self, trace: Trace, watch: Watch, number: int, qos: int) -> None:
        self.trace = trace
        self.number = number
        self.qos = qos
        self.is_leaving = False  # it is just being sent
        self.is_written = False
        self._watch = watch
        self._at_rest = False
        trace.tracer.deliveries += 1
        trace.on_delivery(is_new=True)

    def tell(self, what: str, detail: str = "") -> None:
        """One step of it."""
        self.trace.tell(what, self._watch.name, qos=self.qos, queue_number=self.number, detail=detail)

    def on_written(self) -> None:
        """It is on disk; while its recipient is away nothing more happens to it."""
        if not self.is_written:
            self.is_written = True
            self.tell(WRITTEN)
            if not self._watch.queue.online:
                self.rest()

    def rest(self) -> None:
        """Nothing more happens to it, or not for now."""
        if not self._at_rest:
            self._at_rest = True
            self.trace.tracer.deliveries -= 1
            self.trace.tracer.keep_resting(self)
            self.trace.on_delivery(is_new=False)

    def forget(self) -> None:
        """Follow it no further."""
        self._watch.deliveries.pop(self.number, None)


class Watch:
    """What is followed in one queue. `name`: its recipient's; `given_up`: a bridge's, None for a session."""

    __slots__ = (
        "_given_up",
        "_given_up_before",
        "deliveries",
        "is_passing",
        "name",
        "queue",
        "sealed",
        "tracer",
    )

    def __init__(
        self, tracer: Tracer, queue: Queue, name: str, given_up: Callable[[], Mapping[str, int]] | None
    ) -> None:
        self.tracer = tracer
        self.queue = queue
        self.name = name
        self.deliveries: dict[int, Delivery] = {}
        self.sealed: dict[int, Delivery] = {}
        self.is_passing = False  # the queue looks for what to send, and passes over what has expired
        self._given_up = given_up
        self._given_up_before = {} if given_up is None else dict(given_up())

    def follow(self, number: int, message: Message) -> Delivery | None:
        """The delivery of `message` as `number`, if it is wanted."""
        found = self.deliveries.get(number)
        if found is not None:
            return found
        trace = self.tracer.begin_delivered(message, self.name)
        if trace is None or not trace.concerns(self.name):
            return None
        if self.tracer.deliveries >= _MAX_DELIVERIES:
            self.tracer.skipped += 1
            return None
        made = self.deliveries[number] = Delivery(trace, self, number, message.qos)
        return made

    def finish(self, number: int, what: str, detail: str = "") -> None:
        """`number`, which is followed, comes to its end."""
        delivery = self.deliveries.pop(number)
        delivery.tell(what, detail)
        delivery.rest()
        self.tracer.end_resting(delivery)

    def reason_for_giving_up(self) -> str:
        """Why the bridge gave a message up just now; empty if it did not."""
        if self._given_up is None:
            return ""
        before, self._given_up_before = self._given_up_before, dict(self._given_up())
        return grown(before, self._given_up_before)


def _tell_nobody(_: Event) -> None:
    """The trace is over."""


def grown(before: Mapping[str, int], now: Mapping[str, int]) -> str:
    """The reason whose count has risen, one of them where there are several; empty where none has."""
    return next((reason for reason, count in now.items() if count > before.get(reason, 0)), "")
