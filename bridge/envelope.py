"""Many messages in one payload: what crosses a metered line instead of a PUBLISH each.

An envelope is a byte that says how it is packed, then CBOR [RFC 8949], plain or compressed by zstd, with a dictionary
trained on messages like these where both sides have it. The CBOR is one array of a fixed number of items. What all
messages have in common is in it once, topics and property blocks once each, and the rest in columns: for a message its
place in them, its flags, its length, its payload. So unpacking takes a few steps however many messages there are, and
like stands beside like for the compressor.

What it keeps true:

- Payloads, topics, properties, QoS and retain flag come out as they went in, and so does each message's number.
- Whatever is not an envelope raises `EnvelopeError` and nothing else, before much memory or time was spent on it: the
  sizes are bounded before decompression, and no more of CBOR is understood than is written here.

It knows nothing of MQTT beyond the meaning of a message's parts, and looks at no clock.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any, Final, NamedTuple

import cbor2
import zstandard

from bridge.columns import IS_SWAPPED, RETAIN, Columns
from bridge.origin import LARGEST_NUMBER, LONGEST_NAME
from edge_broker.errors import EdgeBrokerError, MqttError
from edge_broker.wire import const
from edge_broker.wire.properties import decode_properties
from edge_broker.wire.topics import MAX_TOPIC_BYTES, check_topic_name

VERSION: Final = 1
_PLAIN: Final = 0x10 | VERSION
_COMPRESSED: Final = 0x20 | VERSION
_ITEMS: Final = 11
_QOS: Final = 0x03
_FLAGS: Final = bytes((0, 1, 2, RETAIN, RETAIN | 1, RETAIN | 2))
_OF_A_HOP: Final = frozenset((const.TOPIC_ALIAS, const.SUBSCRIPTION_IDENTIFIER))
_BYTES: Final = 2
_TEXT: Final = 3
_ARRAY: Final = 4

DEFAULT_LEVEL: Final = 3
"""zstd's. 9 takes some 10 % off and twice the time."""


class EnvelopeError(EdgeBrokerError):
    """What came is not an envelope that can be opened; the text says why."""


class Enclosed(NamedTuple):
    """One message in an envelope. `sequence`: its number in its lane. `property_block`: MQTT 5 properties, encoded, with
    their length first."""

    sequence: int
    topic: str
    payload: bytes
    qos: int = 1
    retain: bool = False
    property_block: bytes = b"\0"


class Envelope(NamedTuple):
    """The messages of one lane of one gateway from one epoch, their numbers rising."""

    gateway: str
    lane: str
    epoch: int
    messages: Sequence[Enclosed]


class Limits(NamedTuple):
    """What an envelope may cost whoever opens it: packed and unpacked bytes, messages, different topics and properties.
    `spread_bytes`: all messages with topic and properties of their own, though they share them in the envelope."""

    packed_bytes: int = 1 << 20
    unpacked_bytes: int = 8 << 20
    spread_bytes: int = 16 << 20
    messages: int = 20_000
    entries: int = 4_000


def train_dictionary(samples: Sequence[bytes], size_bytes: int = 16_384) -> bytes:
    """A dictionary made of unpacked envelopes or payloads like those to come; `EnvelopeError` where there are too few."""
    try:
        return zstandard.train_dictionary(size_bytes, list(samples)).as_bytes()
    except zstandard.ZstdError as error:
        raise EnvelopeError(f"these samples make no dictionary: {error}") from None


class EnvelopeWriter:
    """Packs envelopes. `dictionary`: of `train_dictionary`, which the reader must have too."""

    def __init__(self, level: int = DEFAULT_LEVEL, dictionary: bytes | None = None) -> None:
        known = None if dictionary is None else zstandard.ZstdCompressionDict(dictionary)
        self._compressor = zstandard.ZstdCompressor(level=level, dict_data=known, write_content_size=True)

    def pack(self, envelope: Envelope) -> bytes:
        """The payload that carries `envelope`: 1 to 65,536 messages of one lane and epoch, their numbers rising."""
        return self.compress(unpacked(envelope))

    def compress(self, plain: bytes) -> bytes:
        """The payload that carries the CBOR `plain`."""
        packed: bytes = self._compressor.compress(plain)
        if len(packed) < len(plain):
            return bytes((_COMPRESSED,)) + packed
        return bytes((_PLAIN,)) + plain


def unpacked(envelope: Envelope) -> bytes:
    """The CBOR of `envelope`: what is compressed, and what dictionaries are trained on."""
    columns = Columns()
    for message in envelope.messages:
        columns.add(*message)
    return columns.lay_out(envelope.gateway, envelope.lane, envelope.epoch)


