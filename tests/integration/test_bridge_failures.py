"""What goes wrong on the way to the upstream: said in words of its own, once; and nobody here waits for it."""

import asyncio
import socket
import statistics
import struct
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from edge_broker.wire import const
from edge_broker.wire.encoder import encode_connack, encode_disconnect, encode_publish
from tests.bridge.real import Gateway, Log, Person, bridge_config, free_port, rule, running, until

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[str]:
    """A TCP server; gives its URL."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handler(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"mqtt://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


@pytest.fixture
def black_hole() -> AsyncIterator[str]:
    """An address whose packets are dropped: a listening socket whose queue is full."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    fillers = []
    for _ in range(4):
        filler = socket.socket()
        filler.setblocking(False)
        filler.connect_ex(listener.getsockname())
        fillers.append(filler)
    yield f"mqtt://127.0.0.1:{listener.getsockname()[1]}"  # type: ignore[misc]
    for each in [*fillers, listener]:
        each.close()


async def first_failure(directory: Path, url: str, **settings: object) -> tuple[str, str]:
    """The bridge's last error and its hint, after a few attempts; it was logged once."""
    config = bridge_config(url, out=(rule("#"),), **settings)
    gateway = Gateway(directory, config)
    attempts = count_attempts(gateway)
    with Log() as log:
        async with running(gateway):
            await until(lambda: len(attempts) >= 3 and gateway.bridge.status().last_error, "no failure")
            status = gateway.bridge.status()
            assert not status.connected
    assert len(log.of("WARNING")) == 1, log.lines
    assert status.last_error in log.of("WARNING")[0]
    return status.last_error, status.last_hint


def count_attempts(gateway: Gateway) -> list[None]:
    """Grows with each attempt to connect."""
    attempts: list[None] = []
    start = gateway.start

    async def start_counting() -> Gateway:
        await start()
        next_attempt = gateway.bridge._line.policy.next_attempt

        def counted(now: float) -> object:
            attempts.append(None)
            return next_attempt(now)

        gateway.bridge._line.policy.next_attempt = counted  # type: ignore[method-assign, assignment]
        return gateway

    gateway.start = start_counting  # type: ignore[method-assign]
    return attempts


# ---- five ways to fail


async def test_a_name_that_does_not_resolve(tmp_path: Path) -> None:
    error, hint = await first_failure(tmp_path, "mqtt://no-such-host.invalid")
    assert error.startswith("the name no-such-host.invalid cannot be resolved: ")
    assert "DNS" in hint


async def test_a_port_that_nobody_listens_on(tmp_path: Path) -> None:
    url = f"mqtt://127.0.0.1:{free_port()}"
    error, hint = await first_failure(tmp_path, url)
    assert error == f"{url} cannot be reached: Connection refused"
    assert "running" in hint


async def test_an_address_that_does_not_answer(tmp_path: Path, black_hole: str) -> None:
    error, hint = await first_failure(tmp_path, black_hole, connect_timeout_seconds=0.2)
    assert error == f"{black_hole} does not answer within 0.2 s"
    assert "firewall" in hint


async def test_a_port_without_tls(tmp_path: Path) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example.com ESMTP\r\n")
        await reader.read()

    async with serving(greet) as url:
        error, hint = await first_failure(tmp_path, url.replace("mqtt://", "mqtts://"))
    assert "TLS with" in error
    assert "failed: wrong version number" in error
    assert "mqtt://" in hint


async def test_a_server_that_closes_before_it_answers(tmp_path: Path) -> None:
    async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)

    async with serving(close) as url:
        error, hint = await first_failure(tmp_path, url)
    assert error.startswith(f"{url} closed the connection before it answered CONNECT")
    assert "MQTT broker" in hint


async def test_a_server_that_does_not_answer(tmp_path: Path) -> None:
    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with serving(listen) as url:
        error, hint = await first_failure(tmp_path, url, connack_timeout_seconds=0.1)
    assert error == f"{url} does not answer CONNECT within 0.1 s"
    assert "quorum" in hint


