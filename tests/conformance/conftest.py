"""Fixtures: `broker`, which the tests of a module share, `start_broker` for one of a test's own, and a `topic`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.harness import RunningBroker
from tests.conformance.wire import fresh

StartBroker = Callable[..., RunningBroker]


def pytest_configure(config: pytest.Config) -> None:
    """The marker that `normative` sets."""
    config.addinivalue_line("markers", "normative(*ids): the normative statements that this test is about")


@pytest.fixture(scope="module")
def _module_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBroker]:
    broker = RunningBroker(tmp_path_factory.mktemp("broker") / "data", store={"commit_delay_ms": 1}).start()
    yield broker
    broker.close_wires()
    broker.stop()


@pytest.fixture
def broker(_module_broker: RunningBroker) -> Iterator[RunningBroker]:
    """A running broker with the default limits. It is shared: use the `topic` fixture and fresh client identifiers."""
    yield _module_broker
    _module_broker.close_wires()
    _module_broker.assert_sound()


@pytest.fixture
def start_broker(tmp_path: Path) -> Iterator[StartBroker]:
    """Starts a broker of the test's own: ``start_broker(limits={"max_packet_bytes": 128})``; stopped at the end."""
    started: list[RunningBroker] = []

    def start(**sections: Any) -> RunningBroker:
        sections = {"store": {"commit_delay_ms": 1}} | sections
        started.append(RunningBroker(tmp_path / f"data{len(started)}", **sections))
        return started[-1].start()

    yield start
    for broker in started:
        broker.close_wires()
        broker.stop()


@pytest.fixture
def topic() -> str:
    """A topic that no other test has."""
    return fresh("topic-")