class EnvelopeReader:
    """Opens envelopes within `limits`. `dictionaries`: those that may be needed, each told by the identifier in it."""

    def __init__(self, limits: Limits = Limits(), dictionaries: Sequence[bytes] = ()) -> None:  # noqa: B008 - immutable
        self._limits = limits
        self._plain = zstandard.ZstdDecompressor()
        self._by_dictionary = _decompressors(dictionaries)

    def open(self, payload: bytes) -> Envelope:
        """What is in `payload`; `EnvelopeError` where it is no envelope, or more than the limits allow."""
        limits = self._limits
        if len(payload) > limits.packed_bytes:
            raise EnvelopeError(f"{len(payload)} bytes are more than an envelope may have")
        kind = payload[0] if payload else -1
        if kind == _PLAIN:
            data = payload[1:]
        elif kind == _COMPRESSED:
            data = self._decompress(payload[1:])
        else:
            raise EnvelopeError("it does not begin as an envelope does")
        if len(data) > limits.unpacked_bytes:
            raise EnvelopeError("unpacked it is larger than an envelope may be")
        _check_shape(data, limits.entries)
        try:
            items = cbor2.loads(data)
        except (cbor2.CBORDecodeError, ValueError, OverflowError, RecursionError, MemoryError) as error:
            raise EnvelopeError(f"its CBOR cannot be read: {error}") from None
        return _assemble(items, limits)

    def _decompress(self, data: bytes) -> bytes:
        try:
            parameters = zstandard.get_frame_parameters(data)
        except zstandard.ZstdError as error:
            raise EnvelopeError(f"it is not compressed as it says: {error}") from None
        if not 0 < parameters.content_size <= self._limits.unpacked_bytes:
            raise EnvelopeError("unpacked it is larger than an envelope may be, or does not say how large")
        known = self._by_dictionary.get(parameters.dict_id) if parameters.dict_id else self._plain
        if known is None:
            raise EnvelopeError(f"it needs the dictionary {parameters.dict_id}, which is not there")
        try:
            unpacked_bytes: bytes = known.decompress(data, max_output_size=self._limits.unpacked_bytes)
        except zstandard.ZstdError as error:
            raise EnvelopeError(f"it cannot be decompressed: {error}") from None
        return unpacked_bytes


def _decompressors(dictionaries: Sequence[bytes]) -> Mapping[int, zstandard.ZstdDecompressor]:
    known = [zstandard.ZstdCompressionDict(dictionary) for dictionary in dictionaries]
    return {one.dict_id(): zstandard.ZstdDecompressor(dict_data=one) for one in known}


def _check_shape(data: bytes, max_entries: int) -> None:
    """Refuse all CBOR but what `unpacked` writes: no tags, nothing nested deeper, no length beyond the end.

    The library understands regular expressions, decimals of any exponent and references in a loop; none comes this far.
    """
    at = _take_array(data, 0, _ITEMS)
    for kinds in ((_TEXT,), (_TEXT,), (0,), (0,), *((_BYTES,),) * 5):
        at = _skip(data, at, kinds)
    major, entries, at = _head(data, at)
    if major != _ARRAY or not 0 < entries <= max_entries + 1:
        raise EnvelopeError("it has more topics and properties than it may, or none")
    for _ in range(entries):
        at = _skip(data, at, (_TEXT, _BYTES, 0))
    if _skip(data, at, (_BYTES,)) != len(data):
        raise EnvelopeError("there is something behind its end")


def _take_array(data: bytes, at: int, items: int) -> int:
    major, count, at = _head(data, at)
    if major != _ARRAY or count != items:
        raise EnvelopeError("it is not laid out as an envelope is")
    return at


def _skip(data: bytes, at: int, majors: tuple[int, ...]) -> int:
    """Where the item behind that at `at` begins; that one is of one of `majors` and ends before the end."""
    major, value, at = _head(data, at)
    if major not in majors:
        raise EnvelopeError("it is not laid out as an envelope is")
    if major in (_BYTES, _TEXT):
        at += value
    if at > len(data):
        raise EnvelopeError("it is cut off")
    return at


def _head(data: bytes, at: int) -> tuple[int, int, int]:
    """Major type and argument of the item at `at`, and where what follows begins [RFC 8949 section 3]."""
    if at >= len(data):
        raise EnvelopeError("it is cut off")
    major, information = data[at] >> 5, data[at] & 0x1F
    at += 1
    if information < 24:
        return major, information, at
    size = {24: 1, 25: 2, 26: 4, 27: 8}.get(information)
    if size is None or at + size > len(data):
        raise EnvelopeError("it is cut off, or of a length that is not said")
    return major, int.from_bytes(data[at : at + size], "big"), at + size


