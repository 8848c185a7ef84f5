"""The few MQTT packets that the load needs: encoded once, and parsed in bulk.

Bulk parsing rests on one observation: under load, a socket delivers long runs of packets of the same kind and size.
`runs` finds them with strided slices, which C loops over, and everything else here works on whole runs. Nothing is
shared with the brokers under test, so a wrong codec there cannot judge itself right here.

Pure: bytes in, bytes out. What a correct broker would not send raises `BrokerMisbehaved`.
"""

import struct
from dataclasses import dataclass

MQTT_3_1_1 = 4
MQTT_5 = 5

CONNACK = 0x20
PUBLISH = 0x30
PUBACK = 0x40
SUBACK = 0x90
PINGRESP = 0xD0
DISCONNECT = 0xE0

PINGREQ_PACKET = b"\xc0\x00"
DISCONNECT_PACKET = b"\xe0\x00"

NEVER_EXPIRES = b"\x11\xff\xff\xff\xff"  # the session expiry interval property, at its largest
DEFAULT_RECEIVE_MAXIMUM = 65_535
_RECEIVE_MAXIMUM_PROPERTY = 0x21
# The CONNACK properties of fixed length, by identifier; the others are strings, or pairs of them.
_CONNACK_PROPERTY_LENGTHS = {
    0x11: 4, 0x13: 2, 0x21: 2, 0x22: 2, 0x24: 1, 0x25: 1, 0x27: 4, 0x28: 1, 0x29: 1, 0x2A: 1,
}  # fmt: skip
_USER_PROPERTY = 0x26

type_of = {
    CONNACK: "CONNACK", PUBLISH: "PUBLISH", PUBACK: "PUBACK", SUBACK: "SUBACK",
    PINGRESP: "PINGRESP", DISCONNECT: "DISCONNECT",
}  # fmt: skip

Run = tuple[int, int, int]  # where the first packet starts, the size of each packet in bytes, how many follow


class BrokerMisbehaved(Exception):
    """The broker refused, lost, repeated or reordered something: the measurement is void."""


def encode_length(length: int) -> bytes:
    """A variable byte integer."""
    encoded = bytearray()
    while True:
        length, digit = divmod(length, 128)
        encoded.append(digit | (0x80 if length else 0))
        if not length:
            return bytes(encoded)


def decode_length(data: bytes, position: int) -> tuple[int, int] | None:
    """The variable byte integer at `position` and the position after it; None while it is incomplete."""
    value = 0
    for index in range(4):
        if position + index >= len(data):
            return None
        digit = data[position + index]
        value |= (digit & 0x7F) << (7 * index)
        if digit < 0x80:
            return value, position + index + 1
    raise BrokerMisbehaved("a remaining length of more than four bytes")


def _string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack(">H", len(raw)) + raw


def _packet(first_byte: int, body: bytes) -> bytes:
    return bytes([first_byte]) + encode_length(len(body)) + body


def connect(client_id: str, version: int, clean: bool, keep_alive_seconds: int) -> bytes:
    """CONNECT; with `clean` false, the session outlives the connection for ever."""
    body = _string("MQTT") + bytes([version, 0x02 if clean else 0x00]) + struct.pack(">H", keep_alive_seconds)
    if version == MQTT_5:
        body += b"\x00" if clean else encode_length(len(NEVER_EXPIRES)) + NEVER_EXPIRES
    return _packet(0x10, body + _string(client_id))


def subscribe(packet_id: int, topic_filters: list[str], qos: int, version: int) -> bytes:
    properties = b"\x00" if version == MQTT_5 else b""
    filters = b"".join(_string(topic_filter) + bytes([qos]) for topic_filter in topic_filters)
    return _packet(0x82, struct.pack(">H", packet_id) + properties + filters)


def publish(topic: str, payload: bytes, qos: int, version: int, packet_id: int) -> bytes:
    identifier = struct.pack(">H", packet_id) if qos else b""
    properties = b"\x00" if version == MQTT_5 else b""
    return _packet(PUBLISH | qos << 1, _string(topic) + identifier + properties + payload)


@dataclass(frozen=True)
class Connack:
    session_present: bool
    reason_code: int
    receive_maximum: int


def decode_connack(packet: bytes, version: int) -> Connack:
    _require_type(packet, CONNACK)
    receive_maximum = DEFAULT_RECEIVE_MAXIMUM
    if version == MQTT_5 and len(packet) > 4:
        receive_maximum = _receive_maximum(packet)
    return Connack(bool(packet[2] & 1), packet[3], receive_maximum)


