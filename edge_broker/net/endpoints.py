"""What a listener binds: an address and port, or the file of a Unix socket."""

from __future__ import annotations

import errno
import os
import socket
import stat
from pathlib import Path
from typing import Final, Protocol

_LATE: Final = (errno.EADDRNOTAVAIL, errno.ENODEV)


class Endpoint(Protocol):
    """Something to listen on. `name`: how it is called, unique in one broker; whole once it was bound."""

    name: str

    def bind(self) -> socket.socket:
        """A bound socket that does not block; `OSError` if it cannot be had."""

    def is_late(self, error: OSError) -> bool:
        """Whether what `bind` raised may go away by itself: the address is not there yet."""

    def release(self) -> None:
        """Clean up behind a bound socket that was closed."""


class TcpEndpoint:
    """An IP address or name and a port. An empty host is every interface, of both IP versions where there are both."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self.name = self._name(port)

    def bind(self) -> socket.socket:
        """Bind it; port 0 takes a free one, which is in the name from then on."""
        sock = self._bind(self._host)
        self.name = self._name(sock.getsockname()[1])
        return sock

    def is_late(self, error: OSError) -> bool:
        """An address that no interface has, or of an interface that is not there (`fe80::1%eth0`)."""
        no_interface = isinstance(error, socket.gaierror) and "%" in self._host
        return error.errno in _LATE or no_interface

    def release(self) -> None:
        """Nothing stays behind."""

    def _name(self, port: int) -> str:
        host = f"[{self._host}]" if ":" in self._host else self._host or "*"
        return f"{host}:{port}"

    def _bind(self, host: str) -> socket.socket:
        if not host:
            try:
                return self._bind("::")
            except OSError as error:
                if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                    raise
                host = "0.0.0.0"  # noqa: S104 - every interface is what the configuration asked for
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if host == "::" else 1)
            sock.bind((host, self._port))
            sock.setblocking(False)
        except BaseException:
            sock.close()
            raise
        return sock


class UnixEndpoint:
    """The file of a Unix socket, with the permissions `mode`. It is removed at the end, if it is still ours."""

    def __init__(self, path: str, mode: int) -> None:
        self._path = Path(path)
        self._mode = mode
        self._file: tuple[int, int] | None = None  # device and inode of what we made
        self.name = path

    def bind(self) -> socket.socket:
        """Bind it, where a broker that died left a socket behind, too; never where one listens, or where a file is."""
        self._remove_stale()
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.bind(str(self._path))
            self._file = self._identity()
            self._path.chmod(self._mode)  # nobody can connect before `listen`
            sock.setblocking(False)
        except BaseException:
            sock.close()
            self.release()
            raise
        return sock

    def is_late(self, error: OSError) -> bool:
        """A path does not come by itself."""
        return False

    def release(self) -> None:
        """Remove the file, unless another one has taken its place."""
        file, self._file = self._file, None
        try:
            if file is not None and file == self._identity():
                self._path.unlink()
        except FileNotFoundError:
            pass

    def _identity(self) -> tuple[int, int]:
        status = os.stat(self._path)
        return status.st_dev, status.st_ino

    def _remove_stale(self) -> None:
        try:
            status = os.stat(self._path)
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(status.st_mode):
            raise FileExistsError(errno.EEXIST, "there is a file that is no socket")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)
            try:
                probe.connect(str(self._path))
            except ConnectionRefusedError:
                self._path.unlink()
                return
            except PermissionError:
                raise
            except OSError:
                pass  # somebody is there, busy or of another kind
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
