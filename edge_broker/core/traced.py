"""A broker's core while a trace runs: router, sessions, queues and connections that tell a ``tracing.Tracer`` what they do.

Each class here stands in the place of its base: `begin_trace` gives the objects these classes, `end_trace` gives them
their own back. So while nobody traces the way of a message is the very code that it would be if there were no tracing,
without a single look. None adds an attribute, which makes the exchange possible; what they need hangs on the routing
table and on the queues. Everything is left to the bases: what is done does not depend on whether somebody looks.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from edge_broker.core import trace_events
from edge_broker.core.connection import Connection
from edge_broker.core.followed import Trace, grown
from edge_broker.core.message import Message
from edge_broker.core.ports import Principal
from edge_broker.core.queue import Queue
from edge_broker.core.router import Router
from edge_broker.core.routing import Route, ShareGroup
from edge_broker.core.session import Recipient, Session, Subscription
from edge_broker.core.shedding import QUEUE_FULL
from edge_broker.core.tracing import Bridged, Tracer
from edge_broker.errors import MessageRefused, MqttError, QueueFull
from edge_broker.wire import const
from edge_broker.wire.packets import Ack

if TYPE_CHECKING:
    from edge_broker.core.ops import Page, QueueWrite


def begin_trace(router: Router, tracer: Tracer) -> None:
    """Have `tracer` told from now on. One trace at a time: the one before must have ended."""
    assert router.table.tracer is None
    router.table.tracer = tracer
    router.table.routes.clear()  # they know how each recipient is reached
    router.__class__ = TracedRouter
    for queue in tracer.bridge_queues:
        _watch(queue, tracer)
    for session in router.sessions.values():
        _trace_session(session, tracer)


def end_trace(router: Router) -> None:
    """Everything is as it was before `begin_trace`."""
    tracer = router.table.tracer
    if tracer is None:
        return
    router.table.tracer = None
    router.table.routes.clear()
    router.__class__ = Router
    tracer.end()
    for queue in tracer.bridge_queues:
        _leave(queue)
    for session in router.sessions.values():
        session.__class__ = Session
        _leave(session.queue)
        for connection in _connections_of(session):
            connection.__class__ = Connection
            connection.renew_acknowledging()


def _trace_session(session: Session, tracer: Tracer) -> None:
    session.__class__ = TracedSession
    _watch(session.queue, tracer)
    for connection in _connections_of(session):
        _trace_connection(connection)


def _trace_connection(connection: Connection) -> None:
    connection.__class__ = TracedConnection
    connection.renew_acknowledging()


def _connections_of(session: Session) -> list[Connection]:
    return [each for each in (session.connection, session.claimed_by) if each is not None]


def _watch(queue: Queue, tracer: Tracer) -> None:
    queue.__class__ = TracedQueue
    queue.watch = tracer.watch(queue)


def _leave(queue: Queue) -> None:
    queue.__class__ = Queue
    queue.watch = None


def _taken(outbox: Recipient) -> int:
    """What grows with each message that a bridge's `outbox` queues."""
    return int(getattr(outbox, "taken", 0))


def _why(error: MqttError | MessageRefused) -> str:
    return f"{const.REASON_NAMES.get(error.reason_code, 'error')}: {error.detail}"


class TracedRouter(Router):
    """Tells what is accepted, and what a bridge does not take."""

    __slots__ = ()

    def publish(self, message: Message, publisher: Recipient | None) -> int:
        tracer = self.table.tracer
        is_client = isinstance(publisher, Session)  # then its connection has looked at the message
        if tracer is None:
            trace = None
        elif is_client:
            trace = tracer.trace_of(message)
        else:
            trace = tracer.begin_published(message, tracer.name_of(publisher))
        if trace is None:
            return super().publish(message, publisher)
        try:
            recipients = super().publish(message, publisher)
        except (MqttError, MessageRefused) as error:
            if not is_client:  # a client's connection says it
                trace.refuse(_why(error))
            raise
        trace.accept(recipients, message.retain, answered=not is_client)
        return recipients

    def _find_route(self, topic: str, publisher: Recipient | None) -> Route:
        route = super()._find_route(topic, publisher)
        tracer = self.table.tracer
        if tracer is not None and tracer.wants_topic(topic):
            route.plain = None  # it knows the recipients' `deliver` by heart
        return route

    def _deliver_to(
        self, message: Message, subscriptions: list[Subscription], groups: Iterable[ShareGroup] = ()
    ) -> None:
        tracer = self.table.tracer
        trace = None if tracer is None else tracer.trace_of(message)
        if tracer is None or trace is None:
            super()._deliver_to(message, subscriptions, groups)
            return
        for subscription in subscriptions:
            bridge = tracer.bridge_of(subscription.recipient)
            if bridge is None or not trace.concerns(bridge.name):
                super()._deliver_to(message, [subscription])
            else:
                self._deliver_to_bridge(message, subscription, trace, bridge)
        super()._deliver_to(message, [], groups)

    def _deliver_to_bridge(
        self, message: Message, subscription: Subscription, trace: Trace, bridge: Bridged
    ) -> None:
        outbox = subscription.recipient
        taken, before = _taken(outbox), dict(bridge.not_taken())
        super()._deliver_to(message, [subscription])
        if _taken(outbox) == taken:  # not queued: that would have been told
            reason = grown(before, bridge.not_taken())
            what = trace_events.DROPPED if reason else trace_events.SENT
            trace.tell(what, bridge.name, qos=0, detail=reason or "at QoS 0, by the bridge's rule")

    def enter(self, session: Session) -> None:
        super().enter(session)
        if self.table.tracer is not None:
            _trace_session(session, self.table.tracer)

    def open_session(
        self, connection: Connection, principal: Principal, clean_start: bool, expiry_interval: int
    ) -> tuple[Session, bool]:
        opened = super().open_session(connection, principal, clean_start, expiry_interval)
        _trace_connection(connection)
        return opened


