"""Each upstream has a session of its own, with identifiers of its own: what one has of QoS 2 is nothing to another."""

from bridge.places import parse_place
from bridge.sessions import Sessions
from edge_broker.core.ops import Snapshot
from edge_broker.wire import const
from edge_broker.wire.encoder import encode_ack, encode_publish
from tests.bridge.memory import UPSTREAM, Bridged, Local, rule

OTHER = "mqtt://other:1883"


def publish(payload: bytes, packet_id: int = 5) -> bytes:
    return encode_publish(5, "cmd", payload, 2, packet_id=packet_id)


def test_an_identifier_in_use_at_one_upstream_is_free_at_another() -> None:
    bridged = Bridged(in_=[rule("#", 2)])
    local = Local(bridged, "#", durable=False)
    bridged.connect(present=False)
    bridged.receive(publish(b"first's"))
    bridged.commit()
    bridged.disconnect()
    bridged.connect(present=True, upstream=OTHER)
    bridged.receive(publish(b"other's"))
    bridged.commit()
    assert [message.payload for message in local.messages] == [b"first's", b"other's"]


def test_what_one_upstream_had_sent_is_known_on_return_though_another_knew_nothing() -> None:
    bridged = Bridged(in_=[rule("#", 2)])
    local = Local(bridged, "#", durable=False)
    bridged.connect(present=False)
    bridged.receive(publish(b"once"))
    bridged.commit()
    bridged.disconnect()
    bridged.connect(present=False, upstream=OTHER)
    bridged.disconnect()
    bridged.connect(present=True)
    bridged.sent()
    bridged.receive(publish(b"once"))
    bridged.commit()
    assert [message.payload for message in local.messages] == [b"once"]
    assert (const.PUBREC, 5, 0) in bridged.sent_acks()
    bridged.receive(encode_ack(5, const.PUBREL, 5, 0))
    bridged.commit()
    assert bridged.sent_acks() == [(const.PUBCOMP, 5, 0)]
    assert bridged.sessions.at(UPSTREAM).inbound == set()


def test_the_store_tells_them_apart_after_a_restart() -> None:
    bridged = Bridged(in_=[rule("#", 2)])
    bridged.connect(present=False)
    bridged.receive(publish(b"1", 5))
    bridged.disconnect()
    bridged.connect(present=False, upstream=OTHER)
    bridged.receive(publish(b"2", 6))
    bridged.commit()
    batch = bridged.last_batch
    [(other_id, name)] = batch.outboxes
    first_id = bridged.queue.queue_id
    assert batch.inbound == {(first_id, 5): True, (other_id, 6): True}
    assert "/" not in name, "what stands behind one is a lane"

    stored = Snapshot(2, [], [], {}, {"cloud": first_id, name: other_id}, [], list(batch.inbound), 9)
    sessions = Sessions("cloud", parse_place(UPSTREAM), first_id, bridged.router, stored)
    assert (sessions.at(UPSTREAM).inbound, sessions.at(OTHER).inbound) == ({5}, {6})
    sessions.at(OTHER).forget_inbound()
    bridged.commit()
    assert bridged.last_batch.inbound == {(other_id, 6): False}
    assert bridged.last_batch.outboxes == []


def test_each_upstream_is_subscribed_to() -> None:
    bridged = Bridged(in_=[rule("cmd")])
    for upstream in (UPSTREAM, OTHER):
        bridged.connect(present=True, upstream=upstream)
        assert len([packet for packet in bridged.sent() if type(packet).__name__ == "Subscribe"]) == 1
        bridged.receive(bytes((0x90, 4)) + (bridged.downlink._subscribe_id).to_bytes(2, "big") + b"\0\1")
        bridged.disconnect()
    bridged.connect(present=True, upstream=UPSTREAM)
    assert not [packet for packet in bridged.sent() if type(packet).__name__ == "Subscribe"]
