"""The sockets that clients connect to: bound, served, closed. TLS contexts are kept here so that they can be renewed."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable

from edge_broker.net.tls import server_context
from edge_broker.net.transport import Hub, StreamProtocol, TlsStreamProtocol

_BACKLOG = 1024


class Listener:
    """One bound address. `transport` is ``tcp`` or ``tls``; the TLS fields are file paths, as in the configuration."""

    def __init__(
        self,
        hub: Hub,
        host: str,
        port: int,
        *,
        certificate: str | None = None,
        key: str | None = None,
        client_ca: str | None = None,
        require_client_certificate: bool = False,
        identity_from: str = "common_name",
    ) -> None:
        self._hub = hub
        self._host = host
        self._port = port
        self._files = (certificate, key, client_ca, require_client_certificate)
        self._identity_from = identity_from
        self._context: ssl.SSLContext | None = None
        self._server: asyncio.Server | None = None
        self.name = f"{host}:{port}"

    @property
    def url(self) -> str:
        """Where it listens, as a client would write it."""
        return f"{'mqtts' if self._files[0] else 'mqtt'}://{self.name}"

    @property
    def accepting(self) -> bool:
        """Whether clients can connect."""
        return self._server is not None and self._server.is_serving()

    def load_certificates(self) -> None:
        """Read the TLS files; what was read last stays in force if they cannot be (`ssl.SSLError`, `OSError`)."""
        certificate, key, client_ca, require = self._files
        if certificate is not None and key is not None:
            self._context = server_context(certificate, key, client_ca, require)

    async def start(self) -> None:
        """Bind and serve; `OSError` with the address as its file name if it cannot be had."""
        self.load_certificates()
        try:
            sock = _bind(self._host, self._port)
        except OSError as error:
            raise OSError(error.errno, error.strerror, self.url) from error
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._factory(), sock=sock, backlog=_BACKLOG)
        host, port = sock.getsockname()[:2]
        self.name = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def _factory(self) -> Callable[[], asyncio.Protocol]:
        if self._context is None:
            return lambda: StreamProtocol(self._hub, self.name)
        return lambda: TlsStreamProtocol(self._hub, self.name, self._newest_context, self._identity_from)

    def _newest_context(self) -> ssl.SSLContext:
        assert self._context is not None
        return self._context

    def stop_accepting(self) -> None:
        """Close the listening socket; connections stay."""
        if self._server is not None:
            self._server.close()
            self._server = None


def _bind(host: str, port: int) -> socket.socket:
    """A bound socket; an empty host is every interface, of both IP versions where the machine has them."""
    if not host:
        try:
            return _bind("::", port)
        except OSError as error:
            if error.errno != errno.EAFNOSUPPORT:
                raise
            host = "0.0.0.0"
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if host == "::" else 1)
        sock.bind((host, port))
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock
