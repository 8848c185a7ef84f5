"""The broker with its bridge as a process of its own, started and killed again and again on the same port."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent.parent
START_SECONDS: Final = 60.0
_LISTENING: Final = re.compile(rb"listening on mqtt://\S*?:(\d+)\s")


class Gateway:
    """`module` is what runs: the broker, or a control that breaks its promise. `port` is the kernel's choice at the
    first start, and the same ever after. The log of all starts is `log_path`."""

    def __init__(
        self,
        directory: Path,
        data_dir: Path,
        upstream_port: int,
        module: str = "edge_broker",
        settings: str = "",
    ) -> None:
        self.port = 0
        self.log_path = directory / "gateway.log"
        self._config = directory / "gateway.toml"
        self._data_dir, self._upstream_port, self._module = data_dir, upstream_port, module
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None

    def launch(self) -> int:
        """Start it and wait for nothing; where its log begins."""
        self._config.write_text(f"""\
data_dir = "{self._data_dir}"
[[listeners]]
bind = "127.0.0.1:{self.port}"
[[bridges]]
name = "up"
urls = ["mqtt://127.0.0.1:{self._upstream_port}"]
client_id = "gateway"
backoff_initial_seconds = 0.1
backoff_max_seconds = 0.2
window = 100
out = [{{ filter = "t/1/#", qos = 1 }}, {{ filter = "t/2/#", qos = 2 }}]
in = [{{ filter = "d/1/#", qos = 1 }}, {{ filter = "d/2/#", qos = 2 }}]
{self._settings}""")
        with self.log_path.open("ab") as log:
            begins_at = log.tell()
            self._process = subprocess.Popen(
                [sys.executable, "-m", self._module, "run", "--config", str(self._config)],
                stdout=log,
                stderr=log,
                cwd=ROOT,
            )
        return begins_at

    async def start(self) -> None:
        """Start it and wait until it listens; AssertionError with its log if it does not."""
        begins_at = self.launch()
        async with asyncio.timeout(START_SECONDS):
            while not (listening := _LISTENING.search(self._log(begins_at))):
                process = self._process
                assert process is not None
                if process.poll() is not None:
                    raise AssertionError(
                        f"it ended by itself:\n{self._log(begins_at).decode(errors='replace')}"
                    )
                await asyncio.sleep(0.005)
        self.port = int(listening[1])

    def freeze(self) -> None:
        """Stop it where it is; system calls that it is in come to their end first, unseen by it."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        threads = Path(f"/proc/{self._process.pid}/task")
        while any(_state(thread) not in "TXZ" for thread in threads.iterdir()):
            pass  # microseconds; at most a sync

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def _log(self, begins_at: int) -> bytes:
        with self.log_path.open("rb") as log:
            log.seek(begins_at)
            return log.read()


def _state(thread: Path) -> str:
    """The kernel's letter for what a thread does; X where it has ended."""
    try:
        return (thread / "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "X"
