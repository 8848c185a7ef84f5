"""The shapes that metrics come in, each with `edge_broker_` before its name. Label values are the caller's to bound."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from edge_broker.core.histogram import Histogram


def by_qos(counts: Sequence[int]) -> Iterator[tuple[str, int]]:
    """Counts by QoS, as `counters` takes them."""
    return ((str(qos), count) for qos, count in enumerate(counts))


def gauge(name: str, text: str, value: float) -> Metric:
    """What goes up and down."""
    return GaugeMetricFamily(f"edge_broker_{name}", text, value=value)


def counter(name: str, text: str, value: float) -> Metric:
    """What only grows."""
    return CounterMetricFamily(f"edge_broker_{name}", text, value=value)


def gauges(name: str, text: str, label: str, values: Iterable[tuple[str, float]]) -> Metric:
    """Gauges of one name, by `label`."""
    family = GaugeMetricFamily(f"edge_broker_{name}", text, labels=[label])
    for label_value, value in values:
        family.add_metric([label_value], value)
    return family


def counters(name: str, text: str, label: str, values: Iterable[tuple[str, float]]) -> Metric:
    """Counters of one name, by `label`."""
    family = CounterMetricFamily(f"edge_broker_{name}", text, labels=[label])
    for label_value, value in values:
        family.add_metric([label_value], value)
    return family


def histogram(name: str, text: str, measured: Histogram) -> Metric:
    """A `Histogram` of the core."""
    return buckets(name, text, measured.bounds, measured.counts, measured.total)


def buckets(name: str, text: str, bounds: Sequence[float], counts: Sequence[int], total: float) -> Metric:
    """`counts` are per bucket, the last one above all bounds; Prometheus wants them cumulative."""
    limits = [*(str(bound) for bound in bounds), "+Inf"]
    cumulative = list(zip(limits, accumulate(counts), strict=True))
    return HistogramMetricFamily(f"edge_broker_{name}", text, buckets=cumulative, sum_value=total)
