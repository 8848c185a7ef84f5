"""A broker of the test's own, as a process, that tells its metrics; and two honest clients on it."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.hostile.peer import Pair
from tests.integration.broker_process import BrokerProcess, until
from tests.ops.gateway import Scrape

LIMITS = {"connect_timeout_seconds": 0.5, "max_output_bytes": 65_536}


class Watched:
    """A running broker and what it says of itself."""

    def __init__(self, process: BrokerProcess) -> None:
        self.process = process
        self.port = process.port
        pattern = re.compile(r"health and metrics on (http://\S+)\s")
        until(lambda: pattern.search(process.log), "its metrics are nowhere")
        self._url = pattern.findall(process.log)[0]

    def scrape(self) -> Scrape:
        """All metrics, now."""
        with urllib.request.urlopen(f"{self._url}/metrics", timeout=20) as response:
            return Scrape(response.read().decode())

    def get(self, name: str, **labels: str) -> float:
        """One metric, now; 0 where nothing was counted yet."""
        return self.scrape().get(name, **labels) or 0.0

    def refused(self) -> dict[str, int]:
        """Connections refused or ended for what the client did, by reason."""
        return {
            reason: int(n) for reason, n in self.scrape().of("connections_refused_total", "reason").items()
        }

    def dropped(self) -> dict[str, int]:
        """Messages dropped, by reason, without those of which there are none."""
        counts = self.scrape().of("messages_dropped_total", "reason")
        return {reason: int(count) for reason, count in counts.items() if count}

    def sent(self, qos: int) -> int:
        return int(self.get("messages_sent_total", qos=str(qos)))

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Wait for what a metric shows sooner or later."""
        until(condition, f"{what}; refused {self.refused()}, dropped {self.dropped()}")

    @property
    def memory_bytes(self) -> int:
        """What the process has in memory."""
        return int(psutil.Process(self.process.pid).memory_info().rss)


Start = Callable[..., Watched]


@pytest.fixture(params=["uvloop", "asyncio"])
def loop(request: pytest.FixtureRequest) -> str:
    """Both event loops, for what depends on transports; other tests take the default one."""
    return str(request.param)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts brokers with other `limits` and `sessions`; at the end each must have had no fault of its own."""
    started: list[BrokerProcess] = []

    def begin(loop: str = "auto", sessions: dict[str, object] | None = None, **limits: object) -> Watched:
        sections = {"limits": LIMITS | limits, "sessions": sessions or {}}
        settings = '[http]\nbind = "127.0.0.1:0"\n' + "".join(
            f"[{name}]\n" + "".join(f"{key} = {value}\n" for key, value in section.items())
            for name, section in sections.items()
        )
        process = BrokerProcess(tmp_path / f"broker-{len(started)}", settings, loop=loop)
        started.append(process)
        return Watched(process.start())

    yield begin
    for process in started:
        assert process.process is not None
        assert process.process.poll() is None, f"it ended by itself:\n{process.log}"
        assert process.stop() == 0
        assert "Traceback" not in process.log
        assert "internal error" not in process.log


@pytest.fixture
def watched(start: Start) -> Watched:
    """One with the limits that most tests want."""
    return start()


@pytest.fixture
def pair(watched: Watched) -> Iterator[Pair]:
    """Publisher and subscriber on `watched`, who see at the end, too, that messages still pass."""
    with Pair(watched.port) as found:
        yield found
