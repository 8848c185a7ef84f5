"""The audit log of a broker in memory: what is in a line, what never is, and that no disk holds anybody up."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from edge_broker.errors import ConfigError
from edge_broker.ops.audit import FLUSH_LINES, FLUSH_SECONDS, Audit, encode_line
from edge_broker.ops.audit_file import AuditFile
from edge_broker.ops.audit_limits import Allowed
from edge_broker.wire import const
from edge_broker.wire.packets import Will
from tests.integration.broker_process import until
from tests.pump.pump import Pump, TestClient
from tests.security.rules import NOTHING, impose

WALL = 1_746_100_800.1234


class Disk(AuditFile):
    """A file that stands still while `works` is not set, and fails while `problem` says so."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, 1 << 20, 2)
        self.works = threading.Event()
        self.works.set()
        self.problem: OSError | None = None
        self.batches: list[int] = []

    def append(self, lines: Sequence[bytes]) -> int:
        self.works.wait(20)
        if self.problem is not None:
            raise self.problem
        self.batches.append(len(lines))
        return super().append(lines)


class Kept:
    """An audit log on such a disk, and its lines."""

    def __init__(self, path: Path, **options: Any) -> None:
        self.path = path
        self.disk = Disk(path)
        self.audit = Audit(self.disk, 0.0, lambda address: address, wall=lambda: WALL, **options)
        self.now = 0.0

    def sweep(self, seconds: float = FLUSH_SECONDS) -> None:
        self.now += seconds
        self.audit.sweep(self.now)

    def settle(self) -> None:
        """Until the thread has nothing more to do."""
        until(lambda: self.audit._work.empty() and not self.is_writing(), "the thread is stuck")

    def is_writing(self) -> bool:
        self.audit._collect()
        return self.audit._is_writing

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.path.read_text("ascii").splitlines()]

    def of(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["event"] == event]


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    found = Kept(tmp_path / "audit.log")
    found.audit.open()
    yield found
    found.disk.works.set()
    found.audit.close()


def audited(kept: Kept, **options: Any) -> Pump:
    pump = Pump(**options)
    pump.router.observer = kept.audit
    return pump


# ---- what is in it


def test_who_came_and_how_and_why_it_left(kept: Kept) -> None:
    pump = audited(kept)
    client = pump.client("c1")
    client.disconnect()
    kept.audit.close()
    come, gone = kept.lines
    assert come == {
        "time": "2025-05-01T12:00:00.123Z",
        "event": "connected",
        "client_id": "c1",
        "identity": client_identity(come),
        "address": come["address"],
        "listener": come["listener"],
        "by": come["by"],
        "protocol": 5,
        "durable": False,
    }
    assert gone["event"] == "disconnected"
    assert (gone["client_id"], gone["reason"], gone["reason_code"]) == ("c1", "the client disconnected", 0)
    assert gone["identity"] == come["identity"]


def client_identity(line: dict[str, Any]) -> str:
    assert line["identity"]
    return str(line["identity"])


def test_a_takeover_names_itself(kept: Kept) -> None:
    pump = audited(kept)
    pump.client("c1", expiry=60)
    pump.client("c1", expiry=60)
    kept.audit.close()
    events = [(line["event"], line.get("reason_code", 0)) for line in kept.lines]
    assert events == [("connected", 0), ("disconnected", const.SESSION_TAKEN_OVER), ("connected", 0)]


def test_who_is_not_let_in(kept: Kept) -> None:
    pump = audited(kept, max_client_id_bytes=23)
    TestClient(pump).connect("c" * 24)
    TestClient(pump).send(b"GET / HTTP/1.1\r\n\r\n")
    kept.audit.on_refused("192.0.2.1:5", "*:1883", "max_connections")
    kept.audit.close()
    first, second, third = kept.of("refused")
    assert (first["reason"], first["reason_code"]) == ("a longer client identifier than we allow", 0x85)
    assert "identity" not in first
    assert second["reason"]
    assert (third["address"], third["reason"]) == ("192.0.2.1:5", "max_connections")


def test_what_is_denied(kept: Kept) -> None:
    pump = audited(kept)
    client = pump.client("c1")
    impose(pump, NOTHING)
    client.publish("door/\N{RIGHT-TO-LEFT OVERRIDE}open", qos=1)
    client.subscribe("secrets/#")
    TestClient(pump).connect("c2", will=Will("alarm/off", b"w", 0, False, 0, {}))
    kept.audit.close()
    assert [(line["action"], line["topic"], line["client_id"]) for line in kept.of("denied")] == [
        ("publish", "door/\u202eopen", "c1"),
        ("subscribe", "secrets/#", "c1"),
        ("will", "alarm/off", "c2"),
    ]
    assert all(line["identity"] for line in kept.of("denied"))
    assert pump.router.counters.denied == {"publish": 1, "subscribe": 1, "will": 1}


def test_without_an_observer_the_same_is_counted() -> None:
    pump = Pump()
    client = pump.client("c1")
    client.publish("$SYS/x", qos=1)
    assert pump.router.counters.denied == {"publish": 1}


def test_an_administrator(kept: Kept) -> None:
    kept.audit.record_action("disconnect", "uid=1000", client_id="c1", count=3)
    kept.audit.close()
    (line,) = kept.lines
    assert line["event"] == "action"
    assert (line["action"], line["by"], line["client_id"], line["count"]) == (
        "disconnect",
        "uid=1000",
        "c1",
        3,
    )


