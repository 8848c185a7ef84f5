"""Whatever comes over a socket ends at most its own connection: a witness's messages pass all the while."""

from __future__ import annotations

import random
import socket
import ssl
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.broker_process import BrokerProcess, until
from tests.integration.foreign import Paho

WAIT_SECONDS = 20.0
CONNECT = b"\x10\x10\x00\x04MQTT\x04\x02\x00\x3c\x00\x04evil"
CONNECT_5 = b"\x10\x11\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x04evil"


@pytest.fixture
def witness(broker: BrokerProcess) -> Iterator[Callable[[], None]]:
    """Sees that a message at QoS 1 still makes its way on connections that were there before."""
    subscriber = Paho(broker.port).connected().subscribe("witness", 1)
    publisher = Paho(broker.port).connected()

    def look() -> None:
        seen = len(subscriber.messages)
        publisher.publish("witness", b"%d" % seen, 1)
        assert subscriber.wait_for(seen + 1)[-1].payload == b"%d" % seen

    look()
    yield look
    look()
    assert (subscriber.connections, publisher.connections) == (1, 1)
    subscriber.leave()
    publisher.leave()


def opened(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), WAIT_SECONDS)


def read_to_the_end(sock: socket.socket) -> bytes:
    """Everything until the broker closes; TimeoutError if it does not."""
    received = b""
    try:
        while data := sock.recv(1 << 16):
            received += data
    except ConnectionError:
        pass
    return received


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        pytest.param(b"\x00" * 100, b"", id="zeros"),
        pytest.param(b"\xff" * 100, b"", id="ones"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + b"x" * 200, b"", id="HTTP"),
        pytest.param(CONNECT + b"\x00\x00", b"\x20\x02\x00\x00", id="garbage behind CONNECT"),
        pytest.param(CONNECT + CONNECT, b"\x20\x02\x00\x00", id="CONNECT twice"),
        pytest.param(CONNECT.replace(b"\x04\x02", b"\x09\x02"), b"\x20\x02\x00\x01", id="version 9"),
        pytest.param(
            CONNECT + b"\x30\xff\xff\xff\x7f", b"\x20\x02\x00\x00", id="a packet of 256 MB announced"
        ),
        pytest.param(CONNECT + b"\x82\x02\x00\x01", b"\x20\x02\x00\x00", id="SUBSCRIBE to nothing"),
    ],
)
def test_it_is_answered_at_most_and_closed(
    broker: BrokerProcess, witness: Callable[[], None], sent: bytes, answer: bytes
) -> None:
    with opened(broker.port) as sock:
        sock.sendall(sent)
        assert read_to_the_end(sock) == answer


def test_a_5_client_hears_why(broker: BrokerProcess) -> None:
    with opened(broker.port) as sock:
        sock.sendall(CONNECT_5 + b"\x30\xff\xff\xff\x7f")
        received = read_to_the_end(sock)
    assert received.startswith(b"\x20")
    disconnect = received[received.index(b"\xe0") :]
    assert disconnect[2] == 0x95, "packet too large"
    assert b"4194304 are allowed" in disconnect, "and in words"


def test_a_reset_in_the_middle_of_a_packet(broker: BrokerProcess, witness: Callable[[], None]) -> None:
    for at in range(1, len(CONNECT) + 40, 3):
        sock = opened(broker.port)
        sock.sendall((CONNECT + b"\x30\x7f\x00\x01t" + b"x" * 50)[:at])
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()


def test_silence(broker: BrokerProcess, witness: Callable[[], None]) -> None:
    """Two hundred connections that say nothing, or not enough, on both listeners: closed when their time is over."""
    plain, tls = broker.ports
    sockets = []
    for port, sent in ((plain, b""), (plain, CONNECT[:10]), (tls, b""), (tls, b"\x16\x03\x01\x00\x05")):
        for _ in range(50):
            sockets.append(opened(port))
            sockets[-1].sendall(sent)
    witness()
    for sock in sockets:
        assert read_to_the_end(sock) == b""
        sock.close()


def test_random_bytes(broker: BrokerProcess, witness: Callable[[], None]) -> None:
    dice = random.Random(7)
    for _ in range(60):
        with opened(broker.port) as sock:
            stream = bytearray(dice.choice((CONNECT, CONNECT_5, b"")) + dice.randbytes(dice.randrange(300)))
            for _ in range(dice.randrange(3)):
                if stream:
                    stream[dice.randrange(len(stream))] = dice.randrange(256)
            try:
                sock.sendall(stream)
            except ConnectionError:
                pass


def test_a_flood_of_publishes_that_nobody_reads(broker: BrokerProcess, witness: Callable[[], None]) -> None:
    """QoS 1 without ever reading a PUBACK: it is paused or cut off, and the others do not wait."""
    with opened(broker.port) as sock:
        sock.sendall(CONNECT)
        sock.settimeout(0.05)
        packet = b"\x32\x0c\x00\x05flood\x00\x01abc"
        for _ in range(20):
            try:
                sock.sendall(packet * 2000)
            except (TimeoutError, ConnectionError):
                break
            witness()


@pytest.mark.parametrize("sent", [CONNECT, bytes(200)])
def test_no_tls_on_a_tls_port(broker: BrokerProcess, witness: Callable[[], None], sent: bytes) -> None:
    with opened(broker.ports[1]) as sock:
        sock.sendall(sent)
        received = read_to_the_end(sock)
    assert received[:1] in (b"", b"\x15"), "nothing, or an alert"


def test_garbage_inside_tls(broker: BrokerProcess, witness: Callable[[], None], pki: Path) -> None:
    context = ssl.create_default_context(cafile=str(pki / "ca.crt"))
    context.load_cert_chain(pki / "client.crt", pki / "client.key")
    with context.wrap_socket(opened(broker.ports[1]), server_hostname="localhost") as sock:
        sock.sendall(b"\x00" * 100)
        assert read_to_the_end(sock) == b""


def test_everything_is_cleaned_up(broker: BrokerProcess) -> None:
    """After all of this the broker has no more files open than before a fresh start would have."""
    files = Path(f"/proc/{broker.pid}/fd")
    until(lambda: len(list(files.iterdir())) < 40, "connections are left open")