class TracedSession(Session):
    """Tells what happened to a delivery that got no number: sent at QoS 0, or dropped."""

    __slots__ = ()

    def deliver(self, message: Message) -> None:
        tracer = self.router.table.tracer
        trace = None if tracer is None else tracer.begin_delivered(message, self.client_id)
        if trace is None or not trace.concerns(self.client_id):
            super().deliver(message)
            return
        counters = self.router.counters
        number, before, sent = self.queue.next_number, dict(counters.dropped), counters.sent[0]
        super().deliver(message)
        if self.queue.next_number == number:
            if message.qos == 0 and counters.sent[0] > sent:
                trace.tell(trace_events.SENT, self.client_id, qos=0)
            else:
                trace.tell(
                    trace_events.DROPPED,
                    self.client_id,
                    qos=message.qos,
                    detail=grown(before, counters.dropped),
                )


class TracedQueue(Queue):
    """Tells where a message is in its queue: queued, written, done with."""

    __slots__ = ()

    def append(self, message: Message) -> int:
        number = super().append(message)
        delivery = None if self.watch is None else self.watch.follow(number, message)
        if delivery is not None:
            delivery.tell(trace_events.QUEUED, "in memory only" if self._is_in_memory_only(number) else "")
            if message.volatile and not self.online:
                delivery.rest()
        return number

    def _is_in_memory_only(self, number: int) -> bool:
        return self.pending is None or (self.volatile is not None and number in self.volatile)

    def next_to_send(self, now: float) -> tuple[int, Message | None] | None:
        watch = self.watch
        if watch is None:
            return super().next_to_send(now)
        watch.is_passing = True
        try:
            due = super().next_to_send(now)
        finally:
            watch.is_passing = False
        if due is not None and due[1] is not None and not isinstance(self.owner, Session):
            delivery = watch.follow(due[0], due[1])  # a bridge's; a client's connection tells it itself
            if delivery is not None:
                watch.tracer.send_later(delivery)
        return due

    def complete(self, number: int) -> bool:
        watch = self.watch
        delivery = None if watch is None else watch.deliveries.get(number)
        if watch is not None and delivery is not None and self._is_here(number):
            reason = watch.reason_for_giving_up()
            if watch.is_passing:
                watch.finish(number, trace_events.EXPIRED)
            elif reason:
                watch.tracer.take_back(delivery)
                watch.finish(number, trace_events.DROPPED, reason)
            elif watch.tracer.answer_code >= const.UNSPECIFIED_ERROR:
                watch.finish(
                    number, trace_events.REFUSED, const.REASON_NAMES.get(watch.tracer.answer_code, "error")
                )
            elif not delivery.is_leaving:
                is_unwritten = number in self.unwritten
                watch.finish(number, trace_events.ACKNOWLEDGED)
                if is_unwritten:
                    delivery.tell(trace_events.ELIDED)
        return super().complete(number)

    def _is_here(self, number: int) -> bool:
        return number in self.messages or (self.released is not None and number in self.released)

    def complete_run(self, packet_id: int, count: int) -> bool:
        if self.watch is None or not self.watch.deliveries:
            return super().complete_run(packet_id, count)
        done = [self.complete(self.number_of(packet_id + offset)) for offset in range(count)]
        return any(done)

    def complete_range(self, first: int, count: int) -> int:
        if self.watch is None or not self.watch.deliveries:
            return super().complete_range(first, count)
        return sum(map(self.complete, range(first, first + count)))

    def release(self, number: int) -> bool:
        delivery = None if self.watch is None else self.watch.deliveries.get(number)
        if delivery is not None and number in self.messages:
            delivery.tell(trace_events.RECEIVED)
        return super().release(number)

    def drop(self, number: int, reason: str = QUEUE_FULL) -> bool:
        is_dropped = super().drop(number, reason)
        if is_dropped and self.watch is not None and number in self.watch.deliveries:
            self.watch.finish(number, trace_events.DROPPED, f"{reason}, it made room for others")
        return is_dropped

    def expire(self, number: int, message: Message) -> None:
        super().expire(number, message)
        if self.watch is not None and number in self.watch.deliveries:
            self.watch.finish(number, trace_events.EXPIRED)

    def take_page(self, page: Page | None) -> None:
        lost = self.lost
        super().take_page(page)
        if self.lost > lost and self.watch is not None:
            for number in [n for n in self.watch.deliveries if n not in self.messages and self._is_done(n)]:
                if self.released is None or number not in self.released:
                    self.watch.finish(number, trace_events.DROPPED, "lost: the store could not give it back")

    def suspend(self) -> None:
        super().suspend()
        if self.watch is not None:
            for delivery in self.watch.deliveries.values():
                if delivery.is_written:
                    delivery.rest()

    def seal(self) -> QueueWrite | None:
        write = super().seal()
        watch = self.watch
        if write is not None and watch is not None and watch.deliveries:
            for number, _ in write.messages:
                delivery = watch.deliveries.get(number)
                if delivery is not None:
                    watch.sealed[number] = delivery
                    delivery.trace.sealed.append(delivery)
        return write

    def on_committed(self, numbers_below: int, window_bytes: int, sent_mark: int = 0) -> None:
        if self.watch is not None and self.watch.sealed:
            sealed = self.watch.sealed
            for number in [number for number in sealed if number < numbers_below]:
                sealed.pop(number).on_written()
        super().on_committed(numbers_below, window_bytes, sent_mark)

    def discard(self) -> None:
        if self.watch is not None:
            for number in list(self.watch.deliveries):
                self.watch.finish(number, trace_events.DROPPED, "session_ended")
        super().discard()


