"""What can be measured, by name, and how many rounds of it are worth their time.

Every run gets a fresh broker process: a peak of memory, a fragmented heap or a warm cache of one run must not show in
the next, and a start costs half a second. Within a round the brokers take turns, and each round begins with another
one, so that a slow minute of the machine hits all of them.
"""

import ssl
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import (
    backlog,
    blackhole,
    brokers,
    drain,
    flood,
    idle,
    line_bytes,
    live,
    offline,
    steady,
    uplink,
)
from benchmarks.brokers import Certificate, Kind, RunningBroker, Upstream
from benchmarks.figures import Figures
from benchmarks.machine import Cores


@dataclass(frozen=True)
class Options:
    """How long and how much; the defaults are those of a full run."""

    version: int = 4
    seconds: float = 3.0
    backlog: int = 200_000
    flood_seconds: float = 10.0
    idle_seconds: float = 20.0
    steady_seconds: float = 60.0
    large_backlog: int = 5_000_000
    pairs: int = 7
    drain: int = 1_000_000
    connections: int = 5_000
    tls_connections: int = 1_000


@dataclass(frozen=True)
class Bench:
    """One run's place: which broker, in which empty directory, on which core."""

    kind: Kind
    directory: Path
    cores: Cores
    options: Options

    def start(
        self,
        name: str = "broker",
        tls: Certificate | None = None,
        upstream: Upstream | None = None,
        commit_delay_ms: int | None = None,
        data_dir: Path | None = None,
    ) -> AbstractContextManager[RunningBroker]:
        core = self.cores.broker if self.cores.are_apart else None
        return brokers.running(
            self.kind, self.directory / name, core, tls, upstream, commit_delay_ms, data_dir
        )

    def start_upstream(self, tls: Certificate) -> AbstractContextManager[RunningBroker]:
        """A mosquitto for a bridge to lead to, off the measured broker's core."""
        core = self.cores.generator if self.cores.are_apart else None
        return brokers.running(brokers.KINDS["mosquitto"], self.directory / "upstream", core, tls)


@dataclass(frozen=True)
class Scenario:
    """`name` is unique; `family` is what the command line calls it and its siblings."""

    name: str
    family: str
    title: str
    run: Callable[[Bench], Figures]
    headline: tuple[str, ...]  # the figures for the progress line
    qos: int | None = None
    most_rounds: int | None = None
    only: str | None = None  # the one kind of broker that it is for


def _live(pattern: live.Pattern, qos: int) -> Scenario:
    def run(bench: Bench) -> Figures:
        with bench.start() as broker:
            entrance = live.Entrance(broker, bench.options.version)
            return live.measure(entrance, pattern, qos, bench.options.seconds)

    return Scenario(
        name=f"{pattern.name}-qos{qos}",
        family=pattern.name,
        title=pattern.title,
        run=run,
        headline=("messages_per_second", "cpu_us_per_message", "p50_ms", "p99_ms"),
        qos=qos,
    )


def _tls(pattern: live.Pattern) -> Scenario:
    """Over TLS at QoS 1; the certificate is made for the run."""

    def run(bench: Bench) -> Figures:
        bench.directory.mkdir(parents=True, exist_ok=True)
        certificate = idle.make_certificate(bench.directory)
        context = ssl.create_default_context(cafile=str(certificate.certificate))
        with bench.start(tls=certificate) as broker:
            entrance = live.Entrance(broker, bench.options.version, context)
            return live.measure(entrance, pattern, 1, bench.options.seconds)

    return Scenario(
        name=f"tls-{pattern.name}",
        family="tls",
        title=pattern.title,
        run=run,
        headline=("messages_per_second", "cpu_us_per_message", "p50_ms", "p99_ms"),
        qos=1,
        most_rounds=3,
    )


def _run_offline(bench: Bench) -> Figures:
    with bench.start() as broker:
        return offline.measure(broker, bench.options.version, bench.options.backlog)


def _run_flood(bench: Bench) -> Figures:
    with bench.start() as broker:
        return flood.measure(broker, bench.options.version, bench.options.flood_seconds)


