"""Bounds of the queues on a real disk, through real restarts: delayed messages, dead letters, limits, expiry."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from tests.integration.broker_process import BrokerProcess, until
from tests.integration.conftest import StartBroker
from tests.integration.foreign import Paho

DAY_SECONDS = 86_400


def away(broker: BrokerProcess, client_id: str, topic_filter: str) -> None:
    client = Paho(broker.port, client_id, expiry=DAY_SECONDS).connected().subscribe(topic_filter, 1)
    client.leave()
    until(lambda: client.losses, "it is still connected")


def back(broker: BrokerProcess, client_id: str) -> Paho:
    return Paho(broker.port, client_id, expiry=DAY_SECONDS).connected()


def publish(broker: BrokerProcess, topic: str, count: int, **properties: Any) -> None:
    publisher = Paho(broker.port, "sensor").connected()
    for number in range(1, count + 1):
        publisher.publish(topic, b"%d" % number, 1, **properties)
    publisher.leave()


def edge_broker(*arguments: object) -> str:
    command = [sys.executable, "-m", "edge_broker", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, timeout=60, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def waiting(broker: BrokerProcess) -> dict[str, int]:
    """Messages on disk by queue."""
    found = json.loads(edge_broker("store", "status", "--json", "--data-dir", broker.data_dir))
    return {queue["name"]: queue["depth"] for queue in found["queues"]}


def test_delayed_messages_outlive_a_kill_and_come_in_the_order_in_which_they_are_due(
    start_broker: StartBroker,
) -> None:
    broker = start_broker()
    away(broker, "display", "t/#")
    publisher = Paho(broker.port, "sensor").connected()
    for seconds in (2, 1, 3_000):
        publisher.publish(f"$delayed/{seconds}/t/1", b"%d" % seconds, 1, ContentType="text")
    broker.kill()
    publisher.leave()
    broker.start()
    display = back(broker, "display")
    first, second = display.wait_for(2)
    assert [(m.topic, m.payload, m.properties.ContentType) for m in (first, second)] == [
        ("t/1", b"1", "text"),
        ("t/1", b"2", "text"),
    ]
    until(lambda: waiting(broker).get("$delayed") == 1, "they are not gone from the disk")
    display.leave()


def test_dead_letters_outlive_a_kill_and_are_read_beside_the_broker(start_broker: StartBroker) -> None:
    settings = "[sessions]\nmax_queue_messages = 3\n[dead_letters]\nenabled = true\n"
    broker = start_broker(settings=settings)
    away(broker, "display", "t")
    publish(broker, "t", 10)
    until(lambda: waiting(broker).get("$dead-letters") == 7, "not all are there")
    until(lambda: "session 'display' loses messages: queue_full" in broker.log, "the log does not say so")
    broker.kill()
    broker.start()
    listed = edge_broker("dead-letters", "list", "--json", "--data-dir", broker.data_dir).splitlines()
    assert [json.loads(line)["payload"] for line in listed] == [str(number) for number in range(1, 8)]
    exported = edge_broker("store", "export", "$dead-letters", "--data-dir", broker.data_dir).splitlines()
    assert exported == listed

    number = json.loads(listed[0])["number"]
    shown = json.loads(edge_broker("dead-letters", "show", number, "--data-dir", broker.data_dir))
    notes = dict(shown["properties"]["user_properties"])
    assert (notes["dead-letter-reason"], notes["dead-letter-for"]) == ("queue_full", "session:display")
    display = back(broker, "display")
    assert [message.payload for message in display.wait_for(3)] == [b"8", b"9", b"10"]
    display.leave()


def test_dead_letters_are_given_again_or_thrown_away_by_the_running_broker(start_broker: StartBroker) -> None:
    settings = "[sessions]\nmax_queue_messages = 3\n[dead_letters]\nenabled = true\n"
    broker = start_broker(settings=settings)
    away(broker, "display", "t")
    publish(broker, "t", 8)
    until(lambda: waiting(broker).get("$dead-letters") == 5, "not all are there")
    display = back(broker, "display")
    assert [m.payload for m in display.wait_for(3)] == [b"6", b"7", b"8"]
    listed = edge_broker("dead-letters", "list", "--json", "--data-dir", broker.data_dir).splitlines()
    numbers = [json.loads(line)["number"] for line in listed]
    told = edge_broker("dead-letters", "retry", *numbers[:2], "--data-dir", broker.data_dir)
    assert told == "2 delivered again\n"
    assert [m.payload for m in display.wait_for(5)[3:]] == [b"1", b"2"]
    assert edge_broker("dead-letters", "drop", "--all", "--data-dir", broker.data_dir) == "3 thrown away\n"
    until(lambda: not waiting(broker).get("$dead-letters"), "they are still there")
    command = [sys.executable, "-m", "edge_broker", "dead-letters", "retry", str(numbers[0])]
    done = subprocess.run(
        [*command, "--data-dir", broker.data_dir], capture_output=True, timeout=60, text=True
    )
    assert (done.returncode, done.stdout) == (1, "0 delivered again\n")
    assert done.stderr == f"{numbers[0]}: it is not there\n"
    display.leave()


def test_what_expires_while_nobody_is_there_leaves_the_disk(start_broker: StartBroker) -> None:
    broker = start_broker()
    away(broker, "display", "#")
    publish(broker, "t", 50, MessageExpiryInterval=2)
    until(lambda: waiting(broker)["session:display"] == 50, "they are not on disk")
    broker.kill()
    broker.start()
    until(lambda: waiting(broker)["session:display"] == 0, "what has expired is still there")


def test_all_queues_together_hold_no_more_than_they_may(start_broker: StartBroker) -> None:
    broker = start_broker(settings="[store]\nmax_messages = 10\n")
    away(broker, "one", "one")
    away(broker, "two", "two")
    publish(broker, "one", 8)
    publish(broker, "two", 4)
    until(lambda: sum(waiting(broker).values()) == 10, "more than there may be")
    assert waiting(broker) == {"session:one": 6, "session:two": 4}
    broker.kill()
    broker.start()
    publish(broker, "two", 1)
    until(lambda: waiting(broker) == {"session:one": 5, "session:two": 5}, "the sum is forgotten")
    one = back(broker, "one")
    assert [message.payload for message in one.wait_for(5)] == [b"%d" % number for number in range(4, 9)]
    one.leave()
