"""What the kernel saw: between a PUBLISH that came in and its PUBACK that went out, something was synced to disk."""

from __future__ import annotations

import re
import signal
import socket
import struct
import subprocess
from pathlib import Path

import pytest

from tests.integration.broker_process import BrokerProcess, until
from tests.integration.foreign import Paho

MESSAGES = 20
CONNECT = b"\x10\x0f\x00\x04MQTT\x04\x02\x00\x3c\x00\x03pub"
WAIT_SECONDS = 20.0

_RECEIVED = re.compile(r"\b(?:read|recvfrom|recvmsg|readv)\b.*number-(\d+)-end")
_SYNCED = re.compile(r"(?:fdatasync|fsync)(?:\(\d+\)| resumed>\)) += 0")
_SENT = re.compile(r'\b(?:write|sendto|sendmsg|writev)\(\d+, .*"@\\2\\0')


class Trace:
    """The system calls of a running process, written to a file while the block lasts."""

    def __init__(self, pid: int, path: Path) -> None:
        self._path, self._complaints = path, path.with_suffix(".err")
        calls = "trace=read,recvfrom,recvmsg,readv,write,writev,sendto,sendmsg,fdatasync,fsync"
        self._command = ["strace", "-f", "-s", "100", "-e", calls, "-o", str(path), "-p", str(pid)]

    def __enter__(self) -> Trace:
        with self._complaints.open("wb") as out:
            self._process = subprocess.Popen(self._command, stderr=out)
        until(lambda: "attached" in self._complaints.read_text(), "strace does not attach")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGINT)
        self._process.wait(WAIT_SECONDS)

    def lines(self) -> list[str]:
        return self._path.read_text(errors="replace").splitlines()


def receive(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = sock.recv(size - len(data))
        assert more, "the broker closed"
        data += more
    return data


@pytest.mark.needs("strace")
@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_each_puback_leaves_after_a_sync(tmp_path: Path, loop: str) -> None:
    broker = BrokerProcess(tmp_path, loop=loop).start()
    trace = Trace(broker.pid, tmp_path / "trace")
    try:
        away = Paho(broker.port, "away", expiry=3600, clean=False).connected().subscribe("t", 1)
        away.leave()
        with socket.create_connection(("127.0.0.1", broker.port), WAIT_SECONDS) as sock:
            sock.sendall(CONNECT)
            assert receive(sock, 4) == b"\x20\x02\x00\x00"
            with trace:
                for number in range(1, MESSAGES + 1):
                    body = b"\x00\x01t" + struct.pack(">H", number) + b"number-%d-end" % number
                    sock.sendall(bytes((0x32, len(body))) + body)
                    assert receive(sock, 4) == b"\x40\x02" + struct.pack(">H", number)
    finally:
        broker.stop()
    check(trace.lines())


def check(lines: list[str]) -> None:
    """Walk through the trace: PUBLISH in, sync, PUBACK out, for one message after the other."""
    arrived = synced = answered = 0
    for line in lines:
        received = _RECEIVED.search(line)
        if received:
            arrived, synced = int(received[1]), 0
        elif _SYNCED.search(line):
            synced += 1
        elif _SENT.search(line):
            assert synced, f"PUBACK {arrived} left before a sync"
            answered += 1
    assert (arrived, answered) == (MESSAGES, MESSAGES)


def test_the_check_can_fail() -> None:
    """On a trace in which the second PUBACK leaves too early."""
    good = [
        '1 recvfrom(7, "2\\17\\0\\1t\\0\\1number-1-end", 65536) = 20',
        "2 fdatasync(5) = 0",
        '1 sendto(7, "@\\2\\0\\1", 4) = 4',
    ]
    early = [line.replace("number-1", "number-2") for line in (good[0], good[2], good[1])]
    with pytest.raises(AssertionError, match="PUBACK 2 left before a sync"):
        check(good + early)
