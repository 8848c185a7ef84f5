"""A gateway's lane with a disk that a crash leaves as it was, and an ingester's view of what went up."""

from collections.abc import Sequence
from functools import partial

from bridge.config import RuleConfig
from bridge.forwarder import Forwarder
from bridge.ingest.unpacking import read_plain, read_skipped
from bridge.mapping import OutMapping
from bridge.origin import OriginWriter
from bridge.outbox import Outbox
from bridge.priorities import NORMAL
from bridge.skip_record import SkipRecord
from bridge.skips import Skips, skipped_topic
from bridge.stamps import Stamp
from bridge.windows import LaneKey, Windows
from edge_broker.core.client import Client
from edge_broker.core.message import Message, build_message
from edge_broker.core.ops import Page, QueueState, QueueWrite
from edge_broker.core.pending import Pending
from edge_broker.core.queue import Queue
from edge_broker.core.quota import Quota
from edge_broker.core.router import Router
from edge_broker.core.settings import Settings
from edge_broker.wire import const
from edge_broker.wire.decoder import Decoder
from edge_broker.wire.encoder import encode_ack, encode_connack
from edge_broker.wire.packets import Connect
from edge_broker.wire.properties import Properties
from edge_broker.wire.topics import TopicCache

LANE = LaneKey("gw/1", "cloud-1")
MESSAGES, SKIPPED = 1, 2
"""The identifiers of the two queues."""
TOPIC = "edge/{gateway}/skipped"


class Disk:
    """What was committed of each queue."""

    def __init__(self) -> None:
        self.messages: dict[int, dict[int, Message]] = {MESSAGES: {}, SKIPPED: {}}
        self.states: dict[int, tuple[int, list[int], list[int], int]] = {}
        self.highest = {MESSAGES: 0, SKIPPED: 0}
        self.written_bytes = 0

    def write(self, write: QueueWrite) -> None:
        stored = self.messages[write.queue_id]
        stored |= dict(write.messages)
        self.written_bytes += sum(len(message.frame) for _, message in write.messages)
        self.highest[write.queue_id] = max([self.highest[write.queue_id], *(n for n, _ in write.messages)])
        self.states[write.queue_id] = (write.head, write.acknowledged, write.released, write.sent)
        for number in [n for n in stored if n < write.head]:
            del stored[number]

    def restore(self, queue_id: int, pending: Pending) -> Queue:
        head, acknowledged, released, sent = self.states.get(queue_id, (1, [], [], 0))
        marked = max([self.highest[queue_id], *acknowledged, *released])
        stored = len(self.messages[queue_id])
        state = QueueState(
            queue_id, head, max(head, marked + 1), list(acknowledged), list(released), stored, sent
        )
        return Queue.restore(state, pending)

    def page(self, queue_id: int, start: int, most: int = 1_000) -> Page:
        found = sorted((n, m) for n, m in self.messages[queue_id].items() if n >= start)[:most]
        return Page(queue_id, found, found[-1][0] + 1 if found else start)


