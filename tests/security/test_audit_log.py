"""The audit log of real brokers: what an attack, a login and a reload leave in it, and what they never leave."""

from __future__ import annotations

import asyncio
import json
import ssl
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edge_broker.broker import Broker
from edge_broker.config.audit import AuditConfig
from edge_broker.config.limits import LimitsConfig
from edge_broker.config.listeners import ListenerConfig
from edge_broker.config.loading import ConfigMistakes, load
from edge_broker.config.model import Config
from edge_broker.config.security import SecurityConfig
from edge_broker.errors import ConfigError
from edge_broker.wire import const
from edge_broker.wire.encoder import encode_connect, encode_disconnect
from edge_broker.wire.packets import Connack, Connect
from tests.integration import conftest as certificates
from tests.net.hub import Peer
from tests.secrets import secret
from tests.security.serving import lines

pki = certificates.pki
PASSWORD = secret("correct horse battery staple")
WRONG = secret("incorrect horse battery staple")
TYPED_AS_NAME = secret("oops-that-was-my-password")


def config(folder: Path, pki: Path, **options: Any) -> Config:
    passwords = folder / "passwords"
    passwords.write_text(lines("anna", PASSWORD))
    passwords.chmod(0o600)
    tls = ListenerConfig(
        transport="tls",
        bind="127.0.0.1:0",
        certificate=pki / "server.crt",
        key=pki / "server.key",
        client_ca=pki / "ca.crt",
        require_client_certificate=False,
        anonymous=False,
    )
    return Config(
        data_dir=folder / "data",
        listeners=(ListenerConfig(bind="127.0.0.1:0"), tls),
        security=SecurityConfig(password_file=passwords, wrong_password_delay_seconds=0.0),
        audit=AuditConfig(file=folder / "audit.log", **options),
    )


def read(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "audit.log").read_text("ascii").splitlines()]


async def talk(
    broker: Broker, pki: Path, connect: Connect, *, tls: bool = True, certificate: str | None = None
) -> int:
    """CONNECT, the answer's reason code, goodbye."""
    context = None
    if tls:
        context = ssl.create_default_context(cafile=str(pki / "ca.crt"))
        if certificate is not None:
            context.load_cert_chain(pki / f"{certificate}.crt", pki / f"{certificate}.key")
    port = int(broker.listening[tls].rsplit(":", 1)[1])
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=context, server_hostname="localhost" if tls else None
    )
    peer = Peer(reader, writer, connect.version)
    writer.write(encode_connect(connect))
    answer = await peer.receive()
    assert isinstance(answer, Connack)
    if not answer.reason_code:
        writer.write(encode_disconnect(connect.version, const.SUCCESS))
    await reader.read()
    writer.close()
    return answer.reason_code


async def test_a_day_in_the_life_of_a_broker(tmp_path: Path, pki: Path) -> None:
    settings = config(tmp_path, pki)
    broker = Broker(settings)
    await broker.start()
    try:
        v5, v3 = const.MQTT_5, const.MQTT_3_1_1
        assert await talk(broker, pki, Connect(v5, "open", True, 0), tls=False) == 0
        assert await talk(broker, pki, Connect(v5, "a1", True, 0, "anna", PASSWORD.encode())) == 0
        assert await talk(broker, pki, Connect(v3, "cert", True, 0), certificate="client") == 0
        assert await talk(broker, pki, Connect(v5, "a2", True, 0, "anna", WRONG.encode())) != 0
        assert await talk(broker, pki, Connect(v5, "a3", True, 0, TYPED_AS_NAME, b"x")) != 0
        await broker.reload(settings)
        (tmp_path / "passwords").write_text("anna:nonsense\n")
        await broker.reload(settings)
        broker.note_reload_refused("2 mistakes")
        broker.record_action("disconnect", "uid=0", client_id="a1")
    finally:
        await broker.stop()

    told = read(tmp_path)
    shown = [
        (line["event"], line.get("client_id"), line.get("by") or line.get("what"), line.get("tls"))
        for line in told
        if line["event"] != "disconnected"
    ]
    assert shown == [
        ("started", None, None, None),
        ("connected", "open", "anonymous", None),
        ("connected", "a1", "password", "TLSv1.3"),
        ("connected", "cert", "certificate", "TLSv1.3"),
        ("refused", "a2", None, None),
        ("refused", "a3", None, None),
        ("reloaded", None, "passwords", None),
        ("reloaded", None, f"certificates of {settings.listeners[1].url}", None),
        ("reloaded", None, "configuration", None),
        ("not reloaded", None, "passwords", None),
        ("reloaded", None, f"certificates of {settings.listeners[1].url}", None),
        ("reloaded", None, "configuration", None),
        ("not reloaded", None, "configuration", None),
        ("action", "a1", "uid=0", None),
        ("stopped", None, None, None),
    ]
    by_id = {line["client_id"]: line for line in told if line["event"] == "connected"}
    assert by_id["cert"]["identity"] == "sensor-1"
    assert by_id["a1"]["cipher"].startswith("TLS_")
    gone = [line["client_id"] for line in told if line["event"] == "disconnected"]
    assert gone == ["open", "a1", "cert"]
    wrong = next(line for line in told if line.get("client_id") == "a2")
    assert wrong["reason"] == "a wrong password for 'anna'"
    text = (tmp_path / "audit.log").read_text()
    assert not any(word in text for word in (PASSWORD, WRONG, TYPED_AS_NAME))
    assert stat.S_IMODE((tmp_path / "audit.log").stat().st_mode) == 0o600


