"""kill -9 at any moment: nothing acknowledged is lost, nothing of QoS 2 comes twice, and everything kept comes back.

The clients are paho's: they connect again, send again what was not acknowledged, and keep QoS 2 state of their own.
"""

from __future__ import annotations

import random
from itertools import count

import pytest
from paho.mqtt.client import MQTTMessageInfo
from paho.mqtt.enums import MQTTProtocolVersion

from tests.integration.broker_process import BrokerProcess, until
from tests.integration.conftest import StartBroker, start_broker  # noqa: F401 - a fixture
from tests.integration.foreign import V3, V5, Paho

KILLS = 3
MESSAGES = 1200


class Publisher:
    """Keeps a few hundred messages under way, numbered from 1 on; knows which of them were acknowledged."""

    def __init__(self, broker: BrokerProcess, qos: int, version: MQTTProtocolVersion) -> None:
        self.topic, self.qos = f"data/{qos}", qos
        self._paho = Paho(
            broker.port, f"publisher-{qos}", version, expiry=3600, clean=False, in_flight=100
        ).connected()
        self._sent: list[MQTTMessageInfo] = []

    def feed(self, ahead: int = 300) -> None:
        """Publish on, until `ahead` messages wait for their acknowledgement or all have been sent."""
        while len(self._sent) < min(MESSAGES, self.acknowledged + ahead):
            payload = b"%d" % (len(self._sent) + 1)
            self._sent.append(self._paho.client.publish(self.topic, payload, self.qos))

    @property
    def acknowledged(self) -> int:
        return len(self._paho.acknowledged)

    @property
    def done(self) -> bool:
        self.feed()
        return self.acknowledged == MESSAGES

    def leave(self) -> None:
        self._paho.leave()


def received(client: Paho, qos: int) -> list[int]:
    return [int(m.payload) for m in client.messages if m.topic == f"data/{qos}"]


def is_complete(client: Paho) -> bool:
    return all(len(set(received(client, qos))) == MESSAGES for qos in (1, 2))


def check(client: Paho) -> None:
    """What a durable subscriber must have got by the end.

    Not in the order of the numbers: what paho is given while it connects again it may send before what it sends again.
    """
    expected = list(range(1, MESSAGES + 1))
    assert sorted(set(received(client, 1))) == expected, "QoS 1: each, some perhaps twice"
    assert sorted(received(client, 2)) == expected, "QoS 2: each once"


@pytest.mark.parametrize("version", [V3, V5], ids=["3.1.1", "5"])
def test_killed_while_publishing(start_broker: StartBroker, version: MQTTProtocolVersion) -> None:  # noqa: F811
    dice = random.Random(version)
    broker = start_broker()
    away = Paho(broker.port, "away", version, expiry=3600, clean=False).connected().subscribe("data/#", 2)
    away.leave()
    live = Paho(broker.port, "live", version, expiry=3600, clean=False).connected().subscribe("data/#", 2)
    publishers = [Publisher(broker, qos, version) for qos in (1, 2)]
    state = Paho(broker.port, "state", version).connected()

    for kill in range(KILLS):
        state.publish("state/retained", b"%d" % kill, 1, retain=True)
        goal = [publisher.acknowledged + dice.randint(1, 200) for publisher in publishers]
        until(
            lambda goal=goal: all(  # type: ignore[misc]
                publisher.done or publisher.acknowledged >= target
                for publisher, target in zip(publishers, goal, strict=True)
            ),
            "nothing is acknowledged any more",
        )
        broker.kill()
        broker.start()
        state.connected()
        reader = Paho(broker.port, version=version).connected().subscribe("state/#", 1)
        assert reader.wait_for(1)[0].payload == b"%d" % kill
        reader.leave()

    until(lambda: all(publisher.done for publisher in publishers), "the rest is not acknowledged")
    until(lambda: is_complete(live), "something acknowledged never came")
    check(live)
    broker.kill()
    broker.start()
    back = Paho(broker.port, "away", version, expiry=3600, clean=False).connected()
    assert back.session_present
    until(lambda: is_complete(back), "something acknowledged was not kept")
    check(back)
    assert received(back, 2) == received(live, 2), (
        "whoever gets the same messages gets them in the same order"
    )
    for client in (live, back, state, *publishers):
        client.leave()
    assert broker.stop() == 0


def test_killed_while_a_backlog_is_read(start_broker: StartBroker) -> None:  # noqa: F811
    """A backlog much larger than the memory kept for it, and a subscriber that meets two crashes on its way."""
    settings = "[sessions]\nwindow_bytes = 20000\nsend_window = 50\n"
    broker = start_broker(settings=settings)
    numbers = count(1)
    reader = Paho(broker.port, "reader", expiry=3600, clean=False).connected().subscribe("data/1", 1)
    reader.leave()
    publisher = Publisher(broker, 1, V5)
    until(lambda: publisher.done, "not acknowledged")
    broker.kill()
    broker.start()
    reader = Paho(broker.port, "reader", expiry=3600, clean=False).connected()
    while next(numbers) <= 2:
        seen = len(reader.messages)
        until(lambda seen=seen: len(reader.messages) >= seen + 200, "nothing comes")  # type: ignore[misc]
        broker.kill()
        broker.start()
    until(lambda: len(set(received(reader, 1))) == MESSAGES, "something is missing")
    assert list(dict.fromkeys(received(reader, 1))) == list(range(1, MESSAGES + 1))
    reader.leave()
    publisher.leave()


def test_a_stop_and_a_start_change_nothing(start_broker: StartBroker) -> None:  # noqa: F811
    broker = start_broker()
    away = Paho(broker.port, "away", expiry=3600, clean=False).connected().subscribe("data/#", 2)
    away.leave()
    publisher = Paho(broker.port, "publisher").connected()
    publisher.publish("data/1", b"kept", 2, retain=True)
    publisher.publish("data/2", b"short", 1, MessageExpiryInterval=1000)
    publisher.leave()
    assert broker.stop() == 0
    broker.start()
    back = Paho(broker.port, "away", expiry=3600, clean=False).connected()
    assert back.session_present
    second, first = sorted(back.wait_for(2), key=lambda message: message.qos)  # paho waits for PUBREL
    assert (first.payload, first.qos) == (b"kept", 2)
    assert second.properties is not None
    assert 990 <= second.properties.MessageExpiryInterval <= 1000
    fresh = Paho(broker.port).connected().subscribe("data/1", 1)
    assert fresh.wait_for(1)[0].retain
    for client in (back, fresh):
        client.leave()
