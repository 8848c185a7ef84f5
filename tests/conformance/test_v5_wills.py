"""MQTT 5.0, sections 3.1.2.5 to 3.1.2.7 and 3.1.3.2: wills, when they are published and when not, and what of them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conformance.codec import V5, Connack, Connect, Publish, Will
from tests.conformance.conftest import StartBroker
from tests.conformance.harness import RunningBroker
from tests.conformance.normative import normative
from tests.conformance.wire import Wire, fresh

RETAIN_AS_PUBLISHED = 0x08


def watch(broker: RunningBroker, topic: str, options: int = 2 | RETAIN_AS_PUBLISHED) -> Wire:
    """A client that sees what is published to `topic`, with the retain flag as it was."""
    watcher = broker.client(version=V5)
    watcher.subscribe((topic, options))
    return watcher


# ---- when it is published


@normative("MQTT-3.1.2-7", "MQTT-3.1.2-8", "MQTT-4.13.1-1")
@pytest.mark.parametrize(
    "how", ["reset", "end of stream", "malformed packet", "taken over", "protocol error"]
)
def test_a_will_is_published_when_the_connection_fails(broker: RunningBroker, topic: str, how: str) -> None:
    watcher = watch(broker, topic)
    wire = broker.client(version=V5, will=Will(topic, b"gone"))
    watcher.expect_nothing()
    if how == "reset":
        wire.abort()
    elif how == "end of stream":
        wire.finish()
    elif how == "malformed packet":
        wire.send(b"\x00\x00")
    elif how == "protocol error":
        wire.send(Connect("again"))
    else:
        broker.client(wire.client_id, V5)
    watcher.expect_message(topic, b"gone", 0, retain=False)
    watcher.expect_nothing()


@normative("MQTT-3.14.4-3", "MQTT-3.1.2-8", "MQTT-3.1.2-10")
def test_a_normal_disconnect_discards_the_will(broker: RunningBroker, topic: str) -> None:
    watcher = watch(broker, topic)
    for packet in (b"\xe0\x00", b"\xe0\x01\x00", b"\xe0\x02\x00\x00"):
        wire = broker.client(version=V5, will=Will(topic, b"gone"))
        wire.send(packet).expect_end()
    watcher.expect_nothing()


@normative("MQTT-3.14.4-3", "MQTT-3.1.2-10")
def test_a_discarded_will_does_not_come_with_a_later_connection(broker: RunningBroker, topic: str) -> None:
    watcher, client_id = watch(broker, topic), fresh("c")
    expiry = {"session_expiry_interval": 100}
    broker.client(client_id, V5, will=Will(topic, b"gone"), properties=expiry).disconnect()
    again = broker.client(client_id, V5, clean=False, properties=expiry)
    broker.vanish(again)
    watcher.expect_nothing()


@normative("MQTT-3.1.2-8", "MQTT-3.14.2-1")
@pytest.mark.parametrize(
    "code", [0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99]
)
def test_any_other_disconnect_publishes_it(broker: RunningBroker, topic: str, code: int) -> None:
    watcher = watch(broker, topic)
    wire = broker.client(version=V5, will=Will(topic, b"gone"))
    wire.disconnect(code)
    watcher.expect_message(topic, b"gone")


@normative("MQTT-3.1.2-10")
def test_a_will_is_published_once(start_broker: StartBroker, topic: str) -> None:
    broker = start_broker()
    watcher, client_id = watch(broker, topic), fresh("c")
    expiry = {"session_expiry_interval": 1000}
    will = Will(topic, b"gone", 1, properties={"will_delay_interval": 10})
    broker.vanish(broker.client(client_id, V5, will=will, properties=expiry))
    watcher.expect_nothing()
    broker.pass_time(11)
    watcher.expect_message(topic, b"gone", 1)
    broker.pass_time(11)
    broker.vanish(broker.client(client_id, V5, clean=False, properties=expiry))
    broker.pass_time(2000)
    watcher.expect_nothing()


@normative("MQTT-3.1.2-7", "MQTT-4.1.0-1")
def test_a_will_survives_a_restart_with_its_session(start_broker: StartBroker, topic: str) -> None:
    broker = start_broker()
    expiry = {"session_expiry_interval": 1000}
    will = Will(topic, b"gone", 1, properties={"will_delay_interval": 500, "content_type": "kept"})
    broker.vanish(broker.client(fresh("c"), V5, will=will, properties=expiry))
    broker.restart()
    watcher = watch(broker, topic)
    watcher.expect_nothing()
    broker.pass_time(501)
    assert watcher.expect_message(topic, b"gone", 1).properties == {"content_type": "kept"}


@normative("MQTT-3.1.2-8", "MQTT-3.1.2-7")
@pytest.mark.parametrize("expiry", [0, 1000])
@pytest.mark.parametrize("qos", [1, 2])
def test_a_broker_that_stops_closes_the_connection_too(
    start_broker: StartBroker, topic: str, expiry: int, qos: int
) -> None:
    """Its clients said no goodbye: their wills are published once, before or after the new start."""
    broker = start_broker()
    watcher = broker.client("watcher", V5, properties={"session_expiry_interval": 1000})
    watcher.subscribe((topic, 2))
    watcher.disconnect()
    broker.client(version=V5, will=Will(topic, b"gone", qos), properties={"session_expiry_interval": expiry})
    broker.restart()
    broker.pass_time(1)
    watcher = broker.client("watcher", V5, clean=False, properties={"session_expiry_interval": 1000})
    watcher.expect_message(topic, b"gone", qos)
    watcher.expect_nothing()


# ---- the delay


@normative("MQTT-3.1.3-9", "MQTT-3.1.2-8")
@pytest.mark.parametrize("clean", [True, False])
def test_who_is_back_within_the_delay_leaves_no_will(
    start_broker: StartBroker, topic: str, clean: bool
) -> None:
    """With clean start the old session ends, and what ends a session publishes its will [3.1.3.2.2]."""
    broker = start_broker()
    watcher, client_id = watch(broker, topic), fresh("c")
    expiry = {"session_expiry_interval": 1000}
    will = Will(topic, b"gone", properties={"will_delay_interval": 10})
    broker.vanish(broker.client(client_id, V5, will=will, properties=expiry))
    broker.pass_time(9)
    watcher.expect_nothing()
    broker.client(client_id, V5, clean=clean, properties=expiry)
    if clean:
        watcher.expect_message(topic, b"gone")
    broker.pass_time(20)
    watcher.expect_nothing()


@normative("MQTT-3.1.3-9", "MQTT-3.1.2-10")
def test_who_is_back_with_a_will_again_leaves_none_while_there(start_broker: StartBroker, topic: str) -> None:
    """The delay that had begun is over with the new connection, whose own will has a delay of its own."""
    broker = start_broker()
    watcher = watch(broker, topic)
    expiry = {"session_expiry_interval": 1000}
    fields: Any = {"will": Will(topic, b"gone", properties={"will_delay_interval": 10}), "properties": expiry}
    broker.vanish(broker.client("c", V5, **fields))
    broker.pass_time(5)
    wire = broker.client("c", V5, clean=False, **fields)
    broker.pass_time(100)
    watcher.expect_nothing()
    broker.vanish(wire)
    broker.pass_time(9)
    watcher.expect_nothing()
    broker.pass_time(2)
    watcher.expect_message(topic, b"gone")
    watcher.expect_nothing()


@normative("MQTT-3.1.2-8")
def test_the_will_goes_out_at_the_end_of_the_session_if_that_comes_first(
    start_broker: StartBroker, topic: str
) -> None:
    broker = start_broker()
    watcher = watch(broker, topic)
    will = Will(topic, b"gone", properties={"will_delay_interval": 1000})
    broker.vanish(broker.client(version=V5, will=will, properties={"session_expiry_interval": 10}))
    watcher.expect_nothing()
    broker.pass_time(11)
    watcher.expect_message(topic, b"gone")


@normative("MQTT-3.1.2-8")
def test_without_a_session_beyond_the_connection_there_is_no_delay(broker: RunningBroker, topic: str) -> None:
    watcher = watch(broker, topic)
    will = Will(topic, b"gone", properties={"will_delay_interval": 1000})
    broker.client(version=V5, will=will).abort()
    watcher.expect_message(topic, b"gone")


@normative("MQTT-3.1.2-8", "MQTT-3.1.3-9")
def test_a_session_taken_over_leaves_no_delayed_will(start_broker: StartBroker, topic: str) -> None:
    broker = start_broker()
    watcher, client_id = watch(broker, topic), fresh("c")
    expiry = {"session_expiry_interval": 1000}
    will = Will(topic, b"gone", properties={"will_delay_interval": 10})
    first = broker.client(client_id, V5, will=will, properties=expiry)
    broker.client(client_id, V5, clean=False, properties=expiry)
    first.expect_closed(0x8E)
    broker.pass_time(20)
    watcher.expect_nothing()


@normative("MQTT-3.1.2-8")
def test_a_session_ended_by_its_clients_disconnect_has_its_will_at_once(
    start_broker: StartBroker, topic: str
) -> None:
    """DISCONNECT with will and with a session expiry of 0: the session ends there and then."""
    broker = start_broker()
    watcher = watch(broker, topic)
    will = Will(topic, b"gone", properties={"will_delay_interval": 10})
    wire = broker.client(version=V5, will=will, properties={"session_expiry_interval": 1000})
    wire.disconnect(0x04, session_expiry_interval=0)
    watcher.expect_message(topic, b"gone")


# ---- what is published


@normative("MQTT-3.1.2-12", "MQTT-3.1.2-14")
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_will_has_its_qos(broker: RunningBroker, topic: str, qos: int) -> None:
    watcher = watch(broker, topic)
    broker.client(version=V5, will=Will(topic, b"\0\xff", qos)).abort()
    watcher.expect_message(topic, b"\0\xff", qos, retain=False)


@normative("MQTT-3.1.2-14")
def test_a_will_without_retain_is_not_retained(broker: RunningBroker, topic: str) -> None:
    watcher = watch(broker, topic)
    broker.client(version=V5).publish(topic, b"retained before", 1, retain=True)
    watcher.expect_message(topic, b"retained before", 1)
    broker.client(version=V5, will=Will(topic, b"gone")).abort()
    watcher.expect_message(topic, b"gone", 0, retain=False)
    late = watch(broker, topic)
    late.expect_message(topic, b"retained before", 1, retain=True)
    late.expect_nothing()


@normative("MQTT-3.1.2-15", "MQTT-3.3.1-5")
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_will_with_retain_is_retained(broker: RunningBroker, topic: str, qos: int) -> None:
    watcher = watch(broker, topic)
    broker.client(version=V5, will=Will(topic, b"gone", qos, True)).abort()
    watcher.expect_message(topic, b"gone", qos, retain=True)
    watch(broker, topic).expect_message(topic, b"gone", qos, retain=True)


@normative("MQTT-3.1.2-15", "MQTT-3.3.1-6")
def test_an_empty_will_with_retain_removes_what_was_retained(broker: RunningBroker, topic: str) -> None:
    broker.client(version=V5).publish(topic, b"retained before", 1, retain=True)
    watcher = watch(broker, topic)
    watcher.expect_message(topic, b"retained before", 1)
    broker.client(version=V5, will=Will(topic, b"", 0, True)).abort()
    watcher.expect_message(topic, b"")
    watch(broker, topic).expect_nothing()


@normative(
    "MQTT-3.1.3-10", "MQTT-3.3.2-4", "MQTT-3.3.2-15", "MQTT-3.3.2-16", "MQTT-3.3.2-17", "MQTT-3.3.2-20"
)
@pytest.mark.parametrize("delay", [0, 10])
def test_a_will_has_its_properties_and_they_keep_their_order(
    start_broker: StartBroker, topic: str, delay: int
) -> None:
    broker = start_broker()
    watcher = watch(broker, topic)
    carried: dict[str, Any] = {
        "payload_format_indicator": 1,
        "content_type": "text/plain",
        "response_topic": "answer/here",
        "correlation_data": b"\0\x01\xff",
        "user_property": [("b", "2"), ("a", "1"), ("b", "1"), ("", ""), ("b", "2")],
    }
    will = Will(topic, b"text", properties=carried | {"will_delay_interval": delay})
    wire = broker.client(version=V5, will=will, properties={"session_expiry_interval": 100})
    broker.vanish(wire)
    if delay:
        broker.restart()
        watcher = watch(broker, topic)
        broker.pass_time(11)
    message: Publish = watcher.expect(Publish)
    assert (message.payload, message.properties) == (b"text", carried)


@normative("MQTT-3.3.2-5", "MQTT-3.3.2-6")
def test_a_wills_message_expiry_counts_from_its_publication(start_broker: StartBroker, topic: str) -> None:
    broker = start_broker()
    watcher = broker.client("watcher", V5, properties={"session_expiry_interval": 1000})
    watcher.subscribe((topic, 1))
    watcher.disconnect()
    will = Will(topic, b"gone", 1, properties={"will_delay_interval": 30, "message_expiry_interval": 20})
    broker.vanish(broker.client(version=V5, will=will, properties={"session_expiry_interval": 1000}))
    broker.pass_time(31)
    broker.pass_time(5)
    watcher = broker.client("watcher", V5, clean=False, properties={"session_expiry_interval": 1000})
    message = watcher.expect_message(topic, b"gone", 1)
    assert message.properties["message_expiry_interval"] in (14, 15)


@normative("MQTT-3.1.4-6", "MQTT-3.1.2-7")
def test_a_connection_that_was_refused_leaves_no_will(broker: RunningBroker, topic: str) -> None:
    watcher = watch(broker, topic)
    wire = broker.wire(V5).send(
        Connect(fresh("c"), will=Will(topic, b"gone"), properties={"authentication_method": "nobody's"})
    )
    connack = wire.expect(Connack)
    assert connack.code >= 0x80
    wire.expect_end()
    watcher.expect_nothing()
