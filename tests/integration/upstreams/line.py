"""The gateway of these tests, as it is run: a process with one bridge, over mutual TLS by SPIFFE ID or plain."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from tests.bridge.svids import Svid, TrustDomain
from tests.integration.broker_process import BrokerProcess

BROKER_PATH = "ns/mqtt/sa/broker"
GATEWAY_PATH = "ns/edge/sa/gateway"
WINDOW = 200


def bridge_table(urls: Sequence[str], keys: str = "", out: str = '{ filter = "s/#" }') -> str:
    """A bridge that loses no time: short pauses, short patience. Without `urls` the `keys` say where it goes."""
    places = "urls = [" + ", ".join(f'"{url}"' for url in urls) + "]" if urls else ""
    return f"""\
[[bridges]]
name = "cloud"
client_id = "gateway"
{places}
window = {WINDOW}
backoff_initial_seconds = 0.1
backoff_max_seconds = 0.5
max_attempts_per_minute = 0
connack_timeout_seconds = 5
puback_timeout_seconds = 3
{keys}
out = [{out}]
"""


def show(directory: Path, svid: Svid) -> None:
    """Put the gateway's certificate and key there, renamed over those that it had."""
    certificate, key = svid.write(directory, "new")
    os.replace(key, directory / "gateway.key")
    os.replace(certificate, directory / "gateway.pem")


def meshed_keys(directory: Path, domain: TrustDomain, svid: Svid | None = None) -> str:
    """The keys of a bridge with an SVID in files that is let in to `domain`'s broker."""
    directory.mkdir(parents=True, exist_ok=True)
    show(directory, svid or domain.issue(GATEWAY_PATH))
    bundle = domain.write_bundle(directory / "bundle.pem")
    return (
        f'certificate = "{directory}/gateway.pem"\nkey = "{directory}/gateway.key"\n'
        f'upstream_identity = "{domain.id(BROKER_PATH)}"\ntrust_bundles = {{ "{domain.name}" = "{bundle}" }}'
    )


def connections(gateway: BrokerProcess) -> list[str]:
    """The URLs that the bridge connected to, in order."""
    return re.findall(r"bridge cloud: connected to (\S+) with", gateway.log)
