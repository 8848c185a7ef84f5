"""How `[[bridges]]` is read, and what its keys say together: a section that the command line registers.

Files are opened while reading, to say what is wrong with them before anything starts. Every mistake goes to the reading.
"""

from __future__ import annotations

from itertools import combinations

from bridge.config import BridgeConfig
from bridge.identity_checks import check_identity
from bridge.mapping import InMapping, OutMapping, may_echo
from bridge.origin import LONGEST_NAME
from bridge.places import URL_HINT, parse_place
from bridge.rules import LATE_AFTER_SECONDS
from edge_broker.config.checks import check_file
from edge_broker.config.reading import Reading
from edge_broker.errors import ConfigError


def parse_bridges(data: object, reading: Reading) -> tuple[BridgeConfig | None, ...]:
    """What `[[bridges]]` says; every mistake in it goes to the reading."""
    bridges = reading.structs(data, BridgeConfig, "bridges")
    for position, bridge in enumerate(bridges):
        if bridge is not None:
            check_bridge(bridge, f"bridges[{position}]", reading)
    found = [
        (f"bridges[{position}]", bridge) for position, bridge in enumerate(bridges) if bridge is not None
    ]
    for (_, earlier), (key, bridge) in combinations(found, 2):
        if bridge.name == earlier.name and not reading.is_wrong(f"{key}.name"):
            reading.mistake(
                f"{key}.name",
                f"{bridge.name!r} is the name of another bridge too",
                "give each a name of its own",
            )
        if (
            bridge.client_ids & earlier.client_ids
            and bridge.name != earlier.name
            and _urls(bridge) & _urls(earlier)
        ):
            reading.mistake(
                f"{key}.{_shared_id(bridge, earlier)}",
                f"is one of bridge {earlier.name!r} at the same upstream",
                "each would expel the other",
            )
    return tuple(bridges)


def _shared_id(bridge: BridgeConfig, earlier: BridgeConfig) -> str:
    """The key that makes the client id that both have."""
    if bridge.client_id in earlier.client_ids:
        return "client_id"
    return "second_client_id" if bridge.second_client_id in earlier.client_ids else "separate_uplink"


def check_bridge(bridge: BridgeConfig, key: str, reading: Reading) -> None:
    """What its keys say together; every mistake goes to the reading."""
    _check_places(bridge, key, reading)
    if (
        not bridge.out
        and not bridge.in_
        and not reading.is_wrong(f"{key}.out")
        and not reading.is_wrong(f"{key}.in")
    ):
        reading.mistake(
            f"{key}.out", "has no rule, and neither has in", 'write out = [{ filter = "sensors/#" }]'
        )
    for position, rule in enumerate(bridge.in_):
        for name, given in (
            ("max_age_seconds", rule.max_age_seconds),
            ("keep_latest", rule.keep_latest),
            ("priority", rule.priority != "normal"),
            ("envelope", not rule.envelope),
            ("ingested", rule.ingested),
        ):
            if given:
                reading.mistake(
                    f"{key}.in[{position}].{name}", "counts for what goes up only", "leave it out"
                )
    for position, rule in enumerate(bridge.out):
        for name, given in (
            ("when_late", rule.when_late != "mark"),
            ("late_after_seconds", rule.late_after_seconds != LATE_AFTER_SECONDS),
        ):
            if given:
                reading.mistake(
                    f"{key}.out[{position}].{name}", "counts for what comes down only", "leave it out"
                )
    if bridge.backoff_max_seconds < bridge.backoff_initial_seconds:
        reading.mistake(
            f"{key}.backoff_max_seconds",
            f"is less than backoff_initial_seconds = {bridge.backoff_initial_seconds:g}",
            "write at least as much",
        )
    _check_envelopes(bridge, key, reading)
    _check_gateway(bridge, key, reading)
    check_identity(bridge, key, reading)
    if bridge.separate_uplink:
        _check_separation(bridge, key, reading)
    if bridge.canary is not None:
        _check_canary(bridge, key, reading)
    _check_password(bridge, key, reading)


