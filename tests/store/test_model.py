"""The store against a model in memory: any sequence of batches, restarts in between, everything compared."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from edge_broker.core.message import Message
from edge_broker.core.ops import Batch, QueueWrite, SessionRecord, Snapshot, SubscriptionRecord
from edge_broker.store import Store, Vault
from edge_broker.wire.topics import TopicCache
from tests.store.sample import WALL_OFFSET, essence, make_message, read_all

topic_names = st.sampled_from(("a", "a/b", "c/d/e", "ü/x"))
payloads = st.binary(min_size=1, max_size=40)


@dataclass
class ModelQueue:
    head: int = 1
    next_number: int = 1
    acknowledged: set[int] = field(default_factory=set)
    released: set[int] = field(default_factory=set)
    stored: dict[int, Message] = field(default_factory=dict)


class StoreModel(RuleBasedStateMachine):
    """Rules gather one batch at a time, as the core does; `commit` and `restart` compare."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.directory = Path(tempfile.mkdtemp())
        self.sessions: dict[int, SessionRecord] = {}
        self.subscriptions: dict[tuple[int, str], SubscriptionRecord] = {}
        self.inbound: set[tuple[int, int]] = set()
        self.outboxes: dict[str, int] = {}
        self.queues: dict[int, ModelQueue] = {}
        self.retained: dict[str, Message] = {}
        self.next_id = 1
        self.batch = Batch()
        self.dirty: set[int] = set()
        self.unwritten: dict[int, dict[int, Message]] = {}

    def vault(self) -> Vault:
        """The keys of the next run."""
        return Vault()

    @initialize()
    def open(self) -> None:
        self.store, self.snapshot = self.loop.run_until_complete(
            Store.open(
                self.directory, topics=TopicCache(), wall_offset=lambda: WALL_OFFSET, vault=self.vault()
            )
        )

    def teardown(self) -> None:
        self.loop.run_until_complete(self.store.close())
        self.loop.close()
        shutil.rmtree(self.directory)

    # ---- what the core does

    @rule(client_id=st.sampled_from("xyz"), expiry=st.integers(1, 2**32 - 1), left=st.booleans())
    def save_session(self, client_id: str, expiry: int, left: bool) -> None:
        old = next((n for n, record in self.sessions.items() if record.client_id == client_id), None)
        session_id = old or self.next_id
        self.next_id += old is None
        record = SessionRecord(session_id, client_id, "who", expiry, 12.5 if left else None)
        self.sessions[session_id] = record
        self.queues.setdefault(session_id, ModelQueue())
        self.batch.sessions = [r for r in self.batch.sessions if r.session_id != session_id] + [record]

    @precondition(lambda self: self.sessions)
    @rule(data=st.data())
    def remove_session(self, data: st.DataObject) -> None:
        session_id = data.draw(st.sampled_from(sorted(self.sessions)))
        self.commit()
        del self.sessions[session_id]
        self.queues.pop(session_id, None)
        self.subscriptions = {k: v for k, v in self.subscriptions.items() if k[0] != session_id}
        self.inbound = {key for key in self.inbound if key[0] != session_id}
        self.batch.removed_sessions.append(session_id)

    @precondition(lambda self: self.sessions)
    @rule(data=st.data(), topic_filter=topic_names, qos=st.integers(0, 2))
    def subscribe(self, data: st.DataObject, topic_filter: str, qos: int) -> None:
        session_id = data.draw(st.sampled_from(sorted(self.sessions)))
        self.commit()
        if data.draw(st.booleans()):
            record = SubscriptionRecord(session_id, topic_filter, qos, qos == 1, qos == 0, qos * 100)
            self.subscriptions[session_id, topic_filter] = record
            self.batch.subscriptions.append(record)
        else:
            self.subscriptions.pop((session_id, topic_filter), None)
            self.batch.removed_subscriptions.append((session_id, topic_filter))

    @precondition(lambda self: self.sessions)
    @rule(data=st.data(), packet_id=st.integers(1, 4), held=st.booleans())
    def inbound_id(self, data: st.DataObject, packet_id: int, held: bool) -> None:
        key = (data.draw(st.sampled_from(sorted(self.sessions))), packet_id)
        self.batch.inbound[key] = held
        if held:
            self.inbound.add(key)
        else:
            self.inbound.discard(key)

    @rule(name=st.sampled_from(("cloud", "backup")))
    def add_outbox(self, name: str) -> None:
        if name not in self.outboxes:
            self.outboxes[name] = self.next_id
            self.queues[self.next_id] = ModelQueue()
            self.batch.outboxes.append((self.next_id, name))
            self.next_id += 1

    @rule(topic=topic_names, payload=st.none() | payloads)
    def retain(self, topic: str, payload: bytes | None) -> None:
        if payload is None:
            self.retained.pop(topic, None)
            self.batch.retained[topic] = None
        else:
            message = make_message(topic, payload, retain=True)
            self.retained[topic] = self.batch.retained[topic] = message

    @precondition(lambda self: self.queues)
    @rule(data=st.data(), count=st.integers(1, 60), payload=payloads)
    def append(self, data: st.DataObject, count: int, payload: bytes) -> None:
        queue_id = data.draw(st.sampled_from(sorted(self.queues)))
        queue = self.queues[queue_id]
        for number in range(queue.next_number, queue.next_number + count):
            self.unwritten.setdefault(queue_id, {})[number] = make_message(payload=payload, sequence=number)
        queue.next_number += count
        self.dirty.add(queue_id)

    @precondition(lambda self: any(q.head < q.next_number for q in self.queues.values()))
    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        queue_id = data.draw(st.sampled_from([n for n, q in self.queues.items() if q.head < q.next_number]))
        queue = self.queues[queue_id]
        open_numbers = range(queue.head, min(queue.next_number, queue.head + 80))
        numbers = data.draw(st.sets(st.sampled_from(open_numbers)))
        if data.draw(st.booleans()):
            queue.released |= numbers - queue.acknowledged
        else:
            queue.acknowledged |= numbers
            queue.released -= numbers
            for number in numbers:
                self.unwritten.get(queue_id, {}).pop(number, None)
        while queue.head in queue.acknowledged:
            queue.acknowledged.remove(queue.head)
            queue.head += 1
        self.dirty.add(queue_id)

    @rule()
    def commit(self) -> None:
        for queue_id in sorted(self.dirty & self.queues.keys()):
            queue = self.queues[queue_id]
            messages = self.unwritten.get(queue_id, {})
            queue.stored |= messages
            self.batch.queues.append(
                QueueWrite(
                    queue_id,
                    sorted(messages.items()),
                    queue.head,
                    sorted(queue.acknowledged),
                    sorted(queue.released),
                )
            )
        batch, self.batch = self.batch, Batch()
        self.dirty.clear()
        self.unwritten.clear()
        self.loop.run_until_complete(self.store.commit(batch))

    @rule()
    def restart(self) -> None:
        self.commit()
        self.loop.run_until_complete(self.store.close())
        epoch = self.snapshot.epoch
        self.open()
        assert self.snapshot.epoch == epoch + 1
        self.compare(self.snapshot)

    # ---- and what the store must say then

    def compare(self, snapshot: Snapshot) -> None:
        assert {record.session_id: record for record in snapshot.sessions} == self.sessions
        assert {(r.session_id, r.topic_filter): r for r in snapshot.subscriptions} == self.subscriptions
        assert sorted(snapshot.inbound) == sorted(self.inbound)
        assert snapshot.outboxes == self.outboxes
        assert snapshot.next_queue_id >= self.next_id
        assert {message.topic: essence(message) for message in snapshot.retained} == {
            topic: essence(message) for topic, message in self.retained.items()
        }
        for queue_id, queue in self.queues.items():
            state = snapshot.queues.get(queue_id)
            if state is None:
                assert queue.next_number == 1
                continue
            assert state.head == queue.head
            assert state.next_number == queue.next_number
            assert state.acknowledged == sorted(queue.acknowledged)
            assert state.released == sorted(queue.released)
            assert state.stored == len(
                [n for n in queue.stored if n >= queue.head and n not in queue.acknowledged]
            )
        assert snapshot.queues.keys() <= self.queues.keys()

    @invariant()
    def queues_read_back(self) -> None:
        for queue_id, queue in self.queues.items():
            read = dict(self.loop.run_until_complete(read_all(self.store, queue_id, queue.head)))
            for number in range(queue.head, queue.next_number):
                if number in queue.acknowledged or number not in queue.stored:
                    continue
                assert essence(read[number]) == essence(queue.stored[number])
            assert read.keys() <= queue.stored.keys()


TestStoreModel = StoreModel.TestCase
TestStoreModel.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)


class EncryptedModel(StoreModel):
    """Each run writes with another key than the one before, or plainly, and reads what all of them wrote."""

    runs = 0

    def vault(self) -> Vault:
        keys = [bytes((number,)) * 32 for number in range(3)]
        self.runs += 1
        return Vault([None, *keys][self.runs % 4], keys)


TestEncryptedModel = EncryptedModel.TestCase
TestEncryptedModel.settings = settings(max_examples=15, stateful_step_count=20, deadline=None)
