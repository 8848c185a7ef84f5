"""What can be configured: one struct per section, every key with its default, its range and one line of meaning.

The descriptions are what `docs/configuration.md` and `edge-broker reference` show. A struct is immutable; a default that
depends on another key is settled when the struct is made, so whoever reads one never meets "not given" where a yes or no
is meant. Ranges and types are enforced by `loading`, which also checks what no single key can tell.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from edge_broker.config.audit import AuditConfig
from edge_broker.config.bind import Bind, UnixBind, parse_bind, parse_unix_bind
from edge_broker.config.dead_letters import DeadLettersConfig
from edge_broker.config.environment import default_data_dir
from edge_broker.config.limits import LimitsConfig
from edge_broker.config.protocol import ProtocolConfig
from edge_broker.config.queues import QueueLimits
from edge_broker.config.section import DAY_SECONDS, GIBIBYTE, Section
from edge_broker.config.security import SecurityConfig

_WEBSOCKET_PATHS: Final = ("/mqtt", "/")
"""Where clients look first, and where those look that are given no path."""
_UNIX_MODE: Final = "0660"
CONTROL_SOCKET: Final = "control.sock"
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


class SessionsConfig(QueueLimits, frozen=True):
    """What is kept for clients, and how much may be under way to and from each."""

    max_expiry_seconds: Annotated[
        int,
        Meta(
            ge=0,
            le=4_294_967_295,
            description="A session is kept at most this long after its client left. 30 days: longer than a holiday, yet "
            "a client that never comes back does not fill the disk for ever. 4294967295 is for ever.",
        ),
    ] = 30 * DAY_SECONDS
    receive_maximum: Annotated[
        int,
        Meta(
            ge=1,
            le=65_535,
            description="QoS 1 and 2 messages that a client may have sent without our acknowledgement.",
        ),
    ] = 1024
    send_window: Annotated[
        int,
        Meta(
            ge=1,
            le=65_535,
            description="QoS 1 and 2 messages that a client may have received without acknowledging; its own receive "
            "maximum counts where it is lower.",
        ),
    ] = 1024
    max_keep_alive_seconds: Annotated[
        int,
        Meta(
            ge=0,
            le=65_535,
            description="A client that asks for a longer keep alive, or for none, is told to use this; 0 is no cap. "
            "MQTT 3.1.1 clients cannot be told.",
        ),
    ] = 0
    window_bytes: Annotated[
        int,
        Meta(
            ge=4_096,
            le=GIBIBYTE,
            description="How much of a durable queue is kept in memory beyond what is in flight.",
        ),
    ] = 262_144
    hold_seconds: Annotated[
        int,
        Meta(
            ge=1,
            le=3_600,
            description="An MQTT 3.1.1 client whose message a full queue rejects cannot be told: it is read no further for "
            "so long, in case there is room again, and then disconnected, so that it sends the message anew.",
        ),
    ] = 30


class DurabilityConfig(Section, frozen=True):
    """Messages of some topics are kept otherwise than the others."""

    filter: Annotated[str, Meta(description="The topic filter.", examples=['"debug/#"'])]
    durability: Annotated[
        Literal["disk", "memory"], Meta(description="How messages of topics that it matches are kept.")
    ] = "memory"


class StoreConfig(Section, frozen=True):
    """When what was received is written to disk. Nothing is acknowledged before it is."""

    durability: Annotated[
        Literal["disk", "memory"],
        Meta(
            description="`disk`: messages for sessions that outlive their connections, and for bridges, are acknowledged "
            "when they are on disk. `memory`: they stay in memory and are acknowledged at once; a restart loses them.",
        ),
    ] = "disk"
    topics: Annotated[
        tuple[DurabilityConfig, ...],
        Meta(description="Other durabilities for some topics; the first filter that matches counts."),
    ] = ()

    max_messages: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000_000,
            description="Messages that may wait in all durable queues together, bridges' and dead letters among them; 0 is "
            "no limit. At the limit `when_queue_full` of the queue that is to get a message decides: the oldest dead "
            "letter, then the oldest message of the queue that holds most gives way; or the new one is not taken.",
        ),
    ] = 0
    max_bytes: Annotated[
        int,
        Meta(ge=0, le=1024 * GIBIBYTE, description="Bytes of their packets, likewise; 0 is no limit."),
    ] = 0
    commit_delay_ms: Annotated[
        int,
        Meta(
            ge=0,
            le=10_000,
            description="How long a message may wait for others to share its write to disk. More spares an SD card and "
            "delays acknowledgements.",
        ),
    ] = 20
    removal_delay_ms: Annotated[
        int,
        Meta(
            ge=0,
            le=600_000,
            description="How long the removal of delivered messages may wait for a commit that is due anyway. Nobody waits "
            "for it; what a crash takes with it is delivered a second time.",
        ),
    ] = 1_000
    write_budget_bytes_per_day: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000 * GIBIBYTE,
            description="When a day's writes run ahead of this, `commit_delay_ms` widens, up to `max_commit_delay_ms`; 0 "
            "is no budget.",
        ),
    ] = 0
    max_commit_delay_ms: Annotated[
        int, Meta(ge=0, le=600_000, description="As far as the budget may widen the commit delay.")
    ] = 5_000
    card_endurance_terabytes: Annotated[
        float,
        Meta(
            ge=0,
            le=1_000_000,
            description="What the card's maker says can be written to it (TBW): the metrics then tell how long it lasts. 0 "
            "is not known.",
        ),
    ] = 0.0
    early_commit_messages: Annotated[
        int,
        Meta(ge=1, le=1_000_000, description="This many waiting messages are written without further delay."),
    ] = 64
    early_commit_bytes: Annotated[
        int,
        Meta(ge=1_024, le=GIBIBYTE, description="This many waiting bytes are written without further delay."),
    ] = 65_536
    encryption_key_file: Annotated[
        Path | None,
        Meta(
            description="Messages are encrypted on disk with the key in this file, which is outside of `data_dir`: "
            "`edge-broker store new-key FILE` makes one.",
        ),
    ] = None
    encryption_key_credential: Annotated[
        str,
        Meta(description="The same with the key in the systemd credential of this name (`LoadCredential=`)."),
    ] = ""
    old_encryption_key_files: Annotated[
        tuple[Path, ...],
        Meta(
            description="Keys that what is on disk may still be encrypted with; with these alone, new messages are "
            "written plainly.",
        ),
    ] = ()


class HttpConfig(Section, frozen=True):
    """Health and metrics over HTTP."""

    bind: Annotated[
        str,
        Meta(
            description="Address and port, such as `127.0.0.1:8080`; empty is off. Off loopback it needs `certificate`, "
            "`key` and `token_file`."
        ),
    ] = ""
    certificate: Annotated[
        Path | None,
        Meta(
            description="The server's certificate, with its chain, PEM: then it is HTTPS. Read again on SIGHUP."
        ),
    ] = None
    key: Annotated[
        Path | None,
        Meta(description="The certificate's private key, PEM, without a passphrase."),
    ] = None
    token_file: Annotated[
        Path | None,
        Meta(
            description="Hashed tokens, made by `edge-broker http-token`: whoever looks needs one of them, on loopback "
            "too. Read again on SIGHUP.",
        ),
    ] = None
    open_health: Annotated[
        bool,
        Meta(
            description="Answer `/livez`, `/readyz` and, in brief, `/healthz` without a token: for probes that cannot send "
            "one.",
        ),
    ] = False

    @property
    def address(self) -> Bind | None:
        """`bind` taken apart; None where HTTP is off."""
        return parse_bind(self.bind) if self.bind else None

    @property
    def missing_off_loopback(self) -> list[str]:
        """The keys without which it may not listen where it shall; empty on loopback and where it is off."""
        if self.address is None or self.address.is_loopback:
            return []
        missing = [] if self.certificate is not None and self.key is not None else ["certificate", "key"]
        return missing if self.token_file is not None or self.open_health else [*missing, "token_file"]


class ControlConfig(Section, frozen=True):
    """The socket of `edge-broker status`, `trace` and the like, which only the broker's user and root may open."""

    enabled: Annotated[bool, Meta(description="Whether there is one.")] = True
    path: Annotated[
        Path | None,
        Meta(
            description="The socket's file, in a directory that is there; the system allows 107 bytes.",
            extra={"default": "control.sock in data_dir"},
        ),
    ] = None


