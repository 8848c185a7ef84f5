"""`[limits]`: what bounds memory, per client and in all."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from edge_broker.config.section import DAY_SECONDS, GIBIBYTE, Section


class LimitsConfig(Section, frozen=True):
    """What bounds memory, per client and in all. What happens at each limit is counted."""

    max_packet_bytes: Annotated[
        int,
        Meta(
            ge=128,
            le=268_435_460,
            description="A client that sends a larger packet is disconnected.",
        ),
    ] = 1_048_576
    max_connections: Annotated[
        int, Meta(ge=1, le=1_000_000, description="Connections beyond this are refused.")
    ] = 10_000
    max_connections_per_address: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000,
            description="Connections of one IP address beyond this are refused, so that no single machine can take all; 0 "
            "is no limit. Behind NAT many share one address. This machine's own (loopback, unix) are not limited.",
        ),
    ] = 1_000
    max_unfinished_handshakes: Annotated[
        int,
        Meta(
            ge=1,
            le=1_000_000,
            description="Connections that have not done their handshakes (TLS, WebSocket, PROXY header) beyond this are "
            "refused; a client tries again.",
        ),
    ] = 500
    connect_timeout_seconds: Annotated[
        float,
        Meta(ge=0.1, le=3_600, description="A connection without a CONNECT after this is closed."),
    ] = 10.0
    max_output_bytes: Annotated[
        int,
        Meta(
            ge=4_096,
            le=GIBIBYTE,
            description="Output that waits for one slow client. QoS 0 messages beyond it are dropped and counted; "
            "QoS 1 and 2 wait in its queue.",
        ),
    ] = 1_048_576
    max_uncommitted_bytes: Annotated[
        int,
        Meta(
            ge=65_536,
            le=64 * GIBIBYTE,
            description="Received and not yet on disk, over all clients. Beyond it, publishers of QoS 1 and 2 are "
            "paused.",
        ),
    ] = 33_554_432
    max_topic_levels: Annotated[
        int,
        Meta(ge=1, le=65_536, description="Levels that a topic or a topic filter may have."),
    ] = 128
    max_subscriptions_per_client: Annotated[
        int, Meta(ge=1, le=1_000_000, description="Subscriptions beyond this are refused.")
    ] = 1_000
    max_queue_bytes_in_memory: Annotated[
        int,
        Meta(
            ge=4_096,
            le=GIBIBYTE,
            description="QoS 1 and 2 messages that wait for one client whose session ends with its connection. Beyond "
            "it they are dropped and counted.",
        ),
    ] = 4_194_304
    topic_alias_maximum: Annotated[
        int,
        Meta(ge=0, le=65_535, description="Topic aliases that one client may set; 0 is none."),
    ] = 32
    max_connect_bytes: Annotated[
        int,
        Meta(
            ge=128,
            le=268_435_460,
            description="A longer CONNECT, with its will and password, is refused: so much is kept for anybody who has not "
            "been let in.",
        ),
    ] = 131_072
    max_client_id_bytes: Annotated[
        int,
        Meta(
            ge=23,
            le=65_535,
            description="A client with a longer client identifier is refused (0x85, client identifier not valid).",
        ),
    ] = 1_024
    max_topic_bytes: Annotated[
        int,
        Meta(
            ge=64,
            le=65_535,
            description="A longer topic ends the connection that publishes to it (0x90, topic name invalid); a longer "
            "filter is refused (0x8f).",
        ),
    ] = 65_535
    max_user_properties: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000,
            description="User properties in one packet; more end the connection (0x97, quota exceeded).",
        ),
    ] = 64
    max_sessions: Annotated[
        int,
        Meta(
            ge=0,
            le=10_000_000,
            description="Sessions in all, connected or kept. A client that would need one more is refused (0x97; 3.1.1: "
            "server unavailable). 0 is no limit.",
        ),
    ] = 20_000
    max_sessions_per_identity: Annotated[
        int,
        Meta(
            ge=0,
            le=10_000_000,
            description="The same for those of one identity; all anonymous clients are one. 0 is no limit.",
        ),
    ] = 0
    max_delayed_wills: Annotated[
        int,
        Meta(
            ge=0,
            le=10_000_000,
            description="Wills that wait for their delay. A CONNECT with one more is refused (0x97).",
        ),
    ] = 10_000
    max_retained_messages: Annotated[
        int,
        Meta(
            ge=0,
            le=10_000_000,
            description="Topics with a retained message. One more is refused (0x97) where the publisher can be told (MQTT "
            "5 at QoS 1 and 2); else it is delivered, not retained, and counted.",
        ),
    ] = 100_000
    max_retained_bytes: Annotated[
        int,
        Meta(
            ge=0,
            le=64 * GIBIBYTE,
            description="Their bytes, in memory and on disk; beyond it as beyond `max_retained_messages`.",
        ),
    ] = 67_108_864
    retained_memory_bytes: Annotated[
        int,
        Meta(
            ge=0,
            le=64 * GIBIBYTE,
            description="What retained messages may take of the memory. Beyond it those that are on disk, the one set "
            "longest ago first, are on disk only and read back when somebody subscribes. Those of `durability = "
            '"memory"` always stay.',
        ),
    ] = 16_777_216
    max_delayed_seconds: Annotated[
        int,
        Meta(
            ge=0,
            le=3650 * DAY_SECONDS,
            description="The longest delay of a message to `$delayed/SECONDS/topic`; a longer one is refused (0x90).",
        ),
    ] = 30 * DAY_SECONDS
    max_delayed_messages: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000,
            description="Messages that may wait for their delay. One more is refused (0x97), or its MQTT 3.1.1 publisher "
            "made to wait, as for a full queue; 0 is no limit.",
        ),
    ] = 10_000
    max_delayed_bytes: Annotated[
        int,
        Meta(
            ge=0,
            le=64 * GIBIBYTE,
            description="Bytes of their packets, likewise. They are in memory, and at QoS 1 and 2 on disk too.",
        ),
    ] = 16_777_216
    max_inbound_qos_2: Annotated[
        int,
        Meta(
            ge=1,
            le=65_535,
            description="QoS 2 messages that an MQTT 3.1.1 client may leave without PUBREL; more end its connection. MQTT "
            "5 clients are told `receive_maximum`.",
        ),
    ] = 10_000
    max_publishes_per_second: Annotated[
        int,
        Meta(
            ge=0,
            le=10_000_000,
            description="Messages that one client may publish in a second; who sends more is read no further until the "
            "next one. Nothing is dropped. 0 is no limit.",
        ),
    ] = 0
    max_publish_bytes_per_second: Annotated[
        int,
        Meta(ge=0, le=64 * GIBIBYTE, description="The same for their bytes."),
    ] = 0
