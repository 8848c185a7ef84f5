"""What the configuration does not offer: told in CONNACK, and refused when used all the same [MQTT 5 3.2.2.3]."""

from __future__ import annotations

import pytest

from edge_broker.wire import const
from edge_broker.wire.packets import Ack, Connack, Disconnect, Suback, Will
from tests.pump.pump import Pump, TestClient


def connected(pump: Pump, **options: object) -> tuple[TestClient, Connack]:
    client = TestClient(pump)
    client.connect("c", **options)  # type: ignore[arg-type]
    return client, client.take(Connack)


def test_everything_is_offered_and_nothing_said_of_it(pump: Pump) -> None:
    _, connack = connected(pump)
    told = {const.MAXIMUM_QOS, const.RETAIN_AVAILABLE, const.WILDCARD_SUBSCRIPTION_AVAILABLE}
    assert told.isdisjoint(connack.properties)


def test_a_higher_qos_than_the_maximum() -> None:
    client, connack = connected(Pump(maximum_qos=1))
    assert connack.properties[const.MAXIMUM_QOS] == 1
    client.subscribe("t", 2)
    assert client.take(Suback).reason_codes == [1], "granted as far as it goes"
    client.publish("t", qos=2)
    assert client.take(Disconnect).reason_code == const.QOS_NOT_SUPPORTED


def test_a_retained_message_where_none_are_kept() -> None:
    client, connack = connected(Pump(retain_available=False))
    assert connack.properties[const.RETAIN_AVAILABLE] == 0
    client.publish("t", retain=True)
    assert client.take(Disconnect).reason_code == const.RETAIN_NOT_SUPPORTED


@pytest.mark.parametrize(
    ("limits", "will", "reason_code"),
    [
        ({"maximum_qos": 0}, Will("w", b"", 1, False, 0, {}), const.QOS_NOT_SUPPORTED),
        ({"retain_available": False}, Will("w", b"", 0, True, 0, {}), const.RETAIN_NOT_SUPPORTED),
        ({"max_topic_bytes": 3}, Will("long", b"", 0, False, 0, {}), const.TOPIC_NAME_INVALID),
        ({"max_delayed_wills": 0}, Will("w", b"", 0, False, 9, {}), const.QUOTA_EXCEEDED),
        ({}, Will("$SYS/broker", b"", 0, False, 0, {}), const.TOPIC_NAME_INVALID),
    ],
)
def test_a_will_that_we_would_not_publish(limits: dict[str, int], will: Will, reason_code: int) -> None:
    _, connack = connected(Pump(**limits), will=will)
    assert connack.reason_code == reason_code


@pytest.mark.parametrize(
    ("limits", "topic_filter", "property_id", "reason_code"),
    [
        (
            {"wildcard_subscriptions_available": False},
            "a/+",
            const.WILDCARD_SUBSCRIPTION_AVAILABLE,
            const.WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED,
        ),
        (
            {"shared_subscriptions_available": False},
            "$share/g/a",
            const.SHARED_SUBSCRIPTION_AVAILABLE,
            const.SHARED_SUBSCRIPTIONS_NOT_SUPPORTED,
        ),
    ],
)
def test_a_kind_of_subscription(
    limits: dict[str, bool], topic_filter: str, property_id: int, reason_code: int
) -> None:
    client, connack = connected(Pump(**limits))
    assert connack.properties[property_id] == 0
    client.subscribe(topic_filter)
    assert client.take(Suback).reason_codes == [reason_code]


def test_a_subscription_identifier() -> None:
    client, connack = connected(Pump(subscription_ids_available=False))
    assert connack.properties[const.SUBSCRIPTION_IDENTIFIER_AVAILABLE] == 0
    client.subscribe("t", identifier=7)
    assert client.take(Disconnect).reason_code == const.SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED


@pytest.mark.parametrize(("qos", "kind"), [(1, const.PUBACK), (2, const.PUBREC)])
def test_a_payload_that_is_not_what_it_says(qos: int, kind: int) -> None:
    client, _ = connected(Pump(check_payload_format=True))
    client.publish("t", b"\xff", qos, properties={const.PAYLOAD_FORMAT_INDICATOR: 1})
    answer = client.take(Ack)
    assert (answer.packet_type, answer.reason_code) == (kind, const.PAYLOAD_FORMAT_INVALID)
    assert client.pump.dropped == {"payload_format_invalid": 1}
    assert not client.closed


def test_response_information_for_who_asks() -> None:
    pump = Pump(response_information="answers/{client_id}")
    _, connack = connected(pump)
    assert const.RESPONSE_INFORMATION not in connack.properties
    _, connack = connected(pump, properties={const.REQUEST_RESPONSE_INFORMATION: 1})
    assert connack.properties[const.RESPONSE_INFORMATION] == "answers/c"


def test_where_to_go_instead(pump: Pump) -> None:
    client = pump.client("c")
    client.connection.fail(const.USE_ANOTHER_SERVER, "stopping", server_reference="other.example:1883")
    pump.run()
    goodbye = client.take(Disconnect)
    assert goodbye.properties[const.SERVER_REFERENCE] == "other.example:1883"


def test_a_reason_string_only_where_the_client_takes_the_size(pump: Pump) -> None:
    for maximum, has_reason in ((0, True), (200, True), (25, False)):
        client = TestClient(pump)
        properties = {const.MAXIMUM_PACKET_SIZE: maximum} if maximum else {}
        client.connect("c", properties=properties)
        client.inbox.clear()
        client.send(b"\x30\x03\x00\x01")  # cut short, then nonsense
        client.send(b"\xff")
        goodbye = client.take(Disconnect)
        assert (const.REASON_STRING in goodbye.properties) is has_reason
