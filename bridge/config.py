"""What can be configured of a bridge, and how `[[bridges]]` is read: registered as a section by the command line.

Its rules are in `bridge.rules`. Files are opened while reading, to say what is wrong with them before anything starts;
secrets are read when they are needed and are nowhere in the model.
"""

from __future__ import annotations

import socket
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from bridge.identity_checks import check_identity
from bridge.origin import LONGEST_NAME
from bridge.policy_config import FailoverConfig, PacingConfig, UpstreamConfig
from bridge.rules import RuleConfig
from edge_broker.config.bind import Bind
from edge_broker.config.checks import check_file
from edge_broker.config.queues import QueueLimits
from edge_broker.config.reading import Reading
from edge_broker.config.section import DAY_SECONDS
from edge_broker.errors import ConfigError

__all__ = ["BridgeConfig", "RuleConfig", "Upstream", "parse_bridges", "parse_upstream"]

_SETTLED_LATER: Final[Any] = None  # the default of a key that `__post_init__` settles from the others
_DEFAULT_PORTS: Final = {"mqtt": 1883, "mqtts": 8883}
_OTHER_SCHEMES: Final = {
    "tcp": "mqtt",
    "ssl": "mqtts",
    "tls": "mqtts",
    "http": "mqtt",
    "https": "mqtts",
    "unix": "mqtt+unix",
}
_UNIX: Final = "mqtt+unix"
_LONGEST_SOCKET_PATH_BYTES: Final = 107  # what the kernel takes
_SERVICE: Final = "+srv"
_URL_HINT: Final = '"mqtts://broker.example.com:8883", or "mqtt://127.0.0.1:1883" where a sidecar encrypts'


class Upstream(NamedTuple):
    """One place where the upstream may be reached."""

    host: str
    port: int
    tls: bool
    path: str = ""
    """Of a Unix socket; host and port are empty then."""

    def __str__(self) -> str:
        if self.path:
            return f"{_UNIX}://{self.path}"
        return f"{'mqtts' if self.tls else 'mqtt'}://{Bind(self.host, self.port)}"


class Service(NamedTuple):
    """Upstreams that DNS names: SRV records at `name`, such as ``_mqtt._tcp.example.com``."""

    name: str
    tls: bool

    def __str__(self) -> str:
        return f"{'mqtts' if self.tls else 'mqtt'}{_SERVICE}://{self.name}"

    @property
    def domain(self) -> str:
        """What stands behind the service's own labels, those that begin with `_`."""
        labels = self.name.rstrip(".").split(".")
        return ".".join(label for label in labels if not label.startswith("_"))


class Place(NamedTuple):
    """An upstream, or a service that names some, and how it ranks. The faults are for drills."""

    where: Upstream | Service
    priority: int = 0
    weight: int = 0
    fault_delay_seconds: float = 0.0
    fault_abort_share: float = 0.0


def parse_place(url: str) -> Upstream | Service:
    """`mqtts+srv://_mqtt._tcp.DOMAIN`, or what `parse_upstream` takes; `ConfigError` without a key says what is wrong."""
    scheme, _, rest = url.partition("://")
    if not scheme.endswith(_SERVICE):
        return parse_upstream(url)
    upstream = parse_upstream(f"{scheme.removesuffix(_SERVICE)}://{rest}")
    if ":" in rest:
        raise ConfigError("", "has a port, and SRV records bring theirs", "leave the port out")
    service = Service(upstream.host, upstream.tls)
    if not upstream.host.startswith("_") or not service.domain:
        raise ConfigError("", "is no name of an SRV record", '"mqtts+srv://_mqtt._tcp.example.com"')
    return service


