"""Transports on real sockets: floods, clients that do not read, limits, faults of our own; the others go on."""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import Any

import pytest

from edge_broker.core.connection import Connection
from edge_broker.wire import const
from edge_broker.wire.encoder import PINGREQ, encode_publish, encode_subscribe
from edge_broker.wire.packets import Ack, Disconnect, Ping, Publish, Suback, SubscriptionRequest, Will
from tests.net.conftest import Run
from tests.net.hub import LocalHub, Peer, until

V5 = const.MQTT_5


async def joined(hub: LocalHub, listener: Any, client_id: str, topic: str = "", qos: int = 0) -> Peer:
    """A peer that is connected, and subscribed to `topic`."""
    peer = await Peer.open(listener)
    assert (await peer.connect(client_id)).reason_code == const.SUCCESS
    if topic:
        peer.writer.write(encode_subscribe(V5, 1, [SubscriptionRequest(topic, qos)]))
        assert isinstance(await peer.receive(), Suback)
    return peer


def connection_of(hub: LocalHub, client_id: str) -> Connection:
    return next(connection for connection in hub.connections if connection.client_id == client_id)


def test_a_packet_in_many_pieces_and_many_packets_in_one(run: Run) -> None:
    async def scenario() -> None:
        hub = LocalHub()
        listener = await hub.listen()
        peer = await joined(hub, listener, "c", "t", 1)
        payload = bytes(range(256)) * 1000
        packet = encode_publish(V5, "t", payload, 1, packet_id=5)
        for at in range(0, len(packet), 9973):
            peer.writer.write(packet[at : at + 9973])
            await peer.writer.drain()
            await asyncio.sleep(0)
        received = [await peer.receive(), await peer.receive()]
        assert {type(packet) for packet in received} == {Publish, Ack}
        assert next(p for p in received if isinstance(p, Publish)).payload == payload
        peer.writer.write(encode_publish(V5, "t", b"small") * 500)
        for _ in range(500):
            assert (await peer.receive()).payload == b"small"
        peer.close()

    run(scenario())


def test_a_flood_does_not_keep_others_waiting(run: Run) -> None:
    """Ten clients flood with what is expensive; another one's ping is answered in between."""

    async def scenario() -> None:
        hub = LocalHub()
        listener = await hub.listen()
        for number in range(20):
            await joined(hub, listener, f"s{number}", "t")
        quiet = await joined(hub, listener, "quiet")
        floods = [await joined(hub, listener, f"f{number}") for number in range(10)]
        chunk = encode_publish(V5, "t", b"x" * 10) * 3000
        for flood in floods:
            flood.writer.write(chunk)
        await until(lambda: hub.router.counters.received[0] > 0)
        quiet.writer.write(PINGREQ)
        assert isinstance(await quiet.receive(), Ping)
        handled = hub.router.counters.received[0]
        assert handled < 30_000, "the ping had to wait for the whole flood"
        await until(lambda: hub.router.counters.received[0] == 30_000)

    run(scenario())


def test_a_client_that_reads_nothing_costs_a_bounded_amount_and_nobody_else(run: Run) -> None:
    async def scenario() -> None:
        hub = LocalHub(max_output_bytes=100_000)
        listener = await hub.listen()
        slow = await joined(hub, listener, "slow", "t")
        slow.stop_reading()
        quick = await joined(hub, listener, "quick", "t")
        publisher = await joined(hub, listener, "p")
        packet = encode_publish(V5, "t", b"x" * 10_000)
        dropped = hub.router.counters.dropped
        count = 0
        while "slow_subscriber" not in dropped:
            for _ in range(20):
                publisher.writer.write(packet)
                count += 1
            await publisher.writer.drain()
            for _ in range(20):
                assert len((await quick.receive()).payload) == 10_000
            assert count < 10_000, "nothing is ever dropped"
        connection = connection_of(hub, "slow")
        assert not connection.writable
        assert connection.output == []
        slow.read_again()
        received = 0
        while received < 10:
            received += isinstance(await slow.receive(), Publish)
        await until(lambda: connection.writable, "it may have more when it reads again")
        for peer in (slow, quick, publisher):
            peer.close()

    run(scenario())


