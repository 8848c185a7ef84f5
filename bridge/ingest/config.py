"""What can be configured of the ingester, in a TOML file of its own: every key has a default but the cluster's URL."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from bridge.client_keys import (
    BackoffInitial,
    BackoffMax,
    Certificate,
    Key,
    PasswordFile,
    Username,
    check_client_id,
)
from bridge.config import BridgeConfig, RuleConfig
from bridge.policy_config import FailoverConfig
from edge_broker.config.bind import parse_bind
from edge_broker.config.model import LogConfig
from edge_broker.config.section import DAY_SECONDS, Section
from edge_broker.errors import ConfigError, MqttError
from edge_broker.wire.topics import check_topic_filter, check_topic_name

_SETTLED_LATER: Final[Any] = None
MEBIBYTE: Final = 1 << 20


class BrokerConfig(Section, frozen=True, kw_only=True):
    """A broker that the ingester is a client of, and who it is to that."""

    urls: Annotated[
        tuple[Annotated[str, Meta(examples=['"mqtts://broker.example.com:8883"'])], ...],
        Meta(
            description="Where it is: `mqtts://host:8883` or `mqtt://host:1883`. Several are tried in turn."
        ),
    ]
    client_id: Annotated[
        str,
        Meta(
            description="Unique there. The broker keeps what comes while we are away under it: do not change it.",
            extra={"default": "edge-ingest-HOSTNAME"},
        ),
    ] = _SETTLED_LATER
    username: Username = None
    password_file: PasswordFile = None
    ca: Annotated[
        Path | None,
        Meta(description="The CA certificates, PEM, that may vouch for the broker; without it the system's."),
    ] = None
    certificate: Certificate = None
    key: Key = None
    server_name: Annotated[
        str | None,
        Meta(
            description="The name that the broker's certificate must have.",
            extra={"default": "the host in the URL"},
            examples=['"broker.example.com"'],
        ),
    ] = None
    version: Annotated[
        Literal["auto", "5", "3.1.1"],
        Meta(
            description="MQTT's version; `auto` tries 5 and falls back to 3.1.1, which carries origins in envelopes only."
        ),
    ] = "auto"
    keep_alive_seconds: Annotated[
        int, Meta(ge=1, le=65_535, description="The keep alive of the connection.")
    ] = 60
    connect_timeout_seconds: Annotated[
        float,
        Meta(
            ge=0.1,
            le=3_600,
            description="For the connection and its TLS handshake, and for CONNECT's answer.",
        ),
    ] = 10.0
    answer_timeout_seconds: Annotated[
        float, Meta(ge=0.1, le=3_600, description="For any other answer of the broker.")
    ] = 30.0
    backoff_initial_seconds: BackoffInitial = 1.0
    backoff_max_seconds: BackoffMax = 30.0
    session_expiry_seconds: Annotated[
        int,
        Meta(
            ge=60,
            le=4_294_967_295,
            description="How long the broker keeps our session while we are away. 7 days.",
        ),
    ] = 7 * DAY_SECONDS

    def __post_init__(self) -> None:
        if self.client_id is _SETTLED_LATER:
            msgspec.structs.force_setattr(self, "client_id", f"edge-ingest-{socket.gethostname()}")
        else:
            check_client_id(self.client_id)

    def as_bridge(self, name: str) -> BridgeConfig:
        """The same as the bridge's parts want it, which connect for us."""
        return BridgeConfig(
            urls=self.urls,
            name=name,
            client_id=self.client_id,
            username=self.username,
            password_file=self.password_file,
            ca=self.ca,
            certificate=self.certificate,
            key=self.key,
            server_name=self.server_name,
            version=self.version,
            keep_alive_seconds=self.keep_alive_seconds,
            resolve_timeout_seconds=self.connect_timeout_seconds,
            connect_timeout_seconds=self.connect_timeout_seconds,
            handshake_timeout_seconds=self.connect_timeout_seconds,
            connack_timeout_seconds=self.connect_timeout_seconds,
            puback_timeout_seconds=self.answer_timeout_seconds,
            backoff_initial_seconds=self.backoff_initial_seconds,
            backoff_max_seconds=self.backoff_max_seconds,
            max_attempts_per_minute=0,  # of these there are few: the pauses are enough
            breaker_failures=0,
            failover=FailoverConfig(eject_after_failures=0),
            session_expiry_seconds=self.session_expiry_seconds,
            in_=(RuleConfig(filter="#"),),
        )


def _check_filter(topic_filter: str, key: str) -> None:
    try:
        check_topic_filter(topic_filter)
    except MqttError as error:
        raise ConfigError(key, f"{topic_filter!r} is no filter: {error.detail}") from None


