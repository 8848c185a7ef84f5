"""Which tables there are, a function each: medians over the rounds. Nothing is computed here but ratios and roundings."""

import math

from benchmarks import blackhole, drain, offline, steady, targets, uplink
from benchmarks.figures import Figures, medians, spread
from benchmarks.links import TlsLink
from benchmarks.results import Results
from benchmarks.scenarios import Scenario
from benchmarks.table import Table, number

_HOW_TO_READ = (
    "Latency is from publish to receipt. The ratio is mosquitto's CPU per message divided by the broker's. "
    "Busy is the broker's share of its core: where it is below 100 %, the generator, or another process, sets the pace."
)
_HOW_TO_READ_TLS = (
    f"Every connection in {' '.join(reversed(TlsLink.CIPHER))}, a P-256 certificate, clients without one. Otherwise as "
    "above; the generator pays for its own half of TLS."
)


def tables(results: Results) -> list[Table]:
    found = [
        _live_table(results, f"Live messages, QoS {qos}, 64 B", f"-qos{qos}", _HOW_TO_READ) for qos in (0, 1)
    ]
    found.append(_live_table(results, "Live messages over TLS, QoS 1, 64 B", "tls-", _HOW_TO_READ_TLS))
    found += [
        _offline_table(results),
        _flood_table(results),
        _idle_table(results),
        _backlog_table(results),
        _wire_table(results),
        _drain_table(results),
        _steady_table(results),
        _blackhole_table(results),
    ]
    found += [_targets_table(results)]
    return [table for table in found if table.rows]


def _rows(results: Results, family: str) -> list[tuple[str, Figures]]:
    """The broker and its medians, where it has any, of a scenario that has its own table."""
    found = results.medians()
    return [(broker, found[family, broker]) for broker in results.kinds if found.get((family, broker))]


def _ratio(results: Results, scenario: str, broker: str, figure: str = targets.CPU) -> str:
    return number(targets.cpu_ratio(results.medians(), scenario, broker, figure), 2)


def _live_table(results: Results, title: str, part_of_name: str, note: str) -> Table:
    rows = [
        _live_row(results, scenario, broker)
        for scenario in results.scenarios
        if part_of_name in scenario.name
        for broker in results.kinds
        if results.counted(scenario.name, broker)
    ]
    return Table(
        title,
        (note,),
        (
            "Load", "Broker", "Messages/s", "p50 ms", "p99 ms", "CPU µs/message", "smallest to largest",
            "Ratio", "Busy %", "Generator µs/message", "Peak RSS MB", "Calm",
        ),
        tuple(rows),
    )  # fmt: skip


def _live_row(results: Results, scenario: Scenario, broker: str) -> tuple[str, ...]:
    runs = results.counted(scenario.name, broker)
    figures = medians(runs)
    low, high = spread(runs, targets.CPU)
    return (
        scenario.title,
        broker,
        number(figures["messages_per_second"]),
        number(figures["p50_ms"], 2),
        number(figures["p99_ms"], 2),
        number(figures[targets.CPU], 2),
        f"{number(low, 2)} to {number(high, 2)}",
        _ratio(results, scenario.name, broker),
        number(figures["broker_busy_percent"]),
        number(figures["generator_us_per_message"], 2),
        number(figures["peak_mb"], 1),
        results.calm(scenario.name, broker),
    )


def _offline_table(results: Results) -> Table:
    rows = [
        (
            broker,
            number(figures["enqueue_messages_per_second"]),
            number(figures["puback_p50_ms"], 2),
            number(figures["puback_p99_ms"], 2),
            number(figures["enqueue_cpu_us_per_message"], 2),
            _ratio(results, "offline", broker, "enqueue_cpu_us_per_message"),
            number(figures["written_bytes_per_message"]),
            number(figures["drain_messages_per_second"]),
            number(figures["drain_cpu_us_per_message"], 2),
            _ratio(results, "offline", broker, "drain_cpu_us_per_message"),
            number(figures["peak_mb"], 1),
            results.calm("offline", broker),
            results.kinds[broker].promise,
        )
        for broker, figures in _rows(results, "offline")
    ]
    return Table(
        f"Into an offline persistent session, QoS 1, 200 B, W 1,000, {results.options.backlog:,} messages",
        (
            "Latency is from publish to PUBACK. The drain runs from the subscriber's CONNECT until the broker has "
            "dealt with its last PUBACK; every message came exactly once and in order, or the run counts as failed.",
        ),
        (
            "Broker", "Enqueue messages/s", "p50 ms", "p99 ms", "CPU µs/message", "Ratio", "Written B/message",
            "Drain messages/s", "Drain CPU µs/message", "Drain ratio", "Peak RSS MB", "Calm", "What its PUBACK says",
        ),
        tuple(rows),
    )  # fmt: skip


