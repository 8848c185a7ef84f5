"""Listeners on real sockets: plain and TLS, on either event loop."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import shutil
import socket
import ssl
from pathlib import Path

import pytest

from edge_broker.errors import ConfigError
from edge_broker.net.endpoints import TcpEndpoint
from edge_broker.net.listeners import Listener
from edge_broker.net.tls import client_context
from edge_broker.wire import const
from edge_broker.wire.encoder import PINGREQ, encode_connect, encode_publish, encode_subscribe
from edge_broker.wire.packets import Connect, Ping, Publish, Suback, SubscriptionRequest
from tests.net.conftest import Run
from tests.net.hub import LocalHub, Peer, until


def tls_options(pki: Path, **more: object) -> dict[str, object]:
    return {"certificate": str(pki / "server.crt"), "key": str(pki / "server.key"), **more}


def trusting(pki: Path, who: str | None = None) -> ssl.SSLContext:
    """The context of a client; asyncio's own TLS, which nobody here wrote."""
    pair = (None, None) if who is None else (str(pki / f"{who}.crt"), str(pki / f"{who}.key"))
    return client_context(str(pki / "ca.crt"), *pair)


def test_a_plain_listener(run: Run) -> None:
    async def scenario() -> None:
        hub = LocalHub()
        listener = await hub.listen()
        assert listener.accepting
        assert listener.url == f"mqtt://{listener.name}"
        peer = await Peer.open(listener)
        assert (await peer.connect("c")).reason_code == const.SUCCESS
        (connection,) = hub.connections
        assert connection.address.startswith("127.0.0.1:")
        assert connection.listener == listener.name
        listener.stop_accepting()
        assert not listener.accepting
        peer.writer.write(PINGREQ)
        assert isinstance(await peer.receive(), Ping), "who is in may stay"
        with pytest.raises(ConnectionRefusedError):
            await Peer.open(listener)
        peer.close()
        await until(lambda: not hub.connections)

    run(scenario())


def test_a_tls_listener(run: Run, pki: Path) -> None:
    async def scenario() -> None:
        hub = LocalHub()
        listener = await hub.listen(**tls_options(pki))
        assert listener.url.startswith("mqtts://")
        peer = await Peer.open(listener, trusting(pki))
        await peer.connect("c")
        payload = os.urandom(300_000)
        peer.writer.write(encode_subscribe(const.MQTT_5, 1, [SubscriptionRequest("t", 0)]))
        assert isinstance(await peer.receive(), Suback)
        peer.writer.write(encode_publish(const.MQTT_5, "t", payload))
        echo = await peer.receive()
        assert isinstance(echo, Publish)
        assert echo.payload == payload
        peer.close()
        await until(lambda: not hub.connections)

    run(scenario())


@pytest.mark.parametrize(
    ("identity_from", "name"),
    [("common_name", "sensor-1"), ("san_dns", "sensor.local"), ("spiffe", "spiffe://home/sensor")],
)
def test_the_certificate_names_the_client(run: Run, pki: Path, identity_from: str, name: str) -> None:
    async def scenario() -> None:
        hub = LocalHub()
        listener = await hub.listen(
            **tls_options(pki, client_ca=str(pki / "ca.crt"), require_client_certificate=True),
            identity_from=identity_from,
        )
        peer = await Peer.open(listener, trusting(pki, "client"))
        await peer.connect("c")
        (connection,) = hub.connections
        assert connection.certificate_names == (name,)
        peer.close()

    run(scenario())


@pytest.mark.parametrize("who", [None, "stranger", "expired"])
def test_a_client_without_a_good_certificate_does_not_get_in(run: Run, pki: Path, who: str | None) -> None:
    async def scenario() -> None:
        hub = LocalHub()
        listener = await hub.listen(
            **tls_options(pki, client_ca=str(pki / "ca.crt"), require_client_certificate=True)
        )
        with pytest.raises((ssl.SSLError, ConnectionError, EOFError)):
            await _enter(listener, trusting(pki, who))
        await until(lambda: not hub.connections)
        assert hub.refused == {"tls": 1}
        assert hub.router.sessions == {}

    run(scenario())