async def test_whoever_is_turned_away_at_the_door(tmp_path: Path, pki: Path) -> None:
    """Before MQTT: by a limit, by TLS, by a proxy's header, by giving up; each with its address and why."""
    plain = config(tmp_path, pki)
    proxied = ListenerConfig(bind="127.0.0.1:0", proxy_protocol_from=("127.0.0.1",))
    broker = Broker(
        msgspec.structs.replace(
            plain, listeners=(*plain.listeners, proxied), limits=LimitsConfig(max_connections=1)
        )
    )
    await broker.start()
    ports = [int(url.rsplit(":", 1)[1]) for url in broker.listening]
    try:
        first = await asyncio.open_connection("127.0.0.1", ports[0])
        first[1].write(b"\x10")
        await wait_for(lambda: broker.connections)
        second = await asyncio.open_connection("127.0.0.1", ports[0])
        await ended(second)
        first[1].close()
        await wait_for(lambda: not broker.connections)
        for port, data in ((ports[1], b"GET / HTTP/1.1\r\n\r\n"), (ports[2], b"GET / HTTP/1.1\r\n\r\n")):
            stranger = await asyncio.open_connection("127.0.0.1", port)
            stranger[1].write(data)
            await ended(stranger)
            await wait_for(lambda: not broker.connections)
    finally:
        await broker.stop()
    refused = [line for line in read(tmp_path) if line["event"] == "refused"]
    assert [line["reason"].partition(":")[0] for line in refused] == [
        "max_connections",
        "the connection was lost",
        "TLS failed",
        "a proxy's header",
    ]
    assert all(line["address"].startswith("127.0.0.1:") for line in refused)
    assert [line.get("listener", "").rpartition(":")[2] for line in refused] == [
        *(str(port) for port in (ports[0], ports[0], ports[1])),
        "",
    ]


async def wait_for(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


async def ended(streams: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> None:
    """Wait until the broker has closed."""
    try:
        await asyncio.wait_for(streams[0].read(), 20)
    except ConnectionError:
        pass
    streams[1].close()


async def test_off_is_off(tmp_path: Path) -> None:
    broker = Broker(Config(data_dir=tmp_path / "data", listeners=(ListenerConfig(bind="127.0.0.1:0"),)))
    await broker.start()
    assert broker.router.observer is None
    broker.record_action("nothing", "nobody")
    await broker.stop()


async def test_a_broker_whose_audit_log_cannot_be_written_does_not_start(tmp_path: Path) -> None:
    broker = Broker(
        Config(
            data_dir=tmp_path / "data",
            listeners=(ListenerConfig(bind="127.0.0.1:0"),),
            audit=AuditConfig(file=tmp_path / "nowhere" / "audit.log"),
        )
    )
    with pytest.raises(ConfigError, match=r"audit\.file"):
        await broker.start()
    assert broker.listening == []


@pytest.mark.parametrize(
    ("kind", "said"), [("link", "is no plain file"), ("file in the way", "is no folder")]
)
def test_what_check_sees(tmp_path: Path, kind: str, said: str) -> None:
    (tmp_path / "plain").touch()
    (tmp_path / "link").symlink_to(tmp_path / "plain")
    file = "link" if kind == "link" else "plain/audit.log"
    (tmp_path / "c.toml").write_text(f'data_dir = "data"\n[audit]\nfile = "{file}"\n')
    with pytest.raises(ConfigMistakes, match=said):
        load(tmp_path / "c.toml", environ={})
