"""MQTT 5.0, chapter 3.2: CONNACK, and what it announces of what the broker offers: the limits are the configuration's."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conformance.codec import V5, Connack, Connect, Pingresp, Puback, Publish, Subscribe, Will
from tests.conformance.conftest import StartBroker
from tests.conformance.harness import RunningBroker
from tests.conformance.normative import normative
from tests.conformance.wire import Wire, fresh

RETAIN_NOT_SUPPORTED, QOS_NOT_SUPPORTED = 0x9A, 0x9B
SHARED_NOT_SUPPORTED, IDENTIFIERS_NOT_SUPPORTED, WILDCARDS_NOT_SUPPORTED = 0x9E, 0xA1, 0xA2
PACKET_TOO_LARGE, RECEIVE_MAXIMUM_EXCEEDED = 0x95, 0x93
CONNECT_CODES = {
    0x00, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x8C, 0x90, 0x95, 0x97, 0x99, 0x9A, 0x9B,
    0x9C, 0x9D, 0x9F,
}  # fmt: skip
EXPIRY = {"session_expiry_interval": 10_000}


def connack(broker: RunningBroker, client_id: str | None = None, **fields: Any) -> Any:
    """The properties of what an accepted client is answered."""
    return broker.wire(V5).connect(client_id, **fields).properties


# ---- first, once, and as it must be


@normative("MQTT-3.2.0-1", "MQTT-3.2.0-2", "MQTT-3.1.4-5")
@pytest.mark.parametrize("durable", [False, True])
def test_connack_is_the_first_packet_and_the_only_one_of_its_kind(
    broker: RunningBroker, topic: str, durable: bool
) -> None:
    """Whatever waits for the client, and whatever it sends behind its CONNECT."""
    client_id = fresh("c")
    properties = EXPIRY if durable else {}
    broker.client(version=V5).publish(topic, b"kept", 1, retain=True)
    if durable:
        wire = broker.client(client_id, V5, properties=properties)
        wire.subscribe((topic, 1))
        wire.disconnect()
        broker.client(version=V5).publish(topic, b"waiting", 1)
    connect = Connect(client_id, clean=False, properties=properties)
    publish = Publish("t", b"x", 1, packet_id=1)
    wire = broker.wire(V5).send(connect, Subscribe(1, ((topic, 1),)), publish, b"\xc0\x00")
    answers: list[Any] = [wire.take()]
    assert isinstance(answers[0], Connack)
    assert (answers[0].code, answers[0].session_present) == (0, durable)
    while not isinstance(answers[-1], Pingresp):
        answers.append(wire.take())
    assert not any(isinstance(answer, Connack) for answer in answers[1:])
    assert any(isinstance(answer, Puback) for answer in answers)


@normative("MQTT-3.2.2-1", "MQTT-3.2.2-2", "MQTT-3.2.2-3", "MQTT-3.1.2-4", "MQTT-3.1.2-5", "MQTT-3.1.2-6")
def test_session_present_tells_whether_there_was_one(broker: RunningBroker) -> None:
    client_id = fresh("c")
    for clean, present in (
        (False, False),
        (False, True),
        (True, False),
        (False, True),
        (True, False),
        (True, False),
    ):
        wire = broker.wire(V5).send(Connect(client_id, clean=clean, properties=EXPIRY))
        assert wire.take_frame()[2:4] == bytes((present, 0))
        wire.disconnect()


@normative("MQTT-3.2.2-6", "MQTT-3.2.2-7", "MQTT-3.2.2-8", "MQTT-4.13.2-1")
def test_a_refusal_has_no_session_and_ends_the_connection(broker: RunningBroker) -> None:
    client_id = fresh("c")
    broker.client(client_id, V5, properties=EXPIRY).disconnect()
    for fields in (
        {"properties": {"authentication_method": "nobody's"}},
        {"flags": 0x07},
        {"will": Will("#", b"")},
        {"will": Will("$SYS/x", b"")},
        {"protocol_level": 6},
    ):
        wire = broker.wire(V5).send(Connect(client_id, clean=False, **fields), b"\xc0\x00")
        try:
            answer = wire.take_frame()
        except AssertionError:
            continue
        if answer != b"\x20\x02\x00\x01":  # what an unknown version is told in the old form
            assert answer[2] == 0
            assert answer[3] in CONNECT_CODES - {0}
        wire.expect_end()
    assert broker.wire(V5).connect(client_id, clean=False).session_present


@normative("MQTT-3.2.2-8")
def test_reason_codes_are_of_the_table(start_broker: StartBroker) -> None:
    broker = start_broker(limits={"max_sessions": 1, "max_client_id_bytes": 23}, protocol={"maximum_qos": 1})
    broker.client("only", V5, properties=EXPIRY)
    for connect, code in (
        (Connect("another"), 0x97),
        (Connect("x" * 24), 0x85),
        (Connect("only", will=Will("t", b"", 2)), 0x9B),
        (Connect("only", properties={"authentication_method": "nobody's"}), 0x8C),
        (Connect("only", will=Will("a/#", b"")), 0x90),
    ):
        answers = broker.wire(V5).send(connect).drain()
        assert all(isinstance(answer, Connack) and answer.code == code for answer in answers)
        assert code in CONNECT_CODES


@normative("MQTT-3.1.3-8", "MQTT-3.2.2-7")
def test_a_client_identifier_that_is_not_taken_closes_the_connection(start_broker: StartBroker) -> None:
    broker = start_broker(limits={"max_client_id_bytes": 23})
    broker.wire(V5).connect("x" * 23)
    broker.wire(V5).send(Connect("x" * 24), b"\xc0\x00").expect_refused(0x85)
    broker.wire(V5).send(Connect("é" * 12), b"\xc0\x00").expect_refused(0x85)


# ---- what is announced


@normative("MQTT-3.2.2-9", "MQTT-3.2.2-22")
def test_what_is_as_usual_is_not_announced(broker: RunningBroker) -> None:
    """A property that is left out has its default; the codec refuses a maximum QoS of 2."""
    for keep_alive in (0, 1, 60, 65_535):
        properties = connack(broker, keep_alive=keep_alive)
        assert {"maximum_qos", "server_keep_alive", "assigned_client_identifier"}.isdisjoint(properties)
        assert {"response_information", "authentication_method", "server_reference"}.isdisjoint(properties)
        for name in ("retain", "wildcard_subscription", "subscription_identifiers", "shared_subscription"):
            assert properties.get(f"{name}_available", 1) == 1


@normative("MQTT-3.2.2-22", "MQTT-3.1.2-22")
def test_the_brokers_keep_alive(start_broker: StartBroker) -> None:
    broker = start_broker(sessions={"max_keep_alive_seconds": 100})
    for asked, told in ((0, 100), (101, 100), (65_535, 100), (100, None), (7, None)):
        assert connack(broker, keep_alive=asked).get("server_keep_alive") == told
    short, capped = broker.client(version=V5, keep_alive=7), broker.client(version=V5, keep_alive=0)
    broker.pass_time(11)
    short.expect_closed(0x8D)
    capped.ping()
    broker.pass_time(151)
    capped.expect_closed(0x8D)


@normative("MQTT-3.1.2-23", "MQTT-4.1.0-2")
def test_a_shorter_session_expiry_is_told_and_kept_to(start_broker: StartBroker) -> None:
    broker = start_broker(sessions={"max_expiry_seconds": 100})
    for asked, told in ((101, 100), (0xFFFF_FFFF, 100), (100, None), (5, None), (0, None)):
        properties = {"session_expiry_interval": asked}
        assert connack(broker, properties=properties).get("session_expiry_interval") == told
    wire = broker.client("c", V5, properties={"session_expiry_interval": 1000})
    wire.disconnect()
    broker.pass_time(101)
    assert not broker.wire(V5).connect("c", clean=False).session_present


@normative("MQTT-3.1.3-7", "MQTT-3.2.2-16")
def test_only_who_came_without_an_identifier_is_assigned_one(broker: RunningBroker) -> None:
    assert "assigned_client_identifier" not in connack(broker, fresh("c"))
    assert connack(broker, "")["assigned_client_identifier"]


@normative("MQTT-3.2.2-15", "MQTT-4.13.1-1")
def test_the_maximum_packet_size_is_announced_and_enforced(start_broker: StartBroker, topic: str) -> None:
    broker = start_broker(limits={"max_packet_bytes": 500})
    limit = connack(broker)["maximum_packet_size"]
    assert limit == 500
    watcher = broker.client(version=V5)
    watcher.subscribe((topic, 0))
    overhead = 3 + 2 + len(topic) + 1
    broker.client(version=V5).publish(topic, bytes(limit - overhead))
    watcher.expect_message(topic, bytes(limit - overhead))
    broker.client(version=V5).send(Publish(topic, bytes(limit - overhead + 1))).expect_closed(
        PACKET_TOO_LARGE
    )
    broker.client(version=V5).send(b"\x30\xff\xff\xff\x7f").expect_closed(PACKET_TOO_LARGE)
    watcher.expect_nothing()


@normative("MQTT-3.3.4-7", "MQTT-4.13.1-1")
@pytest.mark.parametrize("durable", [False, True])
def test_the_receive_maximum_is_announced_and_enforced(
    start_broker: StartBroker, topic: str, durable: bool
) -> None:
    broker = start_broker(sessions={"receive_maximum": 3})
    properties = EXPIRY if durable else {}
    assert connack(broker, properties=properties)["receive_maximum"] == 3
    wire = broker.client(version=V5, properties=properties)
    for packet_id in (1, 2, 3):
        wire.send(Publish(topic, b"x", 2, packet_id=packet_id)).take()
    wire.send(Publish(topic, b"x", 2, dup=True, packet_id=3)).take()  # one that is counted already
    wire.send(Publish(topic, b"x", 2, packet_id=4)).expect_closed(RECEIVE_MAXIMUM_EXCEEDED)


# ---- maximum QoS


@normative("MQTT-3.2.2-9", "MQTT-3.2.2-10", "MQTT-3.2.2-11", "MQTT-3.2.2-12", "MQTT-3.8.4-7")
@pytest.mark.parametrize("maximum", [0, 1])
def test_a_lower_maximum_qos(start_broker: StartBroker, topic: str, maximum: int) -> None:
    broker = start_broker(protocol={"maximum_qos": maximum})
    assert connack(broker)["maximum_qos"] == maximum
    wire = broker.client(version=V5)
    for wanted in (0, 1, 2):
        assert wire.subscribe((topic, wanted)).codes == (min(wanted, maximum),)
    publisher = broker.client(version=V5)
    for qos in range(maximum + 1):
        publisher.publish(topic, b"x", qos)
        wire.expect_message(topic, b"x", qos)
    for qos in range(maximum + 1, 3):
        publisher = broker.client(version=V5)
        publisher.send(Publish(topic, b"x", qos, packet_id=1)).expect_closed(QOS_NOT_SUPPORTED)
        broker.wire(V5).send(Connect("c", will=Will(topic, b"", qos))).expect_refused(QOS_NOT_SUPPORTED)
    broker.client(version=V5, will=Will(topic, b"will", maximum)).abort()
    wire.expect_message(topic, b"will", maximum)
    wire.expect_nothing()


@normative("MQTT-3.2.2-12")
def test_a_will_refused_for_its_qos_is_not_left_behind(start_broker: StartBroker, topic: str) -> None:
    broker = start_broker(protocol={"maximum_qos": 0})
    watcher = broker.client(version=V5)
    watcher.subscribe((topic, 0))
    connect = Connect("c", clean=False, will=Will(topic, b"will", 1), properties=EXPIRY)
    broker.wire(V5).send(connect).expect_refused(QOS_NOT_SUPPORTED)
    assert not broker.wire(V5).connect("c", clean=False).session_present
    watcher.expect_nothing()


# ---- retain available


@normative("MQTT-3.2.2-13", "MQTT-3.2.2-14")
def test_retain_not_available(start_broker: StartBroker, topic: str) -> None:
    broker = start_broker(protocol={"retain_available": False})
    assert connack(broker)["retain_available"] == 0
    watcher = broker.client(version=V5)
    watcher.subscribe((topic, 2))
    for qos in (0, 1, 2):
        wire = broker.client(version=V5)
        wire.send(Publish(topic, b"x", qos, True, packet_id=1 if qos else None))
        wire.expect_closed(RETAIN_NOT_SUPPORTED)
        connect = Connect("c", will=Will(topic, b"will", qos, True))
        broker.wire(V5).send(connect).expect_refused(RETAIN_NOT_SUPPORTED)
    watcher.expect_nothing()
    broker.client(version=V5, will=Will(topic, b"will")).abort()
    watcher.expect_message(topic, b"will")
    late = broker.client(version=V5)
    late.subscribe((topic, 2))
    late.expect_nothing()


# ---- subscriptions


def _refused(wire: Wire, topic_filter: str, code: int, properties: Any = None) -> None:
    """By the end of the connection, or by SUBACK with that code, and nothing is delivered."""
    answer: Any = wire.send(Subscribe(1, ((topic_filter, 0),), properties or {})).take()
    if isinstance(answer, Connack | Puback) or hasattr(answer, "codes"):
        assert answer.codes == (code,)
        wire.expect_nothing()
    else:
        assert answer.code == code
        wire.expect_end()


@normative("MQTT-3.9.3-2", "MQTT-4.13.1-1")
@pytest.mark.parametrize("topic_filter", ["#", "+", "{}/+", "{}/#", "$share/g/{}/#"])
def test_wildcards_not_available(start_broker: StartBroker, topic: str, topic_filter: str) -> None:
    broker = start_broker(protocol={"wildcard_subscriptions_available": False})
    assert connack(broker)["wildcard_subscription_available"] == 0
    _refused(broker.client(version=V5), topic_filter.format(topic), WILDCARDS_NOT_SUPPORTED)
    wire = broker.client(version=V5)
    assert wire.subscribe((topic, 1), (f"$share/g/{topic}", 1)).codes == (1, 1)


@normative("MQTT-3.9.3-2", "MQTT-4.13.1-1")
def test_shared_subscriptions_not_available(start_broker: StartBroker, topic: str) -> None:
    broker = start_broker(protocol={"shared_subscriptions_available": False})
    assert connack(broker)["shared_subscription_available"] == 0
    _refused(broker.client(version=V5), f"$share/g/{topic}", SHARED_NOT_SUPPORTED)
    assert broker.client(version=V5).subscribe((topic, 1), (f"{topic}/#", 2)).codes == (1, 2)


@normative("MQTT-3.9.3-2", "MQTT-4.13.1-1")
def test_subscription_identifiers_not_available(start_broker: StartBroker, topic: str) -> None:
    broker = start_broker(protocol={"subscription_ids_available": False})
    assert connack(broker)["subscription_identifiers_available"] == 0
    properties = {"subscription_identifier": 5}
    _refused(broker.client(version=V5), topic, IDENTIFIERS_NOT_SUPPORTED, properties)
    assert broker.client(version=V5).subscribe((topic, 1)).codes == (1,)


# ---- request and response


@normative("MQTT-3.1.2-28")
def test_response_information_is_for_who_asks(start_broker: StartBroker, topic: str) -> None:
    broker = start_broker(protocol={"response_information": "answers/{client_id}"})
    for properties in ({}, {"request_response_information": 0}):
        assert "response_information" not in connack(broker, properties=properties)
    asking = {"request_response_information": 1}
    assert connack(broker, "asker", properties=asking)["response_information"] == "answers/asker"
    answered = connack(broker, "", properties=asking)
    assert answered["response_information"] == f"answers/{answered['assigned_client_identifier']}"


@normative("MQTT-3.1.2-28", "MQTT-3.3.2-15", "MQTT-3.3.2-16")
def test_a_request_and_its_response(start_broker: StartBroker) -> None:
    broker = start_broker(protocol={"response_information": "answers/{client_id}"})
    asker, answerer = broker.wire(V5), broker.client(version=V5)
    answers = asker.connect("asker", properties={"request_response_information": 1}).properties
    response_topic = answers["response_information"] + "/1"
    asker.subscribe((response_topic, 1))
    answerer.subscribe(("requests", 1))
    asker.publish(
        "requests", b"?", 1, properties={"response_topic": response_topic, "correlation_data": b"\0\x07"}
    )
    request: Any = answerer.expect_message("requests", b"?", 1).properties
    answerer.publish(
        request["response_topic"], b"!", 1, properties={"correlation_data": request["correlation_data"]}
    )
    response = asker.expect_message(response_topic, b"!", 1)
    assert response.properties == {"correlation_data": b"\0\x07"}
