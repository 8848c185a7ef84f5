"""Which reason codes a client may put into which packet [3.4.2.1, 3.5.2.1, 3.6.2.1, 3.7.2.1, 3.14.2.1, 3.15.2.1].

For servers only: what servers put into theirs, a client had better take as it comes.
"""

from __future__ import annotations

from typing import Final

from edge_broker.errors import ProtocolError
from edge_broker.wire import const

_ACK_CODES: Final = frozenset(
    (
        const.SUCCESS,
        const.NO_MATCHING_SUBSCRIBERS,
        const.UNSPECIFIED_ERROR,
        const.IMPLEMENTATION_SPECIFIC_ERROR,
        const.NOT_AUTHORIZED,
        const.TOPIC_NAME_INVALID,
        const.PACKET_IDENTIFIER_IN_USE,
        const.QUOTA_EXCEEDED,
        const.PAYLOAD_FORMAT_INVALID,
    )
)
_RELEASE_CODES: Final = frozenset((const.SUCCESS, const.PACKET_IDENTIFIER_NOT_FOUND))
_CLIENTS_CODES: Final = {
    const.PUBACK: _ACK_CODES,
    const.PUBREC: _ACK_CODES,
    const.PUBREL: _RELEASE_CODES,
    const.PUBCOMP: _RELEASE_CODES,
    const.DISCONNECT: frozenset(
        (
            const.SUCCESS,
            const.DISCONNECT_WITH_WILL,
            const.UNSPECIFIED_ERROR,
            const.MALFORMED_PACKET,
            const.PROTOCOL_ERROR,
            const.IMPLEMENTATION_SPECIFIC_ERROR,
            const.TOPIC_NAME_INVALID,
            const.RECEIVE_MAXIMUM_EXCEEDED,
            const.TOPIC_ALIAS_INVALID,
            const.PACKET_TOO_LARGE,
            const.MESSAGE_RATE_TOO_HIGH,
            const.QUOTA_EXCEEDED,
            const.ADMINISTRATIVE_ACTION,
            const.PAYLOAD_FORMAT_INVALID,
        )
    ),
    const.AUTH: frozenset((const.CONTINUE_AUTHENTICATION, const.REAUTHENTICATE)),
}


def check_reason_code(packet_type: int, reason_code: int) -> None:
    """`ProtocolError` for a reason code that a client may not send in a packet of this type [MQTT-3.4.2-1 and others]."""
    if reason_code not in _CLIENTS_CODES[packet_type]:
        raise ProtocolError(f"{const.PACKET_NAMES[packet_type]} with reason code 0x{reason_code:02x}")
