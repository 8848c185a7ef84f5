"""The broker's own topics: retained in memory only, and nobody else's."""

from __future__ import annotations

from edge_broker.core.message import build_message
from edge_broker.wire import const
from edge_broker.wire.packets import Ack, Publish
from tests.pump.pump import Pump


def test_who_subscribes_gets_what_is_and_what_comes(pump: Pump) -> None:
    pump.router.publish_system("$SYS/broker/uptime", b"1")
    client = pump.client("c").subscribed("$SYS/#", 1)
    assert client.take(Publish).retain
    pump.router.publish_system("$SYS/broker/uptime", b"2")
    pump.run()
    assert client.take_payloads() == [b"2"]
    assert pump.pending.empty, "nothing of it is stored"
    assert pump.router.retained_messages == 0


def test_a_client_may_not_publish_there_even_where_the_topic_is_known(pump: Pump) -> None:
    pump.router.publish(build_message("$SYS/broker/uptime", b"1"), None)
    client = pump.client("c").subscribed("$SYS/#")
    client.publish("$SYS/broker/uptime", b"mine", 1)
    assert client.take(Ack).reason_code == const.NOT_AUTHORIZED
    assert client.take_payloads() == []
    assert pump.router.counters.denied == {"publish": 1}


def test_what_an_earlier_version_kept_there_is_forgotten(pump: Pump) -> None:
    pump.store.retained["$SYS/old"] = build_message("$SYS/old", b"x", retain=True)
    pump.crash()
    assert pump.router.retained.get("$SYS/old") is None
    pump.commit()
    assert "$SYS/old" not in pump.store.retained
