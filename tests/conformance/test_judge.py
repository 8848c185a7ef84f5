"""The judge itself: its codec against bytes written by hand, and that its client sees what is wrong."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.conformance.codec import (
    V5,
    V31,
    V311,
    Auth,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Pingreq,
    Pingresp,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
    Will,
    decode,
    encode,
    frame,
)
from tests.conformance.properties import Malformed, varint
from tests.conformance.wire import Closed, Wire

SENT = {
    "3.1": (Connect("a", keep_alive=60), V31, "100f" "00064d5149736470" "03" "02" "003c" "000161"),
    "3.1.1": (Connect("a", clean=False), V311, "100d" "00044d515454" "04" "00" "0000" "000161"),
    "all of 3.1.1": (
        Connect("c", will=Will("t", b"w", 2, True), username="u", password=b"\xff"),
        V311,
        "1019" "00044d515454" "04" "f6" "0000" "000163" "000174" "000177" "000175" "0001ff",
    ),
    "5.0": (
        Connect("a", will=Will("t", b"", properties={"will_delay_interval": 5}), properties={"receive_maximum": 10}),
        V5,
        "101c" "00044d515454" "05" "06" "0000" "03" "21000a" "000161" "05" "1800000005" "000174" "0000",
    ),
    "PUBLISH at 0": (Publish("a/b", b"x"), V311, "3006" "0003612f62" "78"),
    "PUBLISH at 2": (Publish("a", b"x", 2, True, True, 10), V311, "3d06" "000161" "000a" "78"),
    "PUBLISH of 5.0": (
        Publish("a", b"x", 1, packet_id=1, properties={"topic_alias": 2, "user_property": [("k", "v")]}),
        V5,
        "3211" "000161" "0001" "0a" "230002" "2600016b000176" "78",
    ),
    "PUBACK": (Puback(1), V5, "40020001"),
    "PUBACK with a reason": (Puback(1, 0x10), V5, "4004" "0001" "10" "00"),
    "PUBREL": (Pubrel(258), V311, "62020102"),
    "SUBSCRIBE": (Subscribe(1, (("a", 1), ("b", 2))), V311, "820a" "0001" "00016101" "00016202"),
    "SUBSCRIBE of 5.0": (
        Subscribe(1, (("a", 0x2C),), {"subscription_identifier": 300}),
        V5,
        "820a" "0001" "03" "0bac02" "0001612c",
    ),
    "UNSUBSCRIBE": (Unsubscribe(1, ("a",)), V5, "a206" "0001" "00" "000161"),
    "PINGREQ": (Pingreq(), V311, "c000"),
    "DISCONNECT": (Disconnect(), V5, "e000"),
    "DISCONNECT with a reason": (Disconnect(4, {"session_expiry_interval": 1}), V5, "e007" "04" "05" "1100000001"),
    "AUTH": (Auth(0x19, {"authentication_method": "m"}), V5, "f006" "19" "04" "1500016d"),
}  # fmt: skip


@pytest.mark.parametrize(("packet", "version", "data"), SENT.values(), ids=SENT)
def test_encoding(packet: Packet, version: int, data: str) -> None:
    assert encode(packet, version).hex() == data


def test_long_packets_have_long_lengths() -> None:
    assert [varint(size).hex() for size in (0, 127, 128, 16_383, 16_384, 268_435_455)] == [
        "00", "7f", "8001", "ff7f", "808001", "ffffff7f",
    ]  # fmt: skip
    assert encode(Publish("a", bytes(200)), V311)[:3].hex() == "30cb01"
    assert varint(1, size=3).hex() == "818000"


RECEIVED = {
    "CONNACK": ("20020005", V311, Connack(False, 5)),
    "CONNACK of a session": ("20020100", V311, Connack(True, 0)),
    "CONNACK of 5.0": ("2006" "00" "00" "03" "210400", V5, Connack(properties={"receive_maximum": 1024})),
    "PUBLISH": ("3307" "000161" "0005" "7879", V311, Publish("a", b"xy", 1, True, packet_id=5)),
    "PUBLISH of 5.0": (
        "3007" "000161" "03" "0bac02",
        V5,
        Publish("a", properties={"subscription_identifier": [300]}),
    ),
    "PUBACK": ("40020001", V311, Puback(1)),
    "PUBREC": ("50020001", V5, Pubrec(1)),
    "PUBREC with a reason": ("5003" "0001" "10", V5, Pubrec(1, 0x10)),
    "PUBREL": ("62020001", V311, Pubrel(1)),
    "PUBCOMP": ("7004" "0001" "92" "00", V5, Pubcomp(1, 0x92)),
    "SUBACK": ("9004" "0001" "0280", V311, Suback(1, (2, 0x80))),
    "SUBACK of 5.0": ("9008" "0001" "04" "1f000161" "87", V5, Suback(1, (0x87,), {"reason_string": "a"})),
    "UNSUBACK": ("b0020001", V311, Unsuback(1)),
    "UNSUBACK of 5.0": ("b004" "0001" "00" "11", V5, Unsuback(1, (0x11,))),
    "PINGRESP": ("d000", V311, Pingresp()),
    "DISCONNECT": ("e001" "8e", V5, Disconnect(0x8E)),
    "AUTH": ("f006" "18" "04" "1500016d", V5, Auth(0x18, {"authentication_method": "m"})),
}  # fmt: skip


@pytest.mark.parametrize(("data", "version", "packet"), RECEIVED.values(), ids=RECEIVED)
def test_decoding(data: str, version: int, packet: Packet) -> None:
    assert decode(bytes.fromhex(data), version) == packet


NOT_FOR_A_SERVER = {
    "flags of CONNACK": ("21020000", V311),
    "reserved bits in CONNACK": ("20020200", V311),
    "QoS 3": ("36050001610001", V311),
    "DUP at QoS 0": ("3803000161", V311),
    "packet identifier 0": ("32050001610000", V311),
    "wildcard": ("300300012b", V311),
    "empty topic": ("30020000", V311),
    "NUL": ("3003000100", V311),
    "PUBREL without its flags": ("60020001", V311),
    "too long": ("4003000100", V311),
    "too short": ("400100", V311),
    "length longer than it must be": ("d08000", V311),
    "length too small": ("d0000000", V311),
    "CONNECT": ("100d00044d51545404020000000161", V311),
    "SUBSCRIBE": ("8206000100016100", V311),
    "PINGREQ": ("c000", V311),
    "type 0": ("0000", V311),
    "DISCONNECT in 3.1.1": ("e000", V311),
    "AUTH in 3.1.1": ("f000", V311),
    "property of a client": ("20080000051700000000", V5),
    "property twice": ("2009000006210001210001", V5),
    "unknown property": ("20050000027f00", V5),
    "session expiry in DISCONNECT": ("e00700051100000001", V5),
    "receive maximum 0": ("2006000003210000", V5),
    "yes or no of 2": ("20050000022502", V5),
    "properties cut short": ("200400000521", V5),
    "property number too long": ("2007000004a1000001", V5),
}


@pytest.mark.parametrize(("data", "version"), NOT_FOR_A_SERVER.values(), ids=NOT_FOR_A_SERVER)
def test_what_a_server_may_not_send_is_malformed(data: str, version: int) -> None:
    with pytest.raises(Malformed):
        decode(bytes.fromhex(data), version)


def test_ill_formed_utf_8_is_seen() -> None:
    with pytest.raises(UnicodeDecodeError):
        decode(frame(0x30, b"\0\3\xed\xa0\x80"), V311)


@contextmanager
def serving(data: bytes, version: int = V311) -> Iterator[Wire]:
    """A client of a server that says `data` and closes, whatever it hears."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            peer, _ = listening.accept()
            with peer:
                peer.sendall(data)
                peer.shutdown(socket.SHUT_WR)
                while peer.recv(4096):
                    pass

        thread = threading.Thread(target=serve)
        thread.start()
        wire = Wire(listening.getsockname()[1], version)
        try:
            yield wire
        finally:
            wire.close()
            thread.join()


