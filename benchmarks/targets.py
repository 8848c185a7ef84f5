"""What edge-broker has to reach beside mosquitto, and whether the measured medians do.

Pure. A target whose scenario did not run is left out; one that ran without giving the figure is missed.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from benchmarks.figures import Figures

SUBJECT = "edge-broker"
YARDSTICK = "mosquitto"

CPU = "cpu_us_per_message"

Medians = Mapping[tuple[str, str], Figures]  # by scenario and broker

_CPU_RATIOS = {"1to1": 4.0, "1to100": 4.0, "200to1": 2.0, "200pairs": 1.0}

_TLS_CPU_RATIOS = {"tls-1to1": 1.0, "tls-1to100": 1.0, "tls-200pairs": 0.5}

_DURABLE_SPEED_RATIO = 1.5
"""Synced to disk, against the same peer without any durability."""

# scenario, figure, what it is, comparison, limit, unit
_LIMITS: tuple[tuple[str, str, str, Literal["≥", "<"], float, str], ...] = (
    ("offline", "enqueue_messages_per_second", "offline session: enqueue", "≥", 60_000, "messages/s"),
    ("offline", "peak_mb", "offline session: peak resident memory", "<", 150, "MB"),
    ("offline", "drain_messages_per_second", "offline session: drain", "≥", 60_000, "messages/s"),
    ("flood", "puback_p99_ms", "flood: p99 to PUBACK", "<", 100, "ms"),
    ("idle", "idle_resident_mb", "idle: resident memory", "<", 60, "MB"),
    ("idle", "idle_cpu_percent", "idle: CPU", "<", 0.5, "% of a core"),
    ("idle", "connections_added_mb", "idle: added by the plain connections", "<", 40, "MB"),
    ("idle", "tls_connections_added_mb", "idle: added by the TLS connections", "<", 60, "MB"),
    ("backlog", "filling_peak_mb", "backlog of millions: peak memory, filling", "<", 150, "MB"),
    ("backlog", "draining_peak_mb", "backlog of millions: peak memory, draining", "<", 150, "MB"),
    ("backlog", "start_seconds", "backlog of millions: start", "<", 3, "s"),
    ("backlog", "first_message_seconds", "backlog of millions: first message after CONNECT", "<", 1, "s"),
    ("blackhole", "p99_ratio", "upstream black-holed: local p99 / with it there", "<", 1.25, "times"),
    ("blackhole", "p99_ratio_to_refused", "upstream black-holed: local p99 / refusing", "<", 1.25, "times"),
    ("wire", "packed_percent", "envelopes: bytes on the line, of plain MQTT", "<", 25, "%"),
    ("drain", "plain_messages_per_second", "bridge's backlog: drain, plain", "≥", 30_000, "messages/s"),
    ("drain", "plain_peak_mb", "bridge's backlog: peak memory, plain", "<", 150, "MB"),
    (
        "drain",
        "packed_messages_per_second",
        "bridge's backlog: drain in envelopes",
        "≥",
        100_000,
        "messages/s",
    ),
    ("drain", "packed_peak_mb", "bridge's backlog: peak memory, envelopes", "<", 150, "MB"),
    ("drain", "ingester_peak_mb", "bridge's backlog: the ingester's peak memory", "<", 150, "MB"),
    ("steady", "alive_written_bytes_per_message", "ordinary day: written", "<", 20, "B/message"),
    ("steady", "dead_written_bytes_per_message", "ordinary day, no upstream: written", "<", 800, "B/message"),
)


@dataclass(frozen=True)
class Target:
    what: str
    comparison: Literal["≥", "<"]
    limit: float
    measured: float  # nan: there is no figure
    unit: str

    @property
    def met(self) -> bool:
        return self.measured >= self.limit if self.comparison == "≥" else self.measured < self.limit


def cpu_ratio(medians: Medians, scenario: str, broker: str, figure: str = CPU) -> float:
    """How many times the broker's CPU per message mosquitto takes; nan without both figures."""
    own = medians.get((scenario, broker), {}).get(figure, math.nan)
    yardstick = medians.get((scenario, YARDSTICK), {}).get(figure, math.nan)
    return yardstick / own if own else math.nan


def speed_ratio(medians: Medians, scenario: str, figure: str) -> float:
    """How many times mosquitto's figure ours is, where more is better; nan without both."""
    own = medians.get((scenario, SUBJECT), {}).get(figure, math.nan)
    yardstick = medians.get((scenario, YARDSTICK), {}).get(figure, math.nan)
    return own / yardstick if yardstick else math.nan


def evaluate(medians: Medians, scenarios: list[str], brokers: list[str]) -> list[Target]:
    """The targets of the scenarios that ran, with what was measured. None unless edge-broker was among them."""
    if SUBJECT not in brokers:
        return []
    targets = []
    if "offline" in scenarios and YARDSTICK in brokers:
        measured = speed_ratio(medians, "offline", "enqueue_messages_per_second")
        what = f"offline session: enqueue, messages/s, {SUBJECT} / {YARDSTICK}"
        targets.append(Target(what, "≥", _DURABLE_SPEED_RATIO, measured, "times"))
    for scenario in scenarios:
        ratio = _TLS_CPU_RATIOS.get(scenario, _CPU_RATIOS.get(scenario.partition("-")[0]))
        if ratio is not None and YARDSTICK in brokers:
            measured = cpu_ratio(medians, scenario, SUBJECT)
            what = f"{scenario}: CPU per message, {YARDSTICK} / {SUBJECT}"
            targets.append(Target(what, "≥", ratio, measured, "times"))
    for scenario, figure, what, comparison, limit, unit in _LIMITS:
        if scenario in scenarios:
            measured = medians.get((scenario, SUBJECT), {}).get(figure, math.nan)
            targets.append(Target(what, comparison, limit, measured, unit))
    return targets
