"""The middle of the broker: messages come in here and leave to sessions and outboxes; sessions begin and end here.

Everything happens on one thread. `publish` delivers to live recipients at once and notes for durable ones what the store
must keep; whoever publishes looks at the message's `unsafe` afterwards to know whether it may be acknowledged yet. The way
of a message is in `delivering`, the durable queues are in `durable_queues`: floors of one object, as with a connection.
Here is who is there: sessions with their subscriptions, permissions and wills.

A session is one identity's for as long as it lives. What it leaves when it ends is published, handed on or counted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

from edge_broker.core.dead_letters import DeadLetters
from edge_broker.core.delayed import Delayed
from edge_broker.core.delivering import Delivering
from edge_broker.core.message import Message
from edge_broker.core.ops import Snapshot
from edge_broker.core.pending import Pending
from edge_broker.core.permitting import may_publish, permit, recognise
from edge_broker.core.ports import Authenticator, Authorizer, Observer, Principal
from edge_broker.core.queue import Queue
from edge_broker.core.restoring import restore
from edge_broker.core.session import Recipient, Session, Subscription
from edge_broker.core.settings import Settings
from edge_broker.core.upkeep import Upkeep
from edge_broker.errors import MessageRefused, MqttError
from edge_broker.wire import const
from edge_broker.wire.topics import TopicCache

if TYPE_CHECKING:
    from edge_broker.core.connection import Connection
    from edge_broker.core.output import Output

_MAX_CONNECTS_WAITING: Final = 10_000


class Stalled(Protocol):
    """Whoever stopped reading because the store is behind: a client's connection, a bridge's."""

    def go_on(self) -> None:
        """Read again."""


class Router(Delivering):
    """Sessions, subscriptions, retained messages, and the way between them.

    `dirty` lists the connections with output to flush; `stalled` those that read no more until the store has caught up.
    `guarded`: publishes need a look beyond their form and their topic. `authorizer`: who says what each session may do,
    None where everybody may do everything. `observer`: who is told who comes and goes; None for nobody.
    """

    # Slots, here and in the floors below, because a trace exchanges the class for a while: an object without them is slower
    # ever after (CPython 3.11: 2.12 µs a message became 2.29). "__dict__" is for whatever is not worth one.
    __slots__ = (
        "_delayed_wills",
        "_sessions_of",
        "authenticator",
        "authorizer",
        "connects_waiting",
        "dead_letters",
        "dirty",
        "guarded",
        "max_uncommitted_bytes",
        "new_client_id",
        "observer",
        "sessions",
        "stalled",
        "topics",
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
        super().__init__(settings, pending, next_queue_id)
        self.authenticator = authenticator
        self.authorizer = authorizer
        self.observer: Observer | None = None
        self.new_client_id = new_client_id
        self.max_uncommitted_bytes = max_uncommitted_bytes
        self.topics = topics
        self.guarded = settings.guards_publishes
        self.sessions: dict[str, Session] = {}
        self._sessions_of: dict[str, int] = {}  # how many, by identity
        self._companions: list[tuple[Recipient, Principal]] = []
        self._delayed_wills: dict[str, tuple[float, Session]] = {}
        self.dirty: list[Output] = []
        self.stalled: dict[Stalled, None] = {}
        self.connects_waiting = 0  # for the store, also those whose clients have given up
        self.delayed = Delayed(self)
        self.dead_letters = DeadLetters.as_wanted(self, settings)
        self._upkeep = Upkeep(self, pending)

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

    def still_may_publish(self, publisher: Recipient | None, message: Message) -> bool:
        """Whether `publisher` may still publish `message`, which it left here earlier; None: not known any more."""
        if self.authorizer is None or publisher is None:
            return True
        permissions = publisher.permissions
        if isinstance(publisher, Session) and self.sessions.get(publisher.client_id) is not publisher:
            permissions = self.authorizer.permissions_of(publisher.principal)  # it has ended: its own are old
        return may_publish(permissions, message.topic, message.qos, message.retain)

    def admit_companion(self, companion: Recipient, principal: Principal) -> None:
        """`companion` rides along in the broker, as `principal`: it may do what that may, now and after a change."""
        self._companions.append((companion, principal))
        if self.authorizer is not None:
            companion.permissions = self.authorizer.permissions_of(principal)

    def deny(self, connection: Output, action: str, topic: str, identity: str) -> None:
        """Count that a client may not do that with that topic, and tell whoever keeps an account.

        `action`: publish, subscribe, share, will; qos or retain where it may publish, but not like that.
        """
        self.counters.deny(action)
        if self.observer is not None:
            self.observer.on_denied(connection, action, topic, identity)

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
        self.enter(session)
        return session

    def enter(self, session: Session) -> None:
        """`session` is one of ours from now on."""
        self.sessions[session.client_id] = session
        self._sessions_of[session.identity] = self._sessions_of.get(session.identity, 0) + 1

    def leave(self, session: Session, will: Message | None) -> None:
        """The session's connection is gone; `will` is what it leaves to be published, at once or after its delay."""
        session.detach(self.now)
        ends = session.expiry_interval == 0
        if will is not None:
            if session.will_delay and not ends:
                delay = min(session.will_delay, session.expiry_interval)
                self.delay_will(session, self.now + delay)
            else:
                session.will = None
                self.publish_will(session, will)
        if ends:
            self.end_session(session)
        elif session.durable:
            self.pending.save_session(session.record())

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

    def delay_will(self, session: Session, due_at: float) -> None:
        """Have the will of `session` published at `due_at`, unless its client is back before that."""
        self._delayed_wills[session.client_id] = (due_at, session)

    def delayed_wills(self) -> int:
        """Wills that wait for their delay."""
        return len(self._delayed_wills)

    # ---- every second

    def sweep(self, now: float) -> None:
        """About once a second: publish what is due, wills among it, and end sessions that have expired."""
        self.now = now
        self.delayed.sweep(now)
        self._upkeep.begin()
        for queue in self._outboxes:
            self._upkeep.visit(queue, now)
        self._publish_due_wills(now)
        for session in list(self.sessions.values()):
            if session.disconnected_at is None:
                continue
            self._upkeep.visit(session.queue, now)
            if (
                session.expiry_interval != const.NEVER_EXPIRES
                and session.disconnected_at + session.expiry_interval <= now
            ):
                self.counters.sessions_expired += 1
                self.end_session(session)

    def _publish_due_wills(self, now: float) -> None:
        for client_id, (due_at, session) in list(self._delayed_wills.items()):
            if due_at <= now:
                del self._delayed_wills[client_id]
                will, session.will = session.will, None
                if will is not None:
                    self.publish_will(session, will)
                    self.pending.save_session(session.record())

    # ---- the store's side

    def restore(self, snapshot: Snapshot) -> None:
        """Take over what the store kept. Sessions that were connected count as disconnected from now on."""
        restore(self, snapshot)

    @property
    def is_overloaded(self) -> bool:
        """Whether clients that come again and again could fill the memory, since what they want never gets on disk."""
        return (
            self.connects_waiting >= _MAX_CONNECTS_WAITING
            or self.pending.uncommitted_bytes > 2 * self.max_uncommitted_bytes
        )

    def on_settled(self) -> None:
        """A batch is on disk: whoever was stalled by too much uncommitted goes on."""
        if self.stalled and self.pending.uncommitted_bytes < self.max_uncommitted_bytes // 2:
            stalled, self.stalled = self.stalled, {}
            for connection in stalled:
                connection.go_on()