class Gateway:
    """`boot` after each crash. The ingester sees what was sent once `answer` has let it through.

    `acknowledged`: numbers of messages whose acknowledgement came back; `announced`: those in announcements, likewise.
    """

    def __init__(
        self, out: Sequence[RuleConfig], *, announces: bool = True, quota: Quota | None = None
    ) -> None:
        self.disk = Disk()
        self.ingester = Windows()
        self.now = 1000.0
        self.epoch = 0
        self.acknowledged: set[int] = set()
        self.announced: set[int] = set()
        self.announcements = 0
        self._out = out
        self._announces = announces
        self._quota = quota or Quota()
        self.boot()

    # ---- here

    def boot(self) -> None:
        """The broker starts with what is on the disk."""
        self.epoch += 1
        self.pending = Pending(self.epoch, 256 << 10)
        self.router = Router(Settings(), self.pending, None, str, TopicCache())  # type: ignore[arg-type]
        self.router.now = self.now
        self.queue = self.disk.restore(MESSAGES, self.pending)
        mapping = OutMapping(self._out)
        self.outbox = Outbox("cloud", self.queue, mapping, self.router, self._quota)
        self.given_up: list[tuple[str, str]] = []
        self.forwarder = Forwarder(
            self.queue, mapping, self.router, 10, 30.0, lambda *what: self.given_up.append(what)
        )
        self.forwarder.latest = self.outbox.latest[NORMAL]
        self.forwarder.stamp = Stamp(OriginWriter(*LANE), None, self.epoch)
        self.outbox.sender = self.forwarder
        self.outbox.subscribe()
        self.skips: Skips | None = None
        if self._announces:
            queue = self.disk.restore(SKIPPED, self.pending) if SKIPPED in self.disk.states else None
            make_queue = partial(Queue, SKIPPED, self.pending)
            self.record = SkipRecord(self.queue, queue, make_queue, self.router, LANE.lane)
            topic = skipped_topic(TOPIC, LANE.gateway)
            self.skips = Skips("cloud", self.forwarder, self.record, self.router, LANE.lane, topic, 30.0)
        self.client: Client | None = None

    @property
    def skipped_queue(self) -> Queue:
        """There is one."""
        assert self.record.queue is not None
        return self.record.queue

    def publish(self, topic: str, payload: bytes = b"", qos: int = 1, expiry: int | None = None) -> None:
        message = build_message(topic, payload, qos=qos)
        message.expiry_interval = expiry
        self.router.publish(message, None)

    def commit(self) -> None:
        """Everything up to now is on the disk, and the store has answered what it was asked."""
        sealed = self.pending.seal()
        for write in sealed.batch.queues:
            self.disk.write(write)
        sealed.settle()
        self.answer_reads()

    def answer_reads(self) -> None:
        while self.pending.reads or self.pending.lookups:
            reads, self.pending.reads = self.pending.reads, []
            for queue in reads:
                assert queue.reading is not None
                page = self.disk.page(queue.queue_id, queue.reading[0])
                queue.take_page(page)
            lookups, self.pending.lookups = self.pending.lookups, []
            for lookup in lookups:
                lookup.take(self.disk.page(lookup.queue_id, lookup.from_number, lookup.max_messages))

    def pass_time(self, seconds: float) -> None:
        self.now = self.router.now = self.now + seconds
        self.router.sweep(self.now)
        if self.client is not None:
            self.forwarder.is_overdue(self.now, False)

    # ---- the upstream

    def connect(self, version: int = const.MQTT_5, properties: Properties | None = None) -> None:
        self.client = Client(self, Connect(version, "gw", False, 60), self.router.topics, lambda: None)
        self.client.start(self.now)
        self.client.take_output(self.now)
        self.client.receive(encode_connack(version, False, 0, properties or {}), self.now)
        self.forwarder.attach(self.client, lambda: None, lambda _: None)

    def disconnect(self) -> None:
        if self.client is not None:
            self.client.on_lost("cut")
            self.client = None
            self.forwarder.detach()

    def sent(self) -> list[Message]:
        """What goes out in one turn."""
        if self.client is None:
            return []
        self.forwarder.send_due()
        decoder = Decoder(TopicCache(), 1 << 20, version=self.client.version, publish_type=Message)
        decoder.feed(self.client.take_output(self.now))
        packets = []
        while (packet := decoder.next_packet()) is not None:
            if isinstance(packet, Message):
                packets.append(packet)
        return packets

    def reach(self, message: Message) -> None:
        """`message` is with the ingester."""
        skipped = read_skipped(message.payload) if message.topic == "edge/gw%2F1/skipped" else None
        if skipped is not None:
            assert skipped.lane == LANE.lane
            for first, last in skipped.ranges:
                self.ingester.skip(LANE, first, last + 1)
            return
        origin = read_plain(message).origin
        assert origin is not None
        self.ingester.take(LANE, origin.epoch, origin.sequence)

    def answer(self, message: Message, reason_code: int = 0) -> None:
        """The upstream acknowledges `message`."""
        assert self.client is not None
        if reason_code < 0x80:
            skipped = read_skipped(message.payload) if message.topic.endswith("/skipped") else None
            if skipped is None:
                origin = read_plain(message).origin
                self.acknowledged.add(0 if origin is None else origin.sequence)
            else:
                self.announcements += 1
                for first, last in skipped.ranges:
                    self.announced |= set(range(first, last + 1))
        self.client.receive(
            encode_ack(self.client.version, const.PUBACK, message.packet_id, reason_code), self.now
        )

    def run(self) -> None:
        """Until nothing more is sent, all of it with the ingester and acknowledged, the clock going on."""
        silent = 0
        while silent < 3:
            sent = self.sent()
            for message in sent:
                self.reach(message)
                self.answer(message)
            self.answer_reads()
            silent = 0 if sent else silent + 1
            if not sent:
                self.pass_time(1.0)

    def missing(self) -> list[tuple[int, int]]:
        """What the ingester reports of the lane."""
        lane = self.ingester.lanes.get(LANE)
        return [] if lane is None else lane.gaps()

    # ---- the client's events

    def on_connected(self, session_present: bool) -> None: ...

    def on_refused(self, reason_code: int, detail: str) -> None: ...

    def on_closed(self, reason_code: int, detail: str) -> None: ...

    def on_message(self, message: Message) -> None: ...

    def on_puback(self, packet_id: int, reason_code: int) -> None:
        self.forwarder.on_puback(packet_id, reason_code)

    def on_pubrec(self, packet_id: int, reason_code: int) -> None: ...

    def on_pubrel(self, packet_id: int) -> None: ...

    def on_pubcomp(self, packet_id: int, reason_code: int) -> None: ...

    def on_suback(self, packet_id: int, reason_codes: list[int]) -> None: ...