def _flood_table(results: Results) -> Table:
    rows = [
        (
            broker,
            number(figures["puback_p50_ms"], 2),
            number(figures["puback_p99_ms"], 2),
            number(figures["puback_max_ms"], 2),
            number(figures["flood_messages_per_second"]),
            number(figures["broker_busy_percent"]),
            number(figures["peak_mb"], 1),
            results.calm("flood", broker),
            results.kinds[broker].promise,
        )
        for broker, figures in _rows(results, "flood")
    ]
    return Table(
        "Durable beside a flood",
        (
            "Twenty connections send QoS 0 as fast as the broker reads; another client publishes QoS 1 to an offline "
            "persistent session, one message in flight, at most a hundred a second. Latency is to its PUBACK.",
        ),
        (
            "Broker", "PUBACK p50 ms", "p99 ms", "max ms", "Flood messages/s", "Busy %", "Peak RSS MB", "Calm",
            "What its PUBACK says",
        ),
        tuple(rows),
    )  # fmt: skip


def _idle_table(results: Results) -> Table:
    rows = [
        (
            broker,
            number(figures["idle_resident_mb"], 1),
            number(figures["idle_cpu_percent"], 2),
            number(figures["connections_added_mb"], 1),
            number(figures["tls_connections_added_mb"], 1),
        )
        for broker, figures in _rows(results, "idle")
    ]
    options = results.options
    return Table(
        "One bridge, and nothing to do",
        (f"CPU over {options.idle_seconds:g} s, as a share of one core; memory is resident memory.",),
        (
            "Broker", "RSS MB", "CPU %", f"MB added by {options.connections:,} connections",
            f"MB added by {options.tls_connections:,} TLS connections",
        ),
        tuple(rows),
    )  # fmt: skip


def _backlog_table(results: Results) -> Table:
    rows = [
        (
            broker,
            number(figures["messages"]),
            number(figures["messages_per_second"]),
            number(figures["filling_peak_mb"], 1),
            number(figures["start_seconds"], 2),
            number(figures["first_message_seconds"], 3),
            number(figures["drain_messages_per_second"]),
            number(figures["draining_peak_mb"], 1),
        )
        for broker, figures in _rows(results, "backlog")
    ]
    return Table(
        "A backlog of millions",
        (
            f"QoS 1, {offline.PAYLOAD_BYTES} B, into an offline persistent session; then the broker is stopped and started "
            "again on the same store. Start: from the process's beginning until it answered a CONNECT.",
        ),
        (
            "Broker", "Messages", "Messages/s in", "Peak MB, filling", "Start s", "First message s",
            "Messages/s out", "Peak MB, draining",
        ),
        tuple(rows),
    )  # fmt: skip


def _steady_table(results: Results) -> Table:
    rows = [
        (
            upstream,
            number(figures[f"{state}_messages"]),
            number(figures[f"{state}_written_bytes_per_message"], 2),
            number(figures[f"{state}_broker_busy_percent"], 2),
            number(figures[f"{state}_peak_mb"], 1),
        )
        for _, figures in _rows(results, "steady")
        for state, upstream in (("alive", "a mosquitto, over TLS"), ("dead", "nobody there"))
    ]
    return Table(
        f"An ordinary day: {steady.SENSORS} sensors, a message a second each, QoS 1, {steady.PAYLOAD_BYTES} B",
        (
            "A persistent session is connected and acknowledges at once, and a bridge takes everything; "
            f"commit_delay_ms {steady.COMMIT_DELAY_MS}, {results.options.steady_seconds:g} s each. Written is what the "
            "kernel counts for the broker's process, journal and file system blocks included.",
        ),
        ("Upstream", "Messages", "Written B/message", "CPU %", "Peak RSS MB"),
        tuple(rows),
    )