MESSAGE = bytes.fromhex("300400016178")
PONG = b"\xd0\x00"


def test_expecting_what_does_not_come_fails() -> None:
    with serving(MESSAGE) as wire, pytest.raises(AssertionError, match="instead of"):
        wire.expect(Publish("a", b"y"))
    with serving(MESSAGE) as wire, pytest.raises(AssertionError, match="instead of a Puback"):
        wire.expect(Puback)
    with serving(MESSAGE) as wire, pytest.raises(AssertionError, match="instead of"):
        wire.expect(MESSAGE[:-1])
    with serving(MESSAGE[:3]) as wire, pytest.raises(Closed):
        wire.expect(Publish)
    with serving(MESSAGE) as wire:
        wire.expect(MESSAGE)


def test_expecting_nothing_where_something_comes_fails() -> None:
    with serving(PONG) as wire:
        wire.expect_nothing()
    with serving(MESSAGE + PONG) as wire, pytest.raises(AssertionError, match="instead of Pingresp"):
        wire.expect_nothing()


def test_expecting_the_end_where_something_comes_fails() -> None:
    with serving(b"") as wire:
        wire.expect_closed()
    with serving(PONG) as wire, pytest.raises(AssertionError, match="instead of the end"):
        wire.expect_closed()
    with serving(b"\xe0\x01\x82", V5) as wire:
        wire.expect_closed(0x82)
    with serving(b"\xe0\x01\x82", V5) as wire, pytest.raises(AssertionError, match="instead of 0x81"):
        wire.expect_closed(0x81)
    with (
        serving(b"\xe0\x01\x82" + PONG, V5) as wire,
        pytest.raises(AssertionError, match="instead of the end"),
    ):
        wire.expect_closed(0x82)
    with serving(b"", V5) as wire, pytest.raises(AssertionError, match="closed without"):
        wire.expect_closed(0x82)


def test_messages_that_come_amid_a_handshake_are_not_lost() -> None:
    first, second = bytes.fromhex("3406000161000178"), bytes.fromhex("3406000161000279")
    with serving(first + second + b"\x62\2\0\1" + b"\x62\2\0\2" + PONG) as wire:
        wire.expect_message("a", b"x", qos=2)
        wire.expect_message("a", b"y", qos=2)
        wire.expect_nothing()
    with serving(first + PONG) as wire, pytest.raises(AssertionError, match="instead of Pubrel"):
        wire.expect_message("a", b"x", qos=2)