class TopicsConfig(Section, frozen=True, kw_only=True):
    """What is taken from the cluster."""

    messages: Annotated[
        tuple[Annotated[str, Meta(examples=['"sites/#"'])], ...],
        Meta(description="Topic filters of plain messages, with an origin or without."),
    ] = ()
    envelopes: Annotated[
        str, Meta(description="Where gateways send envelopes; `+` stands for the gateway, empty for none.")
    ] = "edge/+/envelopes"
    skipped: Annotated[
        str,
        Meta(
            description="Where they tell which numbers will not come; `+` stands for the gateway, empty for none."
        ),
    ] = "edge/+/skipped"

    def __post_init__(self) -> None:
        for position, topic_filter in enumerate(self.messages):
            _check_filter(topic_filter, f"messages[{position}]")
        for key, topic_filter in (("envelopes", self.envelopes), ("skipped", self.skipped)):
            if topic_filter:
                _check_filter(topic_filter, key)
                if topic_filter.split("/").count("+") != 1 or "#" in topic_filter:
                    raise ConfigError(key, "must have one + and no #", 'as in "edge/+/envelopes"')

    @property
    def filters(self) -> tuple[str, ...]:
        """All of them."""
        return tuple(dict.fromkeys(one for one in (self.envelopes, self.skipped, *self.messages) if one))


class BatchConfig(Section, frozen=True, kw_only=True):
    """How much is taken, kept and acknowledged at once: the larger, the fewer syncs."""

    messages: Annotated[
        int,
        Meta(
            ge=1,
            le=65_535,
            description="Messages and envelopes at most; the cluster sends no more unacknowledged.",
        ),
    ] = 4_000
    max_bytes: Annotated[
        int, Meta(ge=65_536, le=1 << 30, description="Bytes of them at most; then the cluster has to wait.")
    ] = MEBIBYTE
    delay_ms: Annotated[
        float, Meta(ge=0, le=10_000, description="How long the first of them waits for others.")
    ] = 20.0


class FileConfig(Section, frozen=True, kw_only=True):
    """Output into files: `output = "file"`."""

    directory: Annotated[
        Path | None, Meta(description="Where they are written.", extra={"default": "`output` in data_dir"})
    ] = None
    format: Annotated[Literal["json", "cbor"], Meta(description="JSON lines, or a CBOR sequence.")] = "json"
    rotate_bytes: Annotated[
        int, Meta(ge=4_096, le=1 << 40, description="A file that is larger is followed by a new one. 1 GiB.")
    ] = 1 << 30


class TableConfig(Section, frozen=True, kw_only=True):
    """Output into a table: `output = "table"`."""

    path: Annotated[
        Path | None, Meta(description="The SQLite database.", extra={"default": "`readings.db` in data_dir"})
    ] = None


class EmitConfig(Section, frozen=True, kw_only=True):
    """Output to a broker at QoS 2, besides `[target]`: `output = "mqtt"`."""

    topic_prefix: Annotated[str, Meta(description="What is put before each topic.")] = ""
    window: Annotated[
        int,
        Meta(
            ge=1,
            le=10_000,
            description="Messages on their way at most; the broker's own limit counts where lower.",
        ),
    ] = 500
    max_waiting: Annotated[
        int,
        Meta(
            ge=1_000,
            le=1_000_000_000,
            description="Messages that may wait for the target; then the cluster has to.",
        ),
    ] = 1_000_000

    def __post_init__(self) -> None:
        prefix = self.topic_prefix
        if prefix and (not prefix.endswith("/") or set(prefix) & set("+#\0")):
            raise ConfigError("topic_prefix", "must end with / and have no wildcard", 'as in "ingested/"')


class DevicesConfig(Section, frozen=True, kw_only=True):
    """Devices that number their messages themselves, in MQTT 5 user properties."""

    deduplicate: Annotated[
        bool,
        Meta(
            description="Drop what a device sent twice, its own repetitions included; whoever may publish can feign them."
        ),
    ] = False
    device_property: Annotated[str, Meta(description="Who: the device's name.")] = "device"
    spool_property: Annotated[
        str, Meta(description="Which of its spools: a device that lost its spool counts anew in another one.")
    ] = "spool"
    sequence_property: Annotated[str, Meta(description="The number, rising.")] = "sequence"


