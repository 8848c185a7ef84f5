"""Figures of one run, and what several runs make together: percentiles, medians.

A figure is a float under a name that carries its unit (`p99_ms`, `cpu_us_per_message`). Pure.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

Figures = dict[str, float]

DISTURBED_PERCENT = 10.0  # of one core, taken by processes that are no part of the measurement


@dataclass(frozen=True)
class Outcome:
    """One measured run of one broker. `failure` says why its figures are void, or what it did wrong."""

    scenario: str
    broker: str
    round: int
    figures: Figures = field(default_factory=dict)
    failure: str | None = None

    @property
    def disturbed(self) -> bool:
        """Whether others used the machine meanwhile: latencies, rates and even CPU per message are then not ours."""
        return any(
            value > DISTURBED_PERCENT
            for name, value in self.figures.items()
            if name.endswith("others_busy_percent")
        )


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile: a value that occurred, not one between two."""
    if not values:
        return math.nan
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def latencies_ms(samples_ns: Sequence[int], prefix: str = "") -> Figures:
    return {
        f"{prefix}p50_ms": percentile(samples_ns, 50) / 1e6,
        f"{prefix}p99_ms": percentile(samples_ns, 99) / 1e6,
        f"{prefix}max_ms": percentile(samples_ns, 100) / 1e6,
    }


def medians(runs: Sequence[Figures]) -> Figures:
    """The median of each figure; of an even number of runs, the lower of the two in the middle."""
    names = {name: None for figures in runs for name in figures}
    return {name: percentile([figures[name] for figures in runs if name in figures], 50) for name in names}


def counted(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """The runs whose figures count: those that did not fail and were not disturbed, or if none is, the disturbed."""
    good = [outcome for outcome in outcomes if outcome.failure is None]
    return [outcome for outcome in good if not outcome.disturbed] or good


def spread(runs: Sequence[Figures], name: str) -> tuple[float, float]:
    """The smallest and the largest of one figure."""
    values = [figures[name] for figures in runs if name in figures]
    return (min(values), max(values)) if values else (math.nan, math.nan)