async def _enter(listener: Listener, context: ssl.SSLContext) -> None:
    """In TLS 1.3 a refused client may think itself connected until it hears nothing more."""
    peer = await Peer.open(listener, context)
    await peer.connect("c")


def test_plain_bytes_on_a_tls_port(run: Run, pki: Path) -> None:
    async def scenario() -> None:
        hub = LocalHub()
        listener = await hub.listen(**tls_options(pki))
        good = await Peer.open(listener, trusting(pki))
        await good.connect("good")
        bad = await Peer.open(listener)
        bad.writer.write(encode_connect(Connect(const.MQTT_5, "bad", True, 0)))
        await bad.ended()
        await until(lambda: len(hub.connections) == 1)
        assert hub.refused == {"tls": 1}
        good.writer.write(PINGREQ)
        assert isinstance(await good.receive(), Ping)
        good.close()

    run(scenario())


def test_a_handshake_that_never_ends_is_ended(run: Run, pki: Path) -> None:
    async def scenario() -> None:
        hub = LocalHub(connect_timeout_seconds=1.0)
        listener = await hub.listen(**tls_options(pki))
        peer = await Peer.open(listener)
        peer.writer.write(b"\x16\x03\x01\x02\x00\x01\x00\x01")
        await until(lambda: hub.connections)
        (connection,) = hub.connections
        connection.check_idle(connection.opened_at + 0.9)
        assert connection.end is None
        connection.check_idle(connection.opened_at + 1.1)
        hub.request_tick()
        await peer.ended()
        await until(lambda: not hub.connections)

    run(scenario())


def test_renewed_certificates_are_for_the_next_connection(run: Run, pki: Path, tmp_path: Path) -> None:
    async def scenario() -> None:
        for suffix in ("crt", "key"):
            shutil.copy(pki / f"server.{suffix}", tmp_path / f"server.{suffix}")
        hub = LocalHub()
        listener = await hub.listen(
            certificate=str(tmp_path / "server.crt"), key=str(tmp_path / "server.key")
        )

        async def server_name() -> str:
            peer = await Peer.open(listener, trusting(pki))
            certificate = peer.writer.get_extra_info("peercert")
            peer.close()
            return str(dict(pair for names in certificate["subject"] for pair in names)["commonName"])

        old = await Peer.open(listener, trusting(pki))
        assert await server_name() == "gateway"
        (tmp_path / "server.crt").write_text("torn")
        with pytest.raises(ConfigError, match=r"server\.crt.*cannot be used"):
            await listener.load_certificates()
        shutil.copy(pki / "renewed.crt", tmp_path / "server.crt")
        with pytest.raises(ConfigError, match=r"server\.key: is not the key of .*server\.crt"):
            await listener.load_certificates()
        (tmp_path / "server.key").unlink()
        with pytest.raises(ConfigError, match=r"server\.key: cannot be read: No such file"):
            await listener.load_certificates()
        assert await server_name() == "gateway", "what was read last stays in force"
        for suffix in ("crt", "key"):
            shutil.copy(pki / f"renewed.{suffix}", tmp_path / f"server.{suffix}")
        await listener.load_certificates()
        assert await server_name() == "gateway-2"
        await old.connect("old")
        old.close()

    run(scenario())


def test_a_taken_port(run: Run) -> None:
    async def scenario() -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            listener = Listener(LocalHub(), TcpEndpoint("127.0.0.1", port))
            with pytest.raises(OSError, match="in use") as caught:
                await listener.start()
        assert caught.value.filename == f"mqtt://127.0.0.1:{port}"
        assert not listener.accepting

    run(scenario())


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_every_interface_means_both_ip_versions(run: Run, address: str) -> None:
    async def scenario() -> None:
        if ":" in address and not _has_ipv6():
            pytest.skip("this machine has no IPv6")
        hub = LocalHub()
        listener = Listener(hub, TcpEndpoint("", 0))
        await listener.start()
        port = int(listener.name.rpartition(":")[2])
        _, writer = await asyncio.open_connection(address, port)
        await until(lambda: hub.connections)
        (connection,) = hub.connections
        assert connection.address.startswith(address)
        writer.close()
        listener.stop_accepting()

    run(scenario())


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


