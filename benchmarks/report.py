"""The results as tables: plain text for a terminal, Markdown for a page, JSON with every raw figure.

Figures are medians over the rounds. Nothing is computed here but ratios and roundings.
"""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from benchmarks import blackhole, drain, offline, steady, targets, uplink
from benchmarks.brokers import Kind
from benchmarks.figures import DISTURBED_PERCENT, Figures, Outcome, counted, medians, spread
from benchmarks.links import TlsLink
from benchmarks.machine import Cores, Machine
from benchmarks.scenarios import Options, Scenario
from benchmarks.targets import Target

HOW_THE_LOAD_WORKS = (
    "One Python process on a core of its own drives all connections through epoll, with packets encoded beforehand "
    "and parsed in bulk; the broker runs on another core, and its CPU time is read from the kernel's clock of its "
    "process, all threads and system calls included. "
    "The load is a closed loop: a publisher keeps at most W messages outstanding, and a message is outstanding until "
    "every subscriber has it and, at QoS 1, its PUBACK came; subscribers at QoS 1 acknowledge every message. "
    "Every receiver checks that each publisher's messages come exactly once and in order, and latency is taken from "
    "a timestamp inside every sixteenth message."
)


_HOW_TO_READ = (
    "Latency is from publish to receipt. The ratio is mosquitto's CPU per message divided by the broker's. "
    "Busy is the broker's share of its core: where it is below 100 %, the generator, or another process, sets the pace."
)
_HOW_TO_READ_TLS = (
    f"Every connection in {' '.join(reversed(TlsLink.CIPHER))}, a P-256 certificate, clients without one. Otherwise as "
    "above; the generator pays for its own half of TLS."
)

_NUMBER = re.compile(r"[\d,.]+|–")


@dataclass(frozen=True)
class Table:
    title: str
    notes: tuple[str, ...]
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def as_markdown(self) -> str:
        lines = [f"## {self.title}", ""]
        for note in self.notes:
            lines += [note, ""]
        if self.rows:
            rule = ["---"] + ["---:" if _is_number(cell) else "---" for cell in self.rows[0][1:]]
            lines += [_pipes(self.header), _pipes(rule), *(_pipes(row) for row in self.rows), ""]
        return "\n".join(lines)

    def as_text(self) -> str:
        table = [self.header, *self.rows]
        widths = [max(len(row[column]) for row in table) for column in range(len(self.header))]
        lines = [self.title]
        for row in table:
            cells = [
                cell.rjust(width) if _is_number(cell) else cell.ljust(width)
                for cell, width in zip(row, widths, strict=True)
            ]
            lines.append("  " + "  ".join(cells).rstrip())
        return "\n".join(lines) + "\n"


def _pipes(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _is_number(cell: str) -> bool:
    return _NUMBER.fullmatch(cell) is not None


def number(value: float, digits: int = 0) -> str:
    return "–" if math.isnan(value) else f"{value:,.{digits}f}"


@dataclass(frozen=True)
class Results:
    """Everything that a report needs to know about one `python -m benchmarks`."""

    machine: Machine
    cores: Cores
    date: str
    command: str
    options: Options
    rounds: int
    kinds: dict[str, Kind]
    versions: dict[str, str]
    scenarios: list[Scenario]
    outcomes: list[Outcome]

    def runs_of(self, scenario: str, broker: str) -> list[Outcome]:
        return [
            outcome for outcome in self.outcomes if (outcome.scenario, outcome.broker) == (scenario, broker)
        ]

    def counted(self, scenario: str, broker: str) -> list[Figures]:
        return [outcome.figures for outcome in counted(self.runs_of(scenario, broker))]

    def calm(self, scenario: str, broker: str) -> str:
        """How many of the runs were undisturbed, in words for a table."""
        runs = self.runs_of(scenario, broker)
        return f"{sum(not outcome.disturbed and outcome.failure is None for outcome in runs)} of {len(runs)}"

    def medians(self) -> dict[tuple[str, str], Figures]:
        return {
            (scenario.name, broker): medians(self.counted(scenario.name, broker))
            for scenario in self.scenarios
            for broker in self.kinds
        }

    def failures(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.failure is not None]

    def targets(self) -> list[Target]:
        return targets.evaluate(
            self.medians(), [scenario.name for scenario in self.scenarios], list(self.kinds)
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


def as_text(results: Results) -> str:
    parts = [table.as_text() for table in tables(results)]
    parts += [f"FAILED {_failure_line(outcome)}" for outcome in results.failures()]
    return "\n".join(parts)


def _failure_line(outcome: Outcome) -> str:
    return f"{outcome.scenario}, round {outcome.round}, {outcome.broker}: {outcome.failure}"


def as_markdown(results: Results) -> str:
    machine = results.machine
    apart = f"broker on core {results.cores.broker}, load generator on core {results.cores.generator}"
    lines = [
        "# Benchmarks",
        "",
        f"Measured on {results.date} by `{results.command}`, which wrote this page.",
        "",
        f"- Machine: {machine.cpu}, {machine.cores} cores, {machine.memory_gb:.0f} GB; {machine.kernel}",
        f"- {machine.python}; stores on {machine.data_filesystem}",
        f"- {apart if results.cores.are_apart else 'broker and load generator share the only core'}",
        f"- MQTT {'5.0' if results.options.version == 5 else '3.1.1'}; medians of {_rounds(results)}; "
        f"{results.options.seconds:g} s each after a warm-up; a fresh broker process per run, brokers alternating",
        f"- A run during which other processes took more than {DISTURBED_PERCENT:g} % of a core does not count, unless "
        "no calm one is left; the column Calm says how many were",
        "- MB are 10^6 bytes, RSS is resident memory",
        *(f"- {name} {results.versions[name]}: {kind.settings}" for name, kind in results.kinds.items()),
        "",
        HOW_THE_LOAD_WORKS,
        "",
    ]
    if results.failures():
        lines += [
            "## Failed runs",
            "",
            *(f"- {_failure_line(outcome)}" for outcome in results.failures()),
            "",
        ]
    return "\n".join(lines) + "\n" + "\n".join(table.as_markdown() for table in tables(results))


def _rounds(results: Results) -> str:
    fewer = [
        f"{scenario.name} {scenario.most_rounds}"
        for scenario in results.scenarios
        if scenario.most_rounds is not None and scenario.most_rounds < results.rounds
    ]
    return f"{results.rounds} rounds" + (f" ({', '.join(fewer)})" if fewer else "")


def as_json(results: Results) -> str:
    document = {
        "date": results.date,
        "command": results.command,
        "machine": results.machine.as_dict(),
        "cores": asdict(results.cores),
        "options": asdict(results.options),
        "brokers": {
            name: {"version": results.versions[name], "settings": kind.settings, "promise": kind.promise}
            for name, kind in results.kinds.items()
        },
        "runs": [asdict(outcome) for outcome in results.outcomes],
        "targets": [{**asdict(target), "met": target.met} for target in results.targets()],
    }
    return json.dumps(_without_nan(document), indent=2, ensure_ascii=False) + "\n"


def _without_nan(value: object) -> object:
    """JSON has no nan: what was not measured is null."""
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return value
