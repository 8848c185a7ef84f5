"""`[protocol]`: what of MQTT is offered to clients."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from edge_broker.config.section import Section


class ProtocolConfig(Section, frozen=True):
    """What of MQTT is offered. MQTT 5 clients are told what is not; whoever uses it all the same is refused."""

    maximum_qos: Annotated[
        int,
        Meta(
            ge=0,
            le=2,
            description="The highest QoS that clients may publish at (0x9b, QoS not supported); subscriptions are granted "
            "no more.",
        ),
    ] = 2
    retain_available: Annotated[
        bool, Meta(description="Clients may publish retained messages (0x9a, retain not supported).")
    ] = True
    wildcard_subscriptions_available: Annotated[
        bool, Meta(description="Topic filters may have `+` and `#` (0xa2).")
    ] = True
    shared_subscriptions_available: Annotated[
        bool, Meta(description="`$share` subscriptions are offered (0x9e).")
    ] = True
    subscription_ids_available: Annotated[
        bool, Meta(description="Subscription identifiers are offered (0xa1).")
    ] = True
    delayed_available: Annotated[
        bool,
        Meta(
            description="What is published to `$delayed/SECONDS/topic` is delivered to `topic` after so long (0x90, topic "
            "name invalid, where it is not offered).",
        ),
    ] = True
    check_payload_format: Annotated[
        bool,
        Meta(
            description="Refuse a message whose payload format indicator says UTF-8 when its payload is none (0x99, "
            "payload format invalid).",
        ),
    ] = False
    response_information: Annotated[
        str,
        Meta(
            description="Given to MQTT 5 clients that ask for it, as the beginning of their response topics; `{client_id}` "
            "stands for the client's own.",
            examples=['"responses/{client_id}"'],
        ),
    ] = ""
    server_reference: Annotated[
        str,
        Meta(
            description="Where MQTT 5 clients are told to go when this broker stops (0x9c, use another server).",
            examples=['"gateway-2.local:1883"'],
        ),
    ] = ""
