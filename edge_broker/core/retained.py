"""The retained messages: one per topic, what they take, and which of them are in memory.

Every one that is not volatile is on disk too, once its commit is settled. When those in memory take more than
`retained_memory_bytes`, the ones on disk leave the memory, the one set longest ago first, and a `Stub` stands for each;
whoever wants their payload reads it back (`retained_pages`). A volatile message, the broker's own under `$SYS`, and one
that is not committed yet are nowhere else: they stay.

It delivers nothing and reads nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar, Final, TypeAlias

from edge_broker.core.message import Message
from edge_broker.core.trie import TopicTree
from edge_broker.errors import MessageRefused
from edge_broker.wire import const
from edge_broker.wire.topics import SYSTEM_PREFIX

if TYPE_CHECKING:
    from edge_broker.core.counters import Counters
    from edge_broker.core.pending import Pending
    from edge_broker.core.settings import Settings

_MESSAGE_OVERHEAD_BYTES: Final = 500
"""What a message object costs beside its frame, roughly; counted so that the budget means memory."""


class Stub:
    """A retained message that is on disk only. Another message of its topic has another stub."""

    __slots__ = ("expires_at", "received_at", "size_bytes", "topic")

    volatile: ClassVar[bool] = False

    def __init__(
        self, topic: str, size_bytes: int, expires_at: float | None, received_at: float = 0.0
    ) -> None:
        self.topic = topic
        self.size_bytes = size_bytes
        self.expires_at = expires_at
        self.received_at = received_at  # 0 where it does not expire: nobody asks


Entry: TypeAlias = Message | Stub


class Retained:
    """The retained messages by topic. `size_bytes`: their packets, wherever they are; `memory_bytes`: what those in memory
    take; `on_disk_only`: how many are not. None of the three has the broker's own in it.
    """

    __slots__ = (
        "_counters",
        "_on_disk",
        "_pending",
        "_settings",
        "_system_topics",
        "_tree",
        "memory_bytes",
        "on_disk_only",
        "size_bytes",
    )

    def __init__(self, settings: Settings, pending: Pending, counters: Counters) -> None:
        self._settings = settings
        self._pending = pending
        self._counters = counters
        self._tree: TopicTree[Entry] = TopicTree()
        self._system_topics = 0  # of those in the tree: the broker's own
        self._on_disk: OrderedDict[str, Message] = OrderedDict()  # and in memory; set longest ago first
        self.size_bytes = self.memory_bytes = self.on_disk_only = 0
        pending.on_retained = self._on_committed

    # ---- looking

    def __len__(self) -> int:
        """Topics with a retained message, the broker's own among them."""
        return len(self._tree)

    def __iter__(self) -> Iterator[Entry]:
        """All of them, the broker's own among them."""
        return iter(self._tree)

    @property
    def count(self) -> int:
        """Topics with a retained message, but for those that the broker publishes of itself."""
        return len(self._tree) - self._system_topics

    def get(self, topic: str) -> Entry | None:
        """The retained message of exactly this topic."""
        return self._tree.get(topic)

    def match(self, topic_filter: str) -> list[Entry]:
        """Those of all topics that `topic_filter` (checked, without ``$share``) matches."""
        return self._tree.match(topic_filter)

    def is_current(self, entry: Entry) -> bool:
        """Whether `entry` still is what is retained: neither replaced nor removed."""
        return self._tree.get(entry.topic) is entry

    def is_due(self, entry: Entry, now: float) -> bool:
        """Whether a new subscription still gets `entry`; forgets it where it has expired."""
        if not self.is_current(entry):
            return False
        if entry.expires_at is not None and entry.expires_at <= now:
            self._forget(entry)
            return False
        return True

    # ---- what comes and goes

    def retain(self, message: Message) -> None:
        """`message` becomes its topic's retained message, or removes it where it is empty [MQTT-3.3.1-6].

        `MessageRefused` where there are too many and its publisher can be told.
        """
        before = self._tree.get(message.topic)
        if message.payload_at == len(message.frame):
            if before is None:
                return
            self._take_out(before)
        elif self._has_room(message, before):
            if before is not None:
                self._uncount(before)
            self._tree.set(message.topic, message)
            self._count(message)
        elif message.qos and message.version >= const.MQTT_5:
            raise MessageRefused(const.QUOTA_EXCEEDED, "too much is retained")
        else:
            self._counters.drop("retained_full")  # as a retained message: who is there gets it all the same
            return
        if not message.volatile:
            self._pending.retain(message)
        elif before is not None and not before.volatile:
            self._pending.forget_retained(message.topic)
        self._keep_to_budget()

    def set_system(self, message: Message) -> None:
        """`message`, of the broker itself, becomes its topic's; in memory only, and beside all limits."""
        if self._tree.get(message.topic) is None:
            self._system_topics += 1
        self._tree.set(message.topic, message)

    def lose(self, stub: Stub) -> None:
        """The store does not have the message of `stub` any more: what it kept was damaged."""
        self._counters.drop("lost")
        self._forget(stub)

    def restore(self, messages: Iterable[Message]) -> None:
        """Take over what the store kept."""
        for message in sorted(messages, key=lambda message: message.received_at):
            if message.topic.startswith(SYSTEM_PREFIX):  # of a version that let clients publish there
                self._pending.forget_retained(message.topic)
                continue
            self._tree.set(message.topic, message)
            self._count(message)
            self._on_disk[message.topic] = message
        self._keep_to_budget()

    def _has_room(self, message: Message, before: Entry | None) -> bool:
        settings = self._settings
        if before is None and self.count >= settings.max_retained_messages:
            return False
        freed = 0 if before is None else _size_of(before)
        return self.size_bytes - freed + len(message.frame) <= settings.max_retained_bytes

    def _forget(self, entry: Entry) -> None:
        """It is gone without anybody having published."""
        self._take_out(entry)
        self._pending.forget_retained(entry.topic)

    def _take_out(self, entry: Entry) -> None:
        self._tree.remove(entry.topic)
        self._uncount(entry)

    # ---- memory

    def _count(self, message: Message) -> None:
        size = len(message.frame)
        self.size_bytes += size
        self.memory_bytes += size + _MESSAGE_OVERHEAD_BYTES

    def _uncount(self, entry: Entry) -> None:
        size = _size_of(entry)
        self.size_bytes -= size
        if isinstance(entry, Stub):
            self.on_disk_only -= 1
        else:
            self.memory_bytes -= size + _MESSAGE_OVERHEAD_BYTES
            self._on_disk.pop(entry.topic, None)

    def _on_committed(self, committed: Mapping[str, Message | None]) -> None:
        """A batch with these is on disk: what was not replaced since may leave the memory."""
        for topic, message in committed.items():
            if message is not None and self._tree.get(topic) is message:
                self._on_disk[topic] = message
        self._keep_to_budget()

    def _keep_to_budget(self) -> None:
        """Let those on disk leave the memory until what is left is within the budget."""
        budget_bytes = self._settings.retained_memory_bytes
        while self.memory_bytes > budget_bytes and self._on_disk:
            topic, message = self._on_disk.popitem(last=False)
            size = len(message.frame)
            expires_at = message.expires_at
            received_at = 0.0 if expires_at is None else message.received_at
            self._tree.set(topic, Stub(topic, size, expires_at, received_at))
            self.memory_bytes -= size + _MESSAGE_OVERHEAD_BYTES
            self.on_disk_only += 1


def _size_of(entry: Entry) -> int:
    """The bytes of its packet."""
    return entry.size_bytes if isinstance(entry, Stub) else len(entry.frame)
