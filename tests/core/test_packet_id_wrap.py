"""Packet identifiers where the numbers of a queue pass 65,535 and its multiples: the next one after 65,535 is 1."""

from __future__ import annotations

import random

import pytest

from edge_broker.core.queue import Queue
from edge_broker.wire import const
from edge_broker.wire.packets import Ack, Connack, Publish
from tests.pump.model_store import StoredQueue
from tests.pump.pump import Pump, TestClient

MOST = const.MAX_PACKET_ID
STARTS = [MOST - 3, MOST - 1, MOST, MOST + 1, 2 * MOST - 3, 2 * MOST, 2 * MOST + 1]


def expected_ids(start: int, count: int) -> list[int]:
    """Counted, not computed: 1 follows 65,535."""
    packet_id = 1
    for _ in range(start - 1):
        packet_id = packet_id + 1 if packet_id < 65_535 else 1
    found = []
    for _ in range(count):
        found.append(packet_id)
        packet_id = packet_id + 1 if packet_id < 65_535 else 1
    return found


def begin_at(queue: Queue, start: int) -> None:
    """As if the numbers below `start` had been used."""
    queue.head = queue.cursor = queue.next_number = queue.committed = start
    queue.gap_from = queue.gap_to = queue.sent_before = start


def subscriber(start: int, expiry: int, qos: int, **limits: int) -> tuple[Pump, TestClient, TestClient]:
    """A broker, a subscriber whose queue goes on with `start`, and a publisher."""
    pump = Pump(**limits)
    client = pump.client("c", expiry=expiry, clean=False).subscribed("t", qos)
    if expiry:
        client.vanish()
        pump.commit()
        session = pump.session("c")
        pump.store.queues[session.session_id] = StoredQueue(head=start, top=start - 1, highest=start - 1)
        pump.crash()
        client = pump.client("c", expiry=expiry, clean=False)
    else:
        begin_at(pump.session("c").queue, start)
    return pump, client, pump.client("p")


def publish(pump: Pump, publisher: TestClient, count: int, qos: int = 1) -> None:
    for number in range(count):
        publisher.publish("t", b"%d" % number, qos, number + 1)
    pump.commit()


def take_all(client: TestClient) -> list[Publish]:
    packets, client.inbox = client.inbox, []
    assert all(isinstance(packet, Publish) for packet in packets)
    return [packet for packet in packets if isinstance(packet, Publish)]


@pytest.mark.parametrize("expiry", [0, 600])
@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("order", ["first to last", "last to first", "mixed"])
def test_at_qos_1(start: int, expiry: int, order: str) -> None:
    pump, client, publisher = subscriber(start, expiry, 1)
    publish(pump, publisher, 10)
    got = take_all(client)
    assert [packet.packet_id for packet in got] == expected_ids(start, 10)
    assert [packet.payload for packet in got] == [b"%d" % number for number in range(10)]
    ids = [packet.packet_id for packet in got]
    if order == "last to first":
        ids.reverse()
    elif order == "mixed":
        random.Random(start).shuffle(ids)
    queue = pump.session("c").queue
    for packet_id in ids:
        client.ack(const.PUBACK, packet_id)
        client.ack(const.PUBACK, packet_id)  # one of nothing in flight any more
    pump.commit()
    assert (queue.head, queue.cursor, queue.depth, queue.in_flight) == (start + 10, start + 10, 0, 0)
    assert not queue.messages
    assert not queue.acknowledged


@pytest.mark.parametrize("expiry", [0, 600])
@pytest.mark.parametrize("start", STARTS)
def test_at_qos_2(start: int, expiry: int) -> None:
    pump, client, publisher = subscriber(start, expiry, 2)
    publish(pump, publisher, 6, 2)
    ids = [packet.packet_id for packet in take_all(client)]
    assert ids == expected_ids(start, 6)
    for packet_id in reversed(ids):
        client.ack(const.PUBREC, packet_id)
        pump.commit()
        assert client.take_ack(const.PUBREL) == packet_id
    for packet_id in ids:
        client.ack(const.PUBCOMP, packet_id)
    pump.commit()
    queue = pump.session("c").queue
    assert (queue.head, queue.depth, queue.in_flight) == (start + 6, 0, 0)
    assert not queue.released


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("start", STARTS)
def test_the_same_identifiers_again_after_the_client_or_the_broker_was_away(
    start: int, restart: bool
) -> None:
    """[MQTT-4.4.0-1]; of what it acknowledged in between nothing comes again."""
    pump, client, publisher = subscriber(start, 600, 2)
    publish(pump, publisher, 8, 2)
    ids = [packet.packet_id for packet in take_all(client)]
    client.ack(const.PUBREC, ids[2])
    client.ack(const.PUBREC, ids[5])
    pump.commit()
    assert [client.take_ack(const.PUBREL) for _ in range(2)] == [ids[2], ids[5]]
    client.ack(const.PUBCOMP, ids[5])
    pump.commit()
    if restart:
        pump.crash()
    client = TestClient(pump)
    client.connect("c", clean=False, expiry=600)
    pump.commit()
    assert client.take(Connack).session_present
    again = [(type(packet), packet.packet_id) for packet in client.inbox]
    expected = [(Publish, packet_id) for packet_id in ids]
    expected[2] = (Ack, ids[2])
    del expected[5]
    assert again == expected
    assert all(packet.dup for packet in client.inbox if isinstance(packet, Publish))


@pytest.mark.parametrize("start", [1, MOST - 3, 2 * MOST])
def test_never_two_messages_in_flight_by_one_identifier(start: int) -> None:
    """As many as there are identifiers are in flight: the next one waits for the oldest, not for any other."""
    pump, client, _ = subscriber(start, 0, 1, send_window=1 << 20, max_queue_bytes_in_memory=1 << 30)
    session = pump.session("c")
    assert client.connection.send_window == MOST
    publisher = pump.client("q", version=const.MQTT_3_1_1)
    for _ in range(MOST + 3):
        publisher.publish("t", b"x", 1, run=False)
    pump.run()
    ids = [packet.packet_id for packet in take_all(client)]
    assert ids == expected_ids(start, MOST)
    assert len(set(ids)) == MOST
    assert session.queue.depth == MOST + 3
    client.ack(const.PUBACK, ids[1])
    assert client.inbox == []
    client.ack(const.PUBACK, ids[0])
    assert [packet.packet_id for packet in take_all(client)] == ids[:2]
    for packet_id in [*ids[2:], *ids[:2]]:
        client.ack(const.PUBACK, packet_id)
    assert [packet.packet_id for packet in take_all(client)] == [ids[2]]
    client.ack(const.PUBACK, ids[2])
    assert (session.queue.depth, session.queue.head) == (0, start + MOST + 3)
