"""Writes the seed corpus, ``tests/fuzz/corpus``, from the golden vectors: `python -m tests.fuzz.make_corpus`.

A seed is named after the vector that it is made of. The files are committed, so that a change of the vectors or of what a
target reads shows in a review; a test sees that they are what this writes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from edge_broker.store.segment import encode_segments
from edge_broker.store.times import Times
from tests.fuzz.corpus import Seed, write_seeds
from tests.fuzz.fuzz_connection import LIMITS
from tests.fuzz.fuzz_decoder import FORMS, Form
from tests.fuzz.fuzz_front import PROXY, UPGRADED, WEBSOCKET
from tests.fuzz.fuzz_segment import FIRST, QUEUE_ID
from tests.fuzz.phrases import CONNECTS, phrases
from tests.golden import MALFORMED, VALID
from tests.net.frames import CLOSE, CONTINUATION, PING, PONG, TEXT, frame, upgrade
from tests.store.sample import make_message, numbered

LONGEST_SEED_BYTES: Final = 1000


def seeds() -> dict[str, list[Seed]]:
    """The seeds of every target."""
    return {
        "decoder": list(_decoder_seeds()),
        "client": list(_client_seeds()),
        "connection": list(_connection_seeds()),
        "segment": list(_segment_seeds()),
        "front": list(_front_seeds()),
    }


def _decoder_seeds() -> Iterator[Seed]:
    """Each good vector at its newest version; each bad one likewise."""
    for vector in VALID:
        if len(vector.data) <= LONGEST_SEED_BYTES:
            yield vector.name, _form(vector.versions[-1], vector.sender == "server") + vector.data
    for bad in MALFORMED:
        if len(bad.data) <= LONGEST_SEED_BYTES:
            yield f"bad-{bad.name}", _form(bad.versions[-1], False) + bad.data


def _form(version: int, from_server: bool) -> bytes:
    """The bytes that choose a form, and a cut into pieces of several sizes."""
    return bytes((FORMS.index(Form(version, from_server, 100_000)), 7))


def _client_seeds() -> Iterator[Seed]:
    """Each vector that a server may send, behind the CONNACK that it needs."""
    for vector in VALID:
        if vector.sender != "client" and len(vector.data) <= LONGEST_SEED_BYTES:
            for version in vector.versions[-1:]:
                behind_connack = 0 if vector.packet == "CONNACK" else 4
                chooser = {3: 3, 4: 0, 5: 1}.get(version, 0) | behind_connack
                yield vector.name, bytes((chooser, 7)) + vector.data


def _connection_seeds() -> Iterator[Seed]:
    """Each vector that a client may send, by a stranger that is connected, with a commit and an answer behind it."""
    for vector in VALID:
        if vector.sender != "server" and len(vector.data) <= 255:
            connect = (
                b"" if vector.packet == "CONNECT" else b"\x08" + bytes((5 if vector.versions[-1] < 5 else 0,))
            )
            sent = b"\x00" + bytes((len(vector.data),)) + vector.data
            yield vector.name, bytes((0,)) + connect + sent + b"\x07\x0c"
    for limits in range(len(LIMITS)):
        for number in range(len(CONNECTS)):
            yield f"script-{limits}-{number}", bytes((limits,)) + _script(number)
        for number in range(0, len(phrases(5)), 4):
            yield f"talk-{limits}-{number}", bytes((limits,)) + _talk(number)


def _script(number: int) -> bytes:
    """Two strangers that subscribe, publish at every QoS, stop reading, leave and come back."""
    first, second = bytes((0x08, number)), bytes((0x09, (number + 3) % len(CONNECTS)))
    subscribe = _frame(0x82, b"\0\1\0\0\1#\2"), _frame(0x82, b"\0\1\0\1#\1")
    publishes = b"".join(
        bytes((0x05,)) + _frame(0x30 | qos << 1 | retain, b"\0\1t" + (b"\0\5" if qos else b"") + b"\0body")
        for qos in range(3)
        for retain in range(2)
    )
    commit, answer = b"\x07", b"\x0c\x0d"
    connected = first + second + commit + b"".join(b"\x04" + packet for packet in subscribe)
    flows = connected + commit + publishes + b"\x0b\x10" + publishes + b"\x0f\x10" + commit + answer * 2
    back = flows + b"\x14" + commit + first + commit + b"\x0c" + b"\x03\x3c"
    crashes = b"\x13\x1f" + b"\x13\x0b\x1f" + b"\x13\x0b\x0f\x1f"  # before, in and after a commit
    return back + crashes + first + commit + b"\x0c"


def _talk(number: int) -> bytes:
    """Three strangers that say eight phrases each, from `number` on; one of them leaves and comes back to a backlog."""
    count = len(phrases(5))
    commit, leave = b"\x07", b"\x14"
    connected = b"\x08\x01" + b"\x09\x0c" + b"\x0a\x08" + commit
    subscribed = b"".join(bytes((0x18 | who, 2 * (number + 3 * who) % 18)) for who in range(3))
    said = b"".join(
        bytes((0x18 | (step + 1) % 3, (number + step * 5) % count)) + (commit if step % 4 == 3 else b"")
        for step in range(24)
    )
    back = b"\x08\x01" + commit + b"\x17" + b"\x0c" + commit
    return connected + subscribed + commit + leave + said + b"\x03\x05" + back


def _frame(first: int, body: bytes) -> bytes:
    """What a "packet with a right length" takes."""
    return bytes((first, len(body))) + body


def _segment_seeds() -> Iterator[Seed]:
    """Bodies as the store writes them."""
    for version in (3, 4, 5):
        message = make_message(version=version, retain=version > 4, expires_at=130.0)
        yield f"one-{version}", encode_segments(QUEUE_ID, [(FIRST, message)], Times(0.0))[0][5]
    for count in (2, 3):
        yield f"many-{count}", encode_segments(QUEUE_ID, numbered(FIRST, count), Times(0.0))[0][5]
    long = make_message(payload=bytes(200), qos=2)
    yield "long", encode_segments(QUEUE_ID, [(FIRST, long)], Times(0.0))[0][5]


def _front_seeds() -> Iterator[Seed]:
    """Headers as proxies send them; requests, and frames of every kind."""
    second_version = b"\r\n\r\n\0\r\nQUIT\n"
    proxies = {
        "v1-tcp4": b"PROXY TCP4 192.0.2.1 192.0.2.2 5000 1883\r\n\x10",
        "v1-tcp6": b"PROXY TCP6 2001:db8::1 2001:db8::2 5000 1883\r\n",
        "v1-unknown": b"PROXY UNKNOWN\r\n",
        "v2-tcp4": second_version + b"\x21\x11\0\x0c" + bytes(range(12)) + b"\x10",
        "v2-tcp6": second_version + b"\x21\x21\0\x27" + bytes(range(36)) + b"\4\0\0",
        "v2-local": second_version + b"\x20\0\0\0",
    }
    for name, data in proxies.items():
        yield f"proxy-{name}", bytes((PROXY, 3)) + data
    for name, request in (("good", upgrade()), ("path", upgrade("/other")), ("old", upgrade(Upgrade="h2c"))):
        yield f"request-{name}", bytes((WEBSOCKET, 60)) + request
    frames = {
        "one": frame(b"\xc0\0"),
        "pieces": frame(b"\xc0", fin=False) + frame(b"\0", CONTINUATION) + frame(b"", PING),
        "text": frame(b"text", TEXT),
        "close": frame(b"\xc0\0") + frame(b"\x03\xe8", CLOSE) + frame(b"late"),
        "unmasked": frame(b"\xc0\0", mask=False),
        "long": frame(bytes(300)),
        "reserved": frame(b"x", reserved=4),
        "pongs": frame(b"pong", PONG) * 3,
    }
    for name, data in frames.items():
        yield f"frames-{name}", bytes((UPGRADED, 5)) + data


def main() -> None:
    for target, found in seeds().items():
        write_seeds(target, found)


if __name__ == "__main__":
    main()
