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

from edge_broker.config.bind import Bind, parse_bind
from edge_broker.config.environment import default_data_dir

DAY_SECONDS: Final = 86_400
GIBIBYTE: Final = 1 << 30
_SETTLED_LATER: Final[Any] = None  # the default of a key that `__post_init__` settles from the others


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What every section has in common: immutable, no keys but its own."""


class ListenerConfig(Section, frozen=True):
    """Where clients connect, and who is let in. Without any, one serves anonymous MQTT on 127.0.0.1:1883."""

    transport: Annotated[
        Literal["tcp", "tls"],
        Meta(
            description="`tcp` is unencrypted; `tls` is TLS 1.2 or newer and needs `certificate` and `key`.",
            extra={"later": ("ws", "wss", "unix")},
        ),
    ] = "tcp"
    bind: Annotated[
        str,
        Meta(
            description="Address and port: `127.0.0.1:1883`, `[::1]:1883`; `0.0.0.0:1883` is every IPv4 interface, "
            "`*:1883` or `:1883` every interface. Port 0 takes any free one.",
            examples=['"127.0.0.1:1883"'],
        ),
    ] = "127.0.0.1:1883"
    anonymous: Annotated[
        bool,
        Meta(
            description="Let clients in that prove nothing.",
            extra={"default": "true on loopback, false elsewhere"},
        ),
    ] = _SETTLED_LATER
    certificate: Annotated[
        Path | None,
        Meta(description="tls: the server's certificate, with its chain, PEM."),
    ] = None
    key: Annotated[
        Path | None,
        Meta(description="tls: the certificate's private key, PEM, without a passphrase."),
    ] = None
    client_ca: Annotated[
        Path | None,
        Meta(description="tls: the CA certificates, PEM, whose client certificates are accepted."),
    ] = None
    require_client_certificate: Annotated[
        bool,
        Meta(
            description="tls: refuse a client without a certificate of `client_ca`.",
            extra={"default": "true with client_ca, else false"},
        ),
    ] = _SETTLED_LATER
    identity_from: Annotated[
        Literal["common_name", "san_dns", "spiffe"],
        Meta(description="tls: what in its certificate names a client."),
    ] = "common_name"

    def __post_init__(self) -> None:
        settle = msgspec.structs.force_setattr
        if self.anonymous is _SETTLED_LATER:
            settle(self, "anonymous", self.address.is_loopback)
        if self.require_client_certificate is _SETTLED_LATER:
            settle(self, "require_client_certificate", self.client_ca is not None)

    @property
    def address(self) -> Bind:
        """`bind` taken apart: `.host` (empty for every interface), `.port`, `.is_loopback`."""
        return parse_bind(self.bind)

    @property
    def url(self) -> str:
        """What a client would be told: `mqtt://127.0.0.1:1883`."""
        return f"{'mqtts' if self.transport == 'tls' else 'mqtt'}://{self.address}"


class SessionsConfig(Section, frozen=True):
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


class StoreConfig(Section, frozen=True):
    """When what was received is written to disk. Nothing is acknowledged before it is."""

    commit_delay_ms: Annotated[
        int,
        Meta(
            ge=0,
            le=10_000,
            description="How long a message may wait for others to share its write to disk. More spares an SD card and "
            "delays acknowledgements.",
        ),
    ] = 20
    early_commit_messages: Annotated[
        int,
        Meta(ge=1, le=1_000_000, description="This many waiting messages are written without further delay."),
    ] = 64
    early_commit_bytes: Annotated[
        int,
        Meta(ge=1_024, le=GIBIBYTE, description="This many waiting bytes are written without further delay."),
    ] = 65_536


class LimitsConfig(Section, frozen=True):
    """What bounds memory, per client and in all. What happens at each limit is counted."""

    max_packet_bytes: Annotated[
        int,
        Meta(
            ge=128,
            le=268_435_460,
            description="A client that sends a larger packet is disconnected.",
        ),
    ] = 1_048_576
    max_connections: Annotated[
        int, Meta(ge=1, le=1_000_000, description="Connections beyond this are refused.")
    ] = 10_000
    connect_timeout_seconds: Annotated[
        float,
        Meta(ge=0.1, le=3_600, description="A connection without a CONNECT after this is closed."),
    ] = 10.0
    max_output_bytes: Annotated[
        int,
        Meta(
            ge=4_096,
            le=GIBIBYTE,
            description="Output that waits for one slow client. QoS 0 messages beyond it are dropped and counted; "
            "QoS 1 and 2 wait in its queue.",
        ),
    ] = 1_048_576
    max_uncommitted_bytes: Annotated[
        int,
        Meta(
            ge=65_536,
            le=64 * GIBIBYTE,
            description="Received and not yet on disk, over all clients. Beyond it, publishers of QoS 1 and 2 are "
            "paused.",
        ),
    ] = 33_554_432
    max_topic_levels: Annotated[
        int,
        Meta(ge=1, le=65_536, description="Levels that a topic or a topic filter may have."),
    ] = 128
    max_subscriptions_per_client: Annotated[
        int, Meta(ge=1, le=1_000_000, description="Subscriptions beyond this are refused.")
    ] = 1_000
    max_queue_bytes_in_memory: Annotated[
        int,
        Meta(
            ge=4_096,
            le=GIBIBYTE,
            description="QoS 1 and 2 messages that wait for one client whose session ends with its connection. Beyond "
            "it they are dropped and counted.",
        ),
    ] = 4_194_304
    topic_alias_maximum: Annotated[
        int,
        Meta(ge=0, le=65_535, description="Topic aliases that one client may set; 0 is none."),
    ] = 32


class HttpConfig(Section, frozen=True):
    """Health and metrics over HTTP."""

    bind: Annotated[
        str,
        Meta(description="Address and port on loopback, such as `127.0.0.1:8080`; empty is off."),
    ] = ""

    @property
    def address(self) -> Bind | None:
        """`bind` taken apart; None where HTTP is off."""
        return parse_bind(self.bind) if self.bind else None


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
    listeners: tuple[ListenerConfig, ...] = (ListenerConfig(),)
    sessions: SessionsConfig = SessionsConfig()
    store: StoreConfig = StoreConfig()
    limits: LimitsConfig = LimitsConfig()
    http: HttpConfig = HttpConfig()
    log: LogConfig = LogConfig()
    runtime: RuntimeConfig = RuntimeConfig()
    bridges: tuple[Any, ...] = ()
