"""A bridge's envelopes as configured: who listens for the ingester's lease, and what packs for a queue.

Loaded where envelopes are configured only: CBOR and zstd take memory.
"""

from __future__ import annotations

import zstandard

from bridge.config import BridgeConfig
from bridge.envelopes import Envelopes
from bridge.lease import Lease
from bridge.lease_watch import LeaseWatch
from bridge.mapping import InMapping
from bridge.stamps import Stamp
from edge_broker.core.queue import Queue


def make_lease_watch(config: BridgeConfig, in_mapping: InMapping) -> LeaseWatch | None:
    """One for the bridge; None where only rules say that an ingester listens."""
    envelopes = config.envelopes
    if not envelopes.enabled:
        return None
    dictionary = _read_dictionary(config)
    dictionary_id = 0 if dictionary is None else zstandard.ZstdCompressionDict(dictionary).dict_id()
    is_shared = in_mapping.find(envelopes.lease_topic) is not None
    return LeaseWatch(config.name, envelopes.lease_topic, Lease(dictionary_id), is_shared)


def make_envelopes(
    config: BridgeConfig, lane: str, epoch: int, stamp: Stamp, queue: Queue, watch: LeaseWatch | None
) -> Envelopes:
    """One for each queue, which is `lane`'s. `epoch`: this run's. `stamp`: what writes the queue's origins."""
    envelopes = Envelopes(
        config.envelopes,
        config.gateway,
        lane,
        epoch,
        stamp,
        None if watch is None else watch.lease,
        _read_dictionary(config),
    )
    envelopes.plain_below = queue.sent_before  # of an earlier run nobody knows what was sent at QoS 2
    return envelopes


def _read_dictionary(config: BridgeConfig) -> bytes | None:
    path = config.envelopes.dictionary
    return path.read_bytes() if path is not None and config.envelopes.enabled else None
