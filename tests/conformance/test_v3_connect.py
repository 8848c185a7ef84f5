"""MQTT 3.1.1: the form of CONNECT, who may come in, and what CONNACK says (sections 3.1 and 3.2)."""

from __future__ import annotations

import string
from collections.abc import Callable

import pytest

from edge_broker.core.ports import Admission, Credentials
from edge_broker.wire import const
from tests.conformance.codec import (
    Connack,
    Connect,
    Disconnect,
    Packet,
    Pingreq,
    Pingresp,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
    Unsubscribe,
    Will,
    encode,
    frame,
)
from tests.conformance.conftest import StartBroker
from tests.conformance.harness import RunningBroker
from tests.conformance.normative import normative
from tests.conformance.properties import text
from tests.conformance.wire import fresh

HEADER = text("MQTT") + b"\4"  # protocol name and level, as CONNECT begins


def connect_of(flags: int, *fields: bytes) -> bytes:
    """A CONNECT of these flags with exactly these fields in its payload."""
    return frame(0x10, HEADER + bytes((flags, 0, 0)) + b"".join(text(field) for field in fields))


FIRST = [
    Publish("t"), Puback(1), Pubrec(1), Pubrel(1), Pubcomp(1), Subscribe(1, (("t", 0),)), Unsubscribe(1, ("t",)),
    Pingreq(), Disconnect(),
]  # fmt: skip


@normative("MQTT-3.1.0-1", "MQTT-4.8.0-1")
@pytest.mark.parametrize("packet", FIRST, ids=lambda packet: type(packet).__name__.upper())
def test_anything_but_connect_comes_first(broker: RunningBroker, packet: Packet) -> None:
    wire = broker.wire()
    wire.send(packet, Connect(fresh("client-")))
    wire.expect_closed()


@normative("MQTT-3.1.0-2", "MQTT-4.8.0-1")
def test_a_second_connect_closes(broker: RunningBroker, topic: str) -> None:
    watcher = broker.client()
    watcher.subscribe((topic, 0))
    wire = broker.client(will=Will(topic, b"gone"))
    wire.send(Connect(wire.client_id))
    wire.expect_closed()
    watcher.expect(Publish(topic, b"gone"))


@normative("MQTT-3.1.0-2")
def test_a_second_connect_right_behind_the_first_closes(broker: RunningBroker) -> None:
    wire = broker.wire()
    connect = Connect(fresh("client-"))
    wire.send(connect, connect)
    wire.expect(Connack())
    wire.expect_closed()


@normative("MQTT-3.1.2-1")
@pytest.mark.parametrize("name", ["", "mqtt", "MQTX", "MQTT ", "MQTTMQTT", "HTTP", b"\xff\xff\xff\xff"])
def test_another_protocol_name_is_not_let_in(broker: RunningBroker, name: str | bytes) -> None:
    wire = broker.wire()
    wire.send(Connect(fresh("client-"), protocol_name=name))
    wire.expect_closed()


@normative("MQTT-3.1.2-2", "MQTT-3.2.2-4", "MQTT-3.2.2-5")
@pytest.mark.parametrize("level", [0, 1, 2, 6, 7, 127, 128, 255])
def test_an_unknown_protocol_level_is_refused(broker: RunningBroker, level: int) -> None:
    wire = broker.wire()
    wire.send(Connect(fresh("client-"), protocol_level=level))
    wire.expect(b"\x20\x02\x00\x01")
    wire.expect_end()


