"""The broker as it is run: a process of its own, configured by a file, stopped and killed by its pid."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

WAIT_SECONDS = 30.0


def until(
    condition: Callable[[], object], what: str = "in vain", timeout_seconds: float = WAIT_SECONDS
) -> None:
    """Wait for `condition`; AssertionError with `what` if it does not come true."""
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.005)


class BrokerProcess:
    """`python -m edge_broker run` on `directory`. `settings`: TOML that goes to the end of its configuration.

    `listeners`: TOML tables; the default is one plain listener on a free port of loopback. `ports` has one port for
    each. The ports stay the same from start to start.
    """

    def __init__(
        self,
        directory: Path,
        settings: str = "",
        listeners: tuple[str, ...] = ("",),
        loop: str = "auto",
        environ: dict[str, str] | None = None,
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.data_dir = directory / "data"
        self.ports = [0] * len(listeners)
        self.process: subprocess.Popen[bytes] | None = None
        self._settings, self._listeners = settings, listeners
        self._environ = os.environ | {"EDGE_BROKER_LOOP": loop, "PYTHONUNBUFFERED": "1"} | (environ or {})
        self._log = directory / "log"

    @property
    def port(self) -> int:
        return self.ports[0]

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def launch(self) -> subprocess.Popen[bytes]:
        """Start it, without waiting for anything."""
        tables = [
            f'[[listeners]]\nbind = "127.0.0.1:{port}"\n{keys}\n'
            for port, keys in zip(self.ports, self._listeners, strict=True)
        ]
        config = self.directory / "edge-broker.toml"
        config.write_text(f'data_dir = "{self.data_dir}"\n{"".join(tables)}\n{self._settings}\n')
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "edge_broker", "run", "--config", str(config)],
                stdout=log,
                stderr=log,
                env=self._environ,
            )
        return self.process

    def start(self) -> BrokerProcess:
        """Start it and wait until it listens, and all that comes after that has begun too: HTTP, the control socket."""
        process = self.launch()
        pattern = re.compile(r"listening on mqtts?://\S*?:(\d+)\s")

        def listens() -> bool:
            assert process.poll() is None, f"it ended by itself:\n{self.log}"
            return len(pattern.findall(self.log)) >= len(self.ports) and "started: epoch" in self.log

        until(listens, "it does not listen")
        self.ports = [int(port) for port in pattern.findall(self.log)[: len(self.ports)]]
        return self

    def kill(self) -> None:
        """kill -9."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM; its exit code."""
        return self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> int:
        process, self.process = self.process, None
        if process is None:
            return 0
        process.send_signal(number)
        return process.wait(WAIT_SECONDS)