class LogConfig(Section, frozen=True):
    """What is logged, to standard error. Never payloads, never secrets."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Meta(description="The least serious that is logged."),
    ] = "info"
    format: Annotated[
        Literal["text", "json"],
        Meta(description="`text` for people, `json` for collectors: one object per line."),
    ] = "text"


class RuntimeConfig(Section, frozen=True):
    """What the broker runs on."""

    loop: Annotated[
        Literal["auto", "uvloop", "asyncio"],
        Meta(description="The event loop; `auto` is uvloop where it is installed."),
    ] = "auto"


class Config(Section, frozen=True):
    """The whole configuration. `bridges` holds what the parser registered for that section made of it."""

    data_dir: Annotated[
        Path,
        Meta(
            description="Where queues, sessions and retained messages are kept. Made if missing.",
            extra={
                "default": "$STATE_DIRECTORY, else $XDG_STATE_HOME/edge-broker, else ~/.local/state/edge-broker"
            },
        ),
    ] = msgspec.field(default_factory=default_data_dir)
    sys_interval_seconds: Annotated[
        int,
        Meta(
            ge=0,
            le=DAY_SECONDS,
            description="How often what has changed of the `$SYS/broker/` topics is published; 0 is never.",
        ),
    ] = 10
    listeners: tuple[ListenerConfig, ...] = (ListenerConfig(),)
    sessions: SessionsConfig = SessionsConfig()
    store: StoreConfig = StoreConfig()
    dead_letters: DeadLettersConfig = DeadLettersConfig()
    limits: LimitsConfig = LimitsConfig()
    protocol: ProtocolConfig = ProtocolConfig()
    security: SecurityConfig = SecurityConfig()
    audit: AuditConfig = AuditConfig()
    http: HttpConfig = HttpConfig()
    control: ControlConfig = ControlConfig()
    log: LogConfig = LogConfig()
    runtime: RuntimeConfig = RuntimeConfig()
    bridges: tuple[Any, ...] = ()

    @property
    def control_path(self) -> Path | None:
        """Where the control socket is; None where there is none."""
        if not self.control.enabled:
            return None
        return self.control.path or self.data_dir / CONTROL_SOCKET