def test_a_client_that_asks_and_reads_no_answer_is_cut_off(run: Run) -> None:
    async def scenario() -> None:
        hub = LocalHub(max_output_bytes=50_000)
        listener = await hub.listen()
        assert listener._server is not None
        for sock in listener._server.sockets:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 << 10)  # or megabytes lie in the kernel
        witness = await joined(hub, listener, "witness")
        greedy = await joined(hub, listener, "greedy")
        greedy.stop_reading()

        async def ask() -> None:
            while True:
                greedy.writer.write(b"\x62\x02\x00\x09" * 25_000)  # PUBREL of nothing: five bytes for four
                await greedy.writer.drain()

        asking = asyncio.get_running_loop().create_task(ask())
        await until(lambda: len(hub.connections) == 1, "it asks for ever, and memory grows")
        assert hub.refused == {"unread_output": 1}
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        witness.writer.write(PINGREQ)
        assert isinstance(await witness.receive(), Ping)
        greedy.writer.transport.abort()
        witness.close()

    run(scenario())


def test_many_large_deliveries_at_once_cut_nobody_off(run: Run) -> None:
    """What one turn writes may be more than the limit; a slow client's own small questions are not held against it."""

    async def scenario() -> None:
        hub = LocalHub(max_output_bytes=50_000, max_packet_bytes=20 << 20, max_queue_bytes_in_memory=64 << 20)
        listener = await hub.listen()
        slow = await joined(hub, listener, "slow", "t", 1)
        publisher = await joined(hub, listener, "p")
        slow.stop_reading()
        publisher.writer.write(encode_publish(V5, "t", b"x" * (12 << 20), 1, packet_id=1))
        assert isinstance(await publisher.receive(), Ack)
        assert not connection_of(hub, "slow").writable
        for _ in range(20):
            slow.writer.write(PINGREQ)
            await asyncio.sleep(0)
        slow.read_again()
        received: list[object] = []
        while sum(isinstance(packet, Ping) for packet in received) < 20:
            packet = await slow.receive()
            received.append(packet)
            if isinstance(packet, Publish):
                slow.writer.write(b"\x40\x02" + packet.packet_id.to_bytes(2, "big"))
        assert hub.refused == {}
        slow.close()
        publisher.close()

    run(scenario())


def test_connections_beyond_the_limit_are_refused(run: Run) -> None:
    async def scenario() -> None:
        hub = LocalHub(max_connections=2)
        listener = await hub.listen()
        first, second = await joined(hub, listener, "a"), await joined(hub, listener, "b")
        third = await Peer.open(listener)
        await third.ended()
        assert hub.refused == {"max_connections": 1}
        assert len(hub.connections) == 2
        first.close()
        await until(lambda: len(hub.connections) == 1)
        fourth = await joined(hub, listener, "d")
        for peer in (second, fourth):
            peer.writer.write(PINGREQ)
            assert isinstance(await peer.receive(), Ping)
            peer.close()

    run(scenario())