def parse_upstream(url: str) -> Upstream:
    """Take `mqtt://HOST[:PORT]`, `mqtts://HOST[:PORT]` or `mqtt+unix:///PATH` apart.

    `ConfigError` without a key says what is wrong.
    """
    if url.startswith(f"{_UNIX}:"):
        return _parse_socket(url)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ConfigError("", f"is no URL: {error}", _URL_HINT) from None
    if parts.username is not None or parts.password is not None:
        raise ConfigError("", "has a name or a password in it", "use username and password_file")
    if parts.scheme in ("ws", "wss"):
        raise ConfigError("", f"{parts.scheme} is not available yet", _URL_HINT)
    if parts.scheme not in _DEFAULT_PORTS:
        meant = _OTHER_SCHEMES.get(parts.scheme)
        hint = f"write {meant}://{parts.netloc or parts.path}" if meant else _URL_HINT
        raise ConfigError("", "must begin with mqtt://, mqtts:// or mqtt+unix://", hint)
    if not parts.hostname:
        raise ConfigError("", "has no host", _URL_HINT)
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise ConfigError("", "has something after its port", _URL_HINT)
    if port == 0:
        raise ConfigError("", "has port 0", "a whole number from 1 to 65535")
    return Upstream(parts.hostname, port or _DEFAULT_PORTS[parts.scheme], parts.scheme == "mqtts")


def _parse_socket(url: str) -> Upstream:
    path = url.removeprefix(f"{_UNIX}:").removeprefix("//")
    if not path.startswith("/") or path.endswith("/"):
        raise ConfigError(
            "", "has no path from the root on", "mqtt+unix:///run/envoy/upstream.sock, with three slashes"
        )
    if len(path.encode()) > _LONGEST_SOCKET_PATH_BYTES or "\0" in path:
        raise ConfigError(
            "",
            f"has a path of more than {_LONGEST_SOCKET_PATH_BYTES} bytes",
            "no Unix socket can have it: use a shorter one",
        )
    return Upstream("", 0, False, path)


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
    username: Annotated[str | None, Meta(description="The name to log in with.")] = None
    password_file: Annotated[
        Path | None,
        Meta(
            description="The file with the password, read at each connect. A line feed at its end does not count."
        ),
    ] = None
    ca: Annotated[
        Path | None,
        Meta(
            description="The CA certificates, PEM, that may vouch for the upstream; without it the system's."
        ),
    ] = None
    certificate: Annotated[Path | None, Meta(description="Our certificate, with its chain, PEM (mTLS).")] = (
        None
    )
    key: Annotated[Path | None, Meta(description="Its private key, PEM, without a passphrase.")] = None
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
    backoff_initial_seconds: Annotated[
        float, Meta(ge=0.01, le=3_600, description="The pause after a first failure; it doubles with each.")
    ] = 1.0
    backoff_max_seconds: Annotated[
        float, Meta(ge=0.01, le=86_400, description="The longest pause between two tries.")
    ] = 60.0
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
        elif not self.client_id or "\0" in self.client_id or len(self.client_id.encode()) > 65_535:
            raise ConfigError("client_id", "must be text of 1 to 65535 bytes", "leave it out for the default")
        if self.gateway is _SETTLED_LATER:
            msgspec.structs.force_setattr(self, "gateway", self.client_id)
        elif not self.gateway or "\0" in self.gateway or len(self.gateway) > LONGEST_NAME:
            raise ConfigError(
                "gateway", f"must be text of 1 to {LONGEST_NAME} characters", "leave it out for the client_id"
            )

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


def parse_bridges(data: object, reading: Reading) -> tuple[BridgeConfig | None, ...]:
    """What `[[bridges]]` says; every mistake in it goes to the reading."""
    bridges = reading.structs(data, BridgeConfig, "bridges")
    for position, bridge in enumerate(bridges):
        if bridge is not None:
            check_bridge(bridge, f"bridges[{position}]", reading)
    found = [
        (f"bridges[{position}]", bridge) for position, bridge in enumerate(bridges) if bridge is not None
    ]
    for (_, earlier), (key, bridge) in combinations(found, 2):
        if bridge.name == earlier.name and not reading.is_wrong(f"{key}.name"):
            reading.mistake(
                f"{key}.name",
                f"{bridge.name!r} is the name of another bridge too",
                "give each a name of its own",
            )
        if (
            bridge.client_id == earlier.client_id
            and bridge.name != earlier.name
            and _urls(bridge) & _urls(earlier)
        ):
            reading.mistake(
                f"{key}.client_id",
                f"is the one of bridge {earlier.name!r} at the same upstream",
                "each would expel the other",
            )
    return tuple(bridges)