def _assemble(items: list[Any], limits: Limits) -> Envelope:
    gateway, lane, epoch, first, gaps, topic_at, block_at, flags, lengths, entries, payloads = items
    count = len(flags)
    if not 0 < count <= limits.messages:
        raise EnvelopeError(f"{count} messages are none, or more than an envelope may have")
    _check_names(gateway, lane, epoch)
    if flags.translate(None, _FLAGS):
        raise EnvelopeError("a message has flags that do not exist")
    topics, blocks = _split(entries)
    _check_topics(topics)
    _check_blocks(blocks)
    numbers = _numbers(first, gaps, count)
    ends = list(accumulate(_values("I", lengths, count)))
    if ends[-1] != len(payloads):
        raise EnvelopeError("its payloads are not as long as it says")
    starts = [0, *ends[:-1]]
    topic_at, block_at = _values("H", topic_at, count), _values("H", block_at, count)
    try:
        _check_spread(topics, topic_at, blocks, block_at, limits.spread_bytes - len(payloads))
        messages = [
            Enclosed(
                number, topics[topic], payloads[start:end], flag & _QOS, bool(flag & RETAIN), blocks[block]
            )
            for number, topic, block, flag, start, end in zip(
                numbers,
                topic_at,
                block_at,
                flags,
                starts,
                ends,
                strict=True,
            )
        ]
    except IndexError:
        raise EnvelopeError("a message has a topic or properties that are not there") from None
    return Envelope(gateway, lane, epoch, messages)


def _split(entries: list[Any]) -> tuple[list[str], list[bytes]]:
    """The topics and the property blocks, which stand in one list with the number of topics behind them."""
    topics_count = entries[-1]
    if not isinstance(topics_count, int) or not 0 < topics_count < len(entries):
        raise EnvelopeError("it does not say how many topics it has")
    topics, blocks = entries[:topics_count], entries[topics_count:-1]
    if not all(isinstance(topic, str) for topic in topics) or not all(isinstance(b, bytes) for b in blocks):
        raise EnvelopeError("its topics and properties are mixed up")
    return topics, blocks


def _check_names(gateway: str, lane: str, epoch: int) -> None:
    if not gateway or max(len(gateway), len(lane)) > LONGEST_NAME or epoch > LARGEST_NUMBER:
        raise EnvelopeError("its gateway, lane or epoch cannot be one")


def _check_topics(topics: list[str]) -> None:
    """Refuse what could not be published: whoever unpacks may pass it on."""
    for topic in topics:
        try:
            check_topic_name(topic)
        except MqttError as error:
            raise EnvelopeError(f"one of its topics cannot be one: {error.detail}") from None
        if len(topic) > MAX_TOPIC_BYTES or len(topic.encode()) > MAX_TOPIC_BYTES:
            raise EnvelopeError("one of its topics is too long")


def _check_blocks(blocks: list[bytes]) -> None:
    for block in blocks:
        if block == b"\0":
            continue
        try:
            properties, end = decode_properties(block, 0, len(block), const.PUBLISH)
        except MqttError as error:
            raise EnvelopeError(f"its properties cannot be read: {error.detail}") from None
        if end != len(block) or not _OF_A_HOP.isdisjoint(properties):
            raise EnvelopeError("it has properties that no message may have on its way")


def _check_spread(
    topics: list[str], topic_at: Sequence[int], blocks: list[bytes], block_at: Sequence[int], room: int
) -> None:
    """A long topic is in it once, and may be the topic of every message. `IndexError` where one is not there."""
    topic_bytes = [len(topic) for topic in topics]
    block_bytes = [len(block) for block in blocks]
    if sum(topic_bytes[at] for at in topic_at) + sum(block_bytes[at] for at in block_at) > room:
        raise EnvelopeError("with topics and properties of their own its messages are more than it may hold")


def _numbers(first: int, gaps: bytes, count: int) -> Sequence[int]:
    if first + count > 1 << 63:
        raise EnvelopeError("its numbers are too large")
    if not gaps:
        return range(first, first + count)
    offsets = _values("I", gaps, count)
    if offsets[0] or any(later <= earlier for earlier, later in pairwise(offsets)):
        raise EnvelopeError("its numbers do not rise")
    if first + offsets[-1] > LARGEST_NUMBER:
        raise EnvelopeError("its numbers are too large")
    return [first + offset for offset in offsets]


def _values(kind: str, column: bytes, count: int) -> Sequence[int]:
    """A column read back: the other way round from how `bridge.columns` writes it."""
    size = struct.calcsize(f"={kind}")
    if len(column) != size * count:
        raise EnvelopeError("one of its columns is not as long as the others")
    raw = bytearray(len(column))
    for at in range(size):
        raw[at::size] = column[at * count : (at + 1) * count]
    values = array(kind)
    values.frombytes(bytes(raw))
    if IS_SWAPPED:
        values.byteswap()
    return values