class LeaseConfig(Section, frozen=True, kw_only=True):
    """How gateways learn that envelopes are understood here."""

    topic: Annotated[str, Meta(description="Where it is announced, retained; empty for never.")] = (
        "edge/ingest/lease"
    )
    valid_seconds: Annotated[int, Meta(ge=3, le=86_400, description="How long one announcement counts.")] = (
        180
    )
    renew_seconds: Annotated[int, Meta(ge=1, le=86_400, description="How often it is renewed.")] = 60
    dictionaries: Annotated[
        tuple[Annotated[Path, Meta(examples=['"/etc/edge-broker/room.dict"'])], ...],
        Meta(description="zstd dictionaries that envelopes may need, each a file."),
    ] = ()

    def __post_init__(self) -> None:
        if self.topic:
            try:
                check_topic_name(self.topic)
            except MqttError as error:
                raise ConfigError("topic", f"{self.topic!r} is no topic: {error.detail}") from None


class LimitsConfig(Section, frozen=True, kw_only=True):
    """What a gateway, or whoever feigns to be one, may cost."""

    max_packet_bytes: Annotated[
        int, Meta(ge=1_024, le=1 << 28, description="The largest message that is taken from the cluster.")
    ] = 4 * MEBIBYTE
    envelope_bytes: Annotated[int, Meta(ge=1_024, le=1 << 28, description="An envelope as it comes.")] = (
        MEBIBYTE
    )
    envelope_unpacked_bytes: Annotated[
        int, Meta(ge=1_024, le=1 << 30, description="An envelope unpacked.")
    ] = 8 * MEBIBYTE
    envelope_spread_bytes: Annotated[
        int,
        Meta(ge=1_024, le=1 << 30, description="Its messages, each with its topic and its properties."),
    ] = 16 * MEBIBYTE
    envelope_messages: Annotated[int, Meta(ge=1, le=65_536, description="Messages in an envelope.")] = 20_000
    envelope_entries: Annotated[
        int, Meta(ge=1, le=65_536, description="Different topics and properties in an envelope.")
    ] = 4_000
    gateways: Annotated[
        int,
        Meta(
            ge=1,
            le=1_000_000,
            description="Gateways followed; what others send passes with its duplicates, and is counted (`untracked`).",
        ),
    ] = 5_000
    lanes_per_gateway: Annotated[
        int, Meta(ge=1, le=1_000, description="Lanes of a gateway; the one silent longest goes.")
    ] = 8
    devices: Annotated[int, Meta(ge=1, le=1_000_000, description="Devices followed, likewise.")] = 20_000
    spools_per_device: Annotated[
        int, Meta(ge=1, le=1_000, description="Spools of a device; the one silent longest goes.")
    ] = 4
    forget_days: Annotated[
        int,
        Meta(
            ge=1, le=36_500, description="Lanes and spools silent for longer are forgotten at the next start."
        ),
    ] = 365
    rejected: Annotated[
        int, Meta(ge=0, le=1_000_000, description="What cannot be unpacked is kept, the latest so many.")
    ] = 1_000
    rejected_bytes: Annotated[int, Meta(ge=0, le=1 << 40, description="And of these so many bytes.")] = (
        64 * MEBIBYTE
    )


class GapsConfig(Section, frozen=True, kw_only=True):
    """When missing numbers are reported."""

    report_after_seconds: Annotated[
        float, Meta(ge=0, le=86_400, description="How long numbers may be missing before the log says so.")
    ] = 30.0


class HttpConfig(Section, frozen=True, kw_only=True):
    """Health and metrics over HTTP."""

    bind: Annotated[
        str, Meta(description="Address and port on loopback, such as `127.0.0.1:8081`; empty is off.")
    ] = ""

    def __post_init__(self) -> None:
        if self.bind and not parse_bind(self.bind).is_loopback:
            raise ConfigError("bind", "is open to the network, and has no password", "127.0.0.1:8081, say")


class IngestConfig(Section, frozen=True, kw_only=True):
    """The whole file."""

    cluster: BrokerConfig
    data_dir: Annotated[
        Path,
        Meta(
            description='What was seen, and with `output = "mqtt"` what waits. Only one ingester may use it.'
        ),
    ] = Path("/var/lib/edge-ingest")
    output: Annotated[Literal["file", "mqtt", "table"], Meta(description="Where it goes.")] = "file"
    topics: TopicsConfig = TopicsConfig()
    batch: BatchConfig = BatchConfig()
    file: FileConfig = FileConfig()
    table: TableConfig = TableConfig()
    mqtt: EmitConfig = EmitConfig()
    target: BrokerConfig | None = None
    devices: DevicesConfig = DevicesConfig()
    lease: LeaseConfig = LeaseConfig()
    gaps: GapsConfig = GapsConfig()
    limits: LimitsConfig = LimitsConfig()
    http: HttpConfig = HttpConfig()
    log: LogConfig = LogConfig()

    @property
    def file_directory(self) -> Path:
        """Where the output's files are."""
        return self.file.directory or self.data_dir / "output"

    @property
    def table_path(self) -> Path:
        """Where the output's database is."""
        return self.table.path or self.data_dir / "readings.db"