def _receive_maximum(packet: bytes) -> int:
    """How many QoS 1 messages the broker takes unacknowledged, from the properties of a CONNACK."""
    decoded = decode_length(packet, 4)
    if decoded is None:
        raise BrokerMisbehaved("a CONNACK cut short")
    length, position = decoded
    end = position + length
    while position < end:
        identifier = packet[position]
        position += 1
        if identifier == _RECEIVE_MAXIMUM_PROPERTY:
            return int.from_bytes(packet[position : position + 2], "big")
        fixed = _CONNACK_PROPERTY_LENGTHS.get(identifier)
        if fixed is not None:
            position += fixed
        else:
            for _ in range(2 if identifier == _USER_PROPERTY else 1):
                position += 2 + int.from_bytes(packet[position : position + 2], "big")
    return DEFAULT_RECEIVE_MAXIMUM


def decode_suback(packet: bytes, version: int) -> bytes:
    """The granted QoS, or the failure code, of each filter."""
    _require_type(packet, SUBACK)
    start = decode_length(packet, 1)
    if start is None:
        raise BrokerMisbehaved("a SUBACK cut short")
    position = start[1] + 2
    if version == MQTT_5:
        properties = decode_length(packet, position)
        if properties is None:
            raise BrokerMisbehaved("a SUBACK cut short")
        position = properties[1] + properties[0]
    return packet[position:]


def _require_type(packet: bytes, expected: int) -> None:
    if packet[0] & 0xF0 != expected:
        raise BrokerMisbehaved(f"expected {type_of[expected]}, the broker sent {packet[:16].hex(' ')}")


def first_packet_size(data: bytes) -> int | None:
    """The size in bytes of the packet that `data` starts with; None while it is incomplete."""
    length = decode_length(data, 1) if len(data) >= 2 else None
    if length is None:
        return None
    size = length[1] + length[0]
    return size if size <= len(data) else None


def runs(data: bytes) -> tuple[list[Run], int]:
    """The runs of complete packets with equal fixed headers, and how many bytes they span."""
    found: list[Run] = []
    position = 0
    end = len(data)
    while position + 2 <= end:
        length = data[position + 1]
        if length < 0x80:
            header = 2
        else:
            decoded = decode_length(data, position + 1)
            if decoded is None:
                break
            length, after = decoded
            header = after - position
        size = header + length
        if position + size > end:
            break
        count = 1 if position + 2 * size > end else _repeats(data, position, size, header)
        found.append((position, size, count))
        position += size * count
    return found, position


def _repeats(data: bytes, position: int, size: int, header: int) -> int:
    """How many packets from `position` on share its fixed header: by induction, each stride is a true header."""
    count = (len(data) - position) // size
    stop = position + count * size
    for offset in range(position, position + header):
        column = data[offset:stop:size]
        count = min(count, len(column) - len(column.lstrip(column[:1])))
    return count


def pubacks_for(data: bytes, run: Run, topic_length: int) -> bytes:
    """The PUBACKs of a run of QoS 1 PUBLISHes whose topics are all `topic_length` bytes long."""
    start, size, count = run
    header = 2 if size < 130 else 3 if size < 16_387 else 4
    identifier = start + header + 2 + topic_length
    if int.from_bytes(data[start + header : start + header + 2], "big") != topic_length:
        raise BrokerMisbehaved("a message on a topic of unexpected length")
    if count == 1:
        return b"\x40\x02" + data[identifier : identifier + 2]
    stop = start + size * count
    packets = bytearray(b"\x40\x02\x00\x00" * count)
    packets[2::4] = data[identifier:stop:size]
    packets[3::4] = data[identifier + 1 : stop : size]
    return bytes(packets)


class ExpectedPubacks:
    """The acknowledgements that are due, in order, for packet identifiers going round from 1 to `slots`."""

    def __init__(self, slots: int, first_slot: int = 0) -> None:
        identifiers = [slot + 1 for slot in range(slots)] * 2
        self._packets = b"".join(b"\x40\x02" + struct.pack(">H", value) for value in identifiers)
        self._slots = slots
        self._slot = first_slot

    def take(self, data: bytes, run: Run) -> int:
        """How many messages a run of packets acknowledges; raises unless they are exactly the next ones."""
        start, size, count = run
        stop = start + size * count
        if data[start] != PUBACK:
            raise BrokerMisbehaved(f"a publisher received {data[start : start + 16].hex(' ')}")
        wanted = self._packets[self._slot * 4 : (self._slot + count) * 4]
        if size == 4:
            in_order = data[start:stop] == wanted
        else:
            refusals = [code for code in data[start + 4 : stop : size] if code >= 0x80]
            if refusals:
                raise BrokerMisbehaved(f"a message was refused with reason code {refusals[0]:#04x}")
            high, low = data[start + 2 : stop : size], data[start + 3 : stop : size]
            in_order = high == wanted[2::4] and low == wanted[3::4]
        if not in_order:
            raise BrokerMisbehaved("PUBACKs out of order, or for a message that was not sent")
        self._slot = (self._slot + count) % self._slots
        return count
