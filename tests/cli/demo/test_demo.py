"""The demo as a person runs it: real processes, a real outage, an account at the end."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import time

import pytest


def _demo(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "edge_broker", "demo", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.slow
def test_an_outage_loses_nothing(free_port: int) -> None:
    demo = _demo("--outage", "--port", str(free_port), "--rate", "100")
    output, _ = demo.communicate(timeout=100)
    assert demo.returncode == 0, output
    verdict = re.search(r"(\d+) readings sent, (\d+) arrived, nothing lost", output)
    assert verdict, output
    assert verdict[1] == verdict[2]
    assert int(verdict[1]) > 1_000
    deepest = max(map(int, re.findall(r"queued (\d+)", output)))
    assert deepest > 500, "the backlog was seen to grow"


@pytest.mark.slow
def test_ctrl_c_ends_it_cleanly(free_port: int) -> None:
    demo = _demo("--port", str(free_port), "--rate", "20")
    assert demo.stdout is not None
    for line in demo.stdout:
        if re.search(r"arrived [1-9]", line):
            break
    demo.send_signal(signal.SIGINT)
    rest = demo.stdout.read()
    assert demo.wait(30) == 0, rest
    assert "ended" in rest
    assert "Traceback" not in rest
    deadline = time.monotonic() + 5
    while socket.socket().connect_ex(("127.0.0.1", free_port)) == 0:
        assert time.monotonic() < deadline, "the gateway is gone with the demo"


def test_a_taken_port_is_said_with_what_to_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        demo = _demo("--port", str(taken.getsockname()[1]))
        output, _ = demo.communicate(timeout=30)
    assert demo.returncode == 1
    assert "--port" in output
    assert "Traceback" not in output
