"""A broker on a board without a clock: a real process whose wall clock libfaketime steps, the monotonic one left alone.

It boots in 1970, takes messages, restarts, and learns the time from the network; or it knew the time, and a day passed.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import do_without
from tests.integration.broker_process import BrokerProcess, until
from tests.integration.conftest import StartBroker, start_broker  # noqa: F401 - a fixture
from tests.integration.foreign import Paho

HOUR, DAY = 3600, 86_400
SETTINGS = '[http]\nbind = "127.0.0.1:0"\n[store]\ncommit_delay_ms = 1\n'


class Board:
    """One broker and its wall clock, `set_clock` seconds off the truth; 1970 and a bit with `lose_clock`."""

    def __init__(self, start: Callable[..., BrokerProcess], directory: Path, library: Path) -> None:
        self._offset = directory / "offset"
        self.set_clock(0)
        environ = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self._offset),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }
        self._start = lambda: start(settings=SETTINGS, environ=environ)
        self.broker: BrokerProcess

    def set_clock(self, seconds: int) -> None:
        fresh = self._offset.with_suffix(".new")
        fresh.write_text(f"{seconds:+d}\n")
        os.replace(fresh, self._offset)

    def lose_clock(self) -> None:
        self.set_clock(-int(time.time()) + 100)

    def boot(self) -> None:
        self.broker = self._start()

    def problems(self) -> list[str]:
        health = self._get("/healthz")
        return [problem["component"] for problem in json.loads(health)["problems"]]

    def is_ready(self) -> bool:
        return bool(json.loads(self._get("/readyz"))["ready"])

    def metric(self, name: str) -> float:
        found = re.search(rf"^edge_broker_{re.escape(name)} (\S+)$", self._get("/metrics"), re.MULTILINE)
        assert found is not None
        return float(found[1])

    def exported(self, queue: str) -> dict[str, datetime]:
        """When the messages of a queue came, by payload, as `store export` says beside the running broker."""
        data_dir = str(self.broker.data_dir)
        command = [sys.executable, "-m", "edge_broker", "store", "export", queue, "--data-dir", data_dir]
        lines = subprocess.run(command, check=True, capture_output=True, timeout=60).stdout.splitlines()
        found: list[dict[str, Any]] = [json.loads(line) for line in lines]
        return {one["payload"]: datetime.fromisoformat(one["received_at"]) for one in found}

    def _get(self, path: str) -> str:
        pattern = re.compile(r"health and metrics on (http://\S+)\s")
        until(lambda: pattern.search(self.broker.log), "it serves no HTTP")
        found = pattern.search(self.broker.log)
        assert found is not None
        with urllib.request.urlopen(found[1] + path, timeout=30) as answer:
            return str(answer.read().decode())


@pytest.fixture
def board(start_broker: StartBroker, tmp_path: Path) -> Board:  # noqa: F811
    libraries = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    if not libraries:
        do_without("needs libfaketime, which is not installed")
    return Board(start_broker, tmp_path, libraries[0])


def leave_a_session(board: Board, name: str, expiry: int) -> None:
    Paho(board.broker.port, name, expiry=expiry, clean=False).connected().subscribe("t/#", 1).leave()


def come_back(board: Board, name: str) -> Paho:
    return Paho(board.broker.port, name, expiry=7 * DAY, clean=False).connected()


def publish(board: Board, payload: bytes, expiry: int, retain: bool = False) -> None:
    publisher = Paho(board.broker.port).connected()
    topic = f"t/{payload.decode()}"
    publisher.publish(topic, payload, 1, retain, MessageExpiryInterval=expiry)
    publisher.leave()


def test_it_boots_in_1970_takes_messages_restarts_and_learns_the_time(board: Board) -> None:
    board.lose_clock()
    board.boot()
    assert "clock_unsynced" in board.problems()
    assert board.is_ready()
    assert board.metric("clock_unsynced") == 1
    leave_a_session(board, "away", 2 * HOUR)
    leave_a_session(board, "reader", 2 * HOUR)
    publish(board, b"first", HOUR)
    board.broker.kill()

    board.lose_clock()
    board.boot()
    assert "clock_unsynced" in board.problems()
    publish(board, b"second", HOUR, retain=True)
    assert all(came.year < 2030 for came in board.exported("session:away").values())

    board.set_clock(0)
    until(lambda: "clock_unsynced" not in board.problems(), "the clock came right and nobody saw it")
    assert board.metric("clock_unsynced") == 0
    assert board.metric("clock_corrections_total") == 1
    assert abs(board.metric("start_time_seconds") - time.time()) < 120
    publish(board, b"third", HOUR)
    until(lambda: _are_of_now(board.exported("session:away"), 3), "the times on disk are not corrected")
    assert _are_of_now(board.exported("retained"), 1)
    reader = come_back(board, "reader")
    assert reader.session_present
    assert {message.payload for message in reader.wait_for(3)} == {b"first", b"second", b"third"}
    reader.leave()

    board.broker.kill()
    board.boot()
    assert board.problems() == []
    assert _are_of_now(board.exported("session:away"), 3)
    away = come_back(board, "away")
    assert {message.payload for message in away.wait_for(3)} == {b"first", b"second", b"third"}
    left = [message.properties.MessageExpiryInterval for message in away.messages]  # type: ignore[union-attr]
    assert all(HOUR - 120 < seconds <= HOUR for seconds in left)
    away.leave()
    assert "Traceback" not in board.broker.log


def _are_of_now(times: dict[str, datetime], count: int) -> bool:
    return len(times) == count and all(abs(came.timestamp() - time.time()) < 120 for came in times.values())


def test_a_day_without_power_counts_when_the_time_is_known(board: Board) -> None:
    board.boot()
    assert board.problems() == []
    leave_a_session(board, "patient", 7 * DAY)
    leave_a_session(board, "early", 7 * DAY)
    leave_a_session(board, "hasty", 2 * HOUR)
    publish(board, b"hour", HOUR, retain=True)
    publish(board, b"days", 3 * DAY, retain=True)
    board.broker.kill()

    board.lose_clock()
    board.boot()
    assert "clock_unsynced" in board.problems()
    early = come_back(board, "early")
    assert {message.payload for message in early.wait_for(2)} == {b"hour", b"days"}  # no downtime counts yet
    early.leave()

    board.set_clock(DAY)  # the truth: a day had passed
    until(lambda: "clock_unsynced" not in board.problems(), "the clock came right and nobody saw it")
    until(lambda: board.metric('sessions{state="disconnected"}') == 2, "a session outlived its expiry")
    publish(board, b"now", HOUR)
    patient = come_back(board, "patient")
    assert patient.session_present
    assert [message.payload for message in patient.wait_for(2)] == [b"days", b"now"]
    left = patient.messages[0].properties.MessageExpiryInterval  # type: ignore[union-attr]
    assert 2 * DAY - 120 < left <= 2 * DAY
    patient.leave()
    newcomer = Paho(board.broker.port).connected().subscribe("t/#", 1)
    assert [message.payload for message in newcomer.wait_for(1)] == [b"days"]
    newcomer.publish("t/end", b"end", 1)
    assert newcomer.wait_for(2)[1].payload == b"end"
    newcomer.leave()
    assert "Traceback" not in board.broker.log


@pytest.mark.parametrize("step", [-40 * 365 * DAY, -HOUR, 10 * DAY, 20 * 365 * DAY])
def test_a_step_while_it_runs_expires_nothing(board: Board, step: int) -> None:
    board.boot()
    leave_a_session(board, "away", HOUR)
    publish(board, b"before", HOUR, retain=True)
    board.set_clock(step)
    if step == 10 * DAY:
        until(lambda: board.metric("clock_corrections_total") == 1, "the step was not seen")
        assert board.problems() == []
    else:
        until(lambda: "clock_unsynced" in board.problems(), "the step was not seen")
    away = come_back(board, "away")
    assert away.session_present
    (message,) = away.wait_for(1)
    assert message.properties.MessageExpiryInterval > HOUR - 120  # type: ignore[union-attr]
    away.leave()
    board.set_clock(0)
    if step != 10 * DAY:
        until(lambda: board.problems() == [], "the step was undone and nobody saw it")
    assert "Traceback" not in board.broker.log
