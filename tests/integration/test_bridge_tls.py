"""The bridge over TLS to a real mosquitto: mutual authentication, renewal from files, and each way it can go wrong."""

import contextlib
import os
import shutil
import socket
import ssl
import threading
from pathlib import Path

import pytest

from bridge.config import BridgeConfig
from tests.bridge.certificates import Authority
from tests.bridge.real import Gateway, Log, Mosquitto, Person, bridge_config, rule, running, until

pytestmark = pytest.mark.needs("mosquitto")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


class Secured:
    """A mosquitto that wants client certificates on one port, and lets readers in on another without."""

    def __init__(
        self,
        directory: Path,
        authority: Authority,
        hosts: tuple[str, ...] = ("127.0.0.1",),
        days_left: int = 5,
    ) -> None:
        self.plain = Mosquitto(directory)
        certificate, key = authority.issue("upstream", hosts=hosts, days_left=days_left)
        self.port = _another_port(self.plain.port)
        self._extend(
            directory / "mosquitto.conf",
            f"allow_anonymous true\nlistener {self.port} 127.0.0.1\nallow_anonymous false\ncafile {authority.ca}\n"
            f"certfile {certificate}\nkeyfile {key}\nrequire_certificate true\nuse_identity_as_username true\n",
        )
        self.url = f"mqtts://127.0.0.1:{self.port}"

    @staticmethod
    def _extend(path: Path, lines: str) -> None:
        text = path.read_text().replace("allow_anonymous true\n", "")
        path.write_text(f"per_listener_settings true\n{text}{lines}")

    async def start(self) -> None:
        await self.plain.start()

    def stop(self) -> None:
        self.plain.stop()


def _another_port(taken: int) -> int:
    from tests.bridge.real import free_port

    port = taken
    while port == taken:
        port = free_port()
    return port


def secured(url: str, authority: Authority, **settings: object) -> BridgeConfig:
    certificate, key = authority.issue("gateway")
    files: dict[str, object] = {"ca": authority.ca, "certificate": certificate, "key": key}
    return bridge_config(url, out=(rule("#"),), **(files | settings))


async def failure(directory: Path, config: BridgeConfig) -> tuple[str, str]:
    gateway = Gateway(directory, config)
    with Log() as log:
        async with running(gateway):
            await until(lambda: log.of("WARNING"), "no failure")
            status = gateway.bridge.status()
    assert not status.connected
    return status.last_error, status.last_hint


async def test_messages_cross_with_both_sides_authenticated(tmp_path: Path, authority: Authority) -> None:
    upstream = Secured(tmp_path / "upstream", authority)
    gateway = Gateway(tmp_path / "data", secured(upstream.url, authority, in_=(rule("cmd/#"),)))
    async with running(upstream, gateway):
        await gateway.online()
        cloud = await (await Person().connect(upstream.plain.url)).subscribe("#")
        sensor = await (await Person().connect(gateway.url)).subscribe("cmd/#")
        wanted = [f"{number} " + "x" * 2000 for number in range(500)]
        await sensor.publish("s", *wanted)
        await until(lambda: len(cloud.messages) >= 500, "not all came up")
        assert cloud.payloads == wanted
        await cloud.publish("cmd/1", "on")
        await until(lambda: sensor.payloads == ["on"], "the command did not come")
        assert "u'gateway'" in upstream.plain.log
        sensor.leave()
        cloud.leave()


async def test_a_renewed_certificate_counts_from_the_next_connection_on(
    tmp_path: Path, authority: Authority
) -> None:
    upstream = Secured(tmp_path / "upstream", authority)
    config = secured(upstream.url, authority)
    gateway = Gateway(tmp_path / "data", config)
    async with running(upstream, gateway):
        await gateway.online()
        certificate, key = authority.issue("renewed")
        assert config.certificate is not None
        assert config.key is not None
        os.replace(certificate, config.certificate)
        os.replace(key, config.key)
        upstream.stop()
        await until(lambda: not gateway.bridge.status().connected, "not noticed")
        await upstream.start()
        await gateway.online()
        await until(lambda: "u'renewed'" in upstream.plain.log, "the old identity was shown")


async def test_a_certificate_file_that_is_gone_is_named_and_read_again(
    tmp_path: Path, authority: Authority
) -> None:
    upstream = Secured(tmp_path / "upstream", authority)
    config = secured(upstream.url, authority)
    assert config.certificate is not None
    away = tmp_path / "away.pem"
    shutil.move(config.certificate, away)
    gateway = Gateway(tmp_path / "data", config)
    async with running(upstream, gateway):
        await until(lambda: gateway.bridge.status().last_error, "no failure")
        assert gateway.bridge.status().last_error == (
            f"certificate: {config.certificate} cannot be read: No such file or directory"
        )
        shutil.move(away, config.certificate)
        await gateway.online()


