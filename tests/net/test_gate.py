"""Limits before the first word: per address, and of handshakes under way. The gate alone, then on real sockets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edge_broker.net.gate import Gate
from edge_broker.net.listeners import Listener
from edge_broker.wire import const
from edge_broker.wire.encoder import PINGREQ, encode_connect
from edge_broker.wire.packets import Connect, Ping
from tests.net.conftest import Run
from tests.net.frames import upgrade
from tests.net.hub import LocalHub, Peer, until
from tests.net.test_listeners import trusting


class NoCrowd:
    """Nobody is in."""

    def __init__(self) -> None:
        self.connections: set[Any] = set()
        self.max_connections = 10


def test_connections_of_an_address() -> None:
    gate = Gate(NoCrowd(), max_per_address=2)
    assert [gate.admit(f"192.0.2.7:{port}", False) for port in (1, 2, 3)] == [
        None,
        None,
        "max_connections_per_address",
    ]
    assert gate.admit("192.0.2.8:1", False) is None
    assert gate.admit("2001:db8::7:1", False) is None
    gate.leave("192.0.2.7:1")
    assert gate.admit("192.0.2.7:4", False) is None
    assert gate.admit("192.0.2.7:5", False) == "max_connections_per_address"
    for address in ("192.0.2.7:2", "192.0.2.7:4", "192.0.2.8:1", "2001:db8::7:1"):
        gate.leave(address)
    assert gate._counts == {}, "who is gone leaves nothing"


def test_a_network_that_one_site_has_is_one_address() -> None:
    """Any machine with IPv6 has 2^64 addresses to come from."""
    gate = Gate(NoCrowd(), max_per_address=2)
    assert gate.admit("2001:db8:1:2::7:1", False) is None
    assert gate.admit("2001:db8:1:2:3:4:5:6:1", False) is None
    assert gate.admit("2001:db8:1:2:ffff::8:1", False) == "max_connections_per_address"
    assert gate.admit("2001:db8:1:3::7:1", False) is None
    assert gate.admit("fe80::1%eth0:1", False) is None
    assert gate.admit("unknown:0", False) is None
    for address in (
        "2001:db8:1:2::7:1",
        "2001:db8:1:2:3:4:5:6:1",
        "2001:db8:1:3::7:1",
        "fe80::1%eth0:1",
        "unknown:0",
    ):
        gate.leave(address)
    assert gate._counts == {}


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.8.9.1:1", "::1:1", "unix:uid=0"])
def test_this_machine_is_not_limited(address: str) -> None:
    gate = Gate(NoCrowd(), max_per_address=1)
    for _ in range(3):
        assert gate.admit(address, False) is None
    for _ in range(3):
        gate.leave(address)
    assert gate._counts == {}


def test_no_limit() -> None:
    gate = Gate(NoCrowd())
    for port in range(100):
        assert gate.admit(f"192.0.2.7:{port}", True) is None
    assert gate.unfinished == 100


def test_handshakes_under_way() -> None:
    gate = Gate(NoCrowd(), max_per_address=10, max_unfinished=2)
    assert gate.admit("192.0.2.7:1", True) is None
    assert gate.begin_handshake()
    assert gate.admit("192.0.2.7:2", True) == "max_unfinished_handshakes"
    assert not gate.begin_handshake()
    assert gate.admit("192.0.2.7:3", False) is None, "who shakes no hands is not concerned"
    gate.end_handshake()
    assert gate.admit("192.0.2.7:4", True) is None
    assert gate._counts == {"192.0.2.7": 3}, "who was refused is not counted"


def proxied(host: str) -> bytes:
    return f"PROXY TCP4 {host} 198.51.100.1 1 2\r\n".encode()


def test_an_address_beyond_its_limit_is_refused(run: Run) -> None:
    async def scenario() -> None:
        hub = LocalHub()
        listener = await hub.listen(gate=Gate(hub, max_per_address=2), proxies=("127.0.0.1",))

        async def enter(host: str, client_id: str) -> Peer:
            peer = await Peer.open(listener)
            peer.writer.write(proxied(host) + encode_connect(Connect(const.MQTT_5, client_id, True, 0)))
            return peer

        first, second = await enter("192.0.2.7", "1"), await enter("192.0.2.7", "2")
        for peer in (first, second):
            await peer.receive()
        third = await enter("192.0.2.7", "3")
        await third.ended()
        assert hub.refused == {"max_connections_per_address": 1}
        assert len(hub.connections) == 2
        other = await enter("192.0.2.8", "other")
        await other.receive()
        first.close()
        await until(lambda: len(hub.connections) == 2)
        fourth = await enter("192.0.2.7", "4")
        await fourth.receive()
        for peer in (second, other, fourth):
            peer.writer.write(PINGREQ)
            assert isinstance(await peer.receive(), Ping)
            peer.close()

    run(scenario())


@pytest.mark.parametrize("kind", ["tls", "ws", "wss", "proxy"])
def test_handshakes_beyond_the_limit_are_refused(run: Run, pki: Path, kind: str) -> None:
    async def scenario() -> None:
        hub = LocalHub()
        gate = Gate(hub, max_unfinished=2)
        listener = await _listen(hub, gate, kind, pki)
        half_way = [await Peer.open(listener) for _ in range(2)]
        await until(lambda: gate.unfinished == 2)
        refused = await Peer.open(listener)
        await refused.ended()
        assert hub.refused["max_unfinished_handshakes"] == 1
        half_way.pop().writer.transport.abort()
        await until(lambda: gate.unfinished == 1)
        for _ in range(3):  # whoever is through makes room
            await _shake_hands(listener, kind, pki)
            await until(lambda: gate.unfinished == 1)
        assert hub.refused["max_unfinished_handshakes"] == 1
        half_way.pop().writer.transport.abort()
        await until(lambda: gate.unfinished == 0)
        bad = await Peer.open(listener)
        bad.writer.write(b"\0nonsense")
        await bad.ended()
        await until(lambda: gate.unfinished == 0)

    run(scenario())


async def _listen(hub: LocalHub, gate: Gate, kind: str, pki: Path) -> Listener:
    options: dict[str, Any] = {"gate": gate}
    if kind in ("tls", "wss"):
        options |= {"certificate": str(pki / "server.crt"), "key": str(pki / "server.key")}
    if kind in ("ws", "wss"):
        options["websocket_paths"] = ("/mqtt",)
    if kind == "proxy":
        options["proxies"] = ("127.0.0.1",)
    return await hub.listen(**options)


async def _shake_hands(listener: Listener, kind: str, pki: Path) -> None:
    peer = await Peer.open(listener, trusting(pki) if kind in ("tls", "wss") else None)
    if kind in ("ws", "wss"):
        peer.writer.write(upgrade())
        await peer.reader.readuntil(b"\r\n\r\n")
    elif kind == "proxy":
        peer.writer.write(proxied("192.0.2.7"))
        await peer.connect("c")
    else:
        await peer.connect("c")