def _run_idle(bench: Bench) -> Figures:
    options = bench.options
    bench.directory.mkdir(parents=True, exist_ok=True)
    certificate = idle.make_certificate(bench.directory)
    with bench.start_upstream(certificate) as cluster:
        upstream = Upstream(cluster.tls_address, certificate.certificate)
        with bench.start("plain", upstream=upstream) as broker:
            figures = idle.measure_plain(broker, options.version, options.idle_seconds, options.connections)
    with bench.start("tls", certificate) as broker:
        return {**figures, **idle.measure_tls(broker, options.version, options.tls_connections, certificate)}


def _run_backlog(bench: Bench) -> Figures:
    """One broker takes it, another one starts with it."""
    options = bench.options
    data_dir = bench.directory / "store"
    with bench.start("fills", data_dir=data_dir) as broker:
        figures = backlog.fill(broker, options.version, options.large_backlog)
    with bench.start("drains", data_dir=data_dir) as broker:
        return figures | backlog.come_back(broker, options.version, options.large_backlog)


def _run_steady(bench: Bench) -> Figures:
    """With an upstream that answers, then with one that is not there."""
    options = bench.options
    bench.directory.mkdir(parents=True, exist_ok=True)
    certificate = idle.make_certificate(bench.directory)
    measured = {}
    with bench.start_upstream(certificate) as cluster:
        upstream = Upstream(cluster.tls_address, certificate.certificate)
        with bench.start("steady", upstream=upstream, commit_delay_ms=steady.COMMIT_DELAY_MS) as broker:
            measured["alive"] = steady.measure(broker, options.version, options.steady_seconds)
    with bench.start("alone", upstream=upstream, commit_delay_ms=steady.COMMIT_DELAY_MS) as broker:
        measured["dead"] = steady.measure(broker, options.version, options.steady_seconds)
    return {
        f"{state}_{name}": value for state, figures in measured.items() for name, value in figures.items()
    }


def _run_blackhole(bench: Bench) -> Figures:
    options = bench.options
    bench.directory.mkdir(parents=True, exist_ok=True)
    rounds = []
    with blackhole.upstream(bench.directory) as upstream:
        leads_to = Upstream(upstream.address, patience_seconds=blackhole.PATIENCE_SECONDS)
        to_nobody = Upstream(blackhole.NOBODY, patience_seconds=blackhole.PATIENCE_SECONDS)
        for number in range(options.pairs):
            measured = {}
            for state in blackhole.STATES:
                where = to_nobody if state == "refused" else leads_to
                vanish = upstream.vanish if state == "gone" else None
                with bench.start(f"{state}-{number}", upstream=where) as broker:
                    measured[state] = blackhole.measure(broker, options.version, options.seconds, vanish)
            upstream.return_()
            rounds.append(measured)
    return blackhole.compare(rounds)


def _run_drain(bench: Bench) -> Figures:
    """Filled once, drained twice, by brokers that start on copies of the store."""
    options, messages = bench.options, bench.options.drain
    bench.directory.mkdir(parents=True, exist_ok=True)
    certificate = idle.make_certificate(bench.directory)
    full = bench.directory / "full"
    nobody = Upstream(("127.0.0.1", 1), certificate.certificate, drain.bridge(("127.0.0.1", 1), ""))
    with bench.start("fills", upstream=nobody, data_dir=full) as broker:
        drain.fill(broker, options.version, messages)
    with bench.start_upstream(certificate) as cluster:
        there = Upstream(cluster.address, certificate.certificate, drain.bridge(cluster.address, ""))
        copy = drain.copy_of(full, "plain-copy")
        with bench.start("plain", upstream=there, data_dir=copy) as broker:
            figures = drain.plain(broker, copy, messages)
        there = Upstream(
            cluster.address, certificate.certificate, drain.bridge(cluster.address, drain.PACKED)
        )
        core = bench.cores.generator if bench.cores.are_apart else None
        output = bench.directory / "ingester"
        with (
            uplink.ingester(output, cluster.address, core=core) as ingester,
            bench.start("packed", upstream=there, data_dir=full) as broker,
        ):
            return figures | drain.packed(broker, full, ingester, output, messages)


