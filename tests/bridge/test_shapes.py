"""What rules make of messages on their way: up through the outbox, down through the downlink."""

from __future__ import annotations

from typing import Any

import cbor2
import pytest

from bridge.rules import RuleConfig
from edge_broker.core.message import Message
from edge_broker.wire import const
from edge_broker.wire.encoder import encode_publish
from edge_broker.wire.properties import Properties, encode_properties
from tests.bridge.memory import Bridged, Local


def shaping(**options: Any) -> RuleConfig:
    return RuleConfig(**({"filter": "#"} | options))


def publish_down(
    bridged: Bridged,
    payload: bytes,
    properties: Properties | None = None,
    *,
    retain: bool = False,
    qos: int = 1,
) -> None:
    version = bridged.client.version
    block = encode_properties(properties or {})
    bridged.receive(encode_publish(version, "t", payload, qos, retain, False, 7, block))


# ---- up


def test_a_payload_goes_up_as_its_rule_writes_it() -> None:
    bridged = Bridged(out=[shaping(payload="json_to_cbor")])
    bridged.connect()
    properties: Properties = {
        const.PAYLOAD_FORMAT_INDICATOR: 1,
        const.CONTENT_TYPE: "application/json",
        const.USER_PROPERTY: [("unit", "C")],
    }
    message = bridged.publish("t", b'{"t": 21}', retain=True, properties=properties, expiry=60)
    (sent,) = bridged.sent_messages()
    assert cbor2.loads(sent.payload) == {"t": 21}
    assert sent.retain
    assert sent.expiry_interval == 60
    assert sent.properties == properties | {
        const.PAYLOAD_FORMAT_INDICATOR: 0,
        const.CONTENT_TYPE: "application/cbor",
    }
    assert message.unsafe == 2  # the retained one, and what went up in its place
    bridged.acknowledge(sent.packet_id)
    assert message.unsafe == 1


@pytest.mark.parametrize("version", [const.MQTT_5, const.MQTT_3_1_1])
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_each_version_and_qos_gets_it(version: int, qos: int) -> None:
    bridged = Bridged(out=[shaping(payload="json_to_cbor", qos=qos)])
    bridged.connect(version)
    bridged.publish("t", b"[1]", qos=0, version=const.MQTT_3_1_1)
    bridged.commit()
    (sent,) = bridged.sent_messages()
    assert (sent.payload, sent.qos) == (b"\x81\x01", qos)


def test_what_is_stored_is_what_goes_up() -> None:
    bridged = Bridged(out=[shaping(payload="json_to_cbor", retain="clear")])
    bridged.publish("t", b"[1]", retain=True)
    bridged.commit()
    (stored,) = bridged.stored.values()
    assert (stored.payload, stored.retain) == (b"\x81\x01", False)
    bridged.connect()
    bridged.sent()
    bridged.answer_reads()
    (sent,) = bridged.sent_messages()
    assert (sent.payload, sent.retain) == (b"\x81\x01", False)


@pytest.mark.parametrize("payload", [b"21 C", b"{"])
def test_what_cannot_be_written_goes_as_it_is_or_not_at_all(payload: bytes) -> None:
    keeping = Bridged(out=[shaping(payload="json_to_cbor")])
    keeping.connect()
    keeping.publish("t", payload, properties={const.CONTENT_TYPE: "text/plain"})
    (sent,) = keeping.sent_messages()
    assert (sent.payload, sent.properties) == (payload, {const.CONTENT_TYPE: "text/plain"})
    dropping = Bridged(out=[shaping(payload="json_to_cbor", unreadable="drop")])
    dropping.connect()
    message = dropping.publish("t", payload)
    assert dropping.sent_messages() == []
    assert dropping.outbox.dropped == {"not_transformed": 1}
    assert message.unsafe == 0


def test_what_is_written_so_already_stays_as_it_is() -> None:
    bridged = Bridged(out=[shaping(payload="json_to_cbor", unreadable="drop")])
    bridged.connect()
    bridged.publish("t", b"\x81\x01", properties={const.CONTENT_TYPE: "application/cbor"})
    assert [sent.payload for sent in bridged.sent_messages()] == [b"\x81\x01"]


def test_an_empty_payload_removes_what_is_retained_whatever_the_rule() -> None:
    bridged = Bridged(out=[shaping(payload="json_to_cbor", unreadable="drop")])
    bridged.connect()
    bridged.publish("t", b"", retain=True)
    (sent,) = bridged.sent_messages()
    assert (sent.payload, sent.retain) == (b"", True)
    assert bridged.outbox.dropped == {}


