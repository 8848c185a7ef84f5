"""What came from the cluster, taken apart: envelopes, announcements of what was skipped, plain messages; and what of it
is new.

Everything here may have been made up by an attacker: what cannot be unpacked is an `EnvelopeError` with a reason out of
a fixed vocabulary, never more. A gateway can speak for itself only where the topic names it: an envelope that says it is
another's is refused, so that the cluster's access rules decide who may feign whom.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final, NamedTuple
from urllib.parse import unquote

import msgspec

from bridge.envelope import Enclosed, Envelope
from bridge.origin import LARGEST_NUMBER, LONGEST_NAME, NAME, Origin, find_origin
from bridge.windows import LaneKey, Windows
from edge_broker.core.message import Message
from edge_broker.wire import const
from edge_broker.wire.properties import decode_properties, encode_properties

NO_EPOCH: Final = -1
"""The epoch, and the sequence, of what has no origin."""

_ORIGIN_MARK: Final = NAME.encode()
_MOST_RANGES: Final = 10_000


class GatewayTopic:
    """A topic filter with one `+`, which stands for the gateway, percent-encoded as in an origin."""

    def __init__(self, topic_filter: str) -> None:
        self._begin, self._has_gateway, self._end = topic_filter.partition("+")
        self._shortest = len(self._begin) + len(self._end)

    def gateway_of(self, topic: str) -> str | None:
        """Which gateway `topic` names; None where it is another topic."""
        if not (self._has_gateway and topic.startswith(self._begin) and topic.endswith(self._end)):
            return None
        level = topic[len(self._begin) : len(topic) - len(self._end)]
        return None if len(topic) < self._shortest or "/" in level else unquote(level)


class Skipped(msgspec.Struct):
    """What a gateway sends where it tells which numbers will not come; `ranges` with their ends, both included."""

    lane: Annotated[str, msgspec.Meta(max_length=LONGEST_NAME)]
    ranges: Annotated[list[tuple[int, int]], msgspec.Meta(max_length=_MOST_RANGES)]
    epoch: int = 0


_decode_skipped: Final = msgspec.json.Decoder(Skipped).decode


def read_skipped(payload: bytes) -> Skipped | None:
    """The announcement in `payload`; None where it is none."""
    try:
        skipped = _decode_skipped(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if all(0 <= first <= last < LARGEST_NUMBER for first, last in skipped.ranges):
        return skipped
    return None


def new_messages(windows: Windows, envelope: Envelope) -> Sequence[Enclosed]:
    """The messages of `envelope` that were not seen before; they are from then on."""
    key = LaneKey(envelope.gateway, envelope.lane)
    messages = envelope.messages
    new: list[Enclosed] = []
    count = len(messages)
    at = 0
    while at < count:
        first = messages[at].sequence
        end = _end_of_run(messages, at)
        stretches = windows.take_run(key, envelope.epoch, first, first + end - at)
        if stretches == [(first, first + count)]:
            return messages  # nearly always: a whole envelope in one stretch, all new
        for start, stop in stretches:
            new += messages[at + start - first : at + stop - first]
        at = end
    return new


def _end_of_run(messages: Sequence[Enclosed], at: int) -> int:
    """Where the numbers that follow each other from `at` on end."""
    first = messages[at].sequence - at
    if messages[-1].sequence - first == len(messages) - 1:
        return len(messages)
    end = at + 1
    while end < len(messages) and messages[end].sequence - end == first:
        end += 1
    return end


class Plain(NamedTuple):
    """A message that came by itself. `origin` None where it has none; the message is without it."""

    origin: Origin | None
    message: Enclosed


def read_plain(message: Message) -> Plain:
    """Where `message` comes from, and the message as the gateway got it."""
    block = message.property_block
    origin = None
    if _ORIGIN_MARK in block:
        properties, _ = decode_properties(block, 0, len(block), const.PUBLISH)
        pairs = properties.get(const.USER_PROPERTY, ())
        origin = find_origin(pairs)
        if origin is not None:
            rest = [pair for pair in pairs if pair[0] != NAME]
            if rest:
                properties[const.USER_PROPERTY] = rest
            else:
                del properties[const.USER_PROPERTY]
            block = encode_properties(properties)
    if message.expiry_interval is not None:  # the decoder has taken it out: it ends at each hop
        properties, _ = decode_properties(block, 0, len(block), const.PUBLISH)
        properties[const.MESSAGE_EXPIRY_INTERVAL] = message.expiry_interval
        block = encode_properties(properties)
    sequence = NO_EPOCH if origin is None else origin.sequence
    return Plain(
        origin, Enclosed(sequence, message.topic, message.payload, message.qos, message.retain, block)
    )


class DeviceNames(NamedTuple):
    """The user properties in which devices number their messages."""

    device: str
    spool: str
    sequence: str


class DeviceReader:
    """Finds a device's own number in a message's properties."""

    def __init__(self, names: DeviceNames) -> None:
        self._names = names
        self._mark = names.sequence.encode()

    def read(self, block: bytes) -> tuple[LaneKey, int] | None:
        """(device and spool, number); None where there is none that makes sense."""
        if self._mark not in block:
            return None
        properties, _ = decode_properties(block, 0, len(block), const.PUBLISH)
        pairs = dict(properties.get(const.USER_PROPERTY, ()))
        device, sequence = pairs.get(self._names.device), pairs.get(self._names.sequence, "")
        spool = pairs.get(self._names.spool, "")
        if not device or max(len(device), len(spool)) > LONGEST_NAME:
            return None
        if not (sequence.isascii() and sequence.isdigit() and len(sequence) < 19):
            return None
        return LaneKey(device, spool), int(sequence)
