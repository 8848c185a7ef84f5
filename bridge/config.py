"""What can be configured of a bridge; `bridge.config_checks` reads it as `[[bridges]]`.

Its rules are in `bridge.rules`, where it goes in `bridge.places`. Secrets are read when they are needed and are nowhere in
the model.
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from bridge.canary_config import CanaryConfig, canary_of
from bridge.client_keys import (
    BackoffInitial,
    BackoffMax,
    Certificate,
    Key,
    PasswordFile,
    Username,
    check_client_id,
)
from bridge.envelopes_config import EnvelopesConfig
from bridge.origin import LONGEST_NAME
from bridge.places import Place, Upstream, parse_place
from bridge.policy_config import FailoverConfig, PacingConfig, UpstreamConfig
from bridge.rules import RuleConfig
from bridge.separate import commands_of, uplink_id, uplink_of
from edge_broker.config.bind import Bind
from edge_broker.config.queues import QueueLimits
from edge_broker.config.section import DAY_SECONDS
from edge_broker.errors import ConfigError, MqttError
from edge_broker.wire.topics import check_topic_name

__all__ = ["BridgeConfig", "RuleConfig"]

_SETTLED_LATER: Final[Any] = None  # the default of a key that `__post_init__` settles from the others


class BridgeConfig(QueueLimits, frozen=True, kw_only=True):
    """One upstream, what goes up to it and what comes down. A message leaves the disk when the upstream acknowledged it."""

    urls: Annotated[
        tuple[Annotated[str, Meta(examples=['"mqtts://broker.example.com:8883"'])], ...],
        Meta(
            description="Where the upstream is: `mqtts://host:8883`, `mqtt://host:1883`, a sidecar's Unix socket, "
            "`mqtt+unix:///run/envoy/upstream.sock`, or `mqtts+srv://_mqtt._tcp.domain` for what DNS names there. "
            "Several are tried in turn."
        ),
    ] = ()
    upstream_tables: Annotated[
        tuple[UpstreamConfig, ...],
        Meta(description="The same in full, in the place of `urls`: which one is preferred, and how much."),
    ] = msgspec.field(default=(), name="upstreams")
    name: Annotated[
        str,
        Meta(
            description="Its name in the log, the metrics and the store: letters, digits, `.`, `-`, `_`. What waits for "
            "the upstream is found again by it."
        ),
    ] = "upstream"
    client_id: Annotated[
        str,
        Meta(
            description="Unique at the upstream: of two clients of one name each expels the other.",
            extra={"default": "edge-broker-HOSTNAME-NAME"},
        ),
    ] = _SETTLED_LATER
    second_client_id: Annotated[
        str,
        Meta(
            description="For the connection that stands by when a certificate is renewed, where nothing comes down and "
            "nothing goes up at QoS 2. The same as `client_id`: none stands by, and the new one is let in when the old one "
            "is gone. See [Renewal](mesh.md#renewal).",
            extra={"default": "CLIENT_ID-b"},
        ),
    ] = _SETTLED_LATER
    separate_uplink: Annotated[
        bool,
        Meta(
            description="What goes up has a connection of its own, as CLIENT_ID-up; what comes down keeps the `client_id` "
            "and its session. See [Renewal](mesh.md#renewal)."
        ),
    ] = False
    username: Username = None
    password_file: PasswordFile = None
    ca: Annotated[
        Path | None,
        Meta(
            description="The CA certificates, PEM, that may vouch for the upstream; without it the system's."
        ),
    ] = None
    certificate: Certificate = None
    key: Key = None
    server_name: Annotated[
        str | None,
        Meta(
            description="The name that the upstream's certificate must have.",
            extra={"default": "the host in the URL"},
            examples=['"broker.example.com"'],
        ),
    ] = None
    upstream_identity: Annotated[
        str | None,
        Meta(
            description="The SPIFFE ID that the upstream's certificate must have, instead of a host name; in its path `*` "
            "stands for any one segment, `**` at the end for all that follow. See [The mesh](mesh.md).",
            examples=['"spiffe://cluster.example/ns/mqtt/sa/broker"'],
        ),
    ] = None
    trust_bundles: Annotated[
        dict[str, Path] | None,
        Meta(
            description="With `upstream_identity`: by trust domain the CA certificates, PEM, that may vouch for its IDs. "
            "Read at each connect.",
            examples=['{ "cluster.example" = "/path/to/bundle.pem" }'],
        ),
    ] = None
    identity: Annotated[
        Literal["files", "spire"],
        Meta(
            description="Where certificate, key and trust bundles come from: the `files` named here, or the Workload API "
            "of a `spire` agent, which renews them (`pip install 'edge-broker[spire]'`).",
        ),
    ] = "files"
    spire_socket: Annotated[
        str | None,
        Meta(
            description='The Workload API\'s socket, with `identity = "spire"`.',
            extra={"default": "$SPIFFE_ENDPOINT_SOCKET"},
            examples=['"unix:///run/spire/agent.sock"'],
        ),
    ] = None
    version: Annotated[
        Literal["auto", "5", "3.1.1"],
        Meta(description="MQTT's version; `auto` tries 5 and falls back to 3.1.1."),
    ] = "auto"
    keep_alive_seconds: Annotated[
        int,
        Meta(ge=0, le=65_535, description="The keep alive of the connection upstream; 0 is off."),
    ] = 60
    window: Annotated[
        int,
        Meta(
            ge=1,
            le=65_535,
            description="Messages sent and not yet acknowledged at most; the upstream's own limit counts where it is "
            "lower.",
        ),
    ] = 500
    resolve_timeout_seconds: Annotated[
        float, Meta(ge=0.1, le=3_600, description="For the address of the upstream's name.")
    ] = 10.0
    connect_timeout_seconds: Annotated[float, Meta(ge=0.1, le=3_600, description="For the connection.")] = (
        10.0
    )
    handshake_timeout_seconds: Annotated[
        float, Meta(ge=0.1, le=3_600, description="For its TLS handshake.")
    ] = 10.0
    connack_timeout_seconds: Annotated[
        float, Meta(ge=0.1, le=3_600, description="For the answer to our CONNECT.")
    ] = 10.0
    puback_timeout_seconds: Annotated[
        float,
        Meta(ge=0.1, le=3_600, description="For any acknowledgement; then we connect anew and send again."),
    ] = 30.0
    backoff_initial_seconds: BackoffInitial = 1.0
    backoff_max_seconds: BackoffMax = 60.0
    max_attempts_per_minute: Annotated[
        int, Meta(ge=0, le=60_000, description="Tries to connect, whatever the pauses; 0 is no limit.")
    ] = 30
    breaker_failures: Annotated[
        int,
        Meta(
            ge=0,
            le=100_000,
            description="After so many failures in a row, at whichever upstream, the circuit breaker opens; 0 is never.",
        ),
    ] = 10
    breaker_open_seconds: Annotated[
        float,
        Meta(
            ge=0.01,
            le=86_400,
            description="For so long, or up to half of it less, nothing is tried then; after it, one single try.",
            extra={"default": "backoff_max_seconds"},
        ),
    ] = _SETTLED_LATER
    arrival_spread_seconds: Annotated[
        float,
        Meta(
            ge=0,
            le=86_400,
            description="Before the first connection, and after one that stood was lost, a random part of this passes: a "
            "fleet does not arrive at once.",
        ),
    ] = 0.0
    failover: Annotated[
        FailoverConfig,
        Meta(description="When an upstream is left, see below.", extra={"default": "see below"}),
    ] = FailoverConfig()
    pacing: Annotated[
        PacingConfig, Meta(description="How fast messages go up, see below.", extra={"default": "see below"})
    ] = PacingConfig()
    canary: Annotated[
        CanaryConfig | None,
        Meta(description="Another upstream for a part of the topics, see below.", extra={"default": "none"}),
    ] = None
    envelopes: Annotated[
        EnvelopesConfig,
        Meta(description="Many messages in one packet, see below.", extra={"default": "see below"}),
    ] = EnvelopesConfig()
    session_expiry_seconds: Annotated[
        int,
        Meta(
            ge=0,
            le=4_294_967_295,
            description="How long the upstream keeps what comes down for us while we are away. 7 days by default.",
        ),
    ] = 7 * DAY_SECONDS
    gateway: Annotated[
        str,
        Meta(
            description="This gateway's name, in `{gateway}` and in the origin and the hops of messages. Unique among all "
            "gateways of the upstream.",
            extra={"default": "the client_id"},
        ),
    ] = _SETTLED_LATER
    origin: Annotated[
        bool,
        Meta(
            description="Number what goes up: the user property `edge-origin`, by which whoever unpacks it knows what came "
            "twice and what is missing. MQTT 5 only."
        ),
    ] = True
    skipped_topic: Annotated[
        str,
        Meta(
            description="Where upstream it is announced which numbers will not come, because policy dropped them here, so "
            "that an ingester does not report them as missing; `{gateway}` is percent-encoded. Needs `origin`. Empty: "
            "nowhere."
        ),
    ] = "edge/{gateway}/skipped"
    max_hops: Annotated[
        int,
        Meta(
            ge=0,
            le=100,
            description="Bridges that a message may have crossed; one that was here already, or crossed that many, is "
            "dropped and counted (`loop`). MQTT 5 only. 0: neither marked nor looked at.",
        ),
    ] = 8
    out: Annotated[tuple[RuleConfig, ...], Meta(description="What goes up: a list of rules, see below.")] = ()
    in_: Annotated[
        tuple[RuleConfig, ...], Meta(description="What comes down: a list of rules, see below.")
    ] = msgspec.field(default=(), name="in")

    def __post_init__(self) -> None:
        allowed = self.name.replace(".", "").replace("-", "").replace("_", "")
        if not (allowed.isascii() and allowed.isalnum() and len(self.name) <= 64):
            raise ConfigError(
                "name", "must be 1 to 64 letters, digits, '.', '-' and '_'", 'for instance name = "cloud"'
            )
        if self.breaker_open_seconds is _SETTLED_LATER:
            msgspec.structs.force_setattr(self, "breaker_open_seconds", self.backoff_max_seconds)
        if self.client_id is _SETTLED_LATER:
            msgspec.structs.force_setattr(
                self, "client_id", f"edge-broker-{socket.gethostname()}-{self.name}"
            )
        else:
            check_client_id(self.client_id)
        if self.second_client_id is _SETTLED_LATER:
            msgspec.structs.force_setattr(self, "second_client_id", f"{self.client_id}-b")
        else:
            check_client_id(self.second_client_id, "second_client_id")
        if self.gateway is _SETTLED_LATER:
            msgspec.structs.force_setattr(self, "gateway", self.client_id)
        elif not self.gateway or "\0" in self.gateway or len(self.gateway) > LONGEST_NAME:
            raise ConfigError(
                "gateway", f"must be text of 1 to {LONGEST_NAME} characters", "leave it out for the client_id"
            )
        if self.skipped_topic:
            try:
                check_topic_name(self.skipped_topic)
            except MqttError as error:
                raise ConfigError(
                    "skipped_topic", f"is no topic: {error.detail}", 'for instance "edge/{gateway}/skipped"'
                ) from None

    @property
    def client_ids(self) -> set[str]:
        """All under which it may connect, at one time or another."""
        return {self.client_id, self.second_client_id} | (
            {uplink_id(self)} if self.separate_uplink else set()
        )

    @property
    def main_line(self) -> BridgeConfig:
        """What goes up, and what comes down unless that has a connection of its own."""
        return uplink_of(self) if self.separate_uplink else self

    @property
    def commands_line(self) -> BridgeConfig | None:
        """What comes down, where it has one."""
        return commands_of(self) if self.separate_uplink else None

    @property
    def canary_line(self) -> BridgeConfig | None:
        """What goes to the canary, where there is one."""
        return canary_of(self)

    @property
    def lines(self) -> list[BridgeConfig]:
        """All of these, each a connection."""
        found = (self.main_line, self.commands_line, self.canary_line)
        return [line for line in found if line is not None]

    @property
    def places(self) -> tuple[Place, ...]:
        """`urls` or `upstreams` taken apart, in their order."""
        if not self.upstream_tables:
            return tuple(Place(parse_place(url)) for url in self.urls)
        return tuple(
            Place(
                parse_place(table.url),
                table.priority,
                table.weight,
                table.fault_delay_ms / 1000,
                table.fault_abort_percent / 100,
            )
            for table in self.upstream_tables
        )

    @property
    def upstreams(self) -> tuple[Upstream, ...]:
        """Those of the places that need no looking up."""
        return tuple(place.where for place in self.places if isinstance(place.where, Upstream))

    @property
    def exposes_password(self) -> bool:
        """Whether a password would cross a network unencrypted."""
        return self.password_file is not None and any(
            not where.tls
            and not (isinstance(where, Upstream) and (where.path or Bind(where.host, where.port).is_loopback))
            for where, *_ in self.places
        )

    def read_password(self) -> bytes | None:
        """The password as its file has it now, None without one; raises OSError."""
        if self.password_file is None:
            return None
        return self.password_file.read_bytes().removesuffix(b"\n").removesuffix(b"\r")
