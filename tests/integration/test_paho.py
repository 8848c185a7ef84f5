"""paho-mqtt, in both versions, beyond what every client can do (tests/foreign): long backlogs, 5.0 in full, mutual TLS."""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from uuid import uuid4

import pytest
from paho.mqtt.enums import MQTTProtocolVersion

from tests.integration.broker_process import BrokerProcess, until
from tests.integration.foreign import V3, V5, Paho

BOTH = pytest.mark.parametrize("version", [V3, V5], ids=["3.1.1", "5"])


@pytest.fixture
def topic() -> str:
    """A topic of this test's own, since the broker is shared."""
    return f"t/{uuid4().hex}"


@BOTH
@pytest.mark.parametrize("qos", [1, 2])
def test_a_session_is_kept_while_its_client_is_away(
    broker: BrokerProcess, topic: str, version: MQTTProtocolVersion, qos: int
) -> None:
    client_id = uuid4().hex
    first = Paho(broker.port, client_id, version, expiry=3600, clean=False).connected()
    assert not first.session_present
    first.subscribe(topic, qos)
    first.leave()
    publisher = Paho(broker.port, version=version, in_flight=300).connected()
    for number in range(300):
        publisher.client.publish(topic, b"%d" % number, qos)
    publisher.publish(topic, b"last", qos)
    again = Paho(broker.port, client_id, version, expiry=3600, clean=False).connected()
    assert again.session_present
    again.wait_for(301)
    assert again.payloads == [*(b"%d" % number for number in range(300)), b"last"]
    again.leave()
    clean = Paho(broker.port, client_id, version, clean=True).connected()
    assert not clean.session_present
    clean.leave()
    publisher.leave()


@BOTH
@pytest.mark.parametrize("qos", [0, 1])
def test_a_large_payload(broker: BrokerProcess, topic: str, version: MQTTProtocolVersion, qos: int) -> None:
    subscriber = Paho(broker.port, version=version).connected().subscribe(topic, qos)
    publisher = Paho(broker.port, version=version).connected()
    payload = os.urandom(3_500_000)
    publisher.publish(topic, payload, qos)
    assert subscriber.wait_for(1)[0].payload == payload
    publisher.leave()
    subscriber.leave()


@BOTH
def test_a_connection_taken_over(broker: BrokerProcess, topic: str, version: MQTTProtocolVersion) -> None:
    client_id = uuid4().hex
    old = Paho(broker.port, client_id, version, comes_back=False).connected()
    new = Paho(broker.port, client_id, version).connected().subscribe(topic)
    until(lambda: old.losses, "the old connection stays")
    new.publish(topic, b"x")
    new.wait_for(1)
    new.leave()
    old.leave()


def test_properties_of_mqtt_5_travel(broker: BrokerProcess, topic: str) -> None:
    subscriber = Paho(broker.port).connected().subscribe(topic, 1)
    older = Paho(broker.port, version=V3).connected().subscribe(topic, 1)
    publisher = Paho(broker.port).connected()
    publisher.publish(
        topic,
        b"x",
        1,
        PayloadFormatIndicator=1,
        MessageExpiryInterval=60,
        ContentType="text/plain",
        ResponseTopic="reply/here",
        CorrelationData=b"\0\1\2",
        UserProperty=[("unit", "°C"), ("unit", "again")],
    )
    properties = subscriber.wait_for(1)[0].properties
    assert properties is not None
    assert properties.json() == {
        "PayloadFormatIndicator": 1,
        "MessageExpiryInterval": 60,
        "ContentType": "text/plain",
        "ResponseTopic": "reply/here",
        "CorrelationData": "000102",
        "UserProperty": [("unit", "°C"), ("unit", "again")],
    }
    assert older.wait_for(1)[0].payload == b"x"
    for client in (subscriber, older, publisher):
        client.leave()


def test_options_of_mqtt_5_subscriptions(broker: BrokerProcess, topic: str) -> None:
    client = Paho(broker.port).connected()
    client.publish(topic, b"kept", 1, retain=True)
    client.subscribe(topic, 1, noLocal=True, retainAsPublished=True, retainHandling=2)
    client.publish(topic, b"own", 1)
    other = Paho(broker.port).connected()
    other.publish(topic, b"others", 1, retain=True)
    (message,) = client.wait_for(1)
    assert (message.payload, message.retain) == (b"others", True)
    other.publish(topic, b"", 1, retain=True)
    for each in (client, other):
        each.leave()


def test_topic_aliases(broker: BrokerProcess, topic: str) -> None:
    subscriber = Paho(broker.port).connected().subscribe(topic, 1)
    publisher = Paho(broker.port).connected()
    publisher.publish(topic, b"1", 1, TopicAlias=4)
    publisher.publish("", b"2", 1, TopicAlias=4)
    assert [(m.topic, m.payload) for m in subscriber.wait_for(2)] == [(topic, b"1"), (topic, b"2")]
    for client in (subscriber, publisher):
        client.leave()


# ---- TLS


def context(pki: Path, who: str | None) -> ssl.SSLContext:
    made = ssl.create_default_context(cafile=str(pki / "ca.crt"))
    if who is not None:
        made.load_cert_chain(pki / f"{who}.crt", pki / f"{who}.key")
    return made


@BOTH
def test_mutual_tls(broker: BrokerProcess, pki: Path, topic: str, version: MQTTProtocolVersion) -> None:
    tls = context(pki, "client")
    subscriber = Paho(broker.ports[1], version=version, tls=tls).connected().subscribe(topic, 1)
    publisher = Paho(broker.ports[1], version=version, tls=tls).connected()
    plain = Paho(broker.port, version=version).connected()
    payload = os.urandom(1_000_000)
    publisher.publish(topic, payload, 1)
    plain.publish(topic, b"from the plain listener", 1)
    assert [m.payload for m in subscriber.wait_for(2)] == [payload, b"from the plain listener"]
    for client in (subscriber, publisher, plain):
        client.leave()


@pytest.mark.parametrize("who", [None, "stranger"])
def test_a_client_without_a_good_certificate(broker: BrokerProcess, pki: Path, who: str | None) -> None:
    """In TLS 1.3 its own handshake succeeds, and the end comes instead of the CONNACK."""
    try:
        client = Paho(broker.ports[1], tls=context(pki, who), comes_back=False)
    except (ssl.SSLError, ConnectionError):
        return
    until(lambda: client.losses or client.connections, "neither in nor out")
    assert (client.connections, client.losses) == (0, 1)
    client.leave()
    Paho(broker.ports[1], tls=context(pki, "client")).connected().leave()
