"""The command line's end of the control socket: which broker, what it says when there is none, how answers look."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from edge_broker.cli import bridge_view, control, main, status_view, trace_view
from edge_broker.cli.text import count, plural, printable

BRIDGE: dict[str, Any] = {
    "name": "cloud",
    "state": "online",
    "connected": True,
    "upstream": "mqtts://up.example:8883",
    "version": "5",
    "depth": 1200,
    "bytes": 240_000,
    "oldest_age_seconds": 75.0,
    "in_flight": 100,
    "sent": [1, 2000, 0],
    "acknowledged": 1900,
    "resent": 3,
    "received": [0, 4, 0],
    "connects": 2,
    "dropped": {"expired": 5},
    "given_up": {"packet_too_large": 1},
    "skipped": {"announced": 0, "refused": 0, "waiting": 0},
    "late": 0,
    "last_acknowledged_at": 990.0,
    "canary_percent": None,
    "lanes": [{"priority": "normal", "depth": 1200, "bytes": 120_000, "oldest_age_seconds": 60.0}],
    "last_error": "it went \x1b[2Jaway",
    "last_hint": "look",
    "drain_per_second": 20.0,
    "drained_in_seconds": 60.0,
    "policy": {
        "breaker": "closed",
        "breaker_opened": 0,
        "failovers": 0,
        "ejections": 0,
        "draining": 0,
        "drain_seconds": None,
        "month_used_bytes": 0,
        "month_bytes": 0,
        "upstreams": [
            {
                "url": "mqtts://up.example:8883",
                "priority": 0,
                "chosen": True,
                "ejected": False,
                "seconds": {"connack": 0.05},
            }
        ],
    },
}
STATUS: dict[str, Any] = {
    "version": "0.1.0",
    "pid": 42,
    "started_at": 0.0,
    "uptime_seconds": 3700.0,
    "live": True,
    "ready": False,
    "problems": [{"component": "store", "problem": "the disk is full", "hint": "make room"}],
    "listeners": {"up": ["mqtt://127.0.0.1:1883"], "down": ["mqtts://*:8883"]},
    "clients": {"connections": 3, "connected": 2, "away": 1, "subscriptions": 7},
    "messages": {
        "received": 12_345,
        "sent": 5,
        "received_per_second": 12.5,
        "sent_per_second": 0.0,
        "dropped": {"offline": 2},
        "denied": 1,
        "retained": 4,
        "elided": 0,
    },
    "queues": [{"name": "session:a\nb", "messages": 1, "oldest_age_seconds": 5.0}],
    "store": {
        "healthy": False,
        "problem": "the disk is full",
        "bytes": 4_100_000,
        "commits": 17,
        "uncommitted_bytes": 0,
        "written_bytes": 0,
        "written_today_bytes": 12_300_000,
        "card_years": 1234.5,
    },
    "bridges": [BRIDGE],
    "event_loop_lag_seconds": 0.0,
}
BEGUN = {"tracing": {"client": "", "topic": "#", "seconds": 60, "count": 1}}


def event(what: str, client: str, at: float, **more: Any) -> dict[str, Any]:
    return {"at": 1000.0 + at, "message": 1, "event": what, "client": client, "topic": "t/1", "qos": 1,
            "payload_bytes": 4, **more}  # fmt: skip


WAY = [
    event("accepted", "p", 0.0, detail="2 recipients"),
    event("queued", "s", 0.0001, queue_number=7),
    event("sent", "s", 0.0002, queue_number=7),
    event("dropped", "x", 0.0002, detail="offline"),
    event("acknowledged", "s", 0.0015, queue_number=7),
    event("elided", "s", 0.0015, queue_number=7),
    event("answered", "p", 0.0016),
]


@contextmanager
def answering(directory: Path, *answers: dict[str, Any]) -> Iterator[list[dict[str, Any]]]:
    """A control socket in `directory` that says `answers` to one request; what was asked."""
    asked: list[dict[str, Any]] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(directory / "control.sock"))
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection, connection.makefile("rb") as lines:
                asked.append(json.loads(lines.readline()))
                for answer in answers:
                    connection.sendall(json.dumps(answer).encode() + b"\n")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield asked
        thread.join(10)


def run(*arguments: str) -> Any:
    return CliRunner().invoke(main, list(arguments), prog_name="edge-broker")


# ---- which broker


def test_where_no_broker_runs(tmp_path: Path) -> None:
    result = run("status", "--data-dir", str(tmp_path))
    assert result.exit_code == 1
    assert result.output.startswith(f"no broker runs here: there is no {tmp_path}/control.sock")
    assert "--config or --data-dir" in result.output


def test_where_one_was_killed(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as left:
        left.bind(str(tmp_path / "control.sock"))
    result = run("status", "--data-dir", str(tmp_path))
    assert result.exit_code == 1
    assert "was left behind by one that was killed" in result.output


def test_who_may_not_open_it(tmp_path: Path) -> None:
    assert "with sudo" in control._why_not(tmp_path, PermissionError())
    assert "File name too long" in control._why_not(tmp_path, OSError(36, "File name too long"))


def test_a_path_that_no_socket_can_have(tmp_path: Path) -> None:
    result = run("status", "--data-dir", str(tmp_path / ("d" * 120)))
    assert result.exit_code == 1
    assert "cannot be opened: AF_UNIX path too long" in result.output


def test_the_configuration_says_where(tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text('data_dir = "data"')
    result = run("status", "-c", str(config))
    assert f"there is no {tmp_path}/data/control.sock" in result.output
    config.write_text('data_dir = "data"\n[control]\npath = "elsewhere.sock"')
    assert f"there is no {tmp_path}/elsewhere.sock" in run("status", "-c", str(config)).output
    config.write_text("[control]\nenabled = false")
    assert "has the control socket off" in run("status", "-c", str(config)).output
    both = run("status", "-c", str(config), "--data-dir", str(tmp_path))
    assert both.exit_code == 2
    assert "one of them is enough" in both.output


def test_what_the_broker_says_no_to(tmp_path: Path) -> None:
    with answering(tmp_path, {"error": "a trace is running", "hint": "one at a time"}):
        result = run("trace", "--topic", "#", "--data-dir", str(tmp_path))
    assert result.exit_code == 1
    assert result.output == "a trace is running (one at a time)\n"


def test_a_broker_that_stops_meanwhile(tmp_path: Path) -> None:
    with answering(tmp_path, BEGUN):
        result = run("trace", "--topic", "#", "--data-dir", str(tmp_path))
    assert result.exit_code == 1
    assert "the broker ended the connection" in result.output


# ---- trace


def test_something_must_be_followed() -> None:
    result = run("trace")
    assert result.exit_code == 2
    assert "--client ID or --topic FILTER" in result.output


def test_lines_of_a_trace_are_aligned(tmp_path: Path) -> None:
    ended = {"ended": "its time is over", "messages": 1, "skipped": 2}
    with answering(tmp_path, BEGUN, *WAY, {"skipped": 2}, ended, {"end": True}) as asked:
        result = run("trace", "--topic", "#", "--client", "p", "--seconds", "9", "--data-dir", str(tmp_path))
    assert result.exit_code == 0
    assert asked == [{"command": "trace", "topic": "#", "client": "p", "seconds": 9}]
    lines = [line for line in result.stdout.splitlines() if " QoS 1 " in line]
    assert len(lines) == len(WAY)
    assert len({line.index(" QoS 1 ") for line in lines}) == 1
    assert lines[1].split()[1:4] == ["#1", "queued", "s"]
    assert lines[1].endswith("queue #7")
    assert "following topic # for 1 min 0 s" in result.output
    assert "1 message, 2 steps left out: its time is over" in result.output


def test_a_trace_for_programs(tmp_path: Path) -> None:
    with answering(tmp_path, BEGUN, WAY[0], {"end": True}):
        result = run("trace", "--topic", "#", "--json", "--data-dir", str(tmp_path))
    assert [json.loads(line) for line in result.stdout.splitlines()] == [WAY[0]]


def test_the_picture_of_one_message(tmp_path: Path) -> None:
    with answering(
        tmp_path, BEGUN, *WAY, {"ended": "enough messages", "messages": 1, "skipped": 0}, {"end": True}
    ):
        result = run("trace", "--topic", "#", "--count", "1", "--data-dir", str(tmp_path))
    _, *lines = result.stdout[result.stdout.index("t/1") :].splitlines()
    assert lines == [
        "│",
        "├─ p",
        "│         +0.0 ms  accepted      2 recipients",
        "│",
        "├─ s",
        "│         +0.1 ms  queued        queue #7",
        "│         +0.2 ms  sent",
        "│         +1.5 ms  acknowledged",
        "│         +1.5 ms  elided        never written: it was acknowledged in time",
        "│",
        "├─ x",
        "│         +0.2 ms  dropped       offline",
        "│",
        "└─ p",
        "          +1.6 ms  answered",
    ]


def test_no_picture_of_nothing(tmp_path: Path) -> None:
    ended = {"ended": "its time is over", "messages": 0, "skipped": 0}
    with answering(tmp_path, BEGUN, ended, {"end": True}):
        result = run("trace", "--topic", "#", "--count", "1", "--data-dir", str(tmp_path))
    assert "0 messages: its time is over" in result.output


def test_what_a_stranger_named_does_nothing_to_the_terminal() -> None:
    nasty = event("sent", "a\x1b[2Jb\n", 0.0) | {"topic": "t\u202e", "detail": "\x07"}
    for text in (trace_view.line(nasty), *trace_view.picture([nasty])):
        assert click.unstyle(text).isprintable()
    assert printable("a\nb") == "a\\nb"


# ---- status, bridges


def test_status_on_one_screen(tmp_path: Path) -> None:
    with answering(tmp_path, STATUS):
        result = run("status", "--data-dir", str(tmp_path))
    assert result.exit_code == 1, "it is not ready"
    assert result.output.splitlines() == [
        "edge-broker 0.1.0: NOT READY, up for 1 h 1 min (process 42)",
        "  ! store: the disk is full",
        "    make room",
        "",
        "listening mqtt://127.0.0.1:1883",
        "          mqtts://*:8883: not yet",
        "clients   2 connected, 1 away, 7 subscriptions",
        "messages  12.5/s in, 0/s out (since the start 12,345 in, 5 out), 4 retained",
        "          not delivered: 2 offline, 1 not allowed",
        "queues    session:a\\nb: 1 message, the oldest for 5 s",
        "disk      the store takes 4.1 MB, written today 12.3 MB, the card lasts more than 100 years at this rate, "
        "17 commits",
        "bridge    cloud: online, mqtts://up.example:8883, 1,200 messages to send, gone in about 1 min 0 s",
    ]


def test_status_of_a_broker_that_is_well(tmp_path: Path) -> None:
    with answering(tmp_path, STATUS | {"ready": True, "queues": [], "problems": []}):
        result = run("status", "--json", "--data-dir", str(tmp_path))
    assert result.exit_code == 0
    assert json.loads(result.output)["pid"] == 42
    lines = [click.unstyle(line) for line in status_view.lines(STATUS | {"ready": True, "queues": []})]
    assert lines[0].startswith("edge-broker 0.1.0: ready")
    assert "queues    nothing waits" in lines


def test_bridges_for_a_person() -> None:
    assert [click.unstyle(line) for line in bridge_view.lines([BRIDGE], now=1000.0)] == [
        "cloud: online, mqtts://up.example:8883, MQTT 5",
        "  waiting       1,200 messages, 240.0 kB, the oldest for 1 min 15 s; 100 under way",
        "  speed         20 messages/s fewer: gone in about 1 min 0 s",
        "  sent          2,001 (QoS 0: 1, 1: 2,000, 2: 0), acknowledged 1,900, sent again 3",
        "  received      4",
        "  dropped       5 expired",
        "  given up      1 packet_too_large",
        "  last answer   10 s ago",
        "  connections   2",
        "  last error    it went \\x1b[2Jaway (over: it is connected now)",
        "                look",
    ]


def test_the_priorities_of_a_bridge_are_told_in_the_order_in_which_they_go() -> None:
    lanes = [
        {"priority": "normal", "depth": 1200, "bytes": 240_000, "oldest_age_seconds": 75.0},
        {"priority": "high", "depth": 1, "bytes": 200, "oldest_age_seconds": None},
        {"priority": "low", "depth": 0, "bytes": 0, "oldest_age_seconds": 0.0},
    ]
    said = [click.unstyle(line) for line in bridge_view.lines([BRIDGE | {"lanes": lanes}], now=1000.0)]
    assert said[2:5] == [
        "    high        1 message, 200 B",
        "    normal      1,200 messages, 240.0 kB, the oldest for 1 min 15 s",
        "    low         nothing",
    ]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"drain_per_second": -5.0, "drained_in_seconds": None}, "5 messages/s more: it grows"),
        ({"drain_per_second": 0.0, "drained_in_seconds": None}, "the backlog stands still"),
        ({"drain_per_second": 0.0, "drained_in_seconds": None, "depth": 0}, "there is no backlog"),
    ],
)
def test_how_fast_a_backlog_goes(changes: dict[str, Any], said: str) -> None:
    assert any(said in line for line in bridge_view.lines([BRIDGE | changes], now=1000.0))


def test_a_policy_with_nothing_to_tell_tells_nothing() -> None:
    said = "\n".join(bridge_view.lines([BRIDGE], now=1000.0))
    for label in ("upstreams", "failovers", "breaker", "draining", "this month"):
        assert f"  {label}" not in said


def test_what_the_policy_tells() -> None:
    main_, spare = (
        BRIDGE["policy"]["upstreams"][0],
        {"url": "mqtts://spare\x1b", "priority": 1, "seconds": {}},
    )
    changes = {
        "breaker": "half-open",
        "breaker_opened": 1,
        "failovers": 3,
        "ejections": 2,
        "draining": 600,
        "drain_seconds": 120.0,
        "month_used_bytes": 5 << 20,
        "month_bytes": 20 << 20,
        "upstreams": [main_, spare | {"chosen": False, "ejected": True}],
    }
    said = "\n".join(bridge_view.lines([BRIDGE | {"policy": BRIDGE["policy"] | changes}], now=1000.0))
    assert "mqtts://up.example:8883 (priority 0): chosen, CONNACK 50 ms" in said
    assert r"mqtts://spare\x1b (priority 1): left alone" in said
    assert "3, left alone 2 times" in said
    assert "half-open, opened 1 time\n" in said
    assert "600 messages that waited, in 2 min" in said
    assert "(25%)" in said


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"lease": "off"}, "by themselves, towards MQTT 3.1.1"),
        ({"lease": "none"}, "no ingester has announced itself"),
        ({"lease": "held"}, "the ingester in\\x1b takes them"),
        (
            {"sent": 2, "messages": 1500, "bytes_before": 200_000, "bytes_after": 20_000, "fallen_apart": 1},
            "2 with 1,500 messages, 200.0 kB as 20.0 kB (10%), 1 fell apart; the ingester in\\x1b has not announced",
        ),
    ],
)
def test_what_envelopes_tell(changes: dict[str, Any], said: str) -> None:
    envelopes = {"lease": "expired", "ingester": "in\x1b", "sent": 0, "messages": 0} | changes
    lines = [
        click.unstyle(line) for line in bridge_view.lines([BRIDGE | {"envelopes": envelopes}], now=1000.0)
    ]
    [line] = [line for line in lines if line.startswith("  envelopes")]
    assert said in line


def test_bridge_status(tmp_path: Path) -> None:
    with answering(tmp_path, {"bridges": []}) as asked:
        result = run("bridge", "status", "--data-dir", str(tmp_path))
    assert asked == [{"command": "bridges"}]
    assert "there is no bridge" in result.output


def test_bridge_status_for_programs(tmp_path: Path) -> None:
    with answering(tmp_path, {"bridges": [BRIDGE]}):
        result = run("bridge", "status", "--json", "--data-dir", str(tmp_path))
    assert json.loads(result.output)["bridges"] == [BRIDGE]


def test_the_share_of_a_canary_is_shown() -> None:
    said = [click.unstyle(line) for line in bridge_view.lines([BRIDGE | {"canary_percent": 2.5}], now=1000.0)]
    assert "  canary        2.5 % of the topics go to cloud!canary" in said


@pytest.mark.parametrize(
    ("arguments", "answer", "request_", "said"),
    [
        (
            ["cloud"],
            {"name": "cloud", "percent": 2.5},
            {"name": "cloud"},
            "2.5 % of the topics of cloud go to its canary\n",
        ),
        (
            ["cloud", "10"],
            {"name": "cloud", "percent": 10.0, "before": 2.5},
            {"name": "cloud", "percent": 10.0},
            "10 % of the topics of cloud go to its canary, 2.5 % before; to keep it, write it into the file\n",
        ),
    ],
)
def test_bridge_canary(
    tmp_path: Path, arguments: list[str], answer: dict[str, Any], request_: dict[str, Any], said: str
) -> None:
    with answering(tmp_path, answer) as asked:
        result = run("bridge", "canary", *arguments, "--data-dir", str(tmp_path))
    assert asked == [{"command": "bridge canary"} | request_]
    assert result.output == said
    with_json = tmp_path / "json"
    with_json.mkdir()
    with answering(with_json, answer):
        result = run("bridge", "canary", *arguments, "--json", "--data-dir", str(with_json))
    assert json.loads(result.output) == answer


def test_a_share_is_a_percentage(tmp_path: Path) -> None:
    result = run("bridge", "canary", "cloud", "101", "--data-dir", str(tmp_path))
    assert result.exit_code == 2
    assert "0<=x<=100" in result.output


def test_watching_is_for_a_terminal(tmp_path: Path) -> None:
    result = run("bridge", "status", "--watch", "--data-dir", str(tmp_path))
    assert result.exit_code == 2
    assert "--watch is for a terminal" in result.output


def test_the_live_view(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """It looks again and again, until it is interrupted."""
    looks = iter([[BRIDGE], [BRIDGE | {"state": "backing-off", "connected": False}]])

    def look() -> list[dict[str, Any]]:
        found = next(looks, None)
        if found is None:
            raise KeyboardInterrupt
        return found

    with pytest.raises(KeyboardInterrupt):
        bridge_view.watch(look, 0)
    shown = capsys.readouterr().out
    assert "backing-off" in shown


@pytest.mark.parametrize("taken_over", [True, False])
def test_reload(tmp_path: Path, taken_over: bool) -> None:
    answer = {"reloaded": taken_over, "log": [{"level": "warning", "message": "x\ny"}]}
    with answering(tmp_path, answer) as asked:
        result = run("reload", "--data-dir", str(tmp_path))
    assert asked == [{"command": "reload"}]
    assert result.exit_code == (0 if taken_over else 1)
    assert result.output.splitlines()[0] == "warning: x\\ny"
    with_json = tmp_path / "json"
    with_json.mkdir()
    with answering(with_json, answer):
        assert json.loads(run("reload", "--json", "--data-dir", str(with_json)).output) == answer


def test_a_reload_that_left_a_file_out_is_none(tmp_path: Path) -> None:
    line = {"level": "error", "message": "ACL: the new file is refused, the old one stays in force: x"}
    with answering(tmp_path, {"reloaded": True, "log": [line]}):
        result = run("reload", "--data-dir", str(tmp_path))
    assert result.exit_code == 1
    assert result.output.splitlines()[-1] == "taken over, but not the files that are refused above"


@pytest.mark.parametrize("command", [["trace"], ["status"], ["bridge", "status"]])
def test_help_has_examples(command: list[str]) -> None:
    result = run(*command, "--help")
    assert result.exit_code == 0
    assert "Examples:" in result.output


def test_numbers() -> None:
    assert [count(number) for number in (0, 0.25, 12.5, 1234.5, 1_000_000)] == [
        "0",
        "0.2",
        "12.5",
        "1,234",
        "1,000,000",
    ]
    assert (plural(1, "step"), plural(2, "step")) == ("1 step", "2 steps")


@pytest.mark.parametrize(
    ("changes", "label", "said"),
    [
        (
            {"skipped": {"announced": 1200, "refused": 0, "waiting": 0}},
            "announced",
            "1,200 of what was dropped",
        ),
        (
            {"skipped": {"announced": 5, "refused": 2, "waiting": 3}},
            "announced",
            "5 of what was dropped, the upstream refused to take it for 2, more is to be",
        ),
        ({"late": 3, "received": [3, 4, 0]}, "received", "7, 3 late"),
    ],
)
def test_what_was_skipped_and_what_came_late(changes: dict[str, Any], label: str, said: str) -> None:
    lines = [click.unstyle(line) for line in bridge_view.lines([BRIDGE | changes], now=1000.0)]
    [line] = [line for line in lines if line.startswith(f"  {label}")]
    assert line.split(maxsplit=1)[1] == said
    usual = [click.unstyle(line) for line in bridge_view.lines([BRIDGE], now=1000.0)]
    assert not any("announced" in line or "late" in line for line in usual)
