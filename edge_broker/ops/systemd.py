"""What the broker tells systemd (Type=notify): that it is ready, stopping, reloading, alive.

Each message is one datagram to the socket that `NOTIFY_SOCKET` names, sent without waiting: systemd not listening must not
hold the broker up. Started by anything but systemd, everything here does nothing.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping
from typing import Final

_LOG: Final = logging.getLogger(__name__)
_LONGEST_STATUS: Final = 200


class Systemd:
    """The service manager, as far as `environ` says that there is one."""

    def __init__(self, environ: Mapping[str, str] = os.environ, pid: int | None = None) -> None:
        self._address = _socket_address(environ.get("NOTIFY_SOCKET", ""))
        self.watchdog_seconds = _watchdog_seconds(environ, os.getpid() if pid is None else pid)
        """Without a `send_alive` for this long systemd kills us; None where it does not watch."""
        self._failing = False

    def send_ready(self, status: str) -> None:
        """Started, or reloaded: `status` is what `systemctl status` shows."""
        self._send("READY=1", _status(status))

    def send_status(self, status: str) -> None:
        """Only what `systemctl status` shows."""
        self._send(_status(status))

    def send_reloading(self, now: float) -> None:
        """Reading the configuration anew, since `now` of the monotonic clock; `send_ready` must follow."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={int(now * 1_000_000)}")

    def send_stopping(self) -> None:
        """On the way out."""
        self._send("STOPPING=1", _status("stopping"))

    def send_alive(self) -> None:
        """The watchdog's ping."""
        self._send("WATCHDOG=1")

    def _send(self, *assignments: str) -> None:
        if self._address is None:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notify:
                notify.setblocking(False)
                notify.sendto("\n".join(assignments).encode(), self._address)
        except OSError as error:
            if not self._failing:  # once, not at every ping
                _LOG.warning("systemd cannot be told %s: %s", assignments[0], error.strerror or error)
            self._failing = True
        else:
            self._failing = False


def _socket_address(path: str) -> str | None:
    """Where to send: a path, or with `@` a name in Linux's abstract namespace; None for nowhere."""
    if path.startswith("/"):
        return path
    if path.startswith("@"):
        return "\0" + path[1:]
    if path:
        _LOG.warning(
            "NOTIFY_SOCKET=%s is neither a path nor an abstract socket: systemd is told nothing", path
        )
    return None


def _watchdog_seconds(environ: Mapping[str, str], pid: int) -> float | None:
    interval, watched = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    if not interval.isdecimal() or int(interval) == 0 or watched not in ("", str(pid)):
        return None
    return int(interval) / 1_000_000


def _status(text: str) -> str:
    """One line, and not a long one: a line feed would begin another assignment."""
    return "STATUS=" + " ".join(text.split())[:_LONGEST_STATUS]
