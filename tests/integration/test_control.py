"""The control socket of a broker process: traces of a real client's messages, status, reload, and a socket left behind."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.integration.broker_process import WAIT_SECONDS, BrokerProcess, until
from tests.integration.conftest import StartBroker
from tests.integration.foreign import V3, V5, Paho

SLOW_COMMITS = "[store]\ncommit_delay_ms = 5000\nremoval_delay_ms = 5000\n"
"""So that a client that is at hand has acknowledged before anything is written, however busy the machine."""


def edge_broker(broker: BrokerProcess, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`edge-broker` beside `broker`."""
    return subprocess.run(
        [sys.executable, "-m", "edge_broker", *arguments, "--data-dir", str(broker.data_dir)],
        capture_output=True,
        text=True,
        timeout=WAIT_SECONDS,
    )


class Tracing:
    """`edge-broker trace … --json`, which has begun."""

    def __init__(self, broker: BrokerProcess, *arguments: str) -> None:
        command = [sys.executable, "-m", "edge_broker", "trace", *arguments, "--json"]
        self.process = subprocess.Popen(
            [*command, "--data-dir", str(broker.data_dir)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stderr is not None
        first = self.process.stderr.readline()
        assert first.startswith("following"), first

    def ends(self) -> list[dict[str, Any]]:
        """What it printed, when it has ended by itself."""
        out, err = self.process.communicate(timeout=WAIT_SECONDS)
        assert self.process.returncode == 0, err
        return [json.loads(line) for line in out.splitlines()]


def steps(events: list[dict[str, Any]], client: str) -> list[str]:
    return [event["event"] for event in events if event.get("client") == client]


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_the_way_of_a_message_that_everybody_has_in_time(start_broker: StartBroker, loop: str) -> None:
    broker = start_broker(settings=SLOW_COMMITS, loop=loop)
    subscriber = Paho(broker.port, "s", V5, expiry=3600, clean=False).connected().subscribe("t/#", 1)
    publisher = Paho(broker.port, "p", V5).connected()
    tracing = Tracing(broker, "--topic", "t/+", "--count", "1")
    publisher.publish("t/1", b"a secret", 1)
    *events, ended = tracing.ends()
    assert steps(events, "p") == ["accepted", "answered"]
    assert steps(events, "s") == ["queued", "sent", "acknowledged", "elided"]
    assert events[0]["event"] == "accepted"
    assert {event["message"] for event in events} == {1}
    assert {(event["topic"], event["qos"], event["payload_bytes"]) for event in events} == {("t/1", 1, 8)}
    assert "secret" not in json.dumps(events)
    assert ended == {"ended": "enough messages", "messages": 1, "skipped": 0}
    publisher.publish("t/1", b"after the trace", 1)
    assert [message.payload for message in subscriber.wait_for(2)] == [b"a secret", b"after the trace"]
    publisher.leave()
    subscriber.leave()
    assert broker.stop() == 0
    assert "Traceback" not in broker.log


def test_the_way_of_a_message_to_a_session_that_is_away(start_broker: StartBroker) -> None:
    broker = start_broker()
    Paho(broker.port, "away", V3, clean=False).connected().subscribe("t", 1).leave()
    publisher = Paho(broker.port, "p", V3).connected()
    tracing = Tracing(broker, "--client", "away", "--count", "1")
    publisher.publish("t", b"21.5", 1)
    *events, ended = tracing.ends()
    assert [(event["event"], event["client"]) for event in events] == [
        ("accepted", "p"),
        ("queued", "away"),
        ("written", "away"),
        ("answered", "p"),
    ]
    assert events[1]["queue_number"] == 1
    assert events[1]["at"] <= events[2]["at"] <= events[3]["at"]
    assert ended["messages"] == 1
    publisher.leave()


def test_a_message_that_is_refused_says_why(start_broker: StartBroker) -> None:
    broker = start_broker()
    publisher = Paho(broker.port, "p", V5).connected()
    tracing = Tracing(broker, "--client", "p", "--count", "1")
    publisher.client.publish("$SYS/broker/uptime", b"x", 1)
    *events, _ = tracing.ends()
    assert [(event["event"], event["client"]) for event in events] == [("refused", "p")]
    assert events[0]["detail"] == "not authorized: a topic that only the broker publishes to"
    publisher.leave()


def test_a_trace_that_is_interrupted_leaves_nothing(start_broker: StartBroker) -> None:
    broker = start_broker()
    tracing = Tracing(broker, "--topic", "#")
    tracing.process.send_signal(signal.SIGINT)
    assert tracing.ends() == []

    def is_free() -> bool:
        """The next one finds no other running."""
        again = edge_broker(broker, "trace", "--topic", "#", "--seconds", "1")
        assert again.returncode == 0 or "a trace is running" in again.stderr, again.stderr
        return again.returncode == 0

    until(is_free, "the trace goes on")


def test_status_for_a_person_and_for_programs(start_broker: StartBroker) -> None:
    broker = start_broker()
    client = Paho(broker.port, "c", V5).connected().subscribe("t", 0)
    found = json.loads(edge_broker(broker, "status", "--json").stdout)
    assert (found["pid"], found["clients"]["connected"]) == (broker.pid, 1)
    shown = edge_broker(broker, "status")
    assert shown.returncode == 0
    assert f"edge-broker {found['version']}: ready" in shown.stdout
    assert "1 connected, 0 away, 1 subscription" in shown.stdout
    assert "there is no bridge" in edge_broker(broker, "bridge", "status").stdout
    client.leave()


def test_a_reload_is_answered_with_what_happened(start_broker: StartBroker) -> None:
    broker = start_broker()
    done = edge_broker(broker, "reload")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "taken over"
    config = broker.directory / "edge-broker.toml"
    right = config.read_text()
    config.write_text(right + "\n[sesions]\n")
    refused = edge_broker(broker, "reload")
    assert refused.returncode == 1
    assert "sesions: is not a known key (did you mean sessions?)" in refused.stdout
    assert refused.stdout.splitlines()[-1] == "the configuration stays as it was"
    config.write_text(right + "\n[sessions]\nreceive_maximum = 7\n")
    assert "only from the next start on: sessions.receive_maximum" in edge_broker(broker, "reload").stdout


def test_the_socket_of_a_killed_broker_is_replaced(start_broker: StartBroker) -> None:
    broker = start_broker()
    broker.kill()
    assert (broker.data_dir / "control.sock").exists()
    assert "left behind by one that was killed" in edge_broker(broker, "status").stderr
    broker.start()
    assert edge_broker(broker, "status").returncode == 0
    assert broker.stop() == 0
    assert "no broker runs here" in edge_broker(broker, "status").stderr


def test_two_brokers_do_not_take_each_others_socket(start_broker: StartBroker, tmp_path: Path) -> None:
    path = tmp_path / "c.sock"
    first = start_broker("one", settings=f'[control]\npath = "{path}"\n')
    second = start_broker("two", settings=f'[control]\npath = "{path}"\n')
    until(lambda: "no control socket" in second.log, "nothing is said")
    assert "Address already in use" in second.log
    assert second.stop() == 0
    assert path.exists()
    assert first.stop() == 0
    assert not path.exists()
