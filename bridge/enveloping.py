"""A bridge's envelopes as configured: who listens for the ingester's lease, and what packs for a queue.

Loaded where envelopes are configured only: CBOR and zstd take memory.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import msgspec
import zstandard

from bridge.config import BridgeConfig
from bridge.envelope import EnvelopeWriter
from bridge.envelopes import Envelopes, Writers
from bridge.lease import Lease
from bridge.lease_watch import LeaseWatch
from bridge.mapping import InMapping
from bridge.priorities import HIGH

if TYPE_CHECKING:
    from bridge.envelopes_config import EnvelopesConfig
    from bridge.way_up import WayUp


def make_lease_watch(config: BridgeConfig, in_mapping: InMapping) -> LeaseWatch | None:
    """One for the bridge; None where only rules say that an ingester listens."""
    envelopes = config.envelopes
    if not envelopes.enabled:
        return None
    dictionary = _read_dictionary(config)
    dictionary_id = 0 if dictionary is None else zstandard.ZstdCompressionDict(dictionary).dict_id()
    is_shared = in_mapping.find(envelopes.lease_topic) is not None
    return LeaseWatch(config.name, envelopes.lease_topic, Lease(dictionary_id), is_shared)


def pack_lanes(
    config: BridgeConfig, way: WayUp, epoch: int, watch: LeaseWatch | None, on_refused: Callable[[str], None]
) -> None:
    """Have each queue's messages go in envelopes of its own. `epoch`: this run's.

    `on_refused(reason)`: called when the upstream refuses one as it would refuse them all.
    """
    level = config.envelopes.level
    writers = Writers(EnvelopeWriter(level, _read_dictionary(config)), EnvelopeWriter(level))
    for priority, forwarder in way.forwarders.items():
        stamp = forwarder.stamp
        assert stamp is not None  # without origins there are none, see `bridge.config_checks`
        forwarder.envelopes = Envelopes(
            _as_urgent(config.envelopes) if priority == HIGH else config.envelopes,
            config.gateway,
            way.names[priority],
            epoch,
            stamp,
            None if watch is None else watch.lease,
            writers,
        )
        # Of an earlier run nobody knows what was sent at QoS 2.
        forwarder.envelopes.plain_below = way.queues[priority].sent_before
        forwarder.on_envelope_refused = partial(_refuse_all, way, on_refused)


def _refuse_all(way: WayUp, on_refused: Callable[[str], None], reason: str) -> None:
    """The upstream takes no envelopes on this connection, whatever queue they come from."""
    for forwarder in way.forwarders.values():
        if forwarder.envelopes is not None:
            forwarder.envelopes.is_refused = True
    on_refused(reason)


def _as_urgent(config: EnvelopesConfig) -> EnvelopesConfig:
    """For what waits for no others: together goes what is there together."""
    return msgspec.structs.replace(config, delay_ms=0)


def _read_dictionary(config: BridgeConfig) -> bytes | None:
    path = config.envelopes.dictionary
    return path.read_bytes() if path is not None and config.envelopes.enabled else None