# ---- addresses that are not there yet


class LateEndpoint(TcpEndpoint):
    """One that cannot be bound until `errors` are used up."""

    def __init__(self, *errors: OSError) -> None:
        super().__init__("127.0.0.1", 0)
        self.errors = list(errors)
        self.asked = 0

    def bind(self) -> socket.socket:
        self.asked += 1
        if self.errors:
            raise self.errors.pop(0)
        return super().bind()


def absent() -> OSError:
    return OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))


def test_an_address_that_comes_late(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    """Asked for again until it is there; each reason why not is said once."""

    async def scenario() -> None:
        hub = LocalHub()
        in_use = [OSError(errno.EADDRINUSE, "in use") for _ in range(3)]
        endpoint = LateEndpoint(*(absent() for _ in range(5)), *in_use, absent())
        called: list[Listener] = []
        listener = Listener(hub, endpoint, on_listening=called.append, retry_seconds=(0.0, 0.001))
        await listener.start()
        assert not listener.accepting
        assert called == []
        await until(lambda: listener.accepting)
        assert endpoint.asked == 10
        assert called == [listener]
        peer = await Peer.open(listener)
        assert (await peer.connect("c")).reason_code == const.SUCCESS
        peer.close()
        listener.stop_accepting()

    with caplog.at_level(logging.WARNING, "edge_broker.net"):
        run(scenario())
    said = [record.getMessage() for record in caplog.records]
    assert [message.partition(": ")[2] for message in said] == [
        "the address is not there yet; it is tried again until it is",
        "in use; it is tried again",
        "Cannot assign requested address; it is tried again",
    ]


def test_the_pauses_grow_up_to_the_longest(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def note(seconds: float) -> None:
        pauses.append(seconds)
        await sleep(0)

    monkeypatch.setattr("edge_broker.net.listeners.asyncio.sleep", note)

    async def scenario() -> None:
        pauses.clear()
        listener = Listener(LocalHub(), LateEndpoint(*(absent() for _ in range(7))))
        await listener.start()
        while not listener.accepting:
            await sleep(0)
        listener.stop_accepting()

    run(scenario())
    assert pauses == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0, 10.0]


def test_an_address_that_never_comes_is_given_up_at_the_end(run: Run) -> None:
    async def scenario() -> None:
        endpoint = LateEndpoint(*(absent() for _ in range(1000)))
        listener = Listener(LocalHub(), endpoint, retry_seconds=(0.0, 0.0))
        await listener.start()
        await until(lambda: endpoint.asked > 3)
        listener.stop_accepting()
        asked = endpoint.asked
        for _ in range(20):
            await asyncio.sleep(0)
        assert endpoint.asked == asked

    run(scenario())


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1", "fe80::1%nosuch0"])
def test_a_real_address_of_nobody_here_is_late(run: Run, host: str) -> None:
    async def scenario() -> None:
        if ":" in host and not _has_ipv6():
            pytest.skip("this machine has no IPv6")
        listener = Listener(LocalHub(), TcpEndpoint(host, 1883))
        await listener.start()
        assert not listener.accepting
        assert host in listener.url
        listener.stop_accepting()

    run(scenario())


def test_a_name_that_nobody_knows_is_a_mistake(run: Run) -> None:
    async def scenario() -> None:
        listener = Listener(LocalHub(), LateEndpoint(socket.gaierror(socket.EAI_NONAME, "not known")))
        with pytest.raises(OSError, match="not known") as caught:
            await listener.start()
        assert caught.value.filename == "mqtt://127.0.0.1:0"

    run(scenario())


def test_names_are_as_configured_and_tell_the_port() -> None:
    for host, shown in (("127.0.0.1", "127.0.0.1"), ("", "*"), ("::1", "[::1]"), ("localhost", "localhost")):
        if host == "::1" and not _has_ipv6():
            continue
        endpoint = TcpEndpoint(host, 0)
        assert endpoint.name == f"{shown}:0"
        with endpoint.bind() as sock:
            assert endpoint.name == f"{shown}:{sock.getsockname()[1]}"
