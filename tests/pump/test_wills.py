"""Wills: published when a client is lost, at once or after their delay, and not when it left in due form."""

from __future__ import annotations

import pytest

from edge_broker.core.ports import Principal
from edge_broker.wire import const
from edge_broker.wire.packets import Connack, Publish, Will
from tests.permitting import SimpleRules
from tests.pump.pump import Pump, TestClient

V3, V5 = const.MQTT_3_1_1, const.MQTT_5


def will(
    payload: bytes = b"gone", qos: int = 1, retain: bool = False, delay: int = 0, **properties: int
) -> Will:
    return Will("will/t", payload, qos, retain, delay, {getattr(const, k): v for k, v in properties.items()})


@pytest.fixture
def watcher(pump: Pump) -> TestClient:
    return pump.client("watcher").subscribed("will/#", 1)


@pytest.mark.parametrize("version", [V3, V5])
def test_lost_without_a_word(pump: Pump, watcher: TestClient, version: int) -> None:
    pump.client("c", version=version, will=will()).vanish()
    publish = watcher.take(Publish)
    assert (publish.topic, publish.payload, publish.qos) == ("will/t", b"gone", 1)
    assert watcher.inbox == []


@pytest.mark.parametrize("version", [V3, V5])
def test_gone_in_due_form(pump: Pump, watcher: TestClient, version: int) -> None:
    client = pump.client("c", version=version, will=will())
    client.disconnect()
    client.vanish()
    assert watcher.inbox == []


def test_gone_in_due_form_but_with_the_will(pump: Pump, watcher: TestClient) -> None:
    pump.client("c", will=will()).disconnect(const.DISCONNECT_WITH_WILL)
    assert watcher.take_payloads() == [b"gone"]


def test_silent_for_too_long(pump: Pump, watcher: TestClient) -> None:
    pump.client("c", will=will(), keep_alive=10)
    pump.wait(14)
    assert watcher.inbox == []
    pump.wait(2)
    assert watcher.take_payloads() == [b"gone"]


def test_ended_for_breaking_the_protocol(pump: Pump, watcher: TestClient) -> None:
    pump.client("c", will=will()).send(b"\x00\x00")
    assert watcher.take_payloads() == [b"gone"]


def test_taken_over(pump: Pump, watcher: TestClient) -> None:
    pump.client("c", will=will())
    pump.client("c", will=will(b"second"))
    assert watcher.take_payloads() == [b"gone"]


def test_a_refused_client_leaves_none(pump: Pump, watcher: TestClient) -> None:
    TestClient(pump).connect("c", will=will(), username="u", password=b"wrong")
    assert watcher.inbox == []


def test_after_its_delay(pump: Pump, watcher: TestClient) -> None:
    pump.client("c", clean=False, expiry=100, will=will(delay=30)).vanish()
    pump.wait(29)
    assert watcher.inbox == []
    pump.wait(2)
    assert watcher.take_payloads() == [b"gone"]
    pump.commit()
    watcher = pump.crash().client("watcher").subscribed("will/#", 1)
    pump.wait(60)
    assert watcher.inbox == []


def test_cancelled_by_coming_back(pump: Pump, watcher: TestClient) -> None:
    pump.client("c", clean=False, expiry=100, will=will(delay=30)).vanish()
    pump.wait(20)
    pump.client("c", clean=False, expiry=100, will=will(b"the next one", delay=30))
    pump.wait(60)
    assert watcher.inbox == []


def test_not_cancelled_by_a_clean_start(pump: Pump, watcher: TestClient) -> None:
    """The will's session ends, and the will with it is due [MQTT-3.1.3-9]."""
    pump.client("c", clean=False, expiry=100, will=will(delay=30)).vanish()
    pump.client("c", clean=True)
    assert watcher.take_payloads() == [b"gone"]