def test_a_line_stays_a_line_whatever_a_stranger_says() -> None:
    text = 'x\n{"event":"action"}\r\x00\x1b[2J\x7f\x9b\u202e\u2028\ud800"'
    line = encode_line({"event": "refused", "client_id": text, "identity": None})
    assert line.endswith(b"\n")
    assert all(0x20 <= byte < 0x7F for byte in line[:-1])
    assert json.loads(line) == {"event": "refused", "client_id": text}


def test_a_long_text_is_cut() -> None:
    line = json.loads(encode_line({"event": "denied", "topic": "t" * 65_535}))
    assert line["topic"] == "t" * 512 + "…"


# ---- when it is written


def test_nothing_is_written_before_its_time_nor_long_after(kept: Kept) -> None:
    kept.audit.record("started")
    kept.sweep(FLUSH_SECONDS - 1)
    kept.settle()
    assert kept.disk.batches == []
    kept.sweep(1)
    kept.settle()
    assert kept.disk.batches == [1]
    kept.sweep()
    kept.settle()
    assert kept.disk.batches == [1], "nothing new, nothing written"


def test_many_lines_do_not_wait(kept: Kept) -> None:
    for _ in range(FLUSH_LINES):
        kept.audit.record("started")
    kept.settle()
    assert kept.disk.batches == [FLUSH_LINES]
    assert kept.audit.written == FLUSH_LINES


def test_a_slow_disk_holds_nobody_up_and_what_has_no_room_is_counted(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "audit.log", max_waiting=500)
    kept.audit.open()
    kept.disk.works.clear()
    for number in range(2_000):
        kept.audit.record("reloaded", number=number)
    kept.sweep()
    assert len(kept.audit._waiting) == 500
    assert kept.audit.left_out["waiting"] == 2_000 - FLUSH_LINES - 500
    kept.disk.works.set()
    kept.settle()
    kept.sweep()
    kept.settle()
    kept.sweep()
    kept.audit.close()
    assert [line["number"] for line in kept.of("reloaded")] == list(range(FLUSH_LINES + 500))
    (told,) = kept.of("left_out")
    assert (told["of"], told["count"]) == ("reloaded", 1_300)


def test_a_disk_that_fails_loses_nothing_that_has_room(kept: Kept, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    kept.disk.problem = OSError(28, "No space left on device")
    for number in range(3):
        kept.audit.record("reloaded", number=number)
        kept.sweep()
        kept.settle()
    assert kept.audit.write_errors == 3
    assert [r.getMessage() for r in caplog.records] == [
        "the audit log cannot be written, its lines wait in memory: No space left on device"
    ]
    kept.disk.problem = None
    kept.sweep()
    kept.settle()
    assert [line["number"] for line in kept.lines] == [0, 1, 2]
    assert caplog.records[-1].getMessage() == "the audit log can be written again"


def test_a_disk_that_fails_for_long_takes_bounded_memory(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "audit.log", max_waiting=300)
    kept.audit.open()
    kept.disk.problem = OSError(5, "Input/output error")
    for number in range(1_000):
        kept.audit.record("reloaded", number=number)
        if number % 100 == 99:
            kept.sweep()
            kept.settle()
            assert len(kept.audit._waiting) <= 300
    kept.disk.problem = None
    for _ in range(3):
        kept.sweep()
        kept.settle()
    kept.audit.close()
    there = len(kept.of("reloaded"))
    (told,) = kept.of("left_out")
    assert there + told["count"] == 1_000
    assert kept.audit.left_out["waiting"] == told["count"] > 600


def test_a_flood_of_refusals_is_counted_and_told(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "audit.log", allowed={"refused": Allowed(50, 10)})
    kept.audit.open()
    for _ in range(1_000):
        kept.audit.on_refused("192.0.2.66:1", "*:1883", "no")
    kept.audit.on_refused("192.0.2.7:1", "*:1883", "no")
    kept.sweep(60)
    kept.audit.close()
    assert len(kept.of("refused")) == 11, "the other address is not drowned"
    (told,) = kept.of("left_out")
    assert (told["of"], told["from"], told["count"]) == ("refused", "192.0.2.66:1", 990)
    assert kept.audit.left_out == {"rate": 990, "waiting": 0}


def test_what_was_left_out_is_told_at_the_end_too(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "audit.log", allowed={"refused": Allowed(1, 1)})
    kept.audit.open()
    for _ in range(3):
        kept.audit.on_refused("192.0.2.66:1", "", "no")
    kept.audit.close()
    assert [line["event"] for line in kept.lines] == ["refused", "left_out"]


def test_the_end_does_not_wait_for_a_dead_disk(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_broker.ops.audit._CLOSING_SECONDS", 0.05)
    kept = Kept(tmp_path / "audit.log")
    kept.audit.open()
    kept.disk.works.clear()
    kept.audit.record("started")
    kept.audit.close()
    assert "the disk does not answer" in caplog.text
    kept.disk.works.set()


def test_lines_lost_at_the_end_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    kept = Kept(tmp_path / "audit.log")
    kept.audit.open()
    kept.disk.problem = OSError(28, "No space left on device")
    kept.audit.record("started")
    kept.audit.close()
    assert "the last 1 lines of the audit log are lost: No space left on device" in caplog.text


def test_a_fault_of_ours_in_the_thread_is_told_and_it_goes_on(
    kept: Kept, caplog: pytest.LogCaptureFixture
) -> None:
    kept.audit.record("started", odd=object())  # type: ignore[arg-type]
    kept.sweep()
    kept.settle()
    assert "not JSON serializable" in caplog.text


def test_a_file_that_cannot_be_written_is_said_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"audit\.file: cannot be written: .*data_dir"):
        Kept(tmp_path / "nowhere" / "audit.log").audit.open()
