"""Where the bridges go, how well their upstreams answer, and what their lines may still carry, as metrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client.core import GaugeMetricFamily, Metric

from edge_broker.ops.metrics_families import counters, gauges
from edge_broker.ops.observed import ObservedPolicy


def policy_metrics(policies: Mapping[str, ObservedPolicy]) -> Iterator[Metric]:
    """Of each bridge, by its name."""
    yield from _upstreams(policies)
    for what, text in (
        ("breaker_opened", "How often the circuit breaker opened."),
        ("failovers", "Connections made to another upstream than the one before."),
        ("ejections", "How often an upstream was left alone for a while."),
    ):
        counted = [(name, getattr(policy, what)) for name, policy in policies.items()]
        yield counters(f"bridge_{what}", text, "bridge", counted)
    for what, text in (
        ("draining", "Messages that waited when the connection stood and are not acknowledged yet."),
        ("drain_seconds", "Until those are sent, where their pace is limited."),
        ("month_used_bytes", "What the line has carried this month, where it has an allowance."),
        ("month_bytes", "The month's allowance, where there is one."),
    ):
        found = [(name, getattr(policy, what)) for name, policy in policies.items() if _tells(policy, what)]
        yield gauges(f"bridge_{what}", text, "bridge", found)


def _upstreams(policies: Mapping[str, ObservedPolicy]) -> Iterator[Metric]:
    breaker = _family("bridge_breaker", "1 for the state that the circuit breaker is in.", "state")
    chosen = _family("bridge_upstream_chosen", "Whether the bridge goes there.", "upstream")
    ejected = _family("bridge_upstream_ejected", "Whether it is left alone now.", "upstream")
    answers = _family("bridge_upstream_answer_seconds", "How long answers take there.", "upstream", "kind")
    for name, policy in policies.items():
        for state in ("closed", "open", "half-open"):
            breaker.add_metric([name, state], policy.breaker == state)
        for upstream in policy.upstreams:
            chosen.add_metric([name, upstream.url], upstream.chosen)
            ejected.add_metric([name, upstream.url], upstream.ejected)
            for kind, seconds in upstream.seconds.items():
                answers.add_metric([name, upstream.url, kind], seconds)
    yield from (breaker, chosen, ejected, answers)


def _tells(policy: ObservedPolicy, what: str) -> bool:
    """Whether that gauge says anything of this bridge."""
    if what == "drain_seconds":
        return policy.drain_seconds is not None
    return policy.month_bytes > 0 or not what.startswith("month_")


def _family(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"edge_broker_{name}", text, labels=("bridge", *labels))
