"""PROXY protocol on real sockets, beneath every transport: who is told is who it is, and nobody else can tell."""

from __future__ import annotations

import asyncio
import socket
import struct
from pathlib import Path
from typing import Any

import pytest

from edge_broker.net.listeners import Listener
from edge_broker.net.proxy import ProxyList
from edge_broker.net.tls import TlsPipe, client_context
from edge_broker.wire import const
from edge_broker.wire.encoder import PINGREQ, encode_connect
from edge_broker.wire.packets import Connack, Connect, Ping
from tests.net.conftest import Run
from tests.net.frames import ServerFrames, frame, upgrade
from tests.net.hub import LocalHub, Peer, until
from tests.net.test_proxy_header import block_4, v2

V1 = b"PROXY TCP4 192.0.2.7 198.51.100.1 51234 1883\r\n"
V2 = v2(0x21, 0x11, block_4())
LOCAL = v2(0x20, 0x00, b"")
TOLD = "192.0.2.7:51234"
CONNECT = encode_connect(Connect(const.MQTT_5, "c", True, 0))


async def listen(hub: LocalHub, **more: Any) -> Listener:
    return await hub.listen(**({"proxies": ("127.0.0.1", "10.0.0.0/8")} | more))


@pytest.mark.parametrize(
    ("header", "told"),
    [(V1, TOLD), (V2, TOLD), (LOCAL, None), (b"PROXY UNKNOWN\r\n", None)],
    ids=["v1", "v2", "local", "unknown"],
)
@pytest.mark.parametrize("piece", [1, 10, 1000])
def test_who_is_told_is_who_it_is(run: Run, header: bytes, told: str | None, piece: int) -> None:
    async def scenario() -> None:
        hub = LocalHub()
        peer = await Peer.open(await listen(hub))
        data = header + CONNECT
        for at in range(0, len(data), piece):
            peer.writer.write(data[at : at + piece])
            await peer.writer.drain()
            await asyncio.sleep(0)
        assert isinstance(await peer.receive(), Connack)
        (connection,) = hub.connections
        assert connection.address == (told or f"127.0.0.1:{peer.writer.get_extra_info('sockname')[1]}")
        peer.writer.write(PINGREQ)
        assert isinstance(await peer.receive(), Ping)
        peer.close()
        await until(lambda: not hub.connections)
        assert hub.refused == {}

    run(scenario())


def test_the_header_alone_makes_a_connection(run: Run) -> None:
    async def scenario() -> None:
        hub = LocalHub()
        peer = await Peer.open(await listen(hub))
        peer.writer.write(V1)
        await until(lambda: hub.connections)
        (connection,) = hub.connections
        assert connection.address == TOLD
        await peer.connect("c")
        peer.close()

    run(scenario())


@pytest.mark.parametrize("secured", [False, True], ids=["ws", "wss"])
def test_beneath_websocket(run: Run, pki: Path, secured: bool) -> None:
    async def scenario() -> None:
        hub = LocalHub()
        keys = {"certificate": str(pki / "server.crt"), "key": str(pki / "server.key")} if secured else {}
        peer = await Peer.open(await listen(hub, websocket_paths=("/mqtt",), **keys))
        client = TlsPipe(client_context(str(pki / "ca.crt")), False, "localhost")
        request = upgrade() + frame(CONNECT)
        if secured:
            client.start()
            client.send(request)
            request = client.take_output()
        peer.writer.write(V2 + request)
        answer = b""
        while b"\r\n\r\n" not in answer or len(answer.partition(b"\r\n\r\n")[2]) < 4:
            data = await asyncio.wait_for(peer.reader.read(1 << 16), 20)
            assert data
            answer += client.receive(data) if secured else data
            peer.writer.write(client.take_output())
        ((_, connack),) = ServerFrames().take(answer.partition(b"\r\n\r\n")[2])
        assert connack[0] == const.CONNACK << 4
        (connection,) = hub.connections
        assert connection.address == TOLD
        peer.close()

    run(scenario())


def test_beneath_tls(run: Run, pki: Path) -> None:
    async def scenario() -> None:
        hub = LocalHub()
        peer = await Peer.open(
            await listen(hub, certificate=str(pki / "server.crt"), key=str(pki / "server.key"))
        )
        client = TlsPipe(client_context(str(pki / "ca.crt")), False, "localhost")
        client.start()
        client.send(CONNECT)
        peer.writer.write(V1 + client.take_output())
        answer = b""
        while not answer:
            answer = client.receive(await asyncio.wait_for(peer.reader.read(1 << 16), 20))
            peer.writer.write(client.take_output())
        assert answer[0] == const.CONNACK << 4
        (connection,) = hub.connections
        assert connection.address == TOLD
        peer.close()

    run(scenario())


@pytest.mark.parametrize("data", [CONNECT, b"PROXY nonsense\r\n", b"\x16\x03\x01", b"PROXY " + b"x" * 200])
def test_a_proxy_that_tells_nothing_sound_is_closed(run: Run, data: bytes) -> None:
    async def scenario() -> None:
        hub = LocalHub()
        listener = await listen(hub)
        peer = await Peer.open(listener)
        peer.writer.write(data)
        await peer.ended()
        assert hub.refused == {"proxy_protocol": 1}
        assert not hub.connections
        good = await Peer.open(listener)
        good.writer.write(V1)
        await good.connect("good")
        good.close()

    run(scenario())