def check_bridge(bridge: BridgeConfig, key: str, reading: Reading) -> None:
    """What its keys say together; every mistake goes to the reading."""
    _check_places(bridge, key, reading)
    if (
        not bridge.out
        and not bridge.in_
        and not reading.is_wrong(f"{key}.out")
        and not reading.is_wrong(f"{key}.in")
    ):
        reading.mistake(
            f"{key}.out", "has no rule, and neither has in", 'write out = [{ filter = "sensors/#" }]'
        )
    for position, rule in enumerate(bridge.in_):
        for name, given in (
            ("max_age_seconds", rule.max_age_seconds),
            ("keep_latest", rule.keep_latest),
            ("priority", rule.priority != "normal"),
        ):
            if given:
                reading.mistake(
                    f"{key}.in[{position}].{name}", "counts for what goes up only", "leave it out"
                )
    if bridge.backoff_max_seconds < bridge.backoff_initial_seconds:
        reading.mistake(
            f"{key}.backoff_max_seconds",
            f"is less than backoff_initial_seconds = {bridge.backoff_initial_seconds:g}",
            "write at least as much",
        )
    _check_gateway(bridge, key, reading)
    check_identity(bridge, key, reading)
    _check_password(bridge, key, reading)


def _check_places(bridge: BridgeConfig, key: str, reading: Reading) -> None:
    if bridge.urls and bridge.upstream_tables:
        reading.mistake(f"{key}.upstreams", "says what urls says too", "leave one of the two out")
    elif not (_urls(bridge) or reading.is_wrong(f"{key}.urls") or reading.is_wrong(f"{key}.upstreams")):
        reading.mistake(f"{key}.urls", "is empty", f"write urls = [{_URL_HINT.partition(',')[0]}]")
    keys = {f"{key}.urls[{position}]": url for position, url in enumerate(bridge.urls)}
    for position, table in enumerate(bridge.upstream_tables):
        keys[f"{key}.upstreams[{position}].url"] = table.url
    for where, url in keys.items():
        try:
            parse_place(url)
        except ConfigError as error:
            reading.adopt(error, where)
    found = list(keys.values())
    for position, (where, url) in enumerate(keys.items()):
        if url in found[:position]:
            reading.mistake(
                where, "is there twice", "write each once; its weight says how often it is chosen"
            )


def _urls(bridge: BridgeConfig) -> set[str]:
    return {*bridge.urls, *(table.url for table in bridge.upstream_tables)}


def _check_gateway(bridge: BridgeConfig, key: str, reading: Reading) -> None:
    """Its name stands for one level of a topic, and in the properties of messages."""
    if len(bridge.gateway) > LONGEST_NAME:
        reading.mistake(
            f"{key}.gateway", f"the client_id is longer than {LONGEST_NAME} characters", 'write gateway = "…"'
        )
    if any(sign in bridge.gateway for sign in "/+#") and any(
        rule.names_gateway for rule in (*bridge.out, *bridge.in_)
    ):
        reading.mistake(
            f"{key}.gateway",
            f"{bridge.gateway!r} is not one level of a topic, and a rule has {{gateway}}",
            'write gateway = "…" without /, + and #',
        )


def _check_password(bridge: BridgeConfig, key: str, reading: Reading) -> None:
    if bridge.password_file is None or not check_file(bridge.password_file, f"{key}.password_file", reading):
        return
    if bridge.username is None:
        reading.mistake(f"{key}.username", "is missing, and password_file needs it", 'write username = "…"')
    if not bridge.read_password():
        reading.mistake(
            f"{key}.password_file", f"{bridge.password_file} is empty", "write the password into it"
        )