MALFORMED = {
    "reserved flag": connect_of(0x03, b"c"),
    "will QoS without will": connect_of(0x0A, b"c"),
    "will retain without will": connect_of(0x22, b"c"),
    "will QoS 3": connect_of(0x1E, b"c", b"t", b"m"),
    "will flag without will": connect_of(0x06, b"c"),
    "will flag without message": connect_of(0x06, b"c", b"t"),
    "will without will flag": connect_of(0x02, b"c", b"t", b"m"),
    "user name without its flag": connect_of(0x02, b"c", b"u"),
    "user name flag without user name": connect_of(0x82, b"c"),
    "password without its flag": connect_of(0x82, b"c", b"u", b"p"),
    "password flag without password": connect_of(0xC2, b"c", b"u"),
    "password without user name": connect_of(0x42, b"c", b"p"),
    "no client identifier": connect_of(0x02),
    "client identifier cut short": frame(0x10, HEADER + b"\x02\0\0\0\5abc"),
    "no keep alive": frame(0x10, HEADER + b"\x02"),
    "will topic empty": connect_of(0x06, b"c", b"", b"m"),
    "will topic with a wildcard": connect_of(0x06, b"c", b"a/#", b"m"),
    "something behind": connect_of(0x02, b"c", b""),
}


def malformed(*names: str) -> pytest.MarkDecorator:
    """One case for each of these CONNECTs."""
    return pytest.mark.parametrize("name", names)


def refuse_silently(broker: RunningBroker, name: str) -> None:
    """The broker closes and says nothing, above all no CONNACK."""
    wire = broker.wire()
    wire.send(MALFORMED[name])
    wire.expect_closed()


@normative("MQTT-3.1.2-3", "MQTT-3.1.4-1")
def test_the_reserved_flag_of_connect_closes(broker: RunningBroker) -> None:
    refuse_silently(broker, "reserved flag")


@normative("MQTT-3.1.2-9")
@malformed("will flag without will", "will flag without message")
def test_a_will_flag_without_a_will_closes(broker: RunningBroker, name: str) -> None:
    refuse_silently(broker, name)


@normative("MQTT-3.1.2-11")
@malformed("will QoS without will", "will retain without will", "will without will flag")
def test_a_will_without_its_flag_closes(broker: RunningBroker, name: str) -> None:
    refuse_silently(broker, name)


@normative("MQTT-3.1.2-13")
@pytest.mark.parametrize("qos", [1, 2, 3])
def test_a_will_qos_without_a_will_closes(broker: RunningBroker, qos: int) -> None:
    wire = broker.wire()
    wire.send(connect_of(0x02 | qos << 3, b"c"))
    wire.expect_closed()


@normative("MQTT-3.1.2-14")
def test_a_will_qos_of_3_closes(broker: RunningBroker) -> None:
    refuse_silently(broker, "will QoS 3")


@normative("MQTT-3.1.2-14")
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_every_other_will_qos_is_taken(broker: RunningBroker, qos: int, topic: str) -> None:
    broker.client(will=Will(topic, b"", qos=qos)).disconnect()


@normative("MQTT-3.1.2-15")
def test_a_will_retain_without_a_will_closes(broker: RunningBroker) -> None:
    refuse_silently(broker, "will retain without will")


@normative("MQTT-3.1.2-18")
def test_a_user_name_without_its_flag_closes(broker: RunningBroker) -> None:
    refuse_silently(broker, "user name without its flag")


@normative("MQTT-3.1.2-19")
def test_a_user_name_flag_without_a_user_name_closes(broker: RunningBroker) -> None:
    refuse_silently(broker, "user name flag without user name")


@normative("MQTT-3.1.2-20")
def test_a_password_without_its_flag_closes(broker: RunningBroker) -> None:
    refuse_silently(broker, "password without its flag")


@normative("MQTT-3.1.2-21")
def test_a_password_flag_without_a_password_closes(broker: RunningBroker) -> None:
    refuse_silently(broker, "password flag without password")


@normative("MQTT-3.1.2-22")
def test_a_password_without_a_user_name_closes(broker: RunningBroker) -> None:
    refuse_silently(broker, "password without user name")


