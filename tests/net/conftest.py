"""Certificates made once, and both event loops: what runs here must run on either."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import uvloop

from edge_broker.security.authority import Authority

Run = Callable[[Coroutine[Any, Any, None]], None]
DAY = timedelta(days=1)


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a coroutine to its end on one event loop and on the other."""

    def run_it(coroutine: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(coroutine)

    return run_it


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `ca.crt`, pairs `server` and `client` under it, and `stranger`, whom another authority signed."""
    folder = tmp_path_factory.mktemp("pki")
    now = datetime.now(UTC)
    ours, others = Authority("ours", now, DAY), Authority("others", now, DAY)
    (folder / "ca.crt").write_bytes(ours.certificate)
    (folder / "other-ca.crt").write_bytes(others.certificate)
    ours.issue("gateway", now, DAY, hosts=("localhost", "127.0.0.1")).write(folder, "server")
    ours.issue("gateway-2", now, DAY, hosts=("localhost", "127.0.0.1")).write(folder, "renewed")
    ours.issue("sensor-1", now, DAY, hosts=("sensor.local",), uris=("spiffe://home/sensor",)).write(
        folder, "client"
    )
    ours.issue("yesterday", now - 3 * DAY, DAY).write(folder, "expired")
    others.issue("sensor-1", now, DAY).write(folder, "stranger")
    return folder
