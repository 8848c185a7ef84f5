"""A trace: every step of a followed message in its order, nothing of others, and a core as before when it is over."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from edge_broker.core import tracing
from edge_broker.core.connection import Connection
from edge_broker.core.ports import Principal
from edge_broker.core.queue import Queue
from edge_broker.core.router import Router
from edge_broker.core.session import Session
from edge_broker.core.trace_events import Event
from edge_broker.core.traced import begin_trace, end_trace
from edge_broker.core.tracing import Tracer
from edge_broker.wire import const
from edge_broker.wire.packets import Publish, Will
from tests.permitting import SimpleRules
from tests.pump.pump import Pump, TestClient


class Told:
    """A trace of `pump`, and what it told so far."""

    def __init__(self, pump: Pump, client_id: str = "", topic_filter: str = "", **options: Any) -> None:
        self.events: list[Event] = []
        self.pump = pump
        self.tracer = Tracer(
            pump.router, self.events.append, client_id=client_id, topic_filter=topic_filter, **options
        )
        begin_trace(pump.router, self.tracer)

    def is_over(self) -> bool:
        return self.tracer.is_over

    @property
    def steps(self) -> list[str]:
        """`what client`, or `what client #number`; taken."""
        taken = [
            f"{e.what} {e.client}" + (f" #{e.queue_number}" if e.queue_number else "") for e in self.events
        ]
        self.events.clear()
        return taken


def durable(pump: Pump, client_id: str, topic_filter: str = "#", qos: int = 1) -> TestClient:
    return pump.client(client_id, clean=False, expiry=3600).subscribed(topic_filter, qos)


def test_a_live_subscriber_of_a_clean_session(pump: Pump) -> None:
    publisher, subscriber = pump.client("p"), pump.client("s").subscribed("t/#", 1)
    told = Told(pump, topic_filter="t/+")
    publisher.publish("t/1", b"21.5", qos=1, packet_id=7)
    assert publisher.take_ack(const.PUBACK) == 7
    subscriber.ack(const.PUBACK, subscriber.take(Publish).packet_id)
    assert [(e.message, e.topic, e.qos, e.payload_bytes) for e in told.events] == [(1, "t/1", 1, 4)] * 4
    assert told.events[0].detail == "1 recipient"
    assert told.steps == ["accepted p", "sent s #1", "answered p", "acknowledged s #1"]
    publisher.publish("elsewhere", qos=1, packet_id=8)
    assert told.steps == []


def test_what_everybody_acknowledged_in_time_is_elided(pump: Pump) -> None:
    publisher, subscriber = pump.client("p"), durable(pump, "s")
    told = Told(pump, topic_filter="t")
    publisher.publish("t", qos=1)
    assert told.steps == ["accepted p", "queued s #1", "sent s #1"]
    subscriber.ack(const.PUBACK, 1)
    assert told.steps == ["acknowledged s #1", "elided s #1", "answered p"]
    pump.commit()
    assert told.steps == []
    assert pump.store.messages_written == 0


def test_for_an_offline_session_it_is_written_before_its_publisher_is_answered(pump: Pump) -> None:
    publisher = pump.client("p")
    durable(pump, "s").vanish()
    pump.commit()
    told = Told(pump, topic_filter="t", messages=1)
    publisher.publish("t", qos=1)
    pump.seal()
    assert told.steps == ["accepted p", "queued s #1"]
    assert not told.is_over()
    pump.settle()
    assert told.steps == ["written s #1", "answered p"]
    assert told.is_over()
    back = pump.client("s", clean=False, expiry=3600)
    pump.commit()
    back.ack(const.PUBACK, 1)
    assert told.steps == ["sent s #1", "acknowledged s #1"]


def test_qos_2_both_ways(pump: Pump) -> None:
    publisher, subscriber = pump.client("p"), durable(pump, "s", qos=2)
    told = Told(pump, topic_filter="t")
    publisher.publish("t", qos=2, packet_id=5)
    pump.commit()
    assert told.steps == ["accepted p", "queued s #1", "written s #1", "answered p", "sent s #1"]
    publisher.publish("t", qos=2, packet_id=5, dup=True)
    assert told.steps == ["repeated p"]
    subscriber.ack(const.PUBREC, 1)
    pump.commit()
    subscriber.ack(const.PUBCOMP, 1)
    assert told.steps == ["received s #1", "acknowledged s #1"]


def test_qos_0_is_sent_or_dropped_with_the_reason(pump: Pump) -> None:
    publisher, slow = pump.client("p"), pump.client("slow").subscribed("t")
    durable(pump, "away").vanish()
    pump.commit()
    slow.block()
    pump.client("s").subscribed("t")
    told = Told(pump, topic_filter="t")
    publisher.publish("t")
    details = {(e.what, e.client): e.detail for e in told.events}
    assert details == {
        ("accepted", "p"): "3 recipients",
        ("dropped", "slow"): "slow_subscriber",
        ("dropped", "away"): "offline",
        ("sent", "s"): "",
    }


def test_what_is_too_large_for_a_subscriber_is_dropped_and_never_sent(pump: Pump) -> None:
    publisher = pump.client("p")
    small = pump.client("s", properties={const.MAXIMUM_PACKET_SIZE: 30}).subscribed("t", 1)
    told = Told(pump, topic_filter="t")
    publisher.publish("t", b"x" * 40, qos=1)
    assert told.events[1].detail == "packet_too_large"
    assert told.steps == ["accepted p", "dropped s #1", "answered p"]
    assert small.inbox == []


def test_expired(pump: Pump) -> None:
    publisher = pump.client("p")
    durable(pump, "s").vanish()
    told = Told(pump, topic_filter="t")
    publisher.publish("t", qos=1, properties={const.MESSAGE_EXPIRY_INTERVAL: 5})
    pump.commit()
    assert told.steps == ["accepted p", "queued s #1", "written s #1", "answered p"]
    pump.wait(10)
    pump.client("s", clean=False, expiry=3600)
    pump.commit()
    assert told.steps == ["expired s #1"]


def test_a_subscriber_that_refuses(pump: Pump) -> None:
    publisher, subscriber = pump.client("p"), pump.client("s").subscribed("t", 1)
    told = Told(pump, topic_filter="t")
    publisher.publish("t", qos=1)
    subscriber.ack(const.PUBACK, 1, const.NOT_AUTHORIZED)
    assert told.events[-1].detail == "not authorized"
    assert told.steps == ["accepted p", "sent s #1", "answered p", "refused s #1"]


def test_a_queue_that_makes_room() -> None:
    pump = Pump(max_queue_messages=1)
    publisher = pump.client("p")
    durable(pump, "s").vanish()
    told = Told(pump, topic_filter="t")
    for packet_id in (1, 2):
        publisher.publish("t", qos=1, packet_id=packet_id)
        pump.commit()
    assert told.steps == [
        *("accepted p", "queued s #1", "written s #1", "answered p"),
        *("dropped s #1", "accepted p", "queued s #2", "written s #2", "answered p"),
    ]


def test_a_session_that_ends(pump: Pump) -> None:
    publisher = pump.client("p")
    durable(pump, "s").vanish()
    told = Told(pump, topic_filter="t")
    publisher.publish("t", qos=1)
    pump.commit()
    told.events.clear()
    pump.client("s", clean=True)
    assert told.events[0].detail == "session_ended"
    assert told.steps == ["dropped s #1"]


class Nobody(SimpleRules):
    """May do nothing with `forbidden`."""

    def may_publish(self, principal: Principal, topic: str) -> bool:
        return topic != "forbidden"

    def may_subscribe(self, principal: Principal, topic_filter: str) -> bool:
        return True


def test_what_is_refused_says_why() -> None:
    pump = Pump(authorizer=Nobody())
    publisher = pump.client("p")
    told = Told(pump, topic_filter="#")
    publisher.publish("forbidden", qos=1)
    assert told.events[0].detail == "not authorized: a topic that the client may not publish to"
    assert told.steps == ["refused p"]
    publisher.publish("/".join("x" * 200), qos=1, packet_id=2)
    assert "more levels than we allow; its connection ends" in told.events[0].detail
    assert told.steps == ["refused p"]


def test_a_3_1_1_publisher_that_waits_for_room() -> None:
    pump = Pump(max_queue_messages=1, when_queue_full="reject")
    publisher = pump.client("p", version=const.MQTT_3_1_1)
    durable(pump, "s").vanish()
    pump.commit()
    told = Told(pump, topic_filter="t")
    publisher.publish("t", qos=1, packet_id=1)
    pump.commit()
    told.events.clear()
    publisher.publish("t", qos=1, packet_id=2)
    pump.wait(1)
    assert told.steps == ["waiting p"]
    back = pump.client("s", clean=False, expiry=3600)
    pump.commit()
    back.ack(const.PUBACK, 1)
    told.events.clear()
    pump.wait(1)
    pump.commit()
    assert [step for step in told.steps if "p" in step.split()[1]] == ["accepted p", "answered p"]


def test_a_clients_trace_follows_what_it_publishes_and_what_it_gets(pump: Pump) -> None:
    watched, other = pump.client("w").subscribed("in/#", 1), pump.client("o").subscribed("#", 1)
    told = Told(pump, client_id="w")
    watched.publish("out", qos=1)
    assert told.steps == ["accepted w", "sent o #1", "answered w"]
    other.publish("in/1", qos=1)
    assert told.steps == ["accepted o", "sent w #1", "answered o"]
    other.publish("elsewhere", qos=1)
    assert told.steps == []
    assert told.tracer.shown == 2


def test_one_member_of_a_shared_subscription(pump: Pump) -> None:
    publisher = pump.client("p")
    members = {name: pump.client(name).subscribed("$share/g/t", 1) for name in ("a", "b")}
    told = Told(pump, client_id="b")
    for packet_id in (1, 2):
        publisher.publish("t", qos=1, packet_id=packet_id)
    members["b"].ack(const.PUBACK, 1)
    assert told.steps == ["accepted p", "sent b #1", "answered p", "acknowledged b #1"]


def test_a_message_that_ended_with_one_member_goes_on_to_another(pump: Pump) -> None:
    publisher = pump.client("p")
    first = pump.client("a").subscribed("$share/g/t", 1)
    told = Told(pump, topic_filter="t")
    publisher.publish("t", qos=1)
    pump.client("b").subscribed("$share/g/t", 1)
    told.events.clear()
    first.vanish()
    assert sorted(told.steps) == ["dropped a #1", "sent b #1"]


def test_a_clients_trace_of_a_topic(pump: Pump) -> None:
    watched = pump.client("w")
    told = Told(pump, client_id="w", topic_filter="a")
    watched.publish("a")
    watched.publish("b")
    assert told.steps == ["accepted w"]


def test_who_comes_during_the_trace_is_followed(pump: Pump) -> None:
    told = Told(pump, client_id="late")
    late = pump.client("late").subscribed("t", 1)
    pump.client("p").publish("t", qos=1)
    late.ack(const.PUBACK, 1)
    assert told.steps == ["accepted p", "sent late #1", "answered p", "acknowledged late #1"]


def test_what_was_queued_before_the_trace_is_seen_going_out(pump: Pump) -> None:
    publisher = pump.client("p")
    durable(pump, "s").vanish()
    publisher.publish("t", qos=1)
    pump.commit()
    told = Told(pump, client_id="s")
    back = pump.client("s", clean=False, expiry=3600)
    pump.commit()
    back.ack(const.PUBACK, 1)
    assert told.steps == ["sent s #1", "acknowledged s #1"]


def test_a_topics_trace_that_counts_follows_whole_ways_only(pump: Pump) -> None:
    publisher = pump.client("p")
    durable(pump, "s").vanish()
    publisher.publish("t", qos=1)
    pump.commit()
    told = Told(pump, topic_filter="t", messages=1)
    pump.client("s", clean=False, expiry=3600)
    pump.commit()
    assert told.steps == [], "it came before the trace"
    publisher.publish("t", qos=1, packet_id=2)
    assert told.steps == ["accepted p", "queued s #2", "sent s #2"]


def test_a_publisher_whose_acknowledgements_were_held_before(pump: Pump) -> None:
    """What calls back to the connection was made when its class was another one."""
    publisher = pump.client("p")
    durable(pump, "s").vanish()
    publisher.publish("t", qos=1, packet_id=1)
    told = Told(pump, topic_filter="t")
    publisher.publish("t", qos=1, packet_id=2)
    pump.commit()
    assert told.steps == ["accepted p", "queued s #2", "written s #2", "answered p"]
    end_trace(pump.router)
    publisher.publish("t", qos=1, packet_id=3)
    pump.commit()
    assert [publisher.take_ack(const.PUBACK) for _ in range(3)] == [1, 2, 3]
    assert told.steps == []


def test_only_so_many_messages(pump: Pump) -> None:
    publisher, subscriber = pump.client("p"), pump.client("s").subscribed("t", 1)
    told = Told(pump, topic_filter="t", messages=2)
    for packet_id in (1, 2, 3):
        publisher.publish("t", qos=1, packet_id=packet_id)
    assert {event.message for event in told.events} == {1, 2}
    assert not told.is_over()
    for packet_id in (1, 2):
        subscriber.ack(const.PUBACK, packet_id)
    assert told.is_over()


def test_only_so_many_events_in_a_second_and_each_message_left_out_counts_once(pump: Pump) -> None:
    publisher = pump.client("p")
    pump.client("s").subscribed("t")
    told = Told(pump, topic_filter="t", max_events_per_second=4)
    for _ in range(5):
        publisher.publish("t")
    assert told.steps == ["accepted p", "sent s"] * 2
    assert told.tracer.skipped == 3
    pump.now += 1
    publisher.publish("t")
    assert told.steps == ["accepted p", "sent s"]
    assert told.tracer.skipped == 3


def test_only_so_much_is_remembered(pump: Pump, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "_MAX_DELIVERIES", 2)
    publisher = pump.client("p")
    for name in ("a", "b", "c"):
        durable(pump, name).vanish()
    told = Told(pump, topic_filter="t")
    publisher.publish("t", qos=1)
    assert len(told.steps) == 3, "accepted, and queued twice"
    assert told.tracer.skipped == 1
    publisher.publish("t", qos=1, packet_id=2)
    assert told.steps == []
    assert told.tracer.skipped == 2
    pump.commit()
    told.events.clear()
    publisher.publish("t", qos=1, packet_id=3)
    pump.commit()
    assert len(told.steps) == 6, "what waits on the disk makes room"
    assert sum(len(pump.session(name).queue.watch.deliveries) for name in ("a", "b", "c")) == 2


def test_a_subscriber_that_leaves_leaves_its_messages_at_rest(pump: Pump) -> None:
    publisher, subscriber = pump.client("p"), durable(pump, "s")
    told = Told(pump, topic_filter="t", messages=1)
    publisher.publish("t", qos=1)
    pump.commit()
    assert not told.is_over(), "it is sent and not acknowledged"
    subscriber.vanish()
    assert told.is_over()


def test_what_is_kept_in_memory_only_is_at_rest_at_once() -> None:
    pump = Pump(durabilities=(("t", True),))
    publisher = pump.client("p")
    durable(pump, "s").vanish()
    told = Told(pump, topic_filter="t", messages=1)
    publisher.publish("t", qos=1)
    assert told.events[1].detail == "in memory only"
    assert told.steps == ["accepted p", "queued s #1", "answered p"]
    assert told.is_over()


def test_a_publisher_that_is_gone_before_it_can_be_answered(pump: Pump) -> None:
    publisher = pump.client("p")
    durable(pump, "s").vanish()
    told = Told(pump, topic_filter="t")
    publisher.publish("t", qos=1)
    publisher.vanish()
    pump.commit()
    assert told.steps == ["accepted p", "queued s #1", "written s #1", "unanswered p"]


def test_what_the_store_does_not_give_back(pump: Pump) -> None:
    publisher = pump.client("p")
    durable(pump, "s").vanish()
    told = Told(pump, topic_filter="t")
    publisher.publish("t", qos=1)
    pump.commit()
    told.events.clear()
    pump.store.queues[pump.session("s").session_id].messages.clear()
    pump.client("s", clean=False, expiry=3600)
    pump.commit()
    assert told.events[0].detail.startswith("lost")
    assert told.steps == ["dropped s #1"]


@pytest.mark.parametrize(
    "begin", [lambda pump: Told(pump, client_id="w"), lambda pump: Told(pump, topic_filter="t")]
)
def test_afterwards_everything_is_as_before(pump: Pump, begin: Callable[[Pump], Told]) -> None:
    publisher = pump.client("p")
    pump.client("w").subscribed("t", 1)
    durable(pump, "s", "u")
    publisher.publish("t", qos=1)
    assert pump.router.table.routes["t"].plain
    told = begin(pump)
    publisher.publish("t", qos=1, packet_id=2)
    assert pump.router.table.routes["t"].plain is None
    late = pump.client("late").subscribed("t", 1)
    assert "Traced" in type(late.connection).__name__
    publisher.publish("elsewhere", qos=0)
    assert pump.router.table.routes
    end_trace(pump.router)
    assert pump.router.table.routes == {}
    assert pump.router.table.tracer is None
    assert type(pump.router) is Router
    for session in pump.router.sessions.values():
        assert type(session) is Session
        assert type(session.queue) is Queue
        assert type(session.connection) is Connection
        assert session.queue.watch is None
    told.events.clear()
    publisher.publish("t", qos=1, packet_id=3)
    plain = pump.router.table.routes["t"].plain
    assert plain is not None
    assert {deliver.__func__ for deliver, _ in plain} == {Session.deliver}
    assert told.events == []


def test_retained_messages_are_followed_to_who_subscribes_later(pump: Pump) -> None:
    publisher = pump.client("p")
    told = Told(pump, topic_filter="t")
    publisher.publish("t", retain=True)
    assert told.events[0].detail == "no recipients, retained"
    pump.client("s").subscribed("t")
    assert told.steps == ["accepted p", "sent s"]


def test_a_will_comes_from_nobody(pump: Pump) -> None:
    leaver = pump.client("l", will=Will("t", b"gone", 1, False, 0, {}))
    told = Told(pump, topic_filter="t")
    leaver.vanish()
    assert told.steps == ["accepted "]
