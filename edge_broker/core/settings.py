"""What of the configuration the core needs, as plain numbers; the broker fills it in, tests make their own."""

from __future__ import annotations

from dataclasses import dataclass

from edge_broker.wire import const


@dataclass(slots=True)
class Settings:
    """Limits and windows. Bytes, seconds or counts as the names say; 0 = no limit where the comment says so."""

    max_packet_bytes: int = 1 << 20
    receive_maximum: int = 1024
    """QoS > 0 publishes that we accept unacknowledged from one client."""
    send_window: int = 1024
    """Deliveries unacknowledged by one client at most, beside what the client itself asks for."""
    send_window_bytes: int = 4 << 20
    """Their bytes: one subscriber that never acknowledges holds no more than this."""
    window_bytes: int = 256 << 10
    """Of a durable queue, kept in memory ahead of what is sent; the rest is on disk only."""
    max_queue_bytes_in_memory: int = 4 << 20
    """Of a queue that is not durable; what comes on top is dropped and counted."""
    max_output_bytes: int = 1 << 20
    max_session_expiry_seconds: int = const.NEVER_EXPIRES
    max_keep_alive_seconds: int = 0
    """0 = whatever the client asks for."""
    max_topic_levels: int = 128
    max_subscriptions_per_client: int = 1000
    topic_alias_maximum: int = 32
    connect_timeout_seconds: float = 10.0
    max_connect_bytes: int = 128 << 10
    """Of a CONNECT: what anybody may have us keep before being let in."""
    max_client_id_bytes: int = 65_535
    max_topic_bytes: int = 65_535
    max_user_properties: int = 64
    """Per packet."""
    max_sessions: int = 0
    max_sessions_per_identity: int = 0
    max_delayed_wills: int = 10_000
    max_retained_messages: int = 100_000
    max_retained_bytes: int = 64 << 20
    retained_memory_bytes: int = 16 << 20
    """Of those: kept in memory too; the others, once they are on disk, are read back when somebody subscribes."""
    max_inbound_qos_2: int = 10_000
    """QoS 2 publishes that an MQTT 3 client may leave unreleased; an MQTT 5 client is told `receive_maximum`."""
    max_publishes_per_second: int = 0
    max_publish_bytes_per_second: int = 0
    """Per client, 0 = no limit; a client that sends more is read no further until the next second."""
    maximum_qos: int = 2
    retain_available: bool = True
    wildcard_subscriptions_available: bool = True
    shared_subscriptions_available: bool = True
    subscription_ids_available: bool = True
    delayed_available: bool = True
    max_delayed_seconds: int = 30 * 86_400
    max_delayed_messages: int = 10_000
    max_delayed_bytes: int = 16 << 20
    """Of messages to `$delayed/...` that wait; 0 = no limit of their number, or of the bytes of their packets."""
    check_payload_format: bool = False
    """Refuse a message whose payload format indicator says UTF-8 and whose payload is none."""
    response_information: str = ""
    """Given to clients that ask for it; `{client_id}` stands for theirs."""
    server_reference: str = ""
    """Where clients are sent when the broker stops."""
    max_queue_messages: int = 0
    max_queue_bytes: int = 0
    max_queue_age_seconds: int = 0
    """Of a durable session's queue, 0 = no limit; bytes of packets."""
    when_queue_full: str = "drop_oldest"
    """See ``quota``."""
    hold_seconds: int = 30
    """How long an MQTT 3 publisher that cannot be told of a full queue is made to wait, before it is sent away."""
    dead_letters: bool = False
    """Keep what durable queues let go without their recipients."""
    max_dead_letters: int = 10_000
    max_dead_letter_bytes: int = 16 << 20
    max_dead_letter_age_seconds: int = 30 * 86_400
    """How many are kept, bytes of their packets, for how long; 0 = no limit."""
    max_store_messages: int = 0
    max_store_bytes: int = 0
    """Of all durable queues together, 0 = no limit; bytes of packets."""
    durabilities: tuple[tuple[str, bool], ...] = ()
    """(topic filter, whether its messages are kept in memory only); the first that matches counts, none is on disk."""
    work_budget_bytes: int = 4 << 10
    """Input handled in one go for one connection; the rest waits for its next turn. A batch takes some five turns of the
    event loop from its first message to its acknowledgements, so turns are kept short when many connections flood."""
    work_budget_deliveries: int = 2000
    """Likewise, where one message goes to many: about a millisecond's worth."""
    work_budget_retained: int = 500
    """Retained messages given in one go: each is encoded anew."""

    @property
    def guards_publishes(self) -> bool:
        """Whether a PUBLISH must be looked at beyond its form and its topic."""
        return (
            self.maximum_qos < 2
            or not self.retain_available
            or self.check_payload_format
            or self.max_publishes_per_second > 0
            or self.max_publish_bytes_per_second > 0
        )
