"""The middle of the broker: messages come in here and leave to sessions and outboxes; sessions begin and end here.

Everything happens on one thread. `publish` delivers to live recipients at once and notes for durable ones what the store
must keep; whoever publishes looks at the message's `unsafe` afterwards to know whether it may be acknowledged yet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from edge_broker.core.counters import Counters
from edge_broker.core.dead_letters import DeadLetters
from edge_broker.core.delayed import Delayed
from edge_broker.core.message import Message, build_message
from edge_broker.core.ops import Snapshot
from edge_broker.core.pending import Pending
from edge_broker.core.permitting import may_publish, permit, recognise
from edge_broker.core.ports import Authenticator, Authorizer, Observer, Principal
from edge_broker.core.queue import Queue
from edge_broker.core.quota import Quota
from edge_broker.core.retained import Retained
from edge_broker.core.routing import Route, RoutingTable, ShareGroup
from edge_broker.core.session import Recipient, Session, Subscription
from edge_broker.core.settings import Settings
from edge_broker.core.totals import CountedQueue, Totals
from edge_broker.core.upkeep import Upkeep
from edge_broker.errors import MessageRefused, MqttError, NotPermitted, QueueFull
from edge_broker.wire import const
from edge_broker.wire.topics import DELAYED_PREFIX, TopicCache, is_own

if TYPE_CHECKING:
    from edge_broker.core.connection import Connection
    from edge_broker.core.output import Output

_MAX_CONNECTS_WAITING: Final = 10_000


class Stalled(Protocol):
    """Whoever stopped reading because the store is behind: a client's connection, a bridge's."""

    def go_on(self) -> None:
        """Read again."""


class Router:
    """Sessions, subscriptions, retained messages, and the way between them.

    `now` is the clock as of the last thing that happened; `dirty` lists the connections with output to flush;
    `stalled` those that read no more until the store has caught up. `guarded`: publishes need a look beyond their form
    and their topic. `authorizer`: who says what each session may do, None where everybody may do everything.
    `observer`: who is told who comes and goes; None for nobody.
    """

    # Slots, because a trace exchanges the class for a while: an object without them is slower ever after (CPython 3.11:
    # 2.12 µs a message became 2.29). "__dict__" is for whatever is not worth one.
    __slots__ = (
        "__dict__",
        "_delayed_wills",
        "_next_queue_id",
        "_routes",
        "_sessions_of",
        "authenticator",
        "authorizer",
        "connects_waiting",
        "counters",
        "dead_letters",
        "delayed",
        "dirty",
        "full",
        "guarded",
        "max_uncommitted_bytes",
        "new_client_id",
        "now",
        "observer",
        "pending",
        "quota",
        "received",
        "retained",
        "sent",
        "sessions",
        "settings",
        "stalled",
        "table",
        "topics",
        "totals",
    )

    def __init__(
        self,
        settings: Settings,
        pending: Pending,
        authenticator: Authenticator,
        new_client_id: Callable[[], str],
        topics: TopicCache,
        authorizer: Authorizer | None = None,
        max_uncommitted_bytes: int = 32 << 20,
        next_queue_id: int = 1,
    ) -> None:
        self.settings = settings
        self.pending = pending
        self.authenticator = authenticator
        self.authorizer = authorizer
        self.observer: Observer | None = None
        self.new_client_id = new_client_id
        self.max_uncommitted_bytes = max_uncommitted_bytes
        self.counters = Counters()
        self.received = self.counters.received
        self.sent = self.counters.sent
        self.topics = topics
        self.table = RoutingTable(settings.durabilities, self.counters)
        self.retained = Retained(settings, pending, self.counters)
        self.sessions: dict[str, Session] = {}
        self.dirty: list[Output] = []
        self.stalled: dict[Stalled, None] = {}
        self.connects_waiting = 0  # for the store, also those whose clients have given up
        self.totals: Totals | None = None
        if settings.max_store_messages or settings.max_store_bytes:
            self.totals = pending.totals = Totals(settings.max_store_messages, settings.max_store_bytes)
        self.quota = self.make_quota(
            settings.max_queue_messages, settings.max_queue_bytes, settings.when_queue_full
        )
        self.full: dict[Recipient | Totals, None] = {}  # whose queues may reject what comes
        if self.totals is not None:
            self.full[self.totals] = None
        self.delayed = Delayed(self)
        self._upkeep = Upkeep(self, pending)
        self._outboxes: list[Queue] = []  # durable queues that are no session's
        self.dead_letters = DeadLetters.as_wanted(self, settings)
        self.now = 0.0
        self.guarded = settings.guards_publishes
        self._companions: list[tuple[Recipient, Principal]] = []
        self._sessions_of: dict[str, int] = {}  # how many, by identity
        self._routes = self.table.routes
        self._next_queue_id = next_queue_id
        self._delayed_wills: dict[str, tuple[float, Session]] = {}

    # ---- messages

    def publish(self, message: Message, publisher: Recipient | None) -> int:
        """Deliver `message` to all who subscribed; returns to how many. Look at `message.unsafe` before acknowledging.

        `MqttError` for a topic that no client may use, `MessageRefused` for a message that is not taken.
        """
        route = self._routes.get(message.topic)
        if route is None:
            if message.topic.startswith(DELAYED_PREFIX):
                return self.delayed.take(message, publisher)
            route = self._find_route(message.topic, publisher)
        plain = route.plain
        qos = message.qos
        if qos and self.full:
            self._require_room(route, len(message.frame))
        if plain is None or message.retain or qos == 2 or message.expiry_interval is not None:
            return self._publish_with_care(message, route, publisher)
        message.received_at = self.now
        if qos and len(plain) > 1:
            message.parts_for(message.version, self.now)  # made once for all
        for deliver, granted in plain:
            deliver(message if granted >= qos else message.variant(granted, False))
        return len(plain)

    def _require_room(self, route: Route, size_bytes: int) -> None:
        """`MessageRefused` where a queue that rejects what it has no room for would get the message: then nobody does."""
        full, totals = self.full, self.totals
        for recipient in [recipient for recipient in full if not recipient.may_reject]:
            del full[recipient]
        is_store_full = totals is not None and not totals.has_room(size_bytes)
        if not is_store_full and len(full) == (totals is not None):
            return
        for subscription in route.subscriptions:
            recipient = subscription.recipient
            if subscription.qos and (is_store_full or recipient in full) and recipient.rejects(size_bytes):
                raise QueueFull(const.QUOTA_EXCEEDED, "a subscriber's queue is full")

    def _find_route(self, topic: str, publisher: Recipient | None) -> Route:
        """The route of a topic that is not remembered; `MqttError` where a client goes deeper or longer than it may."""
        self.check_topic(topic, publisher)
        return self.table.find(topic)

    def check_topic(self, topic: str, publisher: Recipient | None) -> None:
        """Refuse what no client may publish to: `MqttError`, `MessageRefused`."""
        if isinstance(publisher, Session):
            settings = self.settings
            if topic.count("/") >= settings.max_topic_levels:
                raise MqttError(const.TOPIC_NAME_INVALID, "a topic of more levels than we allow")
            if len(topic) * 4 > settings.max_topic_bytes and len(topic.encode()) > settings.max_topic_bytes:
                raise MqttError(const.TOPIC_NAME_INVALID, "a longer topic than we allow")
            if is_own(topic):
                raise NotPermitted("publish", "a topic that only the broker publishes to")

    def _form(self, message: Message, subscription: Subscription) -> Message:
        """`message` as `subscription` gets it."""
        return message.variant(
            min(message.qos, subscription.qos),
            message.retain and subscription.retain_as_published,
            subscription.subscription_ids,
        )

    def _publish_with_care(self, message: Message, route: Route, publisher: Recipient | None) -> int:
        """The way of what is retained, expires, is shared, or goes to subscriptions with options; and of QoS 2.

        A message received at QoS 2 goes into durable queues at once, which wait for the commit themselves, and to all
        others only when its packet id is committed.
        """
        message.received_at = self.now
        if message.expiry_interval is not None:
            message.expires_at = self.now + message.expiry_interval
        message.volatile = route.volatile
        if message.retain:
            self.retained.retain(message)
        subscriptions = route.subscriptions
        if publisher is not None:
            own = [s.for_own_messages() if s.recipient is publisher else s for s in subscriptions]
            subscriptions = [s for s in own if s is not None]
        if message.qos < 2:
            self._deliver_to(message, subscriptions, route.groups)
        else:
            self._deliver_in_two_steps(message, subscriptions, route.groups)
        return len(subscriptions) + len(route.groups)

    def _deliver_in_two_steps(
        self, message: Message, subscriptions: list[Subscription], groups: list[ShareGroup]
    ) -> None:
        """QoS 2: durable queues take it at once, so that it is theirs in the commit that its PUBREC waits for."""
        at_once = [s for s in subscriptions if s.recipient.durable and s.qos]
        later = [s for s in subscriptions if not (s.recipient.durable and s.qos)]
        groups_later = []
        for group in groups:
            subscription = group.choose()
            if subscription is not None and subscription.recipient.durable and subscription.qos:
                at_once.append(subscription)
            else:
                groups_later.append(group)  # its member of now may be gone by then
        self._deliver_to(message, at_once)
        if (later or groups_later) and message.unsafe:
            self.pending.after_commit(partial(self._deliver_to, message, later, groups_later))
        else:
            self._deliver_to(message, later, groups_later)

    def _deliver_to(
        self, message: Message, subscriptions: list[Subscription], groups: Iterable[ShareGroup] = ()
    ) -> None:
        for subscription in subscriptions:
            subscription.recipient.deliver(self._form(message, subscription))
        for group in groups:
            self._deliver_to_one_of(group, message)
        if message.retain:
            message.forget_variants()  # it stays

    def deliver_to(self, message: Message, route: Route) -> None:
        """Give a message of our own to the recipients of `route`."""
        self._deliver_to(message, route.subscriptions, route.groups)

    def _deliver_to_one_of(self, group: ShareGroup, message: Message) -> None:
        """Give `message` to one member of a shared subscription [MQTT-4.8.2-4]."""
        subscription = group.choose()
        if subscription is None:  # the last one left while the message waited for its commit
            self.counters.drop("session_ended")
            return
        recipient = subscription.recipient
        form = self._form(message, subscription)
        if form.qos == 1 and isinstance(recipient, Session):
            recipient.deliver_shared(form, group)
        else:
            recipient.deliver(form)

    def deny(self, connection: Output, action: str, topic: str, identity: str) -> None:
        """Count that a client may not do that with that topic, and tell whoever keeps an account.

        `action`: publish, subscribe, share, will; qos or retain where it may publish, but not like that.
        """
        self.counters.deny(action)
        if self.observer is not None:
            self.observer.on_denied(connection, action, topic, identity)

    # ---- retained messages

    @property
    def retained_messages(self) -> int:
        """Topics with a retained message, but for those that the broker publishes of itself."""
        return self.retained.count

    @property
    def retained_bytes(self) -> int:
        """Their packets' bytes, in memory or on disk only."""
        return self.retained.size_bytes

    def publish_system(self, topic: str, payload: bytes) -> None:
        """Publish what the broker says of itself: retained in memory only, delivered at QoS 0, never stored."""
        message = build_message(topic, payload, retain=True)
        message.received_at = self.now
        self.retained.set_system(message)
        self.deliver_to(message, self.table.find(topic))

    def deliver_retained(self, message: Message, subscription: Subscription) -> None:
        """Give a new subscription one of the retained messages that it matches [3.3.1.3]."""
        qos = min(message.qos, subscription.qos)
        subscription.recipient.deliver(message.copy(qos, True, subscription.subscription_ids))

    # ---- subscriptions

    def subscribe(self, session: Session, subscription: Subscription) -> bool:
        """Add or replace a session's subscription; whether it is new."""
        previous = session.subscriptions.get(subscription.topic_filter)
        session.subscriptions[subscription.topic_filter] = subscription
        self.table.add(subscription)
        if session.durable:
            self.pending.save_subscription(session.subscription_record(subscription))
        return previous is None

    def unsubscribe(self, session: Session, topic_filter: str) -> bool:
        """Remove a session's subscription; whether there was one."""
        subscription = session.subscriptions.pop(topic_filter, None)
        if subscription is None:
            return False
        self.table.remove(subscription)
        if session.durable:
            self.pending.remove_subscription(session.session_id, topic_filter)
        return True

    # ---- permissions

    def replace_authorizer(self, authorizer: Authorizer | None) -> int:
        """Ask `authorizer` from now on, also for those who are here; how many subscriptions were taken from them.

        Nobody's connection ends. Have the output flushed afterwards.
        """
        self.authorizer = authorizer
        removed = sum(permit(self, session) for session in list(self.sessions.values()))
        for companion, principal in self._companions:
            companion.permissions = None if authorizer is None else authorizer.permissions_of(principal)
        self.table.forget_permissions()
        return removed

    def admit_companion(self, companion: Recipient, principal: Principal) -> None:
        """`companion` rides along in the broker, as `principal`: it may do what that may, now and after a change."""
        self._companions.append((companion, principal))
        if self.authorizer is not None:
            companion.permissions = self.authorizer.permissions_of(principal)

    # ---- sessions

    def open_session(
        self, connection: Connection, principal: Principal, clean_start: bool, expiry_interval: int
    ) -> tuple[Session, bool]:
        """The session that a CONNECT asks for, and whether it was there before.

        `MqttError` if it is another identity's, or one more than there may be.
        """
        client_id = principal.client_id
        session = self.sessions.get(client_id)
        if session is not None and session.identity != principal.identity:
            raise MqttError(
                const.CLIENT_IDENTIFIER_NOT_VALID, "this client identifier belongs to another identity"
            )
        if session is not None and session.claimed_by is not None:
            session.claimed_by.take_over()
            session.claimed_by = None  # also of one that still waits for its CONNACK, and must not get it
            session = self.sessions.get(client_id)  # a session that was not durable has ended with that
        if session is not None and (clean_start or not session.durable):
            self.end_session(session)
            session = None
        present = session is not None
        if session is None:
            session = self._new_session(client_id, principal.identity, expiry_interval)
        recognise(self, session, principal)
        session.claimed_by = connection
        session.disconnected_at = None  # on disk too: a crash must not age it from an earlier leave
        session.expiry_interval = expiry_interval
        self._delayed_wills.pop(client_id, None)
        return session, present

    def _new_session(self, client_id: str, identity: str, expiry_interval: int) -> Session:
        settings = self.settings
        of_identity = self._sessions_of.get(identity, 0)
        if settings.max_sessions and len(self.sessions) >= settings.max_sessions:
            raise MqttError(const.QUOTA_EXCEEDED, "as many sessions as there may be")
        if settings.max_sessions_per_identity and of_identity >= settings.max_sessions_per_identity:
            raise MqttError(const.QUOTA_EXCEEDED, "as many sessions as one identity may have")
        durable = expiry_interval > 0
        queue = self._new_queue() if durable else Queue(0, None)
        session = Session(self, client_id, identity, expiry_interval, queue)
        self._enter(session)
        return session

    def _enter(self, session: Session) -> None:
        self.sessions[session.client_id] = session
        self._sessions_of[session.identity] = self._sessions_of.get(session.identity, 0) + 1

    def new_queue_id(self) -> int:
        """An identifier that no queue in the store has had."""
        self._next_queue_id += 1
        return self._next_queue_id - 1

    def leave(self, session: Session, will: Message | None) -> None:
        """The session's connection is gone; `will` is what it leaves to be published, at once or after its delay."""
        session.detach(self.now)
        ends = session.expiry_interval == 0
        if will is not None:
            if session.will_delay and not ends:
                delay = min(session.will_delay, session.expiry_interval)
                self._delayed_wills[session.client_id] = (self.now + delay, session)
            else:
                session.will = None
                self.publish_will(session, will)
        if ends:
            self.end_session(session)
        elif session.durable:
            self.pending.save_session(session.record())

    def publish_will(self, session: Session, will: Message) -> None:
        """Publish a will message; it comes from nobody's connection, so nobody is answered."""
        if not may_publish(session.permissions, will.topic, will.qos, will.retain):
            self.counters.deny("will")  # allowed when it was left, and not any more
            self.counters.drop("will_refused")
            return
        try:
            self.publish(will, None)
        except MessageRefused:
            self.counters.drop("will_refused")

    def end_session(self, session: Session) -> None:
        """The session is over: its subscriptions go, and what it was still owed is nobody's."""
        if self.sessions.get(session.client_id) is session:
            del self.sessions[session.client_id]
            self._sessions_of[session.identity] -= 1
            if not self._sessions_of[session.identity]:
                del self._sessions_of[session.identity]
        for subscription in session.subscriptions.values():
            self.table.remove(subscription)
        session.subscriptions.clear()
        self.counters.drop("expired", session.queue.expired)  # what its queue counted outlives it
        self.counters.drop("lost", session.queue.lost)
        handed_on = self._hand_on(session)
        if session.durable:
            self.counters.drop("session_ended", session.queue.depth - handed_on)
        session.queue.discard()
        self._upkeep.forget(session.queue)
        self.full.pop(session, None)
        delayed = self._delayed_wills.pop(session.client_id, None)
        if delayed is not None and session.will is not None:
            self.publish_will(session, session.will)  # the will does not outlive its session [MQTT-3.1.3-9]
        if session.durable:
            self.pending.remove_session(session.session_id)

    def _hand_on(self, session: Session) -> int:
        """Give the other members what came to an ended session by a shared subscription at QoS 1 [MQTT-4.8.2-5].

        That is what is in memory: sent and not acknowledged, or not sent yet. Returns how many found another member.
        """
        handed_on = 0
        for message, group in session.take_shared():
            if not group.is_empty:
                self._deliver_to_one_of(group, message)
                handed_on += 1
            elif not session.durable:  # those of a durable session are counted with the rest of its queue
                self.counters.drop("session_ended")
        return handed_on

    def delayed_wills(self) -> int:
        """Wills that wait for their delay."""
        return len(self._delayed_wills)

    def sweep(self, now: float) -> None:
        """About once a second: publish what is due, wills among it, and end sessions that have expired."""
        self.now = now
        self.delayed.sweep(now)
        self._upkeep.begin()
        for queue in self._outboxes:
            self._upkeep.visit(queue, now)
        for client_id, (due_at, session) in list(self._delayed_wills.items()):
            if due_at <= now:
                del self._delayed_wills[client_id]
                will, session.will = session.will, None
                if will is not None:
                    self.publish_will(session, will)
                    self.pending.save_session(session.record())
        for session in list(self.sessions.values()):
            if session.disconnected_at is not None:
                self._upkeep.visit(session.queue, now)
            if (
                session.disconnected_at is not None
                and session.expiry_interval != const.NEVER_EXPIRES
                and session.disconnected_at + session.expiry_interval <= now
            ):
                self.counters.sessions_expired += 1
                self.end_session(session)

    # ---- the store's side

    @property
    def is_overloaded(self) -> bool:
        """Whether clients that come again and again could fill the memory, since what they want never gets on disk."""
        return (
            self.connects_waiting >= _MAX_CONNECTS_WAITING
            or self.pending.uncommitted_bytes > 2 * self.max_uncommitted_bytes
        )

    def restore(self, snapshot: Snapshot) -> None:
        """Take over what the store kept. Sessions that were connected count as disconnected from now on."""
        if self.dead_letters is not None:
            self.dead_letters.restore(snapshot)
        by_id: dict[int, Session] = {}
        for record in snapshot.sessions:
            queue = self.restore_queue(snapshot, record.session_id)
            session = Session(self, record.client_id, record.identity, record.expiry_interval, queue)
            left_at = self.now if record.disconnected_at is None else record.disconnected_at
            session.disconnected_at = min(left_at, self.now)  # a board without a clock may boot in the past
            session.will, session.will_delay = record.will, record.will_delay
            session.username, session.groups = record.username, record.groups
            by_id[record.session_id] = session
            self._enter(session)
            if session.may_reject:
                self.full[session] = None
            if session.will is not None:
                self._delayed_wills[session.client_id] = (
                    session.disconnected_at + session.will_delay,
                    session,
                )
        for saved in snapshot.subscriptions:
            ids = (saved.subscription_id,) if saved.subscription_id else ()
            session = by_id[saved.session_id]
            subscription = Subscription(
                session, saved.topic_filter, saved.qos, saved.no_local, saved.retain_as_published, ids
            )
            session.subscriptions[saved.topic_filter] = subscription
            self.table.add(subscription)
        for session_id, packet_id in snapshot.inbound:
            if session_id in by_id:  # else it is a bridge's
                session = by_id[session_id]
                session.inbound = (session.inbound or set()) | {packet_id}
        self.retained.restore(snapshot.retained)
        self.delayed.restore(snapshot)
        if self.authorizer is not None:
            self.replace_authorizer(self.authorizer)  # the rules may have changed meanwhile

    def outbox_queue(self, snapshot: Snapshot, name: str) -> Queue:
        """The durable queue of the bridge `name`: the one in the store, or a new one."""
        queue_id = snapshot.outboxes.get(name)
        if queue_id is None:
            return self.new_outbox(name)
        queue = self.restore_queue(snapshot, queue_id)
        self._outboxes.append(queue)
        return queue

    def new_outbox(self, name: str) -> Queue:
        """A durable queue that is no session's, of which the store does not know yet."""
        queue = self._new_queue()
        self.pending.batch.outboxes.append((queue.queue_id, name))
        self._outboxes.append(queue)
        return queue

    def restore_queue(self, snapshot: Snapshot, queue_id: int) -> Queue:
        """The queue as the store has it, or an empty one where nothing of it was ever written."""
        state = snapshot.queues.get(queue_id)
        kind = Queue if self.totals is None else CountedQueue
        return kind(queue_id, self.pending) if state is None else kind.restore(state, self.pending)

    def _new_queue(self) -> Queue:
        kind = Queue if self.totals is None else CountedQueue
        return kind(self.new_queue_id(), self.pending)

    def make_quota(self, max_messages: int, max_bytes: int, when_full: str) -> Quota:
        """The limits of one kind of durable queues; 0 is none but that of all queues together."""
        return Quota(max_messages, max_bytes, when_full, self.totals, self.settings.max_packet_bytes)

    def on_settled(self) -> None:
        """A batch is on disk: whoever was stalled by too much uncommitted goes on."""
        if self.stalled and self.pending.uncommitted_bytes < self.max_uncommitted_bytes // 2:
            stalled, self.stalled = self.stalled, {}
            for connection in stalled:
                connection.go_on()
