"""The ingester's file into one `IngestConfig`, read with the same care as the broker's, or every mistake in it at once.

Files that it names are opened, to say what is wrong with them before anything starts; nothing is started or changed.
"""

from __future__ import annotations

from pathlib import Path

import zstandard

from bridge.config_checks import check_bridge
from bridge.ingest.config import BrokerConfig, IngestConfig
from bridge.mapping import overlap
from bridge.places import Service
from edge_broker.config.loading import ConfigMistakes, read_toml
from edge_broker.config.reading import Reading


def load_ingest_config(path: Path) -> IngestConfig:
    """The configuration in the file at `path`; raises `ConfigMistakes` with every mistake in it."""
    reading = Reading(path.resolve().parent)
    config = reading.struct(read_toml(path), IngestConfig, "")
    if config is not None:
        _check_brokers(config, reading)
        _check_lease(config, reading)
        if config.limits.envelope_bytes + 1024 > config.limits.max_packet_bytes:
            reading.mistake(
                "limits.envelope_bytes",
                "is more than max_packet_bytes has room for",
                "raise max_packet_bytes",
            )
    if reading.mistakes or config is None:
        raise ConfigMistakes(str(path), reading.mistakes)
    return config


def _check_brokers(config: IngestConfig, reading: Reading) -> None:
    if reading.is_wrong("cluster") or reading.is_wrong("target"):
        return
    _check_broker(config.cluster, "cluster", reading)
    if not config.topics.filters and not reading.is_wrong("topics"):
        reading.mistake("topics", "names nothing to take", 'write messages = ["sites/#"]')
    target = config.target
    if config.output != "mqtt":
        return
    if target is None:
        reading.mistake(
            "target", 'is missing, and output = "mqtt" needs it', 'write [target] and urls = ["mqtts://…"]'
        )
        return
    _check_broker(target, "target", reading)
    if set(target.urls) & set(config.cluster.urls):
        if target.client_id == config.cluster.client_id:
            reading.mistake(
                "target.client_id", "is the one of cluster at the same broker", "each would expel the other"
            )
        if any(overlap(one, config.mqtt.topic_prefix + "#") for one in config.topics.filters):
            reading.mistake(
                "mqtt.topic_prefix",
                "leads back into topics at the same broker: what is emitted would come in again",
                'choose one that they do not match, as in "ingested/"',
            )


def _check_broker(broker: BrokerConfig, key: str, reading: Reading) -> None:
    bridge = broker.as_bridge(key)
    check_bridge(bridge, key, reading)
    if reading.is_wrong(f"{key}.urls"):
        return
    for position, place in enumerate(bridge.places):
        if isinstance(place.where, Service):
            reading.mistake(
                f"{key}.urls[{position}]",
                "names a service, and SRV records are for bridges only",
                "write mqtts://host:8883",
            )


def _check_lease(config: IngestConfig, reading: Reading) -> None:
    if config.lease.renew_seconds * 2 > config.lease.valid_seconds:
        reading.mistake("lease.renew_seconds", "is more than half of valid_seconds", "renew it more often")
    for position, path in enumerate(config.lease.dictionaries):
        key = f"lease.dictionaries[{position}]"
        try:
            found = zstandard.ZstdCompressionDict(path.read_bytes())
        except OSError as error:
            reading.mistake(key, f"{path} cannot be read: {error.strerror}", "check the path")
        else:
            if not found.dict_id():
                reading.mistake(key, f"{path} is no dictionary of zstd", "make one with zstd --train")
