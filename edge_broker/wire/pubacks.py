"""The plain PUBACK of every packet identifier, ready made: nearly every message at QoS 1 needs one each way.

A subscriber that got ten messages in one piece answers with ten PUBACKs in one piece; a look tells that they are what
was expected, and they are handled as one.
"""

from __future__ import annotations

from typing import Final

from edge_broker.wire import const

PUBACK_BYTES: Final = 4

PubackRun = tuple[int, int]
"""Plain PUBACKs whose packet identifiers follow one another: the first identifier, and how many they are."""

PUBACKS: Final = [b"\x40\x02" + packet_id.to_bytes(2, "big") for packet_id in range(const.MAX_PACKET_ID + 1)]
"""By packet identifier; the one of 0 is nobody's, and only keeps the others in their places."""

PUBACKS_IN_ORDER: Final = b"".join(PUBACKS[1:])
"""One after the other, from packet identifier 1 on."""


def take_pubacks(data: bytes) -> PubackRun | None:
    """The run that `data`, at least 4 bytes, is; None if it is anything but plain PUBACKs, whole and in order."""
    packet_id = data[2] << 8 | data[3]
    size = len(data)
    at = (packet_id - 1) * PUBACK_BYTES
    if at < 0 or size % PUBACK_BYTES or data != PUBACKS_IN_ORDER[at : at + size]:
        return None
    return packet_id, size // PUBACK_BYTES
