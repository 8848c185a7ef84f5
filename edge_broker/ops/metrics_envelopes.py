"""What the bridges' envelopes save, and whether an ingester takes them, as metrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client.core import Metric

from edge_broker.ops.metrics_families import counters, gauges
from edge_broker.ops.observed import ObservedEnvelopes

_COUNTED = (
    ("sent", "envelopes_sent", "Envelopes sent."),
    ("messages", "enveloped_messages", "Messages sent in envelopes."),
    ("bytes_before", "enveloped_bytes", "Topics, properties and payloads of those, before packing."),
    ("bytes_after", "envelopes_bytes", "The envelopes that they became."),
    ("fallen_apart", "envelopes_fallen_apart", "Envelopes whose messages went one by one after all."),
    ("malformed", "leases_malformed", "Announcements of an ingester that could not be read."),
)


def envelope_metrics(found: Mapping[str, ObservedEnvelopes | None]) -> Iterator[Metric]:
    """Of each bridge that has envelopes, by its name."""
    those = {name: envelopes for name, envelopes in found.items() if envelopes is not None}
    for what, metric, text in _COUNTED:
        counted = [(name, getattr(envelopes, what)) for name, envelopes in those.items()]
        yield counters(f"bridge_{metric}", text, "bridge", counted)
    yield gauges(
        "bridge_lease_held",
        "Whether an ingester takes envelopes.",
        "bridge",
        [(name, envelopes.lease == "held") for name, envelopes in those.items()],
    )