@pytest.mark.parametrize(
    ("reason_code", "words", "hint_word"),
    [
        (const.NOT_AUTHORIZED, "not authorized (0x87): go away", "allow this identity"),
        (const.BAD_USER_NAME_OR_PASSWORD, "bad user name or password (0x86): go away", "password_file"),
        (const.SERVER_BUSY, "server busy (0x89): go away", "tried again"),
    ],
)
async def test_a_refusal(tmp_path: Path, reason_code: int, words: str, hint_word: str) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writer.write(encode_connack(5, False, reason_code, {const.REASON_STRING: "go away"}))
        await writer.drain()

    async with serving(refuse) as url:
        error, hint = await first_failure(tmp_path, url)
    assert error == f"{url} refused us: {words}"
    assert hint_word in hint


async def test_what_the_upstream_says_cannot_forge_the_log(tmp_path: Path) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        said = "\x1b[31mx\nERROR forged" + "y" * 1000
        writer.write(encode_connack(5, False, const.BANNED, {const.REASON_STRING: said}))
        await writer.drain()

    async with serving(refuse) as url:
        error, _ = await first_failure(tmp_path, url)
    assert error.isprintable()
    assert len(error) < 300


async def test_an_upstream_that_takes_qos_0_only_keeps_nothing_from_us(tmp_path: Path) -> None:
    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writer.write(encode_connack(5, False, 0, {const.MAXIMUM_QOS: 0}))
        await reader.read()

    async with serving(accept) as url:
        error, hint = await first_failure(tmp_path, url)
    assert "QoS 0 only" in error
    assert "qos = 0" in hint


