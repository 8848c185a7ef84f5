"""The topics under `$SYS`: what they say of a real broker, when they are published, and the averages by hand."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from edge_broker import __version__
from edge_broker.broker import Broker
from edge_broker.core.message import build_message
from edge_broker.ops import system_topics
from edge_broker.ops.system_topics import PREFIX, Load, SystemTopics
from edge_broker.store import Store
from tests.ops.gateway import PUBLISH, Client, bridge_to, gateway, until

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "monitoring.md"
NOBODY_LISTENS = "mqtt://127.0.0.1:1"
LOADS = (
    "messages/received",
    "messages/sent",
    "publish/received",
    "publish/sent",
    "publish/dropped",
    "sockets",
)


class Board:
    """Whoever reads the topics of `broker`, which started at 100 s of a clock that the test moves."""

    def __init__(self, broker: Broker, interval_seconds: float = 10) -> None:
        self.published: list[tuple[str, bytes]] = []
        self.topics = SystemTopics(broker, self._take, interval_seconds, 100.0)
        self.last: dict[str, str] = {}

    def _take(self, topic: str, payload: bytes) -> None:
        assert topic.startswith(PREFIX)
        self.published.append((topic, payload))
        self.last[topic.removeprefix(PREFIX)] = payload.decode()

    def at(self, now: float) -> dict[str, str]:
        """What is published at `now`, by topic."""
        self.published.clear()
        self.topics.update(now)
        return {topic.removeprefix(PREFIX): payload.decode() for topic, payload in self.published}


# ---- averages


def test_a_load_by_hand() -> None:
    load = Load(100)
    assert load.per_minute == [0, 0, 0]
    load.update(110, 60.0)
    assert load.per_minute == pytest.approx([10 * (1 - math.exp(-60 / window)) for window in (60, 300, 900)])
    before = load.per_minute
    load.update(110, 60.0)
    assert load.per_minute == pytest.approx(
        [average * math.exp(-60 / window) for average, window in zip(before, (60, 300, 900), strict=True)]
    )


@pytest.mark.parametrize(
    ("count", "shown"),
    [(1, ["0.98", "0.20", "0.07"]), (2, ["1.97", "0.40", "0.13"]), (57, ["56.06", "11.36", "3.80"])],
)
def test_a_load_as_mosquitto_shows_it(count: int, shown: list[str]) -> None:
    """What mosquitto 2.0.11 published two seconds after its first look, when so many had come."""
    load = Load(0)
    load.update(count, 2.0)
    assert [f"{average:.2f}" for average in load.per_minute] == shown


@pytest.mark.parametrize("interval_seconds", [1, 10, 60])
def test_a_steady_rate_is_what_the_load_comes_to(interval_seconds: int) -> None:
    load = Load(0)
    for step in range(1, 3 * 3600 // interval_seconds):
        load.update(step * interval_seconds * 2, interval_seconds)
    assert load.per_minute == pytest.approx([120, 120, 120], rel=0.001)


def test_how_often_one_looks_makes_no_difference() -> None:
    often, seldom = Load(0), Load(0)
    for second in range(1, 61):
        often.update(second, 1.0)
    seldom.update(60, 60.0)
    assert often.per_minute == pytest.approx(seldom.per_minute)


# ---- when


async def test_everything_at_first_then_what_changed(state_dir: Path) -> None:
    async with gateway(state_dir, sys_interval_seconds=0) as broker:
        board = Board(broker)
        first = board.at(100.0)
        assert {f"load/{name}/{window}" for name in LOADS for window in ("1min", "5min", "15min")} <= set(
            first
        )
        assert first["version"] == f"edge-broker version {__version__}"
        assert first["uptime"] == "0 seconds"
        assert {value for name, value in first.items() if name.startswith("load/")} == {"0.00"}
        assert board.at(109.9) == {}
        later = board.at(110.0)
        assert later["uptime"] == "10 seconds"
        assert set(later) <= {"uptime", "heap/current", "heap/maximum", "store/messages/bytes"}
        broker.router.counters.received[1] += 1
        assert board.at(119.9) == {}
        assert {"messages/received", "load/publish/received/1min"} <= set(board.at(120.0))


async def test_intervals_do_not_drift_and_are_not_made_up_for(state_dir: Path) -> None:
    async with gateway(state_dir, sys_interval_seconds=0) as broker:
        board = Board(broker)
        published = [
            now for now in (100.0, 105.0, 110.9, 119.9, 120.1, 175.0, 175.1, 184.9, 185.0) if board.at(now)
        ]
        assert published == [100.0, 110.9, 120.1, 175.0, 185.0]
        assert board.last["uptime"] == "85 seconds"


# ---- what


async def test_clients_and_messages(state_dir: Path) -> None:
    async with gateway(state_dir, sys_interval_seconds=0) as broker:
        board = Board(broker)
        board.at(100.0)
        reader = await (await Client.connect(broker, "reader", session_expiry_seconds=60)).subscribe("a/#")
        writer = await Client.connect(broker, "writer")
        writer.publish("a/1", qos=0)
        await writer.publish_all("a/1", 2)
        for _ in range(3):
            await reader.read(PUBLISH)
        board.at(160.0)
        await reader.leave()
        await writer.leave()
        await until(lambda: not broker.connections, "they are still connected")
        both, last = board.last.copy(), board.last
        board.at(220.0)
    assert counts(both, "clients") == {
        "connected": 2,
        "disconnected": 0,
        "total": 2,
        "maximum": 2,
        "expired": 0,
    }
    assert counts(last, "clients") == {
        "connected": 0,
        "disconnected": 1,
        "total": 1,
        "maximum": 2,
        "expired": 0,
    }
    assert (both["subscriptions/count"], last["subscriptions/count"]) == ("1", "1")
    for name in ("received", "sent"):
        assert both[f"messages/{name}"] == both[f"publish/messages/{name}"] == "3"
        assert both[f"load/messages/{name}/1min"] == f"{3 * (1 - math.exp(-1)):.2f}"
        assert both[f"load/publish/{name}/15min"] == f"{3 * (1 - math.exp(-60 / 900)):.2f}"
        assert last[f"load/publish/{name}/1min"] == f"{3 * (1 - math.exp(-1)) * math.exp(-1):.2f}"
    assert both["load/sockets/5min"] == f"{2 * (1 - math.exp(-60 / 300)):.2f}"
    assert both["publish/messages/dropped"] == "0"


async def test_what_is_kept(state_dir: Path) -> None:
    async with gateway(state_dir, [bridge_to(NOBODY_LISTENS)], sys_interval_seconds=0) as broker:
        board = Board(broker)
        keeper = await (await Client.connect(broker, "keeper", session_expiry_seconds=60)).subscribe("up/1")
        await keeper.leave()
        await until(lambda: not broker.router.sessions["keeper"].online, "it is still connected")
        writer = await Client.connect(broker, "writer")
        await writer.publish_all("up/1", 3)  # for the session and for the bridge
        broker.router.publish(build_message("b/1", b"1", retain=True), None)
        board.at(100.0)
        assert board.last["retained messages/count"] == "1"
        assert board.last["store/messages/count"] == board.last["messages/stored"] == "7"
        assert board.last["store/messages/bytes"] == str(broker.store.file_bytes)
        await writer.leave()


async def test_its_own_topics_do_not_count_as_retained(state_dir: Path) -> None:
    async with gateway(state_dir, sys_interval_seconds=0) as broker:
        router = broker.router
        topics = SystemTopics(broker, router.publish_system, 10, 100.0)
        for now in (100.0, 110.0):
            topics.update(now)
            assert len(router.retained) > 30
            for topic in ("retained messages/count", "store/messages/count"):
                message = router.retained.get(PREFIX + topic)
                assert message is not None
                assert message.payload == b"0"


async def test_dropped_is_what_a_limit_took(state_dir: Path) -> None:
    async with gateway(state_dir, sys_interval_seconds=0) as broker:
        board = Board(broker)
        board.at(100.0)
        drop = broker.router.counters.drop
        for reason in ("offline", "expired", "session_ended"):
            drop(reason, 5)
        assert "publish/messages/dropped" not in board.at(110.0)
        drop("slow_subscriber")
        drop("lost", 2)
        assert board.at(120.0)["publish/messages/dropped"] == "3"
        assert float(board.last["load/publish/dropped/1min"]) > 0


async def test_memory(state_dir: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async with gateway(state_dir, sys_interval_seconds=0) as broker:
        board = Board(broker)
        board.at(100.0)
        current, maximum = int(board.last["heap/current"]), int(board.last["heap/maximum"])
        assert 10_000_000 < current < 10_000_000_000
        assert current <= maximum * 1.1  # the kernel keeps both in batches of its own
        monkeypatch.setattr(system_topics, "_PROCESS_MEMORY", tmp_path / "not there")
        without = Board(broker)
        without.at(100.0)
        assert "heap/current" not in without.last
        assert "heap/maximum" in without.last


async def test_a_disk_that_cannot_be_looked_at(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Store) -> int:
        raise OSError(5, "the card is gone")

    async with gateway(state_dir, sys_interval_seconds=0) as broker:
        board = Board(broker)
        monkeypatch.setattr(Store, "file_bytes", property(refuse))
        first = board.at(100.0)
        assert "store/messages/bytes" not in first
        assert {"store/messages/count", "heap/maximum", "load/sockets/1min"} <= set(first)


# ---- in the broker


async def test_a_fault_in_them_stops_nothing_else(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def break_down(*_: object) -> None:
        raise RuntimeError("a fault of ours")

    async with gateway(state_dir) as broker:
        monkeypatch.setattr(SystemTopics, "update", break_down)
        swept_at = broker.swept_at
        await until(lambda: broker.swept_at > swept_at, "the every-second work did not run")
        swept_at = broker.swept_at
        await until(lambda: broker.swept_at > swept_at, "it ran once and never again")
        client = await Client.connect(broker, "client")
        await client.leave()
    assert "internal error in the topics under $SYS" in caplog.text


async def test_the_documentation_names_them_all(state_dir: Path) -> None:
    text = DOCUMENT.read_text("utf-8")
    async with gateway(state_dir, sys_interval_seconds=0) as broker:
        board = Board(broker)
        names = {name.removesuffix("/1min") for name in board.at(100.0) if not name.endswith("5min")}
    assert len(names) > 20
    assert [name for name in sorted(names) if f"`{name}`" not in text] == []


def counts(topics: dict[str, str], group: str) -> dict[str, int]:
    """The whole numbers under `group`."""
    return {
        name.removeprefix(f"{group}/"): int(value)
        for name, value in topics.items()
        if name.startswith(f"{group}/")
    }