@normative("MQTT-3.1.2-18", "MQTT-3.1.2-19", "MQTT-3.1.2-20", "MQTT-3.1.2-21")
@pytest.mark.parametrize(("username", "password"), [(None, None), ("u", None), ("", b""), ("ü", b"\0\xff")])
def test_user_name_and_password_as_their_flags_say(
    broker: RunningBroker, username: str | None, password: bytes | None
) -> None:
    broker.client(username=username, password=password).ping()


@normative("MQTT-3.1.3-3")
@malformed("no client identifier", "client identifier cut short")
def test_a_connect_without_a_client_identifier_closes(broker: RunningBroker, name: str) -> None:
    refuse_silently(broker, name)


@normative("MQTT-3.1.4-1", "MQTT-4.8.0-1")
@malformed(*MALFORMED)
def test_a_malformed_connect_gets_no_connack(broker: RunningBroker, name: str) -> None:
    refuse_silently(broker, name)


@normative("MQTT-3.2.2-6")
@malformed("will topic with a wildcard", "will topic empty", "something behind")
def test_what_no_return_code_fits_closes_without_one(broker: RunningBroker, name: str) -> None:
    refuse_silently(broker, name)


@normative("MQTT-3.1.3-1", "MQTT-3.1.3-3", "MQTT-3.1.2-9")
def test_the_fields_of_the_payload_in_their_order(broker: RunningBroker, topic: str) -> None:
    """Each field is seen to be taken for what it is: another client of the identifier sets the will free."""
    watcher = broker.client()
    watcher.subscribe((topic, 2))
    first = broker.wire()
    name = fresh("client-")
    first.send(connect_of(0xF6, *(field.encode() for field in (name, topic, "the will", "user", "password"))))
    first.expect(Connack())
    broker.client(name)
    first.expect_closed()
    watcher.expect_message(topic, b"the will", qos=2)
    later = broker.client()
    later.subscribe((topic, 2))
    later.expect_message(topic, b"the will", qos=2, retain=True)


ALPHABET = string.digits + string.ascii_letters


@normative("MQTT-3.1.3-5")
@pytest.mark.parametrize(
    "client_id",
    ["a", "Z", "0", ALPHABET[:23], ALPHABET[23:46], ALPHABET[46:], "9" * 23],
)
def test_identifiers_that_must_be_allowed(broker: RunningBroker, client_id: str) -> None:
    wire = broker.wire()
    assert wire.connect(client_id) == Connack()


@normative("MQTT-3.1.3-6", "MQTT-3.1.3-2")
def test_an_empty_identifier_becomes_a_unique_one(broker: RunningBroker, topic: str) -> None:
    clients = [broker.client("") for _ in range(3)]
    for client in clients:
        client.subscribe((topic, 0))
    broker.client().publish(topic, b"x")
    for client in clients:
        client.expect(Publish(topic, b"x"))


@normative("MQTT-3.1.3-6")
def test_an_empty_identifier_finds_no_session(broker: RunningBroker, topic: str) -> None:
    first = broker.client("")
    first.subscribe((topic, 1))
    first.disconnect()
    second = broker.wire()
    assert second.connect("") == Connack(session_present=False)
    broker.client().publish(topic, b"x", qos=1)
    second.expect_nothing()


@normative("MQTT-3.1.3-8", "MQTT-3.1.3-9", "MQTT-3.2.2-4", "MQTT-3.2.2-5")
def test_an_empty_identifier_without_clean_session_is_refused(broker: RunningBroker) -> None:
    wire = broker.wire()
    wire.send(Connect("", clean=False))
    wire.expect(b"\x20\x02\x00\x02")
    wire.expect_end()


@normative("MQTT-3.1.4-2")
def test_a_second_client_of_an_identifier_throws_the_first_out(broker: RunningBroker) -> None:
    first = broker.client()
    second = broker.client(first.client_id)
    first.expect_closed()
    second.ping()


@normative("MQTT-3.1.4-4", "MQTT-3.2.2-1")
def test_a_good_connect_gets_return_code_0(broker: RunningBroker) -> None:
    wire = broker.wire()
    wire.send(Connect(fresh("client-")))
    wire.expect(b"\x20\x02\x00\x00")