def test_taken_over_with_a_delay_there_is_none(pump: Pump, watcher: TestClient) -> None:
    pump.client("c", clean=False, expiry=100, will=will(delay=30))
    pump.client("c", clean=False, expiry=100)
    pump.wait(60)
    assert watcher.inbox == []


def test_the_end_of_the_session_comes_before_the_delay(pump: Pump, watcher: TestClient) -> None:
    pump.client("c", clean=False, expiry=10, will=will(delay=30)).vanish()
    pump.wait(11)
    assert watcher.take_payloads() == [b"gone"]


def test_a_session_that_ends_with_the_connection_knows_no_delay(pump: Pump, watcher: TestClient) -> None:
    pump.client("c", will=will(delay=30)).vanish()
    assert watcher.take_payloads() == [b"gone"]


def test_retained(pump: Pump) -> None:
    pump.client("c", will=will(retain=True)).vanish()
    late = pump.client("late").subscribed("will/#", 1)
    publish = late.take(Publish)
    assert (publish.payload, publish.retain) == (b"gone", True)


def test_with_its_properties(pump: Pump, watcher: TestClient) -> None:
    pump.client("c", will=will(MESSAGE_EXPIRY_INTERVAL=60, PAYLOAD_FORMAT_INDICATOR=1), keep_alive=0).vanish()
    publish = watcher.take(Publish)
    assert publish.expiry_interval == 60
    assert publish.properties == {const.PAYLOAD_FORMAT_INDICATOR: 1}


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_into_a_durable_queue(pump: Pump, qos: int) -> None:
    pump.client("d", clean=False, expiry=100).subscribed("will/#", 2).vanish()
    pump.client("c", will=will(qos=qos)).vanish()
    pump.commit()
    pump.crash()
    client = TestClient(pump)
    client.connect("d", clean=False, expiry=100)
    pump.commit()
    client.take(Connack)
    assert client.take_payloads() == ([b"gone"] if qos else [])


def test_a_crash_is_a_loss_too(pump: Pump) -> None:
    pump.client("c", clean=False, expiry=100, will=will())
    pump.crash()
    watcher = pump.client("watcher").subscribed("will/#", 1)
    pump.wait(1)
    assert watcher.take_payloads() == [b"gone"]
    pump.commit()
    pump.crash().wait(1)
    assert pump.session("c").will is None


def test_a_delay_goes_on_through_a_crash(pump: Pump) -> None:
    pump.client("c", clean=False, expiry=100, will=will(delay=30)).vanish()
    pump.commit()
    pump.now += 20
    pump.crash()
    watcher = pump.client("watcher").subscribed("will/#", 1)
    pump.wait(9)
    assert watcher.inbox == []
    pump.wait(2)
    assert watcher.take_payloads() == [b"gone"]


def test_published_once_although_a_crash_follows(pump: Pump) -> None:
    pump.client("c", clean=False, expiry=100, will=will()).vanish()
    pump.commit()
    pump.crash()
    watcher = pump.client("watcher").subscribed("will/#", 1)
    pump.wait(1)
    assert watcher.inbox == []


def test_gone_in_due_form_before_a_crash(pump: Pump) -> None:
    pump.client("c", clean=False, expiry=100, will=will()).disconnect()
    pump.commit()
    pump.crash()
    watcher = pump.client("watcher").subscribed("will/#", 1)
    pump.wait(1)
    assert watcher.inbox == []


class NoWills(SimpleRules):
    """Nobody may publish below `will/`."""

    def may_publish(self, principal: Principal, topic: str) -> bool:
        return not topic.startswith("will/")

    def may_subscribe(self, principal: Principal, topic_filter: str) -> bool:
        return True


def test_a_will_needs_the_right_to_publish() -> None:
    pump = Pump(authorizer=NoWills())
    client = TestClient(pump)
    client.connect("c", will=will())
    assert client.take(Connack).reason_code == const.NOT_AUTHORIZED
    assert client.closed
    assert pump.router.counters.denied == {"will": 1}
    assert pump.router.sessions == {}