async def test_being_sent_away_is_said_with_its_reason(tmp_path: Path) -> None:
    async def send_away(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writer.write(encode_connack(5, False, 0) + encode_disconnect(5, const.SESSION_TAKEN_OVER))
        await writer.drain()

    async with serving(send_away) as url:
        gateway = Gateway(tmp_path, bridge_config(url, out=(rule("#"),)))
        async with running(gateway):
            await until(lambda: "ended the connection" in gateway.bridge.status().last_error, "not noticed")
            status = gateway.bridge.status()
    assert status.last_error == f"{url} ended the connection: session taken over (0x8e)"
    assert "same client_id" in status.last_hint


async def test_a_transient_refusal_of_a_message_keeps_it(tmp_path: Path) -> None:
    acknowledgements = iter([b"\x40\x03\x00\x01\x97", b"\x40\x02\x00\x01"])

    async def hesitate(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writer.write(encode_connack(5, True, 0))
        data = await reader.read(1000)
        while data[:1] not in (b"\x32", b"\x3a"):
            data = await reader.read(1000)
        writer.write(next(acknowledgements))
        await reader.read()

    async with serving(hesitate) as url:
        gateway = Gateway(tmp_path, bridge_config(url, out=(rule("#"),)))
        async with running(gateway):
            sensor = await Person().connect(gateway.url)
            await sensor.publish("t", "x")
            await gateway.drained()
            status = gateway.bridge.status()
            sensor.leave()
    assert (status.acknowledged, status.resent, status.connects, status.refused) == (1, 1, 2, {})
    assert "does not take a message now: quota exceeded" in status.last_error


async def test_garbage_from_the_upstream_ends_one_connection_and_no_more(tmp_path: Path) -> None:
    connections = 0

    async def misbehave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.read(1000)
        writer.write(encode_connack(5, False, 0) + (b"\xff" * 50 if connections == 1 else b""))
        await reader.read()

    async with serving(misbehave) as url:
        gateway = Gateway(tmp_path, bridge_config(url, out=(rule("#"),)))
        async with running(gateway):
            await until(lambda: gateway.bridge.status().connects == 2, "no new connection")
            assert "was lost" in gateway.bridge.status().last_error


async def test_a_fault_of_ours_ends_one_connection_and_no_more(tmp_path: Path) -> None:
    async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writer.write(encode_connack(5, False, 0) + encode_publish(5, "cmd", b""))
        await reader.read()

    async with serving(send) as url:
        gateway = Gateway(tmp_path, bridge_config(url, in_=(rule("cmd"),)))
        with Log() as log:
            async with running(gateway):
                downlink = gateway.bridge._downlink
                broken, downlink.on_message = downlink.on_message, lambda message: 1 / 0  # type: ignore[method-assign, assignment]
                await until(lambda: log.of("ERROR"), "nothing happened")
                downlink.on_message = broken  # type: ignore[method-assign]
                await until(lambda: gateway.bridge.status().received[0] == 1, "it did not recover")
        assert "internal error" in log.of("ERROR")[0]


# ---- nobody here waits


async def check_nobody_waits(gateway: Gateway, seconds: float = 1.0) -> None:
    """Publish at QoS 1, to a topic that the bridge takes: the acknowledgement is there within 0.1 s.

    A busy machine's hiccups may delay some, but none as long as what the bridge waits for: 5 s.
    """
    sensor = await Person().connect(gateway.url)
    delays = []
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        started = time.monotonic()
        await sensor.publish("t", "x")
        delays.append(time.monotonic() - started)
    sensor.leave()
    assert statistics.median(delays) < 0.1
    assert max(delays) < 2.0


async def test_an_upstream_that_swallows_everything_delays_nobody(tmp_path: Path, black_hole: str) -> None:
    gateway = Gateway(tmp_path, bridge_config(black_hole, connect_timeout_seconds=5.0, out=(rule("#"),)))
    begun = time.monotonic()
    async with running(gateway):
        await check_nobody_waits(gateway)
        assert gateway.bridge.status().state == "connecting"
    assert time.monotonic() - begun < 4.0


async def test_a_resolver_that_hangs_delays_neither_clients_nor_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging = threading.Event()
    real = socket.getaddrinfo

    def hang(host: str, *arguments: object, **more: object) -> object:
        if host == "slow.example" and not more.get("flags"):
            hanging.wait(5)
        return real(host, *arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    config = bridge_config("mqtt://slow.example", resolve_timeout_seconds=0.2, out=(rule("#"),))
    gateway = Gateway(tmp_path, config)
    begun = time.monotonic()
    try:
        async with running(gateway):
            await check_nobody_waits(gateway)
            assert "no answer within 0.2 s" in gateway.bridge.status().last_error
        assert time.monotonic() - begun < 4.0
    finally:
        hanging.set()


async def stop_reading(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An upstream that accepts, and reads no more."""
    await reader.read(1000)
    writer.write(encode_connack(5, True, 0))
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    await asyncio.sleep(20)


async def test_an_upstream_that_stops_reading_delays_nobody_and_memory_is_bounded(tmp_path: Path) -> None:
    async with serving(stop_reading) as url:
        gateway = Gateway(tmp_path, bridge_config(url, window=65_535, out=(rule("#"),)))
        async with running(gateway):
            await gateway.online()
            sensor = await Person().connect(gateway.url)
            for _ in range(20):
                await sensor.publish("t", *["x" * 50_000] * 20, qos=0)
            await until(lambda: gateway.bridge.status().depth == 400, "not all were taken")
            await check_nobody_waits(gateway, 0.5)
            await until(lambda: gateway.bridge.queue.bytes_in_memory < 6 << 20, "too much is kept in memory")
            sensor.leave()


async def test_what_is_live_only_is_dropped_where_the_upstream_stops_reading(tmp_path: Path) -> None:
    async with serving(stop_reading) as url:
        gateway = Gateway(tmp_path, bridge_config(url, out=(rule("#", 0),)))
        async with running(gateway):
            await gateway.online()
            sensor = await Person().connect(gateway.url)
            while not gateway.bridge.status().dropped:
                await sensor.publish("t", *["x" * 50_000] * 20, qos=1)
                assert gateway.bridge.status().sent[0] < 400, "20 MB are nowhere but in memory"
            assert set(gateway.bridge.status().dropped) == {"slow_upstream"}
            sensor.leave()


async def test_a_reset_in_the_handshake_is_a_failure_like_others(tmp_path: Path) -> None:
    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await reader.read(10)

    async with serving(reset) as url:
        error, _ = await first_failure(tmp_path, url.replace("mqtt://", "mqtts://"))
    assert "TLS with" in error