def test_a_rule_can_clear_the_retain_flag() -> None:
    bridged = Bridged(out=[shaping(retain="clear")])
    bridged.connect()
    bridged.publish("t", b"x", retain=True)
    bridged.publish("t", b"y")
    assert [(sent.payload, sent.retain) for sent in bridged.sent_messages()] == [(b"x", False), (b"y", False)]
    entry = bridged.router.retained.get("t")
    assert isinstance(entry, Message)
    assert entry.payload == b"x"  # here it is retained as ever


@pytest.mark.parametrize(("own", "left"), [(None, 90), (30, 20), (600, 90)])
@pytest.mark.parametrize("version", [const.MQTT_5, const.MQTT_3_1_1])
def test_a_rule_bounds_how_long_messages_live(own: int | None, left: int, version: int) -> None:
    bridged = Bridged(out=[shaping(expiry_seconds=100)])
    properties = {const.CONTENT_TYPE: "a"} if version >= const.MQTT_5 else {}
    message = bridged.publish(
        "t", b"x", expiry=own if version >= const.MQTT_5 else None, properties=properties
    )
    before = message.expires_at
    bridged.router.now += 10
    bridged.connect()
    (sent,) = bridged.sent_messages()
    assert sent.expiry_interval == (left if version >= const.MQTT_5 else 90)
    assert message.expires_at == before  # of others' copies nothing changes


def test_what_has_expired_by_its_rule_does_not_go_up() -> None:
    bridged = Bridged(out=[shaping(expiry_seconds=100)])
    bridged.publish("t", b"x", version=const.MQTT_3_1_1)
    bridged.router.now += 101
    bridged.connect(const.MQTT_3_1_1)
    assert bridged.sent_messages() == []
    assert bridged.queue.expired == 1


def test_an_excepted_topic_is_no_loss() -> None:
    bridged = Bridged(out=[RuleConfig(filter="a/#", except_=("a/debug/#",))])
    bridged.connect()
    for topic in ("a/debug", "a/debug/x", "a/b"):
        bridged.publish(topic, b"x")
    assert [sent.topic for sent in bridged.sent_messages()] == ["a/b"]
    assert bridged.outbox.dropped == {}


# ---- down


def test_a_payload_comes_down_as_its_rule_writes_it() -> None:
    bridged = Bridged(in_=[shaping(payload="cbor_to_json", retain="clear", expiry_seconds=50)])
    here = Local(bridged, "#", durable=False)
    bridged.connect()
    publish_down(
        bridged, b"\x81\x01", {const.CONTENT_TYPE: "x", const.MESSAGE_EXPIRY_INTERVAL: 70}, retain=True
    )
    (message,) = here.messages
    assert (message.payload, message.retain) == (b"[1]", False)
    assert message.properties == {const.CONTENT_TYPE: "application/json", const.PAYLOAD_FORMAT_INDICATOR: 1}
    assert message.expires_at == bridged.router.now + 50
    assert bridged.router.retained.get("t") is None
    assert bridged.sent_acks() == [(const.PUBACK, 7, 0)]


def test_from_mqtt_3_it_comes_with_what_its_payload_is() -> None:
    bridged = Bridged(in_=[shaping(payload="cbor_to_json")])
    here = Local(bridged, "#", durable=False)
    bridged.connect(const.MQTT_3_1_1)
    publish_down(bridged, b"\x81\x01")
    publish_down(bridged, b"\xff")
    assert [message.payload for message in here.messages] == [b"[1]", b"\xff"]
    assert here.messages[0].properties[const.CONTENT_TYPE] == "application/json"


@pytest.mark.parametrize("qos", [1, 2])
def test_what_cannot_be_written_is_dropped_and_acknowledged(qos: int) -> None:
    bridged = Bridged(in_=[shaping(payload="cbor_to_json", unreadable="drop", qos=qos)])
    here = Local(bridged, "#", durable=False)
    bridged.connect()
    publish_down(bridged, b"\xff", qos=qos)
    bridged.commit()
    assert here.messages == []
    assert bridged.downlink.dropped == {"not_transformed": 1}
    assert bridged.sent_acks() == [(const.PUBACK if qos == 1 else const.PUBREC, 7, 0)]


def test_what_an_in_rule_excepts_is_acknowledged_and_no_loss() -> None:
    bridged = Bridged(in_=[RuleConfig(filter="#", except_=("t",))])
    here = Local(bridged, "#", durable=False)
    bridged.connect()
    publish_down(bridged, b"x")
    assert here.messages == []
    assert bridged.downlink.dropped == {}
    assert bridged.sent_acks() == [(const.PUBACK, 7, 0)]
