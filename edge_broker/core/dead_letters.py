"""Dead letters: what a durable queue let go without its recipient, kept for somebody to look at.

They are messages in a queue of their own, which nobody subscribes to and which is bounded by messages, bytes and age; the
oldest gives way. A dead letter is the message as it was, with user properties that say why it died, whom it was for and
how long it had waited; it is dated by its death. It does not expire by what its sender said, and its own end makes no
dead letter.

Whoever subscribes to `$dead-letters/#` gets those of now, under `$dead-letters/` and the original topic. The queue is made
when the first of them comes: a broker that loses nothing writes nothing for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edge_broker.core.burying import Burials
from edge_broker.core.delayed import QUEUE_NAME as DELAYED_QUEUE
from edge_broker.core.delayed import target_of
from edge_broker.core.message import Message, build_message
from edge_broker.core.ports import NEVER
from edge_broker.core.quota import DROP_OLDEST
from edge_broker.errors import MessageRefused, MqttError
from edge_broker.wire import const
from edge_broker.wire.properties import Properties, encode_properties
from edge_broker.wire.topics import DEAD_LETTERS_PREFIX, MAX_TOPIC_BYTES

if TYPE_CHECKING:
    from edge_broker.core.ops import Snapshot
    from edge_broker.core.queue import Queue
    from edge_broker.core.router import Router
    from edge_broker.core.session import Recipient
    from edge_broker.core.settings import Settings

QUEUE_NAME: Final = "$dead-letters"
"""What the store calls it, where bridges' outboxes have their names."""

REASON: Final = "dead-letter-reason"
RECIPIENT: Final = "dead-letter-for"
WAITED: Final = "dead-letter-waited-seconds"
RULE: Final = "dead-letter-rule"
_NAMES: Final = frozenset((REASON, RECIPIENT, WAITED, RULE))

SESSION: Final = "session:"
BRIDGE: Final = "bridge:"


