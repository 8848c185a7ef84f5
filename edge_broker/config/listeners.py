"""`[[listeners]]`: where clients connect, by which transport, and who is let in there.

A default that depends on another key is settled when the struct is made, so whoever reads one never meets "not given" where
a yes or no is meant. What no single key can tell is checked by `checks`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from edge_broker.config.bind import Bind, UnixBind, parse_bind, parse_unix_bind
from edge_broker.config.section import Section

_WEBSOCKET_PATHS: Final = ("/mqtt", "/")
"""Where clients look first, and where those look that are given no path."""
_UNIX_MODE: Final = "0660"
_SCHEMES: Final = {"tcp": "mqtt", "tls": "mqtts", "ws": "ws", "wss": "wss", "unix": "unix"}
_SETTLED_LATER: Final[Any] = None  # the default of a key that `__post_init__` settles from the others


class ListenerConfig(Section, frozen=True):
    """Where clients connect, and who is let in. Without any, one serves anonymous MQTT on 127.0.0.1:1883."""

    transport: Annotated[
        Literal["tcp", "tls", "ws", "wss", "unix"],
        Meta(
            description="`tcp` is unencrypted; `tls` is TLS 1.2 or newer and needs `certificate` and `key`. `ws` and `wss` "
            "are MQTT over WebSocket, for browsers, without and with TLS. `unix` is a Unix socket, for programs on this "
            "machine. See [Listeners](listeners.md).",
        ),
    ] = "tcp"
    bind: Annotated[
        str,
        Meta(
            description="Address and port: `127.0.0.1:1883`, `[::1]:1883`; `0.0.0.0:1883` is every IPv4 interface, "
            "`*:1883` or `:1883` every interface. Port 0 takes any free one. unix: the path of the "
            "socket, from the root on.",
            examples=['"127.0.0.1:1883"'],
        ),
    ] = "127.0.0.1:1883"
    anonymous: Annotated[
        bool,
        Meta(
            description="Let clients in that prove nothing.",
            extra={"default": "true on loopback and unix, false elsewhere"},
        ),
    ] = _SETTLED_LATER
    certificate: Annotated[
        Path | None,
        Meta(description="tls, wss: the server's certificate, with its chain, PEM."),
    ] = None
    key: Annotated[
        Path | None,
        Meta(description="tls, wss: the certificate's private key, PEM, without a passphrase."),
    ] = None
    client_ca: Annotated[
        Path | None,
        Meta(description="tls, wss: the CA certificates, PEM, whose client certificates are accepted."),
    ] = None
    require_client_certificate: Annotated[
        bool,
        Meta(
            description="tls, wss: refuse a client without a certificate of `client_ca`.",
            extra={"default": "true with client_ca, else false"},
        ),
    ] = _SETTLED_LATER
    identity_from: Annotated[
        Literal["common_name", "san_dns", "spiffe"],
        Meta(
            description="tls, wss: what in its certificate names a client: the common name, the first DNS name, or the "
            "SPIFFE URI. A certificate without it is refused. See [Security](security.md#certificates).",
        ),
    ] = "common_name"
    allowed_names: Annotated[
        tuple[str, ...],
        Meta(
            description="tls, wss: only certificates with such names are let in; `*` stands for anything. Empty is every "
            "name that `client_ca` vouches for.",
            examples=['"sensor-*"'],
        ),
    ] = ()
    crl_files: Annotated[
        tuple[Path, ...],
        Meta(
            description="tls, wss: revocation lists, PEM, of every CA in `client_ca` that issues certificates to clients. "
            "Read anew when they change; the connections of revoked certificates then end.",
        ),
    ] = ()
    when_crl_expired: Annotated[
        Literal["refuse", "warn"],
        Meta(
            description="A revocation list has expired, or a CA has none: `refuse` its clients, or `warn` in log and "
            "health and let in who is not on the last list.",
        ),
    ] = "refuse"
    path: Annotated[
        str | None,
        Meta(
            description="ws, wss: the path in the clients' URL; any other is answered with 404.",
            examples=['"/mqtt"'],
            extra={"default": "`/mqtt` and `/`"},
        ),
    ] = None
    origins: Annotated[
        tuple[str, ...],
        Meta(
            description="ws, wss: browsers connect from these sites' pages only, such as `https://example.com`; empty is "
            "every site. A client that sends no Origin is no browser and let in.",
        ),
    ] = ()
    mode: Annotated[
        str | None,
        Meta(
            description="unix: the permissions of the socket's file, in octal.",
            examples=['"0660"'],
            extra={"default": "`0660`"},
        ),
    ] = None
    proxy_protocol_from: Annotated[
        tuple[str, ...],
        Meta(
            description="Addresses and networks of proxies, such as `10.0.0.0/8`, that tell their clients' addresses by "
            "PROXY protocol (version 1 or 2). From there the header is required, from elsewhere none is taken.",
        ),
    ] = ()

    def __post_init__(self) -> None:
        settle = msgspec.structs.force_setattr
        if self.anonymous is _SETTLED_LATER:
            settle(self, "anonymous", self.address.is_loopback)
        if self.require_client_certificate is _SETTLED_LATER:
            settle(self, "require_client_certificate", self.client_ca is not None)

    @property
    def address(self) -> Bind | UnixBind:
        """`bind` taken apart: `.host` (empty for every interface) and `.port`, or unix: `.path`; `.is_loopback`."""
        return parse_unix_bind(self.bind) if self.transport == "unix" else parse_bind(self.bind)

    @property
    def encrypted(self) -> bool:
        """Whether it is TLS."""
        return self.transport in ("tls", "wss")

    @property
    def websocket_paths(self) -> tuple[str, ...]:
        """ws, wss: where MQTT is; empty for the other transports."""
        if self.transport not in ("ws", "wss"):
            return ()
        return _WEBSOCKET_PATHS if self.path is None else (self.path,)

    @property
    def permissions(self) -> int:
        """unix: of the socket's file."""
        return int(self.mode or _UNIX_MODE, 8)

    @property
    def url(self) -> str:
        """What a client would be told: `mqtt://127.0.0.1:1883`."""
        return f"{_SCHEMES[self.transport]}://{self.address}{''.join(self.websocket_paths[:1])}"
