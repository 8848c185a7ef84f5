"""Brokers as real processes: one per event loop for tests that only talk to it, and new ones for those that do more."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from edge_broker.security.authority import Authority
from tests.integration.broker_process import BrokerProcess

StartBroker = Callable[..., BrokerProcess]


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `ca.crt`, pairs `server` and `client` under it, and `stranger`, whom another authority signed."""
    folder = tmp_path_factory.mktemp("pki")
    now, day = datetime.now(UTC), timedelta(days=1)
    ours = Authority("ours", now, day)
    (folder / "ca.crt").write_bytes(ours.certificate)
    ours.issue("gateway", now, day, hosts=("localhost", "127.0.0.1")).write(folder, "server")
    ours.issue("sensor-1", now, day).write(folder, "client")
    Authority("others", now, day).issue("sensor-1", now, day).write(folder, "stranger")
    return folder


@pytest.fixture(scope="module", params=["uvloop", "asyncio"])
def broker(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, pki: Path
) -> Iterator[BrokerProcess]:
    """A running broker that the tests of a module share: plain on `ports[0]`, mutual TLS on `ports[1]`."""
    tls = (
        f'transport = "tls"\ncertificate = "{pki}/server.crt"\nkey = "{pki}/server.key"\n'
        f'client_ca = "{pki}/ca.crt"\nanonymous = false'
    )
    settings = "[limits]\nmax_packet_bytes = 4194304\nconnect_timeout_seconds = 0.5\n"
    process = BrokerProcess(tmp_path_factory.mktemp("broker"), settings, ("", tls), request.param)
    process.start()
    yield process
    assert process.process is not None
    assert process.process.poll() is None, f"it ended by itself:\n{process.log}"
    assert process.stop() == 0
    assert "Traceback" not in process.log
    assert "internal error" not in process.log


@pytest.fixture
def start_broker(tmp_path: Path) -> Iterator[StartBroker]:
    """Starts brokers of the test's own; whatever still runs at the end is stopped."""
    started: list[BrokerProcess] = []

    def start(name: str = "broker", **options: object) -> BrokerProcess:
        process = BrokerProcess(tmp_path / name, **options)  # type: ignore[arg-type]
        started.append(process)
        return process.start()

    yield start
    for process in started:
        process.stop()
