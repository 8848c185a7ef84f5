"""What systemd is told, through a real datagram socket of each kind."""

from __future__ import annotations

import logging
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_broker.ops.systemd import Systemd


class Manager:
    """The receiving end, as systemd has it."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address)
        self._socket.settimeout(5)
        self.environ = {"NOTIFY_SOCKET": address.replace("\0", "@")}

    def received(self) -> list[str]:
        """The next datagram's assignments."""
        return self._socket.recv(4096).decode().split("\n")

    def close(self) -> None:
        """No longer listening."""
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    abstract = f"\0edge-broker-test-{secrets.token_hex(8)}"
    manager = Manager(abstract if request.param == "abstract" else str(tmp_path / "notify"))
    yield manager
    manager.close()


def test_each_message_is_one_datagram(manager: Manager) -> None:
    systemd = Systemd(manager.environ)
    systemd.send_ready("listening on mqtt://127.0.0.1:1883")
    assert manager.received() == ["READY=1", "STATUS=listening on mqtt://127.0.0.1:1883"]
    systemd.send_status("well")
    assert manager.received() == ["STATUS=well"]
    systemd.send_reloading(12.5)
    assert manager.received() == ["RELOADING=1", "MONOTONIC_USEC=12500000"]
    systemd.send_alive()
    assert manager.received() == ["WATCHDOG=1"]
    systemd.send_stopping()
    assert manager.received() == ["STOPPING=1", "STATUS=stopping"]


def test_a_status_cannot_smuggle_an_assignment_in(manager: Manager) -> None:
    Systemd(manager.environ).send_status("bad\nMAINPID=1" + "x" * 1000)
    (status,) = manager.received()
    assert status.startswith("STATUS=bad MAINPID=1xxx")
    assert len(status) == len("STATUS=") + 200


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": ""}])
def test_without_systemd_nothing_happens(environ: dict[str, str], caplog: pytest.LogCaptureFixture) -> None:
    systemd = Systemd(environ)
    systemd.send_ready("x")
    systemd.send_alive()
    assert systemd.watchdog_seconds is None
    assert caplog.records == []


def test_an_unknown_kind_of_socket_is_said(caplog: pytest.LogCaptureFixture) -> None:
    Systemd({"NOTIFY_SOCKET": "vsock:2:1234"}).send_ready("x")
    assert "vsock:2:1234 is neither a path nor an abstract socket" in caplog.text


def test_a_deaf_systemd_is_logged_once_and_holds_nobody_up(
    manager: Manager, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    systemd = Systemd(manager.environ)
    for _ in range(10_000):  # nobody receives: the socket's queue fills
        systemd.send_alive()
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == [
        "systemd cannot be told WATCHDOG=1"
    ]


def test_a_systemd_that_is_gone_does_no_harm(manager: Manager, caplog: pytest.LogCaptureFixture) -> None:
    systemd = Systemd(manager.environ)
    manager.close()
    systemd.send_ready("x")
    assert "systemd cannot be told READY=1: Connection refused" in caplog.text


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": "7"}, 0.5),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "8"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_PID": "7"}, None),
        ({}, None),
    ],
)
def test_whom_the_watchdog_watches(environ: dict[str, str], seconds: float | None) -> None:
    assert Systemd(environ, pid=7).watchdog_seconds == seconds
