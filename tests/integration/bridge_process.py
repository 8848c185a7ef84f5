"""`edge-broker run` as a process of its own, configured by a file that a test writes, ended as the test likes."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from tests.bridge.real import until


class Process:
    """`directory` is its own. `configure`, then `start`; `url` is where it listens then."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._log = directory / "log"
        self._config = directory / "edge-broker.toml"
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""

    def configure(self, bridge_keys: str) -> None:
        """What counts from the next start on: one listener, and one bridge, `cloud`, that loses no time."""
        self._config.write_text(
            f'data_dir = "{self._directory}/data"\n[[listeners]]\nbind = "127.0.0.1:0"\n[[bridges]]\nname = "cloud"\n'
            f"backoff_initial_seconds = 0.05\nbackoff_max_seconds = 0.2\n{bridge_keys}\n"
        )

    async def start(self) -> None:
        self._log.unlink(missing_ok=True)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "edge_broker", "run", "--config", self._config],
                stderr=log,
                env=os.environ | {"PYTHONUNBUFFERED": "1"},
            )
        await until(lambda: re.search(r"listening on (mqtt://\S+)", self.log), f"did not start: {self._log}")
        found = re.search(r"listening on (mqtt://\S+)", self.log)
        assert found is not None
        self.url = found[1].rstrip(",")

    @property
    def log(self) -> str:
        return self._log.read_text()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        process.send_signal(number)
        return process.wait(20)
