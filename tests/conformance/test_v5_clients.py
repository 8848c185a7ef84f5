"""MQTT 5.0, chapter 3.1: who a client is: its identifier, the connection that takes over, and how long it may be silent."""

from __future__ import annotations

import string

import pytest

from tests.conformance.codec import V5, V311, Connack, Connect, Publish, Will
from tests.conformance.conftest import StartBroker
from tests.conformance.harness import RunningBroker
from tests.conformance.normative import normative
from tests.conformance.wire import fresh

SESSION_TAKEN_OVER, KEEP_ALIVE_TIMEOUT = 0x8E, 0x8D


# ---- client identifiers


@normative("MQTT-3.1.3-5", "MQTT-3.1.4-5")
@pytest.mark.parametrize(
    "client_id", ["0", *(string.digits + string.ascii_letters)[::23], "01234567890123456789012"[:23]]
)
def test_short_client_identifiers_of_letters_and_digits_are_good(
    broker: RunningBroker, client_id: str
) -> None:
    broker.wire(V5).connect(client_id)


@normative("MQTT-3.1.3-5")
def test_all_letters_and_digits_are_good(broker: RunningBroker) -> None:
    alphabet = string.digits + string.ascii_lowercase + string.ascii_uppercase
    for at in range(0, len(alphabet), 23):
        broker.wire(V5).connect(alphabet[at : at + 23])


@normative("MQTT-3.1.3-6", "MQTT-3.1.3-7", "MQTT-3.2.2-16")
@pytest.mark.parametrize("clean", [True, False])
def test_an_empty_client_identifier_gets_one_of_its_own(broker: RunningBroker, clean: bool) -> None:
    assigned = []
    for _ in range(3):
        wire = broker.wire(V5)
        connack = wire.connect("", clean=clean, properties={"session_expiry_interval": 100})
        assert not connack.session_present
        assigned.append(connack.properties["assigned_client_identifier"])
        wire.subscribe((f"t/{len(assigned)}", 1))
    assert len(set(assigned)) == 3
    again = broker.wire(V5)
    assert again.connect(assigned[0], clean=False).session_present


@normative("MQTT-3.1.3-8", "MQTT-3.2.2-6", "MQTT-3.2.2-7")
def test_a_client_identifier_refused_closes_the_connection(broker: RunningBroker) -> None:
    """What a broker does not take is its own affair; the longest string there is shows it either way."""
    wire = broker.wire(V5).send(Connect("x" * 65_535, clean=False))
    connack = wire.expect(Connack)
    assert connack.code in (0, 0x85)
    if connack.code:
        wire.expect_end()
    else:
        wire.ping()


# ---- a client that is there already


@normative("MQTT-3.1.4-3", "MQTT-3.14.4-2")
@pytest.mark.parametrize("version", [V5, V311])
def test_a_newer_connection_takes_over(broker: RunningBroker, version: int) -> None:
    client_id = fresh("taken-")
    first = broker.client(client_id, V5)
    second = broker.client(client_id, version)
    first.expect_closed(SESSION_TAKEN_OVER)
    second.ping()


@normative("MQTT-3.1.4-3", "MQTT-3.1.4-4", "MQTT-3.1.2-5", "MQTT-3.2.2-3")
def test_what_takes_over_goes_on_with_the_session(broker: RunningBroker, topic: str) -> None:
    client_id = fresh("taken-")
    expiry = {"session_expiry_interval": 100}
    first = broker.client(client_id, V5, clean=False, properties=expiry)
    first.subscribe((topic, 1))
    second = broker.wire(V5)
    assert second.connect(client_id, clean=False, properties=expiry).session_present
    first.expect_closed(SESSION_TAKEN_OVER)
    broker.client(version=V5).publish(topic, b"to the second", 1)
    second.expect_message(topic, b"to the second", 1)
    third = broker.wire(V5)
    assert not third.connect(client_id, clean=True, properties=expiry).session_present
    second.expect_closed(SESSION_TAKEN_OVER)
    broker.client(version=V5).publish(topic, b"to nobody", 1)
    third.expect_nothing()


# ---- keep alive


@normative("MQTT-3.1.2-22", "MQTT-3.2.2-22", "MQTT-3.14.4-2")
def test_silence_beyond_one_and_a_half_keep_alives_ends_the_connection(
    start_broker: StartBroker, topic: str
) -> None:
    broker = start_broker()
    watcher = broker.client(version=V5)
    watcher.subscribe((topic, 0))
    patient = broker.client(version=V5, keep_alive=0)
    slow = broker.client(version=V5, keep_alive=60_000)
    connack = (wire := broker.wire(V5)).connect(keep_alive=10, will=Will(topic, b"timed out"))
    assert "server_keep_alive" not in connack.properties
    for _ in range(3):
        broker.pass_time(14)
        wire.expect_nothing()
    broker.pass_time(14)
    wire.send(Publish("t", b"counts as well"))
    watcher.ping()
    broker.settle()
    broker.pass_time(14)
    wire.ping()
    broker.pass_time(16.5)
    wire.expect_closed(KEEP_ALIVE_TIMEOUT)
    watcher.expect_message(topic, b"timed out")
    for other in (patient, slow):
        other.expect_nothing()


@normative("MQTT-3.1.2-22")
def test_what_only_the_broker_sends_is_no_sign_of_life(start_broker: StartBroker, topic: str) -> None:
    broker = start_broker()
    wire = broker.client(version=V5, keep_alive=10)
    wire.subscribe((topic, 0))
    publisher = broker.client(version=V5)
    broker.pass_time(8)
    publisher.publish(topic, b"half of it")
    wire.expect_message(topic, b"half of it")
    broker.pass_time(8)
    wire.expect_closed(KEEP_ALIVE_TIMEOUT)


@normative("MQTT-3.1.2-22")
def test_a_packet_that_never_comes_whole_is_no_sign_of_life(start_broker: StartBroker) -> None:
    """It is control packets that count, not bytes: else a byte now and then would hold a connection for ever."""
    broker = start_broker()
    wire = broker.client(version=V5, keep_alive=10)
    for byte in b"\x30\x40\x00\x10abcdef":
        wire.send(bytes((byte,)))
        broker.settle()
        broker.pass_time(8)
    wire.expect_closed(KEEP_ALIVE_TIMEOUT)
