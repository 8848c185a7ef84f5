"""What is wrong with the keys of a bridge that say who it is and whom it trusts, before anything starts.

Three ways, which do not mix: host names and a CA; SPIFFE IDs with trust bundles in files; both from the Workload API.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bridge.trust import IdPattern
from edge_broker.config.checks import check_ca, check_certificate
from edge_broker.config.reading import Reading
from edge_broker.security.spiffe import check_trust_domain

if TYPE_CHECKING:
    from bridge.config import BridgeConfig

SOCKET_VARIABLE: Final = "SPIFFE_ENDPOINT_SOCKET"
_OF_TLS: Final = ("ca", "certificate", "key", "server_name", "upstream_identity", "trust_bundles")


def check_identity(bridge: BridgeConfig, key: str, reading: Reading) -> None:
    """Adds to the reading's mistakes."""
    unknown = reading.is_wrong(f"{key}.urls") or reading.is_wrong(f"{key}.upstreams")
    if not unknown and not any(place.where.tls for place in bridge.places):
        for name in _OF_TLS:
            if getattr(bridge, name) is not None:
                reading.mistake(
                    f"{key}.{name}", "has no meaning without TLS", "use mqtts:// in urls, or leave it out"
                )
        if bridge.identity == "spire":
            reading.mistake(
                f"{key}.identity", "has no meaning without TLS", "use mqtts:// in urls, or leave it out"
            )
        return
    if bridge.identity == "spire":
        _check_spire(bridge, key, reading)
    else:
        _check_files(bridge, key, reading)
    if bridge.ca is not None:
        check_ca(bridge.ca, f"{key}.ca", reading)
    _check_upstream(bridge, key, reading)


def _check_spire(bridge: BridgeConfig, key: str, reading: Reading) -> None:
    for name in ("certificate", "key", "trust_bundles"):
        if getattr(bridge, name) is not None:
            reading.mistake(
                f"{key}.{name}", 'has no meaning with identity = "spire"', "the agent gives it: leave it out"
            )
    if importlib.util.find_spec("spiffe") is None:
        reading.mistake(
            f"{key}.identity", "needs a package that is not installed", "pip install 'edge-broker[spire]'"
        )
    if bridge.spire_socket is None and not os.environ.get(SOCKET_VARIABLE):
        reading.mistake(
            f"{key}.spire_socket",
            f"is missing, and ${SOCKET_VARIABLE} is not set",
            'write spire_socket = "unix:///run/spire/agent.sock"',
        )
    elif bridge.spire_socket is not None and not bridge.spire_socket.startswith("unix:///"):
        reading.mistake(
            f"{key}.spire_socket", "is no Unix socket", 'write spire_socket = "unix:///run/spire/agent.sock"'
        )


def _check_files(bridge: BridgeConfig, key: str, reading: Reading) -> None:
    if bridge.spire_socket is not None:
        reading.mistake(
            f"{key}.spire_socket", 'has no meaning without identity = "spire"', "add that, or leave it out"
        )
    if bridge.certificate is not None and bridge.key is not None:
        check_certificate(bridge.certificate, bridge.key, key, reading)
    elif bridge.certificate is not None:
        reading.mistake(
            f"{key}.key", "is missing, and certificate needs it", 'write key = "/path/to/key.pem"'
        )
    elif bridge.key is not None:
        reading.mistake(
            f"{key}.certificate",
            "is missing, and key needs it",
            'write certificate = "/path/to/certificate.pem"',
        )


def _check_upstream(bridge: BridgeConfig, key: str, reading: Reading) -> None:
    """Its SPIFFE ID, and the bundles."""
    bundles = bridge.trust_bundles or {}
    if bridge.upstream_identity is None:
        if bundles:
            reading.mistake(
                f"{key}.trust_bundles",
                "has no meaning without upstream_identity",
                'write upstream_identity = "spiffe://…", or ca instead of it',
            )
        return
    if bridge.ca is not None:
        reading.mistake(f"{key}.ca", "has no meaning with upstream_identity", "write it into trust_bundles")
    for domain, path in bundles.items():
        _check_bundle(domain, path, f"{key}.trust_bundles", reading)
    try:
        trust_domain = IdPattern(bridge.upstream_identity).trust_domain
    except ValueError as error:
        reading.mistake(
            f"{key}.upstream_identity",
            f"is no SPIFFE ID: {error}",
            "spiffe://cluster.example/ns/mqtt/sa/broker",
        )
        return
    if bridge.identity == "files" and trust_domain not in bundles:
        reading.mistake(
            f"{key}.trust_bundles",
            f"has none for {trust_domain}, the trust domain of upstream_identity",
            f'write trust_bundles = {{ "{trust_domain}" = "/path/to/bundle.pem" }}',
        )


def _check_bundle(domain: str, path: Path, key: str, reading: Reading) -> None:
    try:
        check_trust_domain(domain)
    except ValueError as error:
        reading.mistake(key, f"{domain!r} is no trust domain: {error}", 'write "cluster.example"')
    else:
        check_ca(path, f"{key}.{domain}", reading)
