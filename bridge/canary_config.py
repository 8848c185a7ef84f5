"""What can be configured of a bridge's canary: another upstream that a part of the topics goes to, and who we are there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
from msgspec import Meta

from edge_broker.config.section import Section

if TYPE_CHECKING:
    from bridge.config import BridgeConfig

SUFFIX = "!canary"
"""Behind the bridge's name, which has no `!` in it, the canary's: in log, metrics and store."""


class CanaryConfig(Section, frozen=True):
    """A part of the topics goes to another upstream: to try that, or to move there step by step.

    What is left out is as the bridge itself has it.
    """

    urls: Annotated[
        tuple[Annotated[str, Meta(examples=['"mqtts://next.example.com:8883"'])], ...],
        Meta(description="Where the other upstream is, as in the bridge's `urls`."),
    ] = ()
    percent: Annotated[
        float,
        Meta(
            ge=0,
            le=100,
            description="So many of the topics go there, by a stable hash of the topic. `edge-broker bridge canary` "
            "changes it until the broker ends.",
        ),
    ] = 0.0
    client_id: Annotated[
        str | None, Meta(description="Unique there.", extra={"default": "CLIENT_ID-canary"})
    ] = None
    username: Annotated[
        str | None, Meta(description="The name to log in with.", extra={"default": "the bridge's"})
    ] = None
    password_file: Annotated[
        Path | None, Meta(description="The file with the password.", extra={"default": "the bridge's"})
    ] = None
    ca: Annotated[
        Path | None,
        Meta(
            description="The CA certificates, PEM, that may vouch for it.", extra={"default": "the bridge's"}
        ),
    ] = None
    certificate: Annotated[
        Path | None,
        Meta(description="Our certificate, with its chain, PEM (mTLS).", extra={"default": "the bridge's"}),
    ] = None
    key: Annotated[
        Path | None, Meta(description="Its private key, PEM.", extra={"default": "the bridge's"})
    ] = None
    server_name: Annotated[
        str | None,
        Meta(description="The name that its certificate must have.", extra={"default": "the bridge's"}),
    ] = None
    upstream_identity: Annotated[
        str | None,
        Meta(description="The SPIFFE ID that its certificate must have.", extra={"default": "the bridge's"}),
    ] = None
    trust_bundles: Annotated[
        dict[str, Path] | None,
        Meta(
            description="With `upstream_identity`: the trust bundles by trust domain.",
            extra={"default": "the bridge's"},
        ),
    ] = None
    identity: Annotated[
        Literal["files", "spire"] | None,
        Meta(
            description="Where certificate, key and trust bundles come from.",
            extra={"default": "the bridge's"},
        ),
    ] = None
    spire_socket: Annotated[
        str | None,
        Meta(
            description='The Workload API\'s socket, with `identity = "spire"`.',
            extra={"default": "the bridge's"},
        ),
    ] = None


def canary_of(bridge: BridgeConfig) -> BridgeConfig | None:
    """The canary of `bridge` as a bridge of its own, to which nothing comes down; None where it has none."""
    canary = bridge.canary
    if canary is None:
        return None
    given = {
        name: value for name in CanaryConfig.__struct_fields__ if (value := getattr(canary, name)) is not None
    }
    del given["percent"]
    changes = {
        "client_id": f"{bridge.client_id}-canary",
        "upstream_tables": (),
        "in_": (),
        "canary": None,
    } | given
    stands_by = bridge.second_client_id != bridge.client_id
    changes["second_client_id"] = f"{changes['client_id']}-b" if stands_by else changes["client_id"]
    found = msgspec.structs.replace(bridge, **changes)
    msgspec.structs.force_setattr(found, "name", bridge.name + SUFFIX)
    return found