class TracedConnection(Connection):
    """Tells what its client publishes, what it is answered, and what leaves for it."""

    __slots__ = ()

    def _handle_publish(self, message: Message) -> int:
        tracer, session = self.router.table.tracer, self.session
        trace = None
        if tracer is not None and session is not None:
            trace = tracer.begin_published(message, session.client_id)
        if trace is None:
            return super()._handle_publish(message)
        try:
            work = super()._handle_publish(message)
        except MqttError as error:
            trace.fail(f"{_why(error)}; its connection ends")
            raise
        trace.on_handled(is_held=message.publisher is not None)
        return work

    def _refuse(self, message: Message, refusal: MessageRefused) -> None:
        trace = self._trace_of(message)
        if trace is not None:
            trace.refuse(_why(refusal))
        super()._refuse(message, refusal)

    def _wait_for_room(self, message: Message) -> None:
        trace = self._trace_of(message)
        if trace is not None:
            trace.wait(_why(QueueFull(const.QUOTA_EXCEEDED, "a subscriber's queue is full")))
        super()._wait_for_room(message)

    def _acknowledge(self, message: Message) -> None:
        super()._acknowledge(message)
        trace = self._trace_of(message)
        if trace is not None:
            trace.answer(is_gone=self.end is not None)

    def _trace_of(self, message: Message) -> Trace | None:
        tracer = self.router.table.tracer
        return None if tracer is None else tracer.trace_of(message)

    def send_publish(self, message: Message, number: int, dup: bool = False) -> None:
        watch = None if self.session is None else self.session.queue.watch
        delivery = None if watch is None else watch.follow(number, message)
        if watch is None or delivery is None:
            super().send_publish(message, number, dup)
            return
        before = dict(self.router.counters.dropped)
        delivery.is_leaving = True
        super().send_publish(message, number, dup)
        delivery.is_leaving = False
        reason = grown(before, self.router.counters.dropped)
        if reason:
            watch.finish(number, trace_events.DROPPED, reason)
        else:
            delivery.tell(trace_events.SENT, "again, marked as a duplicate" if dup else "")

    def _handle_ack(self, ack: Ack) -> None:
        tracer = self.router.table.tracer
        if tracer is None:
            super()._handle_ack(ack)
            return
        tracer.answer_code = ack.reason_code
        try:
            super()._handle_ack(ack)
        finally:
            tracer.answer_code = 0