class DeadLetters:
    """`buried`: dead letters made since the start, by reason. `unburied`: what should have become one and could not, be it
    too large, or gone from the disk. `recipients`: bridges that dead letters can go back to, by name with its kind.
    """

    def __init__(self, router: Router, max_messages: int, max_bytes: int, max_age_seconds: int) -> None:
        self._router = router
        self._quota = router.make_quota(max_messages, max_bytes, DROP_OLDEST)
        self._max_bytes = max_bytes
        self._max_age_seconds = max_age_seconds
        self.queue: Queue | None = None
        self.buried: dict[str, int] = {}
        self.unburied = 0
        self._is_trying_again = False
        self.recipients: dict[str, Recipient] = {}

    @classmethod
    def as_wanted(cls, router: Router, settings: Settings) -> DeadLetters | None:
        """As `settings` want them; None where they want none."""
        if not settings.dead_letters:
            return None
        return cls(
            router,
            settings.max_dead_letters,
            settings.max_dead_letter_bytes,
            settings.max_dead_letter_age_seconds,
        )

    def restore(self, snapshot: Snapshot) -> None:
        """Take over those that the store kept."""
        if QUEUE_NAME in snapshot.outboxes:
            self._take_queue(self._router.outbox_queue(snapshot, QUEUE_NAME))

    def _take_queue(self, queue: Queue) -> Queue:
        queue.max_age_seconds = self._max_age_seconds
        self.queue = queue
        if self._router.totals is not None:
            self._router.totals.expendable = queue
        return queue

    @property
    def depth(self) -> int:
        """How many there are."""
        return 0 if self.queue is None else self.queue.depth

    @property
    def dropped(self) -> int:
        """How many gave way to later ones, or were too old, since the start."""
        return 0 if self.queue is None else self.queue.dropped + self.queue.expired

    def burials_of(self, queue: Queue, recipient: str) -> Burials:
        """What `queue` needs to have its messages buried; `recipient` with its kind: `session:`, `bridge:`."""
        return Burials(self, queue, recipient)

    # ---- coming

    def bury(self, message: Message, reason: str, recipient: str, rule: str = "") -> None:
        """Keep `message`, which `recipient` will not get. `rule`: of the bridge that it went by."""
        if self._is_trying_again or message.topic.startswith(DEAD_LETTERS_PREFIX):
            return  # the dead letter itself is here
        letter = self._letter(message, reason, recipient, rule)
        if self._max_bytes and len(letter.frame) > self._max_bytes:
            self.unburied += 1
            return
        queue = self.queue or self._take_queue(self._router.new_outbox(QUEUE_NAME))
        self.buried[reason] = self.buried.get(reason, 0) + 1
        problem = self._quota.make_room(queue, letter, None)
        if problem:
            queue.count_drop(problem)
        else:
            queue.append(letter)
        self._tell(letter)

    def _letter(self, message: Message, reason: str, recipient: str, rule: str) -> Message:
        now = self._router.now
        notes = [(REASON, reason), (RECIPIENT, recipient)]
        notes.append((WAITED, str(max(0, int(now - message.received_at)))))
        if rule:
            notes.append((RULE, rule))
        properties = message.properties if message.version >= const.MQTT_5 else {}
        properties[const.USER_PROPERTY] = properties.get(const.USER_PROPERTY, []) + notes
        letter = _rebuilt(message, properties)
        origin = message.origin
        if origin.unsafe:  # its publisher is answered when the dead letter is on disk
            letter.source = origin
        letter.epoch, letter.sequence = origin.epoch, origin.sequence
        letter.volatile = message.volatile
        letter.received_at = now
        return letter

    def _tell(self, letter: Message) -> None:
        """Give it to those who subscribed to dead letters."""
        topic = DEAD_LETTERS_PREFIX + letter.topic
        if len(topic) * 3 <= MAX_TOPIC_BYTES or len(topic.encode()) <= MAX_TOPIC_BYTES:
            route = self._router.table.find(topic)
            if route.subscriptions or route.groups:
                told = build_message(
                    topic, letter.payload, qos=letter.qos, property_block=letter.property_block
                )
                told.received_at = self._router.now
                self._router.deliver_to(told, route)

    # ---- going

    def deliver_again(self, number: int, letter: Message) -> str:
        """Give the dead letter `number` to whom it was for, once more; why that cannot be, empty if it is done.

        It goes without what was noted on it, as if it had come now, and does not expire any more.
        """
        queue = self.queue
        if queue is None or not queue.may_drop(number):
            return "it is not there any more"
        name = note(letter, RECIPIENT)
        if name == DELAYED_QUEUE:
            return self._publish_again(queue, number, letter)
        recipient = self._recipient(name)
        if recipient is None:
            return f"{name} is not there any more"
        permissions = recipient.permissions
        if permissions is not None and permissions.delivered_qos(letter.topic, False) == NEVER:
            return f"{name} may not receive that topic"
        message = original(letter)
        message.received_at = self._router.now
        taken = self._next_number(recipient)
        self._is_trying_again = True
        try:
            recipient.deliver(message)
        finally:
            self._is_trying_again = False
        if taken is not None and self._next_number(recipient) == taken:
            return f"the queue of {name} does not take it"
        queue.moved = True
        queue.take_away(number, letter)
        return ""

    def _publish_again(self, queue: Queue, number: int, letter: Message) -> str:
        """What died before it was due is published now."""
        before = original(letter)
        message = build_message(
            target_of(before.topic),
            before.payload,
            qos=before.qos,
            retain=before.retain,
            property_block=before.property_block,
        )
        try:
            self._router.publish(message, None)
        except (MqttError, MessageRefused) as refusal:
            return refusal.detail
        queue.moved = True
        queue.take_away(number, letter)
        return ""

    def _recipient(self, name: str) -> Recipient | None:
        if name.startswith(SESSION):
            return self._router.sessions.get(name.removeprefix(SESSION))
        return self.recipients.get(name)

    @staticmethod
    def _next_number(recipient: Recipient) -> int | None:
        """What changes when `recipient` takes a message at QoS > 0: a bridge may have several queues."""
        taken: int | None = getattr(recipient, "taken", None)
        if taken is not None:
            return taken
        queue = getattr(recipient, "queue", None)
        return None if queue is None else queue.next_number

    def forget(self, number: int) -> bool:
        """Throw the dead letter `number` away; whether it was there."""
        queue = self.queue
        if queue is None or not queue.may_drop(number):
            return False
        queue.take_away(number)
        return True


def original(letter: Message) -> Message:
    """The message as it was before it died, but for its expiry."""
    properties = letter.properties
    notes = [pair for pair in properties.get(const.USER_PROPERTY, []) if pair[0] not in _NAMES]
    properties.pop(const.USER_PROPERTY, None)
    if notes:
        properties[const.USER_PROPERTY] = notes
    return _rebuilt(letter, properties)


def note(letter: Message, name: str) -> str:
    """The last value of the user property `name`: an earlier one may be its sender's."""
    values = [value for key, value in letter.properties.get(const.USER_PROPERTY, []) if key == name]
    return values[-1] if values else ""


def _rebuilt(message: Message, properties: Properties) -> Message:
    return build_message(
        message.topic,
        message.payload,
        qos=message.qos,
        retain=message.retain,
        property_block=encode_properties(properties),
    )
