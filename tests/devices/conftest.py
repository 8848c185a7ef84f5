from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.devices.collector import Collector
from tests.devices.cutting_proxy import CuttingProxy
from tests.devices.mosquitto import Mosquitto


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    """A running mosquitto that forgets everything when it stops."""
    broker = Mosquitto(tmp_path / "mosquitto").start()
    yield broker
    broker.stop()


@pytest.fixture
def keeping_mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    """A running mosquitto that keeps sessions and messages over a clean stop."""
    broker = Mosquitto(tmp_path / "mosquitto", persistent=True).start()
    yield broker
    broker.stop()


@pytest.fixture
def proxy(mosquitto: Mosquitto) -> Iterator[CuttingProxy]:
    """The network between a device and that mosquitto."""
    proxy = CuttingProxy(mosquitto.port)
    yield proxy
    proxy.close()


@pytest.fixture
def collect() -> Iterator[Callable[..., Collector]]:
    """Make collectors that are closed at the end."""
    made: list[Collector] = []

    def make(*args: object, **kwargs: object) -> Collector:
        collector = Collector(*args, **kwargs)  # type: ignore[arg-type]
        made.append(collector)
        return collector

    yield make
    for collector in made:
        collector.close()