@pytest.mark.parametrize("header", [V1, V2])
def test_who_is_no_proxy_cannot_tell(run: Run, header: bytes) -> None:
    async def scenario() -> None:
        hub = LocalHub()
        listener = await listen(hub, proxies=("192.0.2.0/24",))
        plain = await Peer.open(listener)
        await plain.connect("plain")
        (connection,) = hub.connections
        assert connection.address.startswith("127.0.0.1:")
        liar = await Peer.open(listener)
        liar.writer.write(header + CONNECT)
        await liar.ended()
        await until(lambda: len(hub.connections) == 1)
        assert "c" not in hub.router.sessions
        assert sum(hub.refused.values()) == 1
        assert "proxy_protocol" not in hub.refused
        plain.close()

    run(scenario())


def test_a_header_that_never_comes_is_not_waited_for(run: Run) -> None:
    async def scenario() -> None:
        hub = LocalHub(connect_timeout_seconds=0.05)
        peer = await Peer.open(await listen(hub))
        peer.writer.write(V1[:10])
        await peer.ended()
        assert hub.refused == {"connect_timeout": 1}

    run(scenario())


def test_the_time_is_over_with_the_header(run: Run) -> None:
    """Whoever has told is not cut off when its time would have been up."""

    async def scenario() -> None:
        hub = LocalHub(connect_timeout_seconds=0.1)
        peer = await Peer.open(await listen(hub))
        peer.writer.write(V1)
        await peer.connect("c")
        loop = asyncio.get_running_loop()
        late = loop.time() + 0.15
        await until(lambda: loop.time() > late)
        peer.writer.write(PINGREQ)
        assert isinstance(await peer.receive(), Ping)
        assert hub.refused == {}
        peer.close()

    run(scenario())


def test_the_time_for_the_header_counts(run: Run) -> None:
    """Whoever takes long for the header has less for the CONNECT."""

    async def scenario() -> None:
        hub = LocalHub(connect_timeout_seconds=1000.0)
        peer = await Peer.open(await listen(hub))
        loop = asyncio.get_running_loop()
        before = loop.time()
        peer.writer.write(V1[:10])
        await peer.writer.drain()
        await until(lambda: loop.time() > before + 0.02)
        after = loop.time()
        peer.writer.write(V1[10:])
        await until(lambda: hub.connections)
        (connection,) = hub.connections
        assert connection.opened_at < after
        peer.close()

    run(scenario())


def test_a_probe_that_goes_without_a_word(run: Run) -> None:
    async def scenario() -> None:
        hub = LocalHub()
        listener = await listen(hub)
        peer = await Peer.open(listener)
        await until(lambda: listener._waiting)
        peer.close()
        await until(lambda: not listener._waiting)
        assert hub.refused == {}
        assert listener._gate.unfinished == 0

    run(scenario())


def test_a_probe_that_was_gone_before_it_was_seen(run: Run) -> None:
    """As HAProxy's health checks: a header, and a reset. Nobody is asked for, nothing counts."""

    async def scenario() -> None:
        hub = LocalHub()
        listener = await listen(hub)
        host, _, port = listener.name.rpartition(":")
        for header in (LOCAL, b""):
            with socket.create_connection((host, int(port))) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                probe.sendall(header)
        peer = await Peer.open(listener)
        peer.writer.write(V1)
        await peer.connect("behind them all")
        assert hub.refused == {}
        await until(lambda: len(hub.connections) == 1)
        peer.close()

    run(scenario())


def test_who_waits_at_the_end_is_sent_away(run: Run) -> None:
    async def scenario() -> None:
        hub = LocalHub()
        listener = await listen(hub)
        peer = await Peer.open(listener)
        await until(lambda: listener._waiting)
        listener.stop_accepting()
        await peer.ended()
        assert not listener._waiting
        assert hub.refused == {}, "it was sent away, not waited for"

    run(scenario())


def test_the_limit_of_connections_holds(run: Run) -> None:
    async def scenario() -> None:
        hub = LocalHub(max_connections=1)
        listener = await listen(hub)
        first = await Peer.open(listener)
        first.writer.write(V1)
        await first.connect("first")
        second = await Peer.open(listener)
        second.writer.write(V1 + CONNECT)
        await second.ended()
        assert hub.refused == {"max_connections": 1}
        assert "c" not in hub.router.sessions
        first.writer.write(PINGREQ)
        assert isinstance(await first.receive(), Ping)
        first.close()

    run(scenario())


def test_proxies_over_ipv6(run: Run) -> None:
    async def scenario() -> None:
        try:
            with socket.socket(socket.AF_INET6) as probe:
                probe.bind(("::1", 0))
        except OSError:
            pytest.skip("this machine has no IPv6")
        from edge_broker.net.endpoints import TcpEndpoint

        hub = LocalHub()
        listener = await listen(hub, endpoint=TcpEndpoint("", 0))
        port = int(listener.name.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)  # as ::ffff:127.0.0.1
        peer = Peer(reader, writer, const.MQTT_5)
        writer.write(V1)
        await peer.connect("c")
        (connection,) = hub.connections
        assert connection.address == TOLD
        peer.close()
        listener.stop_accepting()

    run(scenario())


def test_the_list_of_proxies() -> None:
    proxies = ProxyList(("127.0.0.1", "10.0.0.0/8", "2001:db8::/32"))
    assert "127.0.0.1" in proxies
    assert "10.255.0.1" in proxies
    assert "2001:db8::1" in proxies
    for other in ("127.0.0.2", "11.0.0.1", "::1", "unknown", "unix", ""):
        assert other not in proxies
