"""`[sessions]`: what is kept for clients, and how much may be under way to and from each."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from edge_broker.config.queues import QueueLimits
from edge_broker.config.section import DAY_SECONDS, GIBIBYTE


class SessionsConfig(QueueLimits, frozen=True):
    """What is kept for clients, and how much may be under way to and from each."""

    max_expiry_seconds: Annotated[
        int,
        Meta(
            ge=0,
            le=4_294_967_295,
            description="A session is kept at most this long after its client left. 30 days: longer than a holiday, yet "
            "a client that never comes back does not fill the disk for ever. 4294967295 is for ever.",
        ),
    ] = 30 * DAY_SECONDS
    receive_maximum: Annotated[
        int,
        Meta(
            ge=1,
            le=65_535,
            description="QoS 1 and 2 messages that a client may have sent without our acknowledgement.",
        ),
    ] = 1024
    send_window: Annotated[
        int,
        Meta(
            ge=1,
            le=65_535,
            description="QoS 1 and 2 messages that a client may have received without acknowledging; its own receive "
            "maximum counts where it is lower.",
        ),
    ] = 1024
    max_keep_alive_seconds: Annotated[
        int,
        Meta(
            ge=0,
            le=65_535,
            description="A client that asks for a longer keep alive, or for none, is told to use this; 0 is no cap. "
            "MQTT 3.1.1 clients cannot be told.",
        ),
    ] = 0
    window_bytes: Annotated[
        int,
        Meta(
            ge=4_096,
            le=GIBIBYTE,
            description="How much of a durable queue is kept in memory beyond what is in flight.",
        ),
    ] = 262_144
    hold_seconds: Annotated[
        int,
        Meta(
            ge=1,
            le=3_600,
            description="An MQTT 3.1.1 client whose message a full queue rejects cannot be told: it is read no further for "
            "so long, in case there is room again, and then disconnected, so that it sends the message anew.",
        ),
    ] = 30