def _check_places(bridge: BridgeConfig, key: str, reading: Reading) -> None:
    if bridge.urls and bridge.upstream_tables:
        reading.mistake(f"{key}.upstreams", "says what urls says too", "leave one of the two out")
    elif not (_urls(bridge) or reading.is_wrong(f"{key}.urls") or reading.is_wrong(f"{key}.upstreams")):
        reading.mistake(f"{key}.urls", "is empty", f"write urls = [{URL_HINT.partition(',')[0]}]")
    keys = {f"{key}.urls[{position}]": url for position, url in enumerate(bridge.urls)}
    for position, table in enumerate(bridge.upstream_tables):
        keys[f"{key}.upstreams[{position}].url"] = table.url
    for where, url in keys.items():
        try:
            parse_place(url)
        except ConfigError as error:
            reading.adopt(error, where)
    found = list(keys.values())
    for position, (where, url) in enumerate(keys.items()):
        if url in found[:position]:
            reading.mistake(
                where, "is there twice", "write each once; its weight says how often it is chosen"
            )


def _check_separation(bridge: BridgeConfig, key: str, reading: Reading) -> None:
    """Two connections for two directions; the upstream does not know that they are one client."""
    if not (bridge.out and bridge.in_):
        reading.mistake(
            f"{key}.separate_uplink", "has nothing to separate: one direction has no rule", "leave it out"
        )
    elif may_echo(OutMapping(bridge.out, bridge.gateway), InMapping(bridge.in_, bridge.gateway)):
        reading.mistake(
            f"{key}.separate_uplink",
            "would bring down again what goes up: out and in overlap, and upstream these are two clients",
            "give the two directions different remote_prefix",
        )


def _check_canary(bridge: BridgeConfig, key: str, reading: Reading) -> None:
    """What it does not say is as the bridge has it, and was looked at there."""
    canary = bridge.canary_line
    assert canary is not None
    key = f"{key}.canary"
    if not bridge.out and not reading.is_wrong(key):
        reading.mistake(key, "has no rule in out to share", "leave it out")
    _check_places(canary, key, reading)
    if _urls(canary) & _urls(bridge) and canary.client_ids & bridge.client_ids:
        reading.mistake(
            f"{key}.client_id",
            "or the one that is made of it for renewals, is the bridge's own at the same upstream",
            "each would expel the other",
        )
    if any(reading.is_wrong(f"{key}.urls[{position}]") for position in range(len(canary.urls))):
        return
    if any(place.where.tls for place in canary.places):
        check_identity(canary, key, reading)
    _check_password(canary, key, reading)


def _urls(bridge: BridgeConfig) -> set[str]:
    return {*bridge.urls, *(table.url for table in bridge.upstream_tables)}


def _check_gateway(bridge: BridgeConfig, key: str, reading: Reading) -> None:
    """Its name stands for one level of a topic, and in the properties of messages."""
    if len(bridge.gateway) > LONGEST_NAME:
        reading.mistake(
            f"{key}.gateway", f"the client_id is longer than {LONGEST_NAME} characters", 'write gateway = "…"'
        )
    if any(sign in bridge.gateway for sign in "/+#") and any(
        rule.names_gateway for rule in (*bridge.out, *bridge.in_)
    ):
        reading.mistake(
            f"{key}.gateway",
            f"{bridge.gateway!r} is not one level of a topic, and a rule has {{gateway}}",
            'write gateway = "…" without /, + and #',
        )


def _check_envelopes(bridge: BridgeConfig, key: str, reading: Reading) -> None:
    """They need numbers, and a dictionary that is one."""
    for position, rule in enumerate(bridge.out):
        if rule.ingested and not rule.qos:
            reading.mistake(
                f"{key}.out[{position}].ingested",
                "is for what is numbered, and at QoS 0 nothing is",
                "write qos = 1, or leave it out",
            )
    if not bridge.origin and (bridge.envelopes.enabled or any(rule.ingested for rule in bridge.out)):
        reading.mistake(
            f"{key}.origin",
            "is false, and envelopes have numbers of ours in them",
            "leave it out, or leave them out",
        )
    path = bridge.envelopes.dictionary
    if path is None or not check_file(path, f"{key}.envelopes.dictionary", reading):
        return
    import zstandard  # not needed by most

    if not zstandard.ZstdCompressionDict(path.read_bytes()).dict_id():
        reading.mistake(
            f"{key}.envelopes.dictionary", f"{path} is no dictionary of zstd", "make one with zstd --train"
        )


def _check_password(bridge: BridgeConfig, key: str, reading: Reading) -> None:
    if bridge.password_file is None or not check_file(bridge.password_file, f"{key}.password_file", reading):
        return
    if bridge.username is None:
        reading.mistake(f"{key}.username", "is missing, and password_file needs it", 'write username = "…"')
    if not bridge.read_password():
        reading.mistake(
            f"{key}.password_file", f"{bridge.password_file} is empty", "write the password into it"
        )
