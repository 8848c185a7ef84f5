"""When the clock comes right: what is in memory from before the boot is older than it seemed, and by how much."""

from __future__ import annotations

from edge_broker.core.correcting import correct_times, shift_expiry
from edge_broker.core.message import Message
from edge_broker.core.queue import Queue
from edge_broker.core.retained import Stub
from edge_broker.wire import const
from edge_broker.wire.packets import Connack, Publish, Will
from tests.pump.pump import START_SECONDS, Pump, TestClient

BOOT = START_SECONDS + 5
DOWN = 1000.0


def expiring(seconds: int) -> dict[int, int]:
    return {const.MESSAGE_EXPIRY_INTERVAL: seconds}


def correct(pump: Pump, *outboxes: Queue) -> None:
    correct_times(pump.router, outboxes, BOOT, DOWN)
    pump.wait(1)


def come_back(pump: Pump, client_id: str) -> tuple[TestClient, bool]:
    client = TestClient(pump)
    client.connect(client_id, clean=False, expiry=5000)
    pump.commit()
    return client, client.take(Connack).session_present


def topics(client: TestClient) -> list[str]:
    return [packet.topic for packet in client.inbox if isinstance(packet, Publish)]


def test_messages_in_queues_expire_as_they_should_have(pump: Pump) -> None:
    pump.client("away", clean=False, expiry=5000).subscribed("t", 1).vanish()
    publisher = pump.client("p")
    publisher.publish("t", b"short", qos=1, packet_id=1, properties=expiring(500))
    publisher.publish("t", b"long", qos=1, packet_id=2, properties=expiring(1500))
    pump.wait(10)
    publisher.publish("t", b"of this run", qos=1, packet_id=3, properties=expiring(500))
    correct(pump)
    client, present = come_back(pump, "away")
    assert present
    assert client.take_payloads() == [b"long", b"of this run"]
    assert pump.session("away").queue.expired == 1


def test_a_message_that_several_have_moves_once(pump: Pump) -> None:
    for name in ("one", "two"):
        pump.client(name, clean=False, expiry=5000).subscribed("t", 1).vanish()
    pump.client("p").publish("t", b"x", qos=1, properties=expiring(1500))
    message, same = [pump.session(name).queue.messages[1] for name in ("one", "two")]
    assert message is same
    variant = message.copy(0, retain=False)
    outboxes = [Queue(98, pump.pending), Queue(99, pump.pending)]
    for outbox in outboxes:
        outbox.messages[1] = variant
    correct(pump, *outboxes)
    for one in (message, variant):
        assert one.received_at == START_SECONDS - DOWN
        assert one.expires_at == START_SECONDS - DOWN + 1500


def test_sessions_end_and_wills_are_published_as_they_should_have_been(pump: Pump) -> None:
    watcher = pump.client("watcher").subscribed("will/#", 0)
    for name, expiry, delay in (("old", 500, 60), ("patient", 5000, 4000)):
        will = Will(f"will/{name}", b"gone", 0, False, delay, {})
        pump.client(name, clean=False, expiry=expiry, will=will).vanish()
    pump.wait(10)
    will = Will("will/new", b"gone", 0, False, 60, {})
    pump.client("new", clean=False, expiry=500, will=will).vanish()
    correct(pump)
    assert topics(watcher) == ["will/old"]
    assert sorted(name for name in pump.router.sessions if name != "watcher") == ["new", "patient"]
    pump.wait(3100)  # 4000 less what had passed
    assert "will/patient" in topics(watcher)


def test_retained_messages_expire_in_memory_and_as_stubs() -> None:
    pump = Pump(retained_memory_bytes=600)
    publisher = pump.client("p")
    for number in range(3):
        publisher.publish(
            f"r/{number}", b"x", qos=1, retain=True, packet_id=number + 1, properties=expiring(500)
        )
    publisher.publish("r/ever", b"x", qos=1, retain=True, packet_id=9)
    pump.commit()
    kinds = {type(entry) for entry in pump.router.retained}
    assert kinds == {Message, Stub}
    pump.wait(10)
    publisher.publish("r/new", b"x", qos=1, retain=True, packet_id=10, properties=expiring(500))
    pump.commit()
    correct(pump)
    due = [
        entry.topic for entry in list(pump.router.retained) if pump.router.retained.is_due(entry, pump.now)
    ]
    assert sorted(due) == ["r/ever", "r/new"]


def test_delayed_messages_come_when_they_should_have(pump: Pump) -> None:
    watcher = pump.client("watcher").subscribed("t/#", 0)
    publisher = pump.client("p")
    for number, seconds in enumerate((500, 1500), 1):
        publisher.publish(f"$delayed/{seconds}/t/{seconds}", qos=1, packet_id=number)
    expiring_soon = expiring(900)
    publisher.publish("$delayed/800/t/expired", qos=1, packet_id=3, properties=expiring_soon)
    pump.commit()
    pump.wait(10)
    publisher.publish("$delayed/500/t/of this run", qos=1, packet_id=4)
    pump.commit()
    correct(pump)
    pump.commit()
    assert topics(watcher) == ["t/500"]
    assert pump.router.delayed.expired == 1
    pump.wait(490)
    pump.commit()
    assert topics(watcher) == ["t/500", "t/1500"]
    pump.wait(10)
    pump.commit()
    assert topics(watcher) == ["t/500", "t/1500", "t/of this run"]


def test_dead_letters_are_as_old_as_they_are() -> None:
    pump = Pump(dead_letters=True, max_dead_letter_age_seconds=900)
    pump.client("away", clean=False, expiry=5000).subscribed("t", 1).vanish()
    pump.client("p").publish("t", b"x", qos=1, properties=expiring(1))
    pump.commit()
    pump.wait(3)
    pump.commit()
    assert pump.router.dead_letters is not None
    pump.wait(1)
    pump.commit()
    assert pump.router.dead_letters.depth == 1
    (letter,) = pump.store.queues[pump.store.outboxes["$dead-letters"]].messages.values()
    letter.received_at -= DOWN  # the store reads it so from now on
    correct(pump)
    pump.commit()
    assert pump.router.dead_letters.depth == 0


def test_what_somebody_authenticated_with_expires_when_it_should(pump: Pump) -> None:
    """A token's end was put on a clock that was behind: it is nearer by as much."""
    client, other = pump.client("c"), pump.client("other")
    client.connection.expires_at = pump.now + 3600
    shift_expiry((client.connection, other.connection), 3000)
    assert (client.connection.expires_at, other.connection.expires_at) == (pump.now + 600, None)