def _run_wire(bench: Bench) -> Figures:
    """All ways at once."""
    options = bench.options
    bench.directory.mkdir(parents=True, exist_ok=True)
    certificate = idle.make_certificate(bench.directory)
    dictionary, output, data_dir = (bench.directory / name for name in ("dictionary", "ingester", "store"))
    line_bytes.train_dictionary(dictionary)
    knows = f'[lease]\ndictionaries = ["{dictionary}"]'
    core = bench.cores.generator if bench.cores.are_apart else None
    with (
        bench.start_upstream(certificate) as cluster,
        line_bytes.relays(cluster.tls_address) as relays,
        uplink.ingester(output, cluster.address, knows, core),
    ):
        sections = line_bytes.bridges(relays, certificate.certificate, dictionary)
        upstream = Upstream(cluster.tls_address, certificate.certificate, sections)
        with bench.start("broker", upstream=upstream, data_dir=data_dir) as broker:
            seconds = int(options.steady_seconds)
            return line_bytes.measure(broker, data_dir, output, relays, options.version, seconds)


SCENARIOS: tuple[Scenario, ...] = (
    *(_live(pattern, qos) for qos in (0, 1) for pattern in live.PATTERNS),
    *(_tls(pattern) for pattern in live.PATTERNS if pattern.name in ("1to1", "200pairs", "1to100")),
    Scenario(
        name="offline",
        family="offline",
        title="QoS 1 into an offline persistent session, and its drain",
        run=_run_offline,
        headline=(
            "enqueue_messages_per_second",
            "enqueue_cpu_us_per_message",
            "drain_messages_per_second",
            "peak_mb",
        ),
        qos=1,
        most_rounds=3,
    ),
    Scenario(
        name="flood",
        family="flood",
        title="QoS 1 into an offline session beside a QoS 0 flood",
        run=_run_flood,
        headline=("puback_p50_ms", "puback_p99_ms", "puback_max_ms", "flood_messages_per_second"),
        most_rounds=3,
    ),
    Scenario(
        name="idle",
        family="idle",
        title="nothing to do, and idle connections",
        run=_run_idle,
        headline=("idle_resident_mb", "idle_cpu_percent", "connections_added_mb", "tls_connections_added_mb"),
        most_rounds=1,  # memory does not vary as speed does
    ),
    Scenario(
        name="backlog",
        family="backlog",
        title="a backlog of millions",
        run=_run_backlog,
        headline=("filling_peak_mb", "start_seconds", "first_message_seconds", "draining_peak_mb"),
        qos=1,
        most_rounds=1,
        only="edge-broker",
    ),
    Scenario(
        name="wire",
        family="wire",
        title="bytes on the line: plain, and in envelopes",
        run=_run_wire,
        headline=("bare_bytes_per_reading", "plain_percent", "packed_percent", "trained_percent"),
        qos=1,
        most_rounds=1,  # nor do these bytes
        only="edge-broker",
    ),
    Scenario(
        name="drain",
        family="drain",
        title="a backlog goes up: plain, and in envelopes",
        run=_run_drain,
        headline=(
            "plain_messages_per_second",
            "packed_messages_per_second",
            "packed_peak_mb",
            "ingester_peak_mb",
        ),
        qos=1,
        most_rounds=3,
        only="edge-broker",
    ),
    Scenario(
        name="steady",
        family="steady",
        title="an ordinary day: what reaches the disk",
        run=_run_steady,
        headline=("alive_written_bytes_per_message", "dead_written_bytes_per_message", "alive_messages"),
        qos=1,
        most_rounds=1,  # nor do bytes
        only="edge-broker",
    ),
    Scenario(
        name="blackhole",
        family="blackhole",
        title="local clients while packets to the upstream vanish",
        run=_run_blackhole,
        headline=("there_p99_ms", "gone_p99_ms", "p99_ratio", "p99_ratio_to_refused"),
        qos=1,
        most_rounds=1,  # of pairs
        only="edge-broker",
    ),
)

FAMILIES = tuple(dict.fromkeys(scenario.family for scenario in SCENARIOS))


def chosen(families: tuple[str, ...], qos: int | None) -> list[Scenario]:
    """All scenarios of the families (none given: all), at one QoS if one is given."""
    return [
        scenario
        for scenario in SCENARIOS
        if (not families or scenario.family in families) and (qos is None or scenario.qos in (None, qos))
    ]