# ---- each way it can go wrong


async def test_an_upstream_of_another_authority(tmp_path: Path, authority: Authority) -> None:
    upstream = Secured(tmp_path / "upstream", authority)
    other = Authority(tmp_path / "other", "another authority")
    async with running(upstream):
        error, hint = await failure(tmp_path / "data", secured(upstream.url, authority, ca=other.ca))
    assert error.startswith(f"TLS with {upstream.url} failed: its certificate is not accepted: ")
    assert "set ca to" in hint


async def test_an_upstream_under_another_name(tmp_path: Path, authority: Authority) -> None:
    upstream = Secured(tmp_path / "upstream", authority, hosts=("broker.example.com",))
    async with running(upstream):
        error, hint = await failure(tmp_path / "data", secured(upstream.url, authority))
        assert "its certificate is not accepted" in error
        assert "server_name" in hint
        named = secured(upstream.url, authority, server_name="broker.example.com")
        gateway = Gateway(tmp_path / "data", named)
        async with running(gateway):
            await gateway.online()


async def test_an_upstream_whose_certificate_has_expired(tmp_path: Path, authority: Authority) -> None:
    upstream = Secured(tmp_path / "upstream", authority, days_left=-1)
    async with running(upstream):
        error, hint = await failure(tmp_path / "data", secured(upstream.url, authority))
    assert "expired" in error
    assert "clock" in hint


@pytest.mark.parametrize("identity", ["none", "of a stranger"])
async def test_an_identity_that_the_upstream_refuses(
    tmp_path: Path, authority: Authority, identity: str
) -> None:
    """With TLS 1.3 our handshake succeeds first, and the refusal comes where the CONNACK should.

    It comes as an alert, or, where a reset overtakes that, as an end that may mean it.
    """
    upstream = Secured(tmp_path / "upstream", authority)
    if identity == "none":
        config = secured(upstream.url, authority, certificate=None, key=None)
    else:
        certificate, key = Authority(tmp_path / "stranger", "a stranger").issue("gateway")
        config = secured(upstream.url, authority, certificate=certificate, key=key)
    async with running(upstream):
        error, hint = await failure(tmp_path / "data", config)
    if error.startswith(f"{upstream.url} closed the connection before it answered CONNECT"):
        assert hint.startswith("identity refused? With TLS 1.3")
    else:
        assert error.startswith(f"{upstream.url} refused our identity: ")
        assert "certificate and key" in hint


async def test_an_identity_that_the_upstream_refuses_in_the_handshake(
    tmp_path: Path, authority: Authority
) -> None:
    """As TLS 1.2 does, whose handshake ends with the server's word."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(*authority.issue("upstream", hosts=("127.0.0.1",)))
    context.load_verify_locations(authority.ca)
    context.verify_mode = ssl.CERT_REQUIRED
    listener = socket.create_server(("127.0.0.1", 0))

    def refuse() -> None:
        with contextlib.suppress(OSError):  # the refusal, and in the end the listener's
            while True:
                connection, _ = listener.accept()
                with contextlib.suppress(ssl.SSLError), context.wrap_socket(connection, server_side=True):
                    pass

    threading.Thread(target=refuse, daemon=True).start()
    url = f"mqtts://127.0.0.1:{listener.getsockname()[1]}"
    error, hint = await failure(tmp_path / "data", secured(url, authority, certificate=None, key=None))
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    assert error.startswith(f"{url} refused our identity: ")
    assert "certificate and key" in hint


async def test_tls_to_a_port_without_it(tmp_path: Path, authority: Authority) -> None:
    upstream = Secured(tmp_path / "upstream", authority)
    async with running(upstream):
        url = upstream.plain.url.replace("mqtt://", "mqtts://")
        error, hint = await failure(tmp_path / "data", secured(url, authority))
    assert error.startswith(f"TLS with {url} failed: ")
    assert "TLS" in hint


async def test_no_tls_to_a_port_with_it(tmp_path: Path, authority: Authority) -> None:
    upstream = Secured(tmp_path / "upstream", authority)
    async with running(upstream):
        url = upstream.url.replace("mqtts://", "mqtt://")
        error, hint = await failure(tmp_path / "data", bridge_config(url, out=(rule("#"),)))
    assert "closed the connection before it answered CONNECT" in error
    assert "without TLS" in hint
