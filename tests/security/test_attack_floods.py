"""Much of something as an attack, in CONNECT and in frames: what it may cost, and that it is given back.

Floods of packets, of half packets and of handshakes are in `hostile/` and `net/`; here is what one packet can hold.
"""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_broker.broker import Broker
from edge_broker.config.http import HttpConfig
from edge_broker.config.limits import LimitsConfig
from edge_broker.config.listeners import ListenerConfig
from edge_broker.config.model import Config
from edge_broker.wire import const
from edge_broker.wire.encoder import PINGREQ, encode_connect
from edge_broker.wire.packets import Connack, Connect, Will
from tests.net.frames import BINARY, CLOSE, ServerFrames, frame, upgrade
from tests.pump.pump import Pump, TestClient

MANY = 200


def grown(work: Callable[[], object]) -> int:
    """By how many bytes memory has grown after `work`."""
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        kept = work()
        gc.collect()
        after = tracemalloc.get_traced_memory()[0]
        assert kept is not None
        return after - before
    finally:
        tracemalloc.stop()


def test_what_a_connect_brings_is_not_kept_once_it_is_answered() -> None:
    """100 KB of user properties, user name and password from each of many clients that then stay."""
    pump = Pump()
    properties = {const.USER_PROPERTY: [("k" * 100, "v" * 1_000)] * 60}

    def come() -> list[TestClient]:
        return [
            pump.client(f"c{number}", username="u", password=b"p" * 30_000, properties=dict(properties))
            for number in range(MANY)
        ]

    come()[0].ping()
    assert grown(come) < MANY * 20_000


def test_what_a_refused_connect_brought_is_not_kept() -> None:
    pump = Pump()
    will = Will("alarm", b"w" * 60_000, 1, True, 3600, {})

    def come() -> list[int]:
        codes = []
        for number in range(MANY):
            client = TestClient(pump)
            client.connect(f"c{number}", password=b"wrong", will=will, expiry=3600)
            codes.append(client.take(Connack).reason_code)
            pump.clients.remove(client)
        return codes

    assert set(come()) == {const.BAD_USER_NAME_OR_PASSWORD}
    assert grown(come) < 200_000
    assert (len(pump.router.sessions), pump.router.delayed_wills(), pump.router.retained_messages) == (
        0,
        0,
        0,
    )


@pytest.mark.parametrize("count", [64, 65, 5_000])
def test_user_properties_are_counted(count: int) -> None:
    pump = Pump()
    client = TestClient(pump)
    client.connect("c", properties={const.USER_PROPERTY: [("", "")] * count})
    expected = const.SUCCESS if count <= 64 else const.QUOTA_EXCEEDED
    assert client.take(Connack).reason_code == expected
    assert client.closed is (count > 64)


def test_a_will_has_no_more_of_them() -> None:
    pump = Pump()
    client = TestClient(pump)
    client.connect("c", will=Will("t", b"", 0, False, 0, {const.USER_PROPERTY: [("", "")] * 65}))
    assert client.take(Connack).reason_code == const.QUOTA_EXCEEDED


def test_a_connect_larger_than_one_may_be_is_refused_before_it_is_there() -> None:
    """By its first bytes: the rest is never waited for."""
    pump = Pump(max_connect_bytes=1_000)
    client = TestClient(pump)
    packet = encode_connect(Connect(const.MQTT_5, "c", True, 0, "u", b"p" * 50_000))
    client.send(packet[:20])
    assert client.connection.end is not None
    assert client.connection.end[0] == const.PACKET_TOO_LARGE
    assert client.connection.buffered_bytes < 1_000


# ---- what would grow when unpacked


def bomb() -> bytes:
    """30 MB of zeros as permessage-deflate sends them: 30 KB."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(bytes(30 << 20)) + packer.flush(zlib.Z_SYNC_FLUSH)
    return packed[:-4]


async def serve(folder: Path) -> Broker:
    broker = Broker(
        Config(
            data_dir=folder,
            listeners=(ListenerConfig(transport="ws", bind="127.0.0.1:0"),),
            http=HttpConfig(bind="127.0.0.1:0"),
            limits=LimitsConfig(max_packet_bytes=65_536),
        )
    )
    await broker.start()
    return broker


async def test_nothing_is_unpacked_over_websocket(state_dir: Path) -> None:
    """Compression is offered in every way there is, not taken, and used all the same."""
    offer = "permessage-deflate; client_max_window_bits=15, permessage-deflate, x-webkit-deflate-frame"
    packed = frame(bomb(), BINARY, reserved=4)
    broker = await serve(state_dir)
    try:
        port = int(broker.listening[0].split(":")[2].split("/")[0])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(upgrade(Sec_WebSocket_Extensions=offer))
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        assert head.startswith("HTTP/1.1 101 ")
        assert "extensions" not in head.lower()
        tracemalloc.start()
        writer.write(packed)
        answer = await asyncio.wait_for(reader.read(), 20)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        ((opcode, payload),) = ServerFrames().take(answer)
        assert (opcode, int.from_bytes(payload[:2])) == (CLOSE, 1002)
        assert peak < 5 << 20
        assert broker.router.counters.refused.get("websocket") == 1
        writer.close()
    finally:
        await broker.stop()


@pytest.mark.parametrize("encoding", ["deflate", "gzip", "br", "zstd"])
async def test_nothing_is_unpacked_over_http(state_dir: Path, encoding: str) -> None:
    """A request with a body that claims to be packed: nobody reads it."""
    body = bomb() if encoding == "deflate" else zlib.compress(bytes(30 << 20), 9, 31)
    broker = await serve(state_dir)
    try:
        assert broker._http is not None
        port = int(broker._http.url.rsplit(":", 1)[1])
        for method in ("GET", "POST"):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            tracemalloc.start()
            head = f"{method} /healthz HTTP/1.1\r\nHost: x\r\nContent-Encoding: {encoding}\r\n"
            writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            answer = await asyncio.wait_for(reader.read(), 20)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert answer.split(b" ", 2)[1] in (b"400", b"405", b"413"), "a body is not taken"
            assert peak < 5 << 20
            writer.close()
    finally:
        await broker.stop()


async def test_a_ping_flood_of_the_size_of_a_packet_is_not_echoed_without_end(state_dir: Path) -> None:
    """MQTT's ping has no payload; a WebSocket ping of 125 bytes has, and each is answered once."""
    broker = await serve(state_dir)
    try:
        port = int(broker.listening[0].split(":")[2].split("/")[0])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(upgrade())
        await reader.readuntil(b"\r\n\r\n")
        writer.write(frame(encode_connect(Connect(const.MQTT_5, "c", True, 0))))
        writer.write(frame(b"x" * 125, 9) * 1_000 + frame(PINGREQ))
        frames, seen = ServerFrames(), []
        while not any(opcode == BINARY and payload == b"\xd0\x00" for opcode, payload in seen):
            seen += frames.take(await asyncio.wait_for(reader.read(1 << 16), 20))
        assert 0 < sum(opcode == 10 for opcode, _ in seen) <= 1_000
        writer.close()
    finally:
        await broker.stop()
