"""Peers that let time pass: connects that never finish, connections that nobody is at the end of any more."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from edge_broker.wire import const
from edge_broker.wire.encoder import PINGREQ, encode_connect
from edge_broker.wire.packets import Connect, Disconnect, Publish, Will
from tests.hostile.conftest import Start, Watched
from tests.hostile.peer import V5, WAIT_SECONDS, Pair, Peer

LORIS = 40
DRIP_SECONDS = 0.1
SWEEP_SECONDS = 1.0
"""How often the broker looks at who is silent."""
SLACK_SECONDS = 3.0
"""For a machine that is busy with other things."""


def test_a_connect_that_comes_byte_by_byte_does_not_buy_time(start: Start, loop: str) -> None:
    """Each is closed when its half second is over, whatever it sent meanwhile, and counted."""
    watched = start(loop)
    connect = encode_connect(Connect(V5, "x" * 200, True, 60))
    with Pair(watched.port) as pair:
        peers = [Peer(watched.port) for _ in range(LORIS)]
        stop = threading.Event()

        def drip() -> None:
            for at in range(len(connect) - 1):
                for peer in peers:
                    try:
                        peer.sock.send(connect[at : at + 1])
                    except OSError:
                        pass
                if stop.wait(DRIP_SECONDS):
                    return

        dripper = threading.Thread(target=drip)
        begun_at = time.monotonic()
        dripper.start()
        for peer in peers:
            assert peer.read_to_the_end() == []
        took = time.monotonic() - begun_at
        stop.set()
        dripper.join()
        assert took < 0.5 + SWEEP_SECONDS + SLACK_SECONDS, "it was never closed for being slow"
        pair.round_trip()
        assert watched.refused() == {"connect_timeout": LORIS}
        watched.until(lambda: watched.get("connections") == 2, "their connections are still there")
        for peer in peers:
            peer.sock.close()


def test_nobody_there_any_more(watched: Watched, pair: Pair) -> None:
    """Half open: the client's machine has lost its power. Nothing tells but the keep alive, of 1 s here."""
    with Peer(watched.port) as watcher, Peer(watched.port) as gone, Peer(watched.port) as there:
        watcher.connect("watcher")
        watcher.subscribe("wills", 1)
        there.connect("there", keep_alive=1)
        begun_at = time.monotonic()
        gone.connect("gone", keep_alive=1, will=Will("wills", b"gone", 1, False, 0, {}))
        stop = threading.Event()

        def stay() -> None:
            while not stop.wait(0.3):
                there.send(PINGREQ)

        pinging = threading.Thread(target=stay)
        pinging.start()
        try:
            assert watcher.expect(Publish).payload == b"gone"
            took = time.monotonic() - begun_at
        finally:
            stop.set()
            pinging.join()
        assert 1.5 <= took < 1.5 + SWEEP_SECONDS + SLACK_SECONDS  # [MQTT-3.1.2-22]
        (disconnect,) = gone.read_to_the_end()
        assert isinstance(disconnect, Disconnect)
        assert disconnect.reason_code == const.KEEP_ALIVE_TIMEOUT
        assert watched.refused() == {"keep_alive_timeout": 1}
        there.send(PINGREQ)  # the one that pinged is still connected


def test_it_comes_back_before_the_broker_noticed(watched: Watched, pair: Pair) -> None:
    """A client that lost its link has its session at once on a new connection; the half-open one is closed."""
    with Peer(watched.port) as old, Peer(watched.port) as new:
        old.connect("device", clean=False, expiry=60)
        old.subscribe("down", 1)
        pair.publisher.publish("down", b"unseen", 1, 7)
        pair.publisher.expect_ack(const.PUBACK)
        assert old.expect(Publish).payload == b"unseen"  # reached the kernel of a machine without power
        assert new.connect("device", clean=False, expiry=60).session_present
        again = new.expect(Publish)
        assert (again.payload, again.dup) == (b"unseen", True)
        new.ack(const.PUBACK, again.packet_id)
        new.ping()
        (disconnect,) = old.read_to_the_end()
        assert disconnect.reason_code == const.SESSION_TAKEN_OVER
        assert watched.refused() == {"session_taken_over": 1}
        assert watched.get("queue_messages", queue="session:device") == 0


@pytest.mark.parametrize("how", ["half closed", "reset"])
def test_a_last_word_and_gone(watched: Watched, pair: Pair, how: str) -> None:
    """What came whole before the end of the stream counts; the connection is not kept for the other half."""
    with Peer(watched.port) as watcher:
        watcher.connect("watcher")
        watcher.subscribe("last", 1)
        peer = Peer(watched.port)
        peer.connect("leaving", will=Will("last", b"will", 1, False, 0, {}))
        peer.publish("last", b"word", 1, 3)
        assert peer.expect_ack(const.PUBACK).packet_id == 3
        if how == "reset":
            peer.reset()
        else:
            peer.sock.shutdown(socket.SHUT_WR)
            assert peer.read_to_the_end() == []
            peer.sock.close()
        assert [watcher.expect(Publish).payload for _ in range(2)] == [b"word", b"will"]
    watched.until(lambda: watched.get("connections") == 2, "its connection is still there")
    assert watched.refused() == {}


def test_a_paused_reader_keeps_its_connection_by_pinging(watched: Watched) -> None:
    """Keep alive is about what comes in: a client that writes and does not read is not silent."""
    with Peer(watched.port) as peer:
        peer.connect("writer", keep_alive=1)
        until = time.monotonic() + 2.5
        pings = 0
        with Peer(watched.port) as silent:  # measures the time: it is closed when 1.5 s and a sweep are over
            silent.connect("silent", keep_alive=1)
            silent.sock.settimeout(0.2)
            while time.monotonic() < until or pings < 5:
                peer.send(PINGREQ)
                pings += 1
                try:
                    silent.sock.recv(1, socket.MSG_PEEK)
                except TimeoutError:
                    continue
                break
        peer.sock.settimeout(WAIT_SECONDS)
        for _ in range(pings):
            assert peer.receive().packet_type == const.PINGRESP
        assert watched.refused() == {"keep_alive_timeout": 1}