def _blackhole_table(results: Results) -> Table:
    names = ("p50", "p99", "puback_p50", "puback_p99")
    states = {"there": "there", "refused": "refuses at once", "gone": "every packet dropped"}
    ratios = {"there": "", "refused": "refused_p99_ratio", "gone": "p99_ratio"}
    rows = [
        (
            upstream,
            *(number(figures[f"{state}_{name}_ms"], 2) for name in names),
            number(figures.get(ratios[state], 1.0), 2),
        )
        for _, figures in _rows(results, "blackhole")
        for state, upstream in states.items()
    ]
    return Table(
        f"Local clients while the upstream is black-holed: {blackhole.SENSORS} sensors, "
        f"{blackhole.MESSAGES_PER_SECOND:,} messages a second together, QoS 1, {blackhole.PAYLOAD_BYTES} B",
        (
            "A bridge takes everything to a mosquitto in a network namespace; to nobody, whose port is closed; and to that "
            "mosquitto again, from which no packet comes back any more in the middle of a connection. Medians of "
            f"{results.options.pairs} rounds of the three, and of the ratios within a round. p50 and p99 are from publish "
            "to receipt by a local subscriber. With the upstream there nothing is written; otherwise everything is, and a "
            "PUBACK waits for that.",
        ),
        ("Upstream", "p50 ms", "p99 ms", "PUBACK p50 ms", "PUBACK p99 ms", "p99 to that with it there"),
        tuple(rows),
    )


_WAYS = (
    ("bare", "plain MQTT 5"),
    ("plain", "plain, with the bridge's origin in each message"),
    ("packed", "envelopes, a delay of 1 s"),
    ("trained", "envelopes, with a trained dictionary"),
)


def _wire_table(results: Results) -> Table:
    rows = [
        (
            title,
            number(figures["readings"]),
            number(figures[f"{way}_bytes_per_reading"], 1),
            number(figures[f"{way}_percent"], 1),
        )
        for _, figures in _rows(results, "wire")
        for way, title in _WAYS
    ]
    return Table(
        f"Bytes on the bridge's line: {uplink.DEVICES} devices, a recorded reading a second each, JSON, QoS 1, TLS",
        (
            "All at the same time, each by a bridge of its own to one mosquitto, for "
            f"{results.options.steady_seconds:g} s; counted on the socket in both directions, TLS and acknowledgements "
            "included, TCP and IP not. An ingester unpacks the envelopes and writes each reading once.",
        ),
        ("How", "Readings", "Bytes each", "% of plain"),
        tuple(rows),
    )


def _drain_table(results: Results) -> Table:
    rows = [
        (
            title,
            number(figures[f"{way}_messages_per_second"]),
            number(figures[f"{way}_cpu_us_per_message"], 2),
            number(figures[f"{way}_peak_mb"], 1),
            number(figures["ingester_peak_mb"] if way == "packed" else math.nan, 1),
        )
        for _, figures in _rows(results, "drain")
        for way, title in (
            ("plain", "plain, until the last PUBACK"),
            ("packed", "envelopes, until all is in a file"),
        )
    ]
    return Table(
        f"A backlog goes up: {results.options.drain:,} messages of {drain.PAYLOAD_BYTES} B from the outbox, QoS 1",
        (
            "To a mosquitto on the generator's core; in envelopes from there to an ingester on the same core, which "
            "writes each message once, as JSON lines. CPU is the broker's.",
        ),
        ("How", "Messages/s", "CPU µs/message", "Peak RSS MB", "Ingester's peak MB"),
        tuple(rows),
    )


def _targets_table(results: Results) -> Table:
    rows = [
        (
            target.what,
            f"{target.comparison} {target.limit:,g} {target.unit}",
            number(target.measured, 2),
            "met" if target.met else "missed",
        )
        for target in results.targets()
    ]
    return Table("Targets", (), ("What", "Wanted", "Measured", "Verdict"), tuple(rows))