@normative("MQTT-3.1.4-5")
@pytest.mark.parametrize("refused", ["identifier", "level", "malformed"])
def test_nothing_behind_a_refused_connect_is_processed(
    broker: RunningBroker, refused: str, topic: str
) -> None:
    connects = {
        "identifier": encode(Connect("", clean=False), 4),
        "level": encode(Connect("c", protocol_level=9), 4),
        "malformed": MALFORMED["reserved flag"],
    }
    wire = broker.wire()
    wire.send(connects[refused], Publish(topic, b"sneaked in", retain=True), Connect(fresh("client-")))
    assert [packet for packet in wire.drain() if not isinstance(packet, Connack) or not packet.code] == []
    later = broker.client()
    later.subscribe((topic, 0))
    later.expect_nothing()


@normative("MQTT-3.2.0-1")
def test_connack_comes_before_what_was_asked_for_with_connect(broker: RunningBroker, topic: str) -> None:
    broker.client().publish(topic, b"kept", retain=True)
    wire = broker.wire()
    wire.send(Connect(fresh("client-")), Subscribe(1, ((topic, 0),)), Pingreq())
    wire.expect(Connack())
    assert {type(wire.take()) for _ in range(3)} == {Suback, Publish, Pingresp}


@normative("MQTT-3.2.0-1")
def test_connack_comes_before_what_waits_in_the_session(broker: RunningBroker, topic: str) -> None:
    wire = broker.client(clean=False)
    wire.subscribe((topic, 1))
    wire.disconnect()
    broker.client().publish(topic, b"waiting", qos=1)
    again = broker.wire()
    again.send(Connect(wire.client_id, clean=False))
    again.expect(Connack(session_present=True))
    again.expect_message(topic, b"waiting", qos=1)


class Doorkeeper:
    """An authenticator that lets in who gives no user name."""

    def authenticate(self, credentials: Credentials, answer: Callable[[Admission], None]) -> None:
        answer(Admission(const.NOT_AUTHORIZED if credentials.username else const.SUCCESS, "anybody"))

    def begin(self, credentials: Credentials, method: str) -> None:
        return None


@normative("MQTT-3.2.2-4", "MQTT-3.2.2-5")
def test_a_refusal_says_no_session_where_there_is_one(start_broker: StartBroker) -> None:
    broker = start_broker(authenticator=Doorkeeper())
    broker.client("sensor", clean=False).disconnect()
    wire = broker.wire()
    wire.send(Connect("sensor", clean=False, username="mallory"))
    wire.expect(b"\x20\x02\x00\x05")
    wire.expect_end()
    assert broker.wire().connect("sensor", clean=False).session_present


@normative("MQTT-3.1.2-24")
def test_silence_for_one_and_a_half_keep_alives_ends_the_connection(
    start_broker: StartBroker, topic: str
) -> None:
    broker = start_broker()
    watcher = broker.client()
    watcher.subscribe((topic, 0))
    wire = broker.client(keep_alive=10, will=Will(topic, b"silent"))
    broker.pass_time(14)
    wire.ping()
    broker.pass_time(14)
    wire.ping()
    watcher.expect_nothing()
    broker.pass_time(16)
    wire.expect_closed()
    watcher.expect(Publish(topic, b"silent"))


@normative("MQTT-3.1.2-24")
def test_every_packet_counts_for_the_keep_alive(start_broker: StartBroker, topic: str) -> None:
    broker = start_broker()
    wire = broker.client(keep_alive=10)
    for _ in range(5):
        broker.pass_time(14)
        wire.send(Publish(topic, qos=1, packet_id=1)).expect(Puback(1))
    never = broker.client(keep_alive=0)
    broker.pass_time(100_000)
    never.ping()
    wire.expect_closed()
