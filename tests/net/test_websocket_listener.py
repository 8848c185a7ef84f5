"""WebSocket listeners on real sockets, with and without TLS, on either event loop."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edge_broker.net import transport
from edge_broker.net.listeners import Listener
from edge_broker.net.tls import client_context
from edge_broker.net.websocket import WebSocketPipe
from edge_broker.wire import const
from edge_broker.wire.encoder import PINGREQ, encode_connect, encode_publish, encode_subscribe
from edge_broker.wire.packets import (
    Ack,
    Connect,
    Disconnect,
    Ping,
    Publish,
    Suback,
    SubscriptionRequest,
    Will,
)
from tests.net.conftest import Run
from tests.net.frames import CLOSE, CONTINUATION, PING, PONG, TEXT, frame, upgrade
from tests.net.hub import LocalHub, Peer, until
from tests.net.ws_peer import WebSocketPeer

V5 = const.MQTT_5
PATHS = ("/mqtt", "/")


async def listen(hub: LocalHub, pki: Path | None = None, **more: Any) -> Listener:
    if pki is not None:
        more = {"certificate": str(pki / "server.crt"), "key": str(pki / "server.key")} | more
    return await hub.listen(websocket_paths=PATHS, **more)


def trusting(pki: Path, who: str | None = None) -> ssl.SSLContext:
    pair = (None, None) if who is None else (str(pki / f"{who}.crt"), str(pki / f"{who}.key"))
    return client_context(str(pki / "ca.crt"), *pair)


@pytest.fixture(params=["ws", "wss"])
def secured(request: pytest.FixtureRequest, pki: Path) -> Path | None:
    """The keys of a listener over TLS, or none."""
    return pki if request.param == "wss" else None


async def enter(listener: Listener, secured: Path | None, client_id: str, topic: str = "") -> WebSocketPeer:
    """A peer that is connected, and subscribed to `topic`."""
    peer = await WebSocketPeer.open(listener, None if secured is None else trusting(secured))
    assert (await peer.connect(client_id)).reason_code == const.SUCCESS
    if topic:
        peer.send(encode_subscribe(V5, 1, [SubscriptionRequest(topic, 1)]))
        assert isinstance(await peer.receive(), Suback)
    return peer


def test_a_conversation(run: Run, secured: Path | None) -> None:
    async def scenario() -> None:
        hub = LocalHub()
        listener = await listen(hub, secured)
        assert listener.url == f"{'wss' if secured else 'ws'}://{listener.name}/mqtt"
        peer = await enter(listener, secured, "c", "t")
        payload = os.urandom(300_000)
        peer.send(encode_publish(V5, "t", payload, 1, packet_id=7))
        received = [await peer.receive(), await peer.receive()]
        assert {type(packet) for packet in received} == {Publish, Ack}
        assert next(p for p in received if isinstance(p, Publish)).payload == payload
        (connection,) = hub.connections
        assert connection.address.startswith("127.0.0.1:")
        peer.writer.write(frame(b"are you there?", PING))
        assert await peer.receive_control() == (PONG, b"are you there?")
        peer.writer.write(frame(b"\x03\xe8", CLOSE))
        assert await peer.receive_control() == (CLOSE, b"\x03\xe8")
        await peer.ended()
        await until(lambda: not hub.connections)
        assert hub.refused == {}

    run(scenario())


def test_packets_and_frames_need_not_be_aligned(run: Run, secured: Path | None) -> None:
    """[MQTT-6.0.0-2]"""

    async def scenario() -> None:
        hub = LocalHub()
        listener = await listen(hub, secured)
        peer = await enter(listener, secured, "c", "t")
        packets = b"".join(encode_publish(V5, "t", b"%d" % number) for number in range(50))
        peer.send(packets)
        peer.writer.write(b"".join(frame(packets[at : at + 1]) for at in range(len(packets))))
        fragments = [
            frame(packets[at : at + 7], CONTINUATION if at else 2, fin=at + 7 >= len(packets))
            for at in range(0, len(packets), 7)
        ]
        data = b"".join(fragments)
        for at in range(0, len(data), 11):
            peer.writer.write(data[at : at + 11])
            await asyncio.sleep(0)
        for number in [*range(50)] * 3:
            assert (await peer.receive()).payload == b"%d" % number
        peer.writer.close()

    run(scenario())


@pytest.mark.parametrize(
    ("data", "code"),
    [(frame(b"text", TEXT), 1003), (frame(b"x", mask=False), 1002)],
    ids=["text", "unmasked"],
)
def test_a_mistake_in_a_frame_ends_the_connection(
    run: Run, secured: Path | None, data: bytes, code: int
) -> None:
    """[MQTT-6.0.0-1]; what came before it counts, and nobody else notices."""

    async def scenario() -> None:
        hub = LocalHub()
        listener = await listen(hub, secured)
        other = await enter(listener, secured, "other", "t")
        peer = await enter(listener, secured, "c")
        peer.writer.write(frame(encode_publish(V5, "t", b"before")) + data)
        opcode, payload = await peer.receive_control()
        assert (opcode, int.from_bytes(payload[:2], "big")) == (CLOSE, code)
        await peer.ended()
        assert (await other.receive()).payload == b"before"
        await until(lambda: len(hub.connections) == 1)
        assert hub.refused == {"websocket": 1}
        other.writer.close()

    run(scenario())


@pytest.mark.parametrize(
    ("data", "answer"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"HTTP/1.1 426 "),
        (upgrade("/elsewhere"), b"HTTP/1.1 404 "),
        (encode_connect(Connect(V5, "lost", True, 0)), b""),
    ],
    ids=["a browser", "another path", "plain MQTT"],
)
def test_who_speaks_something_else(run: Run, secured: Path | None, data: bytes, answer: bytes) -> None:
    async def scenario() -> None:
        hub = LocalHub()
        listener = await listen(hub, secured)
        peer = await Peer.open(listener, None if secured is None else trusting(secured))
        peer.writer.write(data)
        async with asyncio.timeout(20):
            received = await peer.reader.read()
        assert received.startswith(answer)
        assert bool(received) == bool(answer)
        await until(lambda: not hub.connections)
        assert hub.refused == {"websocket": 1}

    run(scenario())


def test_an_upgrade_that_never_comes_is_ended(run: Run, secured: Path | None) -> None:
    async def scenario() -> None:
        hub = LocalHub(connect_timeout_seconds=1.0)
        listener = await listen(hub, secured)
        peer = await Peer.open(listener, None if secured is None else trusting(secured))
        peer.writer.write(upgrade()[:50])
        await until(lambda: hub.connections)
        (connection,) = hub.connections
        connection.check_idle(connection.opened_at + 0.9)
        assert connection.end is None
        connection.check_idle(connection.opened_at + 1.1)
        hub.request_tick()
        await peer.ended()
        await until(lambda: not hub.connections)
        assert hub.refused == {"connect_timeout": 1}

    run(scenario())


def test_the_last_word_arrives_and_the_goodbye_is_answered(run: Run, secured: Path | None) -> None:
    async def scenario() -> None:
        hub = LocalHub()
        listener = await listen(hub, secured)
        peer = await enter(listener, secured, "c")
        peer.send(b"\x00\x00")
        last = await peer.receive()
        assert isinstance(last, Disconnect)
        assert last.reason_code == const.MALFORMED_PACKET
        assert await peer.receive_control() == (CLOSE, b"\x03\xe8")
        peer.send(PINGREQ * 1000)  # on its way when we said goodbye
        (connection,) = hub.connections
        peer.writer.write(frame(b"\x03\xe8", CLOSE))
        await peer.ended()
        await until(lambda: not hub.connections)
        assert connection.buffered_bytes == 0, "what comes after the end is not kept"

    run(scenario())


def test_who_never_says_goodbye_is_left(
    run: Run, secured: Path | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "_CLOSING_SECONDS", 0.01)

    async def scenario() -> None:
        hub = LocalHub()
        listener = await listen(hub, secured)
        peer = await enter(listener, secured, "c")
        peer.send(b"\x00\x00")
        await peer.receive()
        await peer.ended()
        await until(lambda: not hub.connections)

    run(scenario())


def test_a_connection_that_breaks_leaves_its_will(run: Run, secured: Path | None) -> None:
    async def scenario() -> None:
        hub = LocalHub()
        listener = await listen(hub, secured)
        watcher = await enter(listener, secured, "w", "will")
        for number, end in enumerate((frame(b"", CLOSE), None)):
            peer = await WebSocketPeer.open(listener, None if secured is None else trusting(secured))
            await peer.connect("c", will=Will("will", b"%d" % number, 0, False, 0, {}))
            if end is None:
                peer.writer.transport.abort()
            else:
                peer.writer.write(end)
            assert (await watcher.receive()).payload == b"%d" % number
        watcher.writer.close()

    run(scenario())


def test_a_flood_of_tiny_frames_does_not_keep_others_waiting(run: Run, secured: Path | None) -> None:
    async def scenario() -> None:
        hub = LocalHub()
        listener = await listen(hub, secured)
        quiet = await enter(listener, secured, "quiet")
        flood = await enter(listener, secured, "flood")
        packet = encode_publish(V5, "t", b"x")
        total = 20_000
        flood.writer.write(b"".join(frame(packet[:3]) + frame(packet[3:]) for _ in range(total)))
        await until(lambda: hub.router.counters.received[0] > 0)
        quiet.send(PINGREQ)
        assert isinstance(await quiet.receive(), Ping)
        assert hub.router.counters.received[0] < total, "the ping had to wait for the whole flood"
        await until(lambda: hub.router.counters.received[0] == total)
        for peer in (quiet, flood):
            peer.writer.close()

    run(scenario())


def test_who_pings_and_reads_no_pong_is_cut_off(run: Run) -> None:
    async def scenario() -> None:
        hub = LocalHub(max_output_bytes=50_000)
        listener = await listen(hub)
        assert listener._server is not None
        for sock in listener._server.sockets:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 << 10)
        peer = await enter(listener, None, "greedy")
        peer.writer.transport.pause_reading()  # type: ignore[attr-defined]

        async def ask() -> None:
            while True:
                peer.writer.write(frame(b"x" * 100, PING) * 1000)
                await peer.writer.drain()

        asking = asyncio.get_running_loop().create_task(ask())
        await until(lambda: not hub.connections, "it asks for ever, and memory grows")
        assert hub.refused == {"unread_output": 1}
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        peer.writer.transport.abort()

    run(scenario())


def test_a_large_frame_on_a_slow_line_is_a_sign_of_life(run: Run) -> None:
    async def scenario() -> None:
        hub = LocalHub()
        listener = await listen(hub)
        peer = await enter(listener, None, "slow")
        (connection,) = hub.connections
        connection.last_received_at -= 1000.0
        before = connection.last_received_at
        peer.writer.write(frame(encode_publish(V5, "t", b"x" * 50_000))[:1000])
        await until(lambda: connection.last_received_at > before)
        peer.writer.close()

    run(scenario())


def test_a_fault_of_ours_ends_the_connection_that_met_it(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    receive = WebSocketPipe.receive

    def fail(self: WebSocketPipe, data: bytes) -> bytes:
        plain = receive(self, data)
        if plain == b"\0\0":
            raise RuntimeError("a bug")
        return plain

    async def scenario() -> None:
        hub = LocalHub()
        listener = await listen(hub)
        unlucky, other = await enter(listener, None, "unlucky"), await enter(listener, None, "other")
        unlucky.send(b"\0\0")
        await unlucky.ended()
        await until(lambda: len(hub.connections) == 1)
        assert hub.refused == {"internal_error": 1}
        assert "a bug" in caplog.text
        assert "unlucky" in caplog.text
        other.send(PINGREQ)
        assert isinstance(await other.receive(), Ping)
        other.writer.close()

    monkeypatch.setattr(WebSocketPipe, "receive", fail)
    run(scenario())


def test_the_certificate_names_the_client(run: Run, pki: Path) -> None:
    async def scenario() -> None:
        hub = LocalHub()
        listener = await listen(hub, pki, client_ca=str(pki / "ca.crt"), require_client_certificate=True)
        peer = await WebSocketPeer.open(listener, trusting(pki, "client"))
        await peer.connect("c")
        (connection,) = hub.connections
        assert connection.certificate_names == ("sensor-1",)
        peer.writer.close()
        with pytest.raises((ssl.SSLError, ConnectionError, EOFError)):
            await WebSocketPeer.open(listener, trusting(pki, "stranger"))
        await until(lambda: hub.refused == {"tls": 1})

    run(scenario())


def test_renewed_certificates_are_for_the_next_connection(run: Run, pki: Path, tmp_path: Path) -> None:
    async def scenario() -> None:
        for suffix in ("crt", "key"):
            shutil.copy(pki / f"server.{suffix}", tmp_path / f"server.{suffix}")
        hub = LocalHub()
        listener = await listen(hub, tmp_path)

        async def server_name() -> str:
            peer = await WebSocketPeer.open(listener, trusting(pki))
            certificate = peer.writer.get_extra_info("peercert")
            peer.writer.close()
            return str(dict(pair for names in certificate["subject"] for pair in names)["commonName"])

        assert await server_name() == "gateway"
        for suffix in ("crt", "key"):
            shutil.copy(pki / f"renewed.{suffix}", tmp_path / f"server.{suffix}")
        await listener.load_certificates()
        assert await server_name() == "gateway-2"

    run(scenario())


def test_input_is_left_while_the_store_is_behind(run: Run, secured: Path | None) -> None:
    """Frames wait in the pipe and in the socket, and nothing is lost of them."""

    async def scenario() -> None:
        hub = LocalHub(max_uncommitted_bytes=20_000)
        listener = await listen(hub, secured)
        away = await Peer.open(await hub.listen())
        await away.connect("away", properties={const.SESSION_EXPIRY_INTERVAL: 60})
        away.writer.write(encode_subscribe(V5, 1, [SubscriptionRequest("t", 1)]))
        await away.receive()
        away.close()
        await until(lambda: not hub.connections)
        hub.disk_works = False
        publisher = await enter(listener, secured, "p")
        packets = [encode_publish(V5, "t", b"x" * 200, 1, packet_id=number) for number in range(1, 1001)]
        publisher.writer.write(b"".join(frame(packet) for packet in packets))
        await until(lambda: next(iter(hub.connections)).paused)
        for _ in range(50):
            await asyncio.sleep(0)
        (connection,) = hub.connections
        assert connection.buffered_bytes < 30_000, "frames are taken although nobody handles them"
        assert hub.router.pending.uncommitted_bytes < 25_000
        hub.disk_works = True
        hub.request_tick()
        for number in range(1, 1001):
            ack = await publisher.receive()
            assert (ack.packet_type, ack.packet_id) == (const.PUBACK, number)
        publisher.writer.close()

    run(scenario())


@pytest.mark.parametrize(
    ("transport_keys", "loaded"), [("", False), ('transport = "ws"\n', True)], ids=["tcp", "ws"]
)
def test_the_library_is_loaded_only_for_such_a_listener(
    tmp_path: Path, transport_keys: str, loaded: bool
) -> None:
    config = tmp_path / "edge-broker.toml"
    config.write_text(f'data_dir = "{tmp_path}/data"\n[[listeners]]\n{transport_keys}bind = "127.0.0.1:0"\n')
    script = (
        "import asyncio, sys\nfrom pathlib import Path\n"
        "from edge_broker.broker import Broker\nfrom edge_broker.config.loading import load\n"
        "async def run():\n    broker = Broker(load(Path(sys.argv[1])))\n    await broker.start()\n"
        "    print('websockets' in sys.modules)\n    await broker.stop()\nasyncio.run(run())\n"
    )
    process = subprocess.run(
        [sys.executable, "-c", script, str(config)], capture_output=True, text=True, timeout=60
    )
    assert process.stdout == f"{loaded}\n", process.stderr
