"""The one thing that must hold for any bytes at all: packets or `MqttError`, nothing else.

`fuzz_decoder` takes bytes and either returns or raises what a fuzzer should report; it keeps no state between calls, so
any driver can call it: the tests beside it do with mutated vectors, ``atheris.Setup(sys.argv, fuzz_decoder)`` can too.
"""

from __future__ import annotations

from typing import Any, Final

from edge_broker.errors import MqttError
from edge_broker.wire.const import REASON_NAMES
from edge_broker.wire.decoder import Decoder
from edge_broker.wire.packets import Publish
from edge_broker.wire.topics import TopicCache
from tests.golden.packets import describe

VERSIONS: Final = (0, 4, 5)
MAX_PACKET_BYTES: Final = 100_000
TOPIC_ALIAS_MAXIMUM: Final = 10

Outcome = tuple[list[tuple[str, dict[str, Any]]], int | None]
"""The packets that came out, described, and the reason code that ended them."""


def fuzz_decoder(data: bytes) -> None:
    """Decode `data` at every version, whole and in two sorts of chunks; AssertionError where the three differ."""
    for version in VERSIONS:
        whole = decode(version, [data])
        reason_code = whole[1]
        assert reason_code is None or reason_code in REASON_NAMES
        chunk = 1 + len(data) % 7
        for chunks in (
            [data[at : at + chunk] for at in range(0, len(data), chunk)],
            [data[: len(data) // 2], data[len(data) // 2 :]],
        ):
            assert decode(version, chunks) == whole, f"at version {version}, {chunks} are not {data!r}"


def decode(version: int, chunks: list[bytes]) -> Outcome:
    """Everything that comes out of `chunks`. Any exception but `MqttError` is a bug and passes through."""
    decoder = Decoder(TopicCache(4), MAX_PACKET_BYTES, version, TOPIC_ALIAS_MAXIMUM)
    packets = []
    fed = 0
    for chunk in chunks:
        decoder.feed(chunk)
        fed += len(chunk)
        try:
            while (packet := decoder.next_packet()) is not None:
                packets.append(describe(packet))  # reads everything that is decoded only when asked for
                if isinstance(packet, Publish):
                    assert_frame_is_whole(packet)
        except MqttError as error:
            return packets, error.reason_code
        assert 0 <= decoder.buffered_bytes <= min(fed, MAX_PACKET_BYTES)
    return packets, None


def assert_frame_is_whole(publish: Publish) -> None:
    """What leaves for others is one PUBLISH without DUP, with its parts where it says they are."""
    decoder = Decoder(TopicCache(4), len(publish.frame), publish.version)
    decoder.feed(publish.frame)
    again = decoder.next_packet()
    assert isinstance(again, Publish)
    assert decoder.buffered_bytes == 0
    assert not again.dup
    kept = ("frame", "topic", "payload", "qos", "retain", "packet_id", "packet_id_at", "payload_at")
    assert [getattr(again, name) for name in kept] == [getattr(publish, name) for name in kept]
    assert again.property_block == publish.property_block
