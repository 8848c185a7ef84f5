"""A burst of connections that say nothing but garbage, thousands a second, beside two clients that do their work."""

from __future__ import annotations

import random
import socket
import statistics
import threading

import pytest

from edge_broker.wire.encoder import encode_connect
from edge_broker.wire.packets import Connect
from tests.hostile.conftest import Start, Watched
from tests.hostile.peer import V5, Pair, Peer

BURST = 6_000
QUIET_ROUND_TRIPS = 200
MEDIAN_SECONDS = 0.1
"""Attacker, broker and clients share what cores there are; without the broker's fairness this would be seconds."""
WORST_SECONDS = 2.0


def garbage(dice: random.Random) -> bytes:
    """A beginning that can be nothing but refused, and told at once."""
    kind = dice.randrange(4)
    if kind == 0:
        return bytes((dice.choice((0x30, 0x82, 0xC0, 0xF0)),)) + dice.randbytes(30)
    if kind == 1:
        return b"\x10\xff\xff\xff\xff" + dice.randbytes(20)  # a remaining length that is none
    if kind == 2:
        return b"GET / HTTP/1.1\r\n\r\n"
    connect = bytearray(encode_connect(Connect(V5, "x", True, 60)))
    connect[8] = 77  # the protocol level
    return bytes(connect)


def attack(port: int, seed: int, count: int, errors: list[OSError]) -> None:
    """`count` connections one after the other, each with its garbage, each until the broker closes it."""
    dice = random.Random(seed)
    for _ in range(count):
        try:
            with socket.create_connection(("127.0.0.1", port), 20) as sock:
                sock.sendall(garbage(dice))
                while sock.recv(4096):
                    pass
        except ConnectionError:
            pass  # closed with input unread: a reset
        except OSError as error:
            errors.append(error)
            return


def test_two_clients_keep_their_pace(start: Start, loop: str) -> None:
    watched = start(loop, connect_timeout_seconds=30)
    with Pair(watched.port) as pair:
        quiet = statistics.median(pair.round_trip() for _ in range(QUIET_ROUND_TRIPS))
        errors: list[OSError] = []
        attackers = [
            threading.Thread(target=attack, args=(watched.port, seed, BURST // 4, errors))
            for seed in range(4)
        ]
        for attacker in attackers:
            attacker.start()
        during = []
        while any(attacker.is_alive() for attacker in attackers):
            during.append(pair.round_trip())
        for attacker in attackers:
            attacker.join()
        assert errors == []
        told = f"median {quiet * 1000:.1f} ms before, {statistics.median(during) * 1000:.1f} ms in the burst"
        assert len(during) > 20, told
        assert statistics.median(during) < MEDIAN_SECONDS, told
        assert max(during) < WORST_SECONDS, f"{told}, at worst {max(during) * 1000:.0f} ms"
        watched.until(lambda: watched.get("connections") == 2, "connections of the burst are left")
        refused = watched.refused()
        assert sum(refused.values()) == BURST
        assert set(refused) <= {
            "malformed_packet",
            "packet_too_large",
            "protocol_error",
            "unsupported_protocol_version",
        }
        assert watched.get("connections_total") == BURST + 2


@pytest.mark.parametrize("first", [0x00, 0x0F, 0x20, 0x30, 0x3F, 0x40, 0x82, 0xC0, 0xE0, 0xF0])
def test_what_cannot_become_a_connect_is_refused_at_once(start: Start, first: int) -> None:
    """No matter how long it claims to be: nobody waits for the rest of it, nor keeps what has come."""
    watched: Watched = start(connect_timeout_seconds=600)
    with Peer(watched.port) as peer:
        peer.send(bytes((first, 0x7F, 0)))
        assert peer.read_to_the_end() == []
        assert sum(watched.refused().values()) == 1


def test_nobody_keeps_a_megabyte_of_a_connect(start: Start) -> None:
    """Before it is known who comes, a packet has a limit of its own: told as soon as its length is there."""
    watched = start(connect_timeout_seconds=600)
    with Peer(watched.port) as peer:
        peer.send(b"\x10\xc0\x84\x3d")  # a million bytes
        assert peer.read_to_the_end() == []
        assert watched.refused() == {"packet_too_large": 1}
