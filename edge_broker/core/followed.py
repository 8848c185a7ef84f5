"""What a trace follows: a message, its way to one recipient, and what is followed in one queue.

The events of one message are told in the order of cause: accepted first, and nobody is answered before what that answer
waited for is told. ``traced`` calls all this from the places that messages pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from edge_broker.core.message import Message
from edge_broker.core.trace_events import (
    ACCEPTED,
    ANSWERED,
    REFUSED,
    REPEATED,
    UNANSWERED,
    WAITING,
    WRITTEN,
    Event,
)

if TYPE_CHECKING:
    from edge_broker.core.queue import Queue
    from edge_broker.core.tracing import Tracer

_MAX_HELD: Final = 1_000


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
        if self.tracer.is_full_of_deliveries:
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


def grown(before: Mapping[str, int], now: Mapping[str, int]) -> str:
    """The reason whose count has risen, one of them where there are several; empty where none has."""
    return next((reason for reason, count in now.items() if count > before.get(reason, 0)), "")
