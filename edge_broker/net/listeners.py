"""The sockets that clients connect to: bound, served, closed. TLS contexts are kept here so that they can be renewed.

An address that is not there yet, as at boot before the network is up, is waited for in the background. What only some
listeners need is imported when one of them is made.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from edge_broker.core.ports import Vetting
from edge_broker.errors import ConfigError
from edge_broker.key_pair import NO_PASSPHRASE, PassphraseWanted, is_mismatch
from edge_broker.net.endpoints import Endpoint, UnixEndpoint
from edge_broker.net.gate import Gate
from edge_broker.net.pipes import LayeredPipe, Pipe
from edge_broker.net.tls import TlsPipe, server_context
from edge_broker.net.transport import Hub, StreamProtocol

if TYPE_CHECKING:
    from edge_broker.net.piped import CertifiedClients
    from edge_broker.net.proxy import ProxiedProtocol

log: Final = logging.getLogger("edge_broker.net")

_BACKLOG: Final = 1024
_SCHEMES: Final = {(False, False): "mqtt", (True, False): "mqtts", (False, True): "ws", (True, True): "wss"}
"""By TLS, WebSocket."""


class Listener:
    """One bound endpoint and what is spoken there.

    With `certificate` and `key`, paths of files, TLS; `crls`: files that say which clients' certificates are revoked;
    `read_vetting` reads what else is demanded of these, each time that the files are read. With `websocket_paths`
    WebSocket, at these paths, for pages of `origins`. `proxies`: addresses and networks that tell their clients' addresses
    by PROXY protocol. `on_listening` is called each time that clients can connect from now on. `retry_seconds`: the first
    and the longest pause between two attempts to bind an address that is not there yet.
    """

    def __init__(
        self,
        hub: Hub,
        endpoint: Endpoint,
        *,
        gate: Gate | None = None,
        certificate: str | None = None,
        key: str | None = None,
        client_ca: str | None = None,
        require_client_certificate: bool = False,
        crls: Sequence[str] = (),
        read_vetting: Callable[[], Vetting] | None = None,
        websocket_paths: Sequence[str] = (),
        origins: Sequence[str] = (),
        proxies: Sequence[str] = (),
        on_listening: Callable[[Listener], None] | None = None,
        retry_seconds: tuple[float, float] = (1.0, 10.0),
    ) -> None:
        self._hub = hub
        self._endpoint = endpoint
        self._gate = gate or Gate(hub)
        self._files = (certificate, key, client_ca, require_client_certificate, tuple(crls))
        self._read_vetting = read_vetting
        self._clients: CertifiedClients | None = None
        self._websocket_paths = websocket_paths
        self._origins = origins
        self._proxies = proxies
        self._on_listening = on_listening
        self._retry_seconds = retry_seconds
        self._context: ssl.SSLContext | None = None
        self._server: asyncio.Server | None = None
        self._retrying: asyncio.Task[None] | None = None
        self._waiting: set[ProxiedProtocol] = set()

    @property
    def name(self) -> str:
        """How it is called, unique in one broker."""
        return self._endpoint.name

    @property
    def url(self) -> str:
        """Where it listens, as a client would write it."""
        if isinstance(self._endpoint, UnixEndpoint):
            return f"unix://{self.name}"
        scheme = _SCHEMES[self._files[0] is not None, bool(self._websocket_paths)]
        return f"{scheme}://{self.name}{self._websocket_paths[0] if self._websocket_paths else ''}"

    @property
    def accepting(self) -> bool:
        """Whether clients can connect."""
        return self._server is not None and self._server.is_serving()

    async def load_certificates(self) -> int:
        """Read the TLS files, in a thread, and take them, all or none; returns how many connections ended because of it.

        `ConfigError` where they cannot be: what was taken last stays in force.
        """
        if self._files[0] is None:
            return 0
        return self._take_certificates(*await asyncio.to_thread(self._read_certificates))

    def _read_certificates(self) -> tuple[ssl.SSLContext | None, Vetting | None]:
        certificate, key, client_ca, require, crls = self._files
        if certificate is None or key is None:
            return None, None
        vetting = (
            None if self._read_vetting is None else self._read_vetting()
        )  # it names what is wrong better
        return context_of_files(certificate, key, client_ca, require, crls), vetting

    def _take_certificates(self, context: ssl.SSLContext | None, vetting: Vetting | None) -> int:
        """From the next accept on; who is connected and would not be let in any more is ended: returns how many."""
        self._context = context
        if vetting is None:
            return 0
        if self._clients is None:
            from edge_broker.net.piped import CertifiedClients

            self._clients = CertifiedClients(vetting)
        self._clients.vetting = vetting
        return self._clients.judge_again()

    def judge_again(self) -> int:
        """What is demanded of certificates has changed elsewhere: end the connections that do not fit; how many."""
        return 0 if self._clients is None else self._clients.judge_again()

    async def start(self) -> None:
        """Bind and serve; `OSError` with the address as its file name if it cannot be had.

        Where the address is only not there yet, it is tried again until `stop_accepting`.
        """
        await self.load_certificates()
        try:
            await self._listen()
        except OSError as error:
            if not self._endpoint.is_late(error):
                raise OSError(error.errno, error.strerror, self.url) from error
            log.warning("%s: the address is not there yet; it is tried again until it is", self.url)
            self._retrying = asyncio.get_running_loop().create_task(self._keep_trying(error.errno))

    def stop_accepting(self) -> None:
        """Close the listening socket, or stop waiting for its address; connections stay."""
        if self._retrying is not None:
            self._retrying.cancel()
            self._retrying = None
        if self._server is not None:
            self._server.close()
            self._server = None
            self._endpoint.release()
        for protocol in list(self._waiting):
            protocol.abort()

    async def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        sock = self._endpoint.bind()
        try:
            serve = loop.create_unix_server if sock.family == socket.AF_UNIX else loop.create_server
            self._server = await serve(self._factory(), sock=sock, backlog=_BACKLOG)
        except BaseException:
            sock.close()
            self._endpoint.release()
            raise
        if self._on_listening is not None:
            self._on_listening(self)

    async def _keep_trying(self, said: int | None) -> None:
        """Bind again and again; each new reason why not is said once."""
        pause, longest = self._retry_seconds
        while True:
            await asyncio.sleep(pause)
            pause = min(2 * pause, longest)
            try:
                await self._listen()
                return
            except OSError as error:
                if error.errno != said:
                    log.error("%s: %s; it is tried again", self.url, error.strerror)
                    said = error.errno

    # ---- what is spoken

    def _factory(self) -> Callable[[], asyncio.Protocol]:
        """What makes the protocol of each accepted connection."""
        serve = self._serving()
        if not self._proxies:
            return serve
        from edge_broker.net.proxy import ProxiedProtocol, ProxyList

        proxies = ProxyList(self._proxies)
        return lambda: ProxiedProtocol(self._hub, self._gate, proxies, serve, self._waiting)

    def _serving(self) -> Callable[[], StreamProtocol]:
        hub, gate, name = self._hub, self._gate, self.name
        new_pipe = self._piping()
        if new_pipe is None:
            return lambda: StreamProtocol(hub, gate, name)
        from edge_broker.net.piped import PipedProtocol

        return lambda: PipedProtocol(hub, gate, name, new_pipe, self._clients)

    def _piping(self) -> Callable[[], Pipe] | None:
        """What makes the pipe of each connection; None where there is none."""
        if not self._websocket_paths:
            return self._new_tls_pipe if self._context is not None else None
        from edge_broker.net.websocket import WebSocketPipe

        def new_websocket_pipe() -> Pipe:
            upper = WebSocketPipe(
                self._hub.router.settings.max_packet_bytes, self._websocket_paths, self._origins
            )
            return upper if self._context is None else LayeredPipe(self._new_tls_pipe(), upper)

        return new_websocket_pipe

    def _new_tls_pipe(self) -> Pipe:
        assert self._context is not None
        return TlsPipe(self._context, server_side=True)


def context_of_files(
    certificate: str, key: str, client_ca: str | None = None, require: bool = False, crls: Sequence[str] = ()
) -> ssl.SSLContext:
    """`server_context`; what OpenSSL and the system say against the files as a `ConfigError` that names them."""
    for path in (certificate, key, *([] if client_ca is None else [client_ca]), *crls):
        try:
            open(path, "rb").close()
        except OSError as error:
            hint = "let the user that runs the broker read it" if isinstance(error, PermissionError) else ""
            raise ConfigError(path, f"cannot be read: {error.strerror}", hint) from None
    try:
        return server_context(certificate, key, client_ca, require, crls)
    except PassphraseWanted:
        raise ConfigError(key, "is protected by a passphrase", NO_PASSPHRASE) from None
    except ssl.SSLError as error:
        if is_mismatch(error):
            problem, hint = f"is not the key of {certificate}", "give the two that were made together"
            raise ConfigError(key, problem, hint) from None
        why = (error.reason or str(error)).lower().replace("_", " ")
        files = ", ".join(path for path in (certificate, key, client_ca, *crls) if path is not None)
        raise ConfigError(files, f"cannot be used: {why}", "PEM files are wanted, whole ones") from None
    except OSError as error:
        raise ConfigError(certificate, f"cannot be used: {error.strerror or error}") from None
