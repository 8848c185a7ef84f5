"""A backlog larger than the memory: it lives on disk, and comes back in pages, whole and in order."""

from __future__ import annotations

import pytest

from edge_broker.wire import const
from edge_broker.wire.packets import Connack, Publish
from tests.pump.pump import Pump, TestClient

WINDOW_BYTES = 20_000


@pytest.fixture
def small() -> Pump:
    """A broker that keeps little of a queue in memory and reads small pages."""
    return Pump(window_bytes=WINDOW_BYTES, page_messages=30)


def fill(pump: Pump, first: int, last: int) -> None:
    """Publish the numbers from `first` to `last`, some 200 bytes each, in several commits."""
    publisher = pump.client("p")
    for number in range(first, last + 1):
        publisher.publish("t", b"%d:" % number + b"x" * 200, qos=1, packet_id=number)
        if not number % 70:
            pump.commit()
    pump.commit()


def connect(pump: Pump, **options: object) -> TestClient:
    client = TestClient(pump)
    client.connect("d", clean=False, expiry=3600, **options)
    pump.commit()
    client.take(Connack)
    return client


def numbers(payloads: list[bytes]) -> list[int]:
    return [int(payload.partition(b":")[0]) for payload in payloads]


def drain(pump: Pump, client: TestClient) -> list[int]:
    """Acknowledge whatever comes until nothing comes any more; the numbers, in order."""
    received: list[int] = []
    while True:
        received += numbers(client.take_and_ack())
        pump.commit()
        if not client.inbox:
            return received


def test_of_an_offline_queue_nothing_stays_in_memory(small: Pump) -> None:
    connect(small).subscribed("t", 1).vanish()
    fill(small, 1, 500)
    queue = small.session("d").queue
    assert (queue.depth, len(queue.messages), queue.bytes_in_memory) == (500, 0, 0)
    assert drain(small, connect(small)) == list(range(1, 501))
    assert queue.depth == 0
    assert small.store.queues[queue.queue_id].messages == {}


def test_a_client_that_acknowledges_nothing_costs_a_window(small: Pump) -> None:
    client = connect(small, properties={const.RECEIVE_MAXIMUM: 5}).subscribed("t", 1)
    fill(small, 1, 500)
    queue = small.session("d").queue
    assert queue.bytes_in_memory < 2 * WINDOW_BYTES
    assert len(client.inbox) == 5
    assert drain(small, client) == list(range(1, 501))


def test_new_messages_queue_behind_what_is_on_disk(small: Pump) -> None:
    connect(small).subscribed("t", 1).vanish()
    fill(small, 1, 200)
    client = connect(small, properties={const.RECEIVE_MAXIMUM: 10})
    received = numbers(client.take_and_ack())
    assert received, "the first page is there"
    fill(small, 201, 300)
    assert received + drain(small, client) == list(range(1, 301))


def test_through_a_crash(small: Pump) -> None:
    connect(small).subscribed("t", 1).vanish()
    fill(small, 1, 200)
    client = connect(small, properties={const.RECEIVE_MAXIMUM: 10})
    first = numbers(client.take_and_ack())
    small.commit()
    small.crash()
    queue = small.session("d").queue
    assert queue.head == first[-1] + 1
    assert first + drain(small, connect(small)) == list(range(1, 201))


def test_gone_and_back_while_a_page_is_being_read(small: Pump) -> None:
    connect(small).subscribed("t", 1).vanish()
    fill(small, 1, 200)
    client = connect(small, properties={const.RECEIVE_MAXIMUM: 40})
    for publish in [client.take(Publish) for _ in range(10)]:
        client.ack(const.PUBACK, publish.packet_id)
    queue = small.session("d").queue
    assert queue.reading is not None, "the next page is on its way"
    assert queue.reading[0] > queue.head
    client.vanish()
    again = TestClient(small)
    again.connect("d", clean=False, expiry=3600)
    while small.sealed or not small.pending.empty:
        if not small.pending.empty:
            small.seal()
        small.settle()
    assert again.take(Connack).session_present
    assert drain(small, again) == list(range(11, 201))


def test_a_page_that_cannot_be_read_is_asked_for_again(small: Pump) -> None:
    connect(small).subscribed("t", 1).vanish()
    fill(small, 1, 50)
    client = TestClient(small)
    client.connect("d", clean=False, expiry=3600)
    while not small.pending.empty:
        small.seal()
        small.settle()
    client.take(Connack)
    (queue,) = small.pending.reads
    small.pending.reads = []
    queue.take_page(None)
    assert client.inbox == []
    small.session("d").pump()
    assert drain(small, client) == list(range(1, 51))


def test_what_the_store_lost_is_counted_and_passed_over(small: Pump) -> None:
    connect(small).subscribed("t", 1).vanish()
    fill(small, 1, 100)
    queue = small.session("d").queue
    stored = small.store.queues[queue.queue_id].messages
    for number in (1, 2, 50, 51, 99, 100):
        del stored[number]
    received = drain(small, connect(small))
    assert received == [*range(3, 50), *range(52, 99)]
    assert queue.lost == 6
    assert queue.depth == 0
    fill(small, 101, 110)
    assert queue.depth == 10


def test_a_queue_that_lost_everything_goes_on(small: Pump) -> None:
    connect(small).subscribed("t", 1).vanish()
    fill(small, 1, 100)
    queue = small.session("d").queue
    small.store.queues[queue.queue_id].messages.clear()
    client = connect(small)
    assert client.inbox == []
    fill(small, 101, 110)
    assert drain(small, client) == list(range(101, 111))
    assert queue.lost == 100