def test_input_is_left_in_the_socket_while_the_store_is_behind(run: Run) -> None:
    async def scenario() -> None:
        hub = LocalHub(max_uncommitted_bytes=20_000)
        listener = await hub.listen()
        away = await Peer.open(listener)
        away_options = {"properties": {const.SESSION_EXPIRY_INTERVAL: 60}}
        await away.connect("away", **away_options)
        away.writer.write(encode_subscribe(V5, 1, [SubscriptionRequest("t", 1)]))
        await away.receive()
        away.close()
        await until(lambda: not hub.connections)
        hub.disk_works = False
        publisher = await joined(hub, listener, "p")
        for number in range(1, 501):
            publisher.writer.write(encode_publish(V5, "t", b"x" * 1000, 1, packet_id=number))
        await until(lambda: connection_of(hub, "p").paused)
        connection = connection_of(hub, "p")
        await until(lambda: connection.buffered_bytes > hub.router.settings.work_budget_bytes)
        for _ in range(50):
            await asyncio.sleep(0)
        assert connection.buffered_bytes < 400_000, "it goes on reading"
        assert hub.router.pending.uncommitted_bytes < 25_000
        hub.disk_works = True
        hub.request_tick()
        for number in range(1, 501):
            ack = await publisher.receive()
            assert (ack.packet_type, ack.packet_id) == (const.PUBACK, number)
        publisher.close()

    run(scenario())


def test_a_fault_of_ours_ends_the_connection_that_met_it(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        hub = LocalHub()
        listener = await hub.listen()
        unlucky, other = await joined(hub, listener, "unlucky"), await joined(hub, listener, "other")
        handle = Connection._handle

        def fail(self: Connection, packet: Any) -> None:
            if self.client_id == "unlucky":
                raise RuntimeError("a bug")
            handle(self, packet)

        monkeypatch.setattr(Connection, "_handle", fail)
        with caplog.at_level(logging.ERROR, "edge_broker.net"):
            unlucky.writer.write(PINGREQ)
            await unlucky.ended()
        assert "unlucky" in caplog.text
        assert "a bug" in caplog.text
        assert hub.refused == {"internal_error": 1}
        await until(lambda: len(hub.connections) == 1)
        other.writer.write(PINGREQ)
        assert isinstance(await other.receive(), Ping)
        other.close()

    run(scenario())


def test_the_last_word_arrives_before_the_end(run: Run) -> None:
    async def scenario() -> None:
        hub = LocalHub()
        listener = await hub.listen()
        peer = await joined(hub, listener, "c")
        peer.writer.write(b"\x00\x00")
        last = await peer.receive()
        assert isinstance(last, Disconnect)
        assert last.reason_code == const.MALFORMED_PACKET
        await peer.ended()

    run(scenario())


def test_a_connection_that_breaks_leaves_its_will(run: Run) -> None:
    async def scenario() -> None:
        hub = LocalHub()
        listener = await hub.listen()
        watcher = await joined(hub, listener, "w", "will")
        peer = await Peer.open(listener)
        await peer.connect("c", will=Will("will", b"gone", 0, False, 0, {}))
        peer.writer.transport.abort()
        assert (await watcher.receive()).payload == b"gone"
        watcher.close()

    run(scenario())


@pytest.mark.parametrize("qos", [0, 1])
def test_very_many_retained_messages_reach_a_subscriber(run: Run, qos: int) -> None:
    """More than a turn's work, more than the transport's buffer, more than the client's window."""

    async def scenario() -> None:
        hub = LocalHub(max_output_bytes=20_000, max_queue_bytes_in_memory=20_000)
        listener = await hub.listen()
        publisher = await joined(hub, listener, "p")
        for number in range(3000):
            publisher.writer.write(encode_publish(V5, f"r/{number}", b"x" * 100, qos, True, packet_id=1))
        await until(lambda: len(hub.router.retained) == 3000)
        peer = await Peer.open(listener)
        await peer.connect("c", properties={const.RECEIVE_MAXIMUM: 20})
        peer.writer.write(encode_subscribe(V5, 1, [SubscriptionRequest("r/#", qos)]))
        assert isinstance(await peer.receive(), Suback)
        topics = set()
        while len(topics) < 3000:
            publish = await peer.receive()
            topics.add(publish.topic)
            if qos:
                peer.writer.write(b"\x40\x02" + publish.packet_id.to_bytes(2, "big"))
        assert hub.router.counters.dropped == {}
        peer.close()
        publisher.close()

    run(scenario())
