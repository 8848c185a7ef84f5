"""A real mosquitto on a free port, for the tests of a device."""

import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from tests.conftest import do_without

FAIR_LOAD = """
max_inflight_messages 0
max_queued_messages 0
set_tcp_nodelay true
log_type error
"""


def need(program: str) -> str:
    """The path of a real program; skips where it is missing, and fails there in CI."""
    path = shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")
    if path is None:
        do_without(f"{program} is not installed")
    return path


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


class Mosquitto:
    """Starts, stops and starts again on the same port."""

    def __init__(
        self, directory: Path, *, persistent: bool = False, listener: str = "", beside: bool = False
    ) -> None:
        """`listener`: how the one at `port` is set up; `beside`: have a plain one at `plain_port`, too."""
        self._program = need("mosquitto")
        self.port = free_port()
        self.url = f"mqtt://127.0.0.1:{self.port}"
        directory.mkdir(parents=True, exist_ok=True)
        self._config = directory / "mosquitto.conf"
        self.log = directory / "mosquitto.log"
        self._process: subprocess.Popen[bytes] | None = None
        store = (
            f"persistence true\npersistence_location {directory}/\n" if persistent else "persistence false\n"
        )
        self.plain_port = free_port()
        first = f"listener {self.plain_port} 127.0.0.1\n" if beside else ""
        # As root it would step down to a user that may not read the test's files.
        listener = listener or "allow_anonymous true"
        self._config.write_text(
            f"user root\n{FAIR_LOAD}{store}{first}listener {self.port} 127.0.0.1\n{listener}\n"
        )

    def start(self) -> "Mosquitto":
        with self.log.open("ab") as log:
            self._process = subprocess.Popen([self._program, "-c", self._config], stdout=log, stderr=log)
        wait_until(self._listens, "mosquitto did not start: " + str(self.log))
        return self

    def _listens(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log.read_text()
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        if self._process is not None:
            self.send(signal.SIGCONT)
            self.send(number)
            self._process.wait(10)
            self._process = None


def wait_until(condition, why: str, timeout_seconds: float = 20.0) -> None:
    """Poll the condition; AssertionError when it does not come true."""
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        assert time.monotonic() < deadline, why
        time.sleep(0.005)
