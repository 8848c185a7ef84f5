"""`edge-broker run` as a process: it serves, it obeys signals, it ends with a code and a sentence that help."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Queue

import pytest

CONNECT = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01a"
CONNACK = b"\x20\x02\x00\x00"
WAIT_SECONDS = 30


class Run:
    """A started `edge-broker run`; its log is read as it comes."""

    def __init__(self, arguments: list[str], environ: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "edge_broker", "run", *arguments],
            stderr=subprocess.PIPE,
            text=True,
            env=environ,
        )
        self.log: list[str] = []
        self._lines: Queue[str | None] = Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def wait_for(self, pattern: str) -> re.Match[str]:
        """The first line from now on in which `pattern` is found."""
        while True:
            line = self._lines.get(timeout=WAIT_SECONDS)
            assert line is not None, f"ended without {pattern!r}:\n" + "\n".join(self.log)
            self.log.append(line)
            found = re.search(pattern, line)
            if found:
                return found

    def wait_until_serving(self) -> int:
        """The port."""
        return int(self.wait_for(r"listening on mqtt://127\.0\.0\.1:(\d+)")[1])

    def end(self) -> int:
        """Wait for its end: the exit code; the rest of the log is then in `log`."""
        code = self.process.wait(WAIT_SECONDS)
        self._reader.join(WAIT_SECONDS)
        while (line := self._lines.get(timeout=WAIT_SECONDS)) is not None:
            self.log.append(line)
        return code


Start = Callable[..., Run]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts it with a configuration given as text, beside which its data lies."""
    runs: list[Run] = []

    def start_it(text: str | None, **environ: str) -> Run:
        base = {name: value for name, value in os.environ.items() if not name.startswith("EDGE_BROKER_")}
        for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "JOURNAL_STREAM", "STATE_DIRECTORY"):
            base.pop(name, None)
        arguments = []
        if text is not None:
            (tmp_path / "edge-broker.toml").write_text(text)
            arguments = ["--config", str(tmp_path / "edge-broker.toml")]
        runs.append(Run(arguments, base | environ))
        return runs[-1]

    yield start_it
    for run in runs:
        if run.process.poll() is None:
            run.process.kill()
        run.process.wait(WAIT_SECONDS)
        assert run.process.stderr is not None
        run._reader.join(WAIT_SECONDS)
        run.process.stderr.close()


CONFIG = 'data_dir = "data"\n[[listeners]]\nbind = "127.0.0.1:0"\n'


def connect(port: int) -> bytes:
    """What a CONNECT is answered."""
    with socket.create_connection(("127.0.0.1", port), timeout=WAIT_SECONDS) as client:
        client.sendall(CONNECT)
        return client.recv(100)


@pytest.mark.parametrize(("number", "loop"), [(signal.SIGTERM, "auto"), (signal.SIGINT, "asyncio")])
def test_it_serves_until_it_is_told_to_stop(start: Start, tmp_path: Path, number: int, loop: str) -> None:
    run = start(CONFIG, EDGE_BROKER_LOOP=loop)
    assert connect(run.wait_until_serving()) == CONNACK
    run.process.send_signal(number)
    assert run.end() == 0
    assert (tmp_path / "data").is_dir()
    assert "Traceback" not in "\n".join(run.log)


def test_without_a_file_it_says_what_it_does_and_where_the_data_is(start: Start, tmp_path: Path) -> None:
    """The port is the standard one, so somebody else may have it; what it says comes before that."""
    run = start(None, HOME=str(tmp_path), XDG_STATE_HOME="")
    run.wait_for(
        rf"no configuration file: anonymous MQTT on 127\.0\.0\.1:1883, data in {tmp_path}/\.local/state/edge-broker"
    )
    run.process.terminate()
    run.end()


def test_a_wrong_configuration_ends_with_2(start: Start, tmp_path: Path) -> None:
    run = start(CONFIG + "anonymos = true\n")
    assert run.end() == 2
    assert run.log == [
        f"edge-broker does not start: {tmp_path}/edge-broker.toml: 1 mistake",
        "  listeners[0].anonymos: is not a known key",
        "      did you mean anonymous?",
    ]
    assert not (tmp_path / "data").exists()


def test_a_port_in_use_ends_with_1_and_one_clear_line(start: Start) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        bind = f"127.0.0.1:{other.getsockname()[1]}"
        run = start(f'data_dir = "data"\n[[listeners]]\nbind = "{bind}"\n')
        assert run.end() == 1
    (error,) = (line for line in run.log if " error " in line)
    assert f"does not start: mqtt://{bind} is in use (stop the program that listens there" in error
    assert "Traceback" not in "\n".join(run.log)


def test_a_data_directory_that_cannot_be_ends_with_1_and_a_clear_line(start: Start) -> None:
    run = start(CONFIG.replace('"data"', '"/dev/null/data"'))
    assert run.end() == 1
    (error,) = (line for line in run.log if " error " in line)
    assert "does not start" in error
    assert "/dev/null/data" in error
    assert "Traceback" not in "\n".join(run.log)


def test_sighup_reads_the_file_again_and_refuses_a_wrong_one(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "edge-broker.toml"
    run = start(CONFIG)
    port = run.wait_until_serving()
    path.write_text(CONFIG + "[log]\nlevel = 'loud'\n")
    run.process.send_signal(signal.SIGHUP)
    run.wait_for("1 mistake, so the configuration stays as it was")
    run.wait_for("log.level: cannot be 'loud'")
    assert connect(port) == CONNACK
    path.write_text(CONFIG + "[limits]\nmax_connections = 5\n[log]\nformat = 'json'\n")
    run.process.send_signal(signal.SIGHUP)
    run.wait_for(r'^\{.*"changed, but only from the next start on: limits.max_connections"')
    assert connect(port) == CONNACK
    run.process.terminate()
    assert run.end() == 0


def test_systemd_hears_of_it(start: Start, tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address)
        manager.settimeout(WAIT_SECONDS)
        run = start(CONFIG, NOTIFY_SOCKET=address, WATCHDOG_USEC="100000")
        port = run.wait_until_serving()
        ready = manager.recv(4096).decode()
        assert ready.startswith("READY=1\nSTATUS=edge-broker ")
        assert ready.endswith(f"listening on mqtt://127.0.0.1:{port}")
        assert [manager.recv(4096) for _ in range(3)] == [b"WATCHDOG=1"] * 3
        run.process.terminate()
        while (message := manager.recv(4096)) == b"WATCHDOG=1":
            pass
        assert message.startswith(b"STOPPING=1")
    assert run.end() == 0
