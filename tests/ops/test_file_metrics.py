"""What expires and what was refused, as health and metrics of a real broker show it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from bridge import Bridge
from bridge.config import BridgeConfig, RuleConfig
from edge_broker.broker import Broker
from edge_broker.config.http import HttpConfig
from edge_broker.config.listeners import ListenerConfig
from edge_broker.config.model import Config
from edge_broker.config.security import SecurityConfig
from edge_broker.errors import ConfigError
from edge_broker.security.authority import Authority
from tests.ops.gateway import web_of
from tests.security.issuing import Issuer

DAY = timedelta(days=1)
NOW = datetime.now(UTC)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A CA good for a year, a server's pair for ten days, a bridge's for an hour more than a day, a list for five days."""
    ca = Authority("ours", NOW, 365 * DAY)
    (tmp_path / "ca.crt").write_bytes(ca.certificate)
    (tmp_path / "crl.pem").write_bytes(ca.revocation_list((), 1, NOW, NOW + 5 * DAY))
    ca.issue("gateway", NOW, 10 * DAY, hosts=("localhost",)).write(tmp_path, "server")
    ca.issue("pi-1", NOW, DAY + timedelta(hours=1)).write(tmp_path, "bridge")
    return tmp_path


def config_in(folder: Path) -> Config:
    bridge = BridgeConfig(
        name="cluster",
        urls=("mqtts://127.0.0.1:1",),
        ca=folder / "ca.crt",
        certificate=folder / "bridge.crt",
        key=folder / "bridge.key",
        out=(RuleConfig(filter="up/#"),),
    )
    listener = ListenerConfig(
        transport="tls",
        bind="127.0.0.1:0",
        certificate=folder / "server.crt",
        key=folder / "server.key",
        client_ca=folder / "ca.crt",
        crl_files=(folder / "crl.pem",),
    )
    return Config(
        data_dir=folder / "data",
        listeners=(listener,),
        http=HttpConfig(bind="127.0.0.1:0"),
        bridges=(bridge,),
    )


async def test_what_expires_is_measured_and_what_expires_soon_is_told(folder: Path) -> None:
    config = config_in(folder)
    broker = Broker(config, bridges=[Bridge(bridge) for bridge in config.bridges])
    await broker.start()
    try:
        async with web_of(broker) as web:
            scrape = await web.scrape()
            status, health = await web.get("/healthz")
            others = Authority("others", NOW, 365 * DAY)
            others.issue("x", NOW, 100 * DAY).write(folder, "bridge")
            others.issue("x", NOW, 200 * DAY, hosts=("localhost",)).write(folder, "server")
            await broker.watching.look()
            await broker.watching.look()
            later = await web.scrape()
    finally:
        await broker.stop()
    url = "mqtts://127.0.0.1:0"
    for kind, owner, left in (
        ("certificate", url, 10 * DAY),
        ("ca", url, 365 * DAY),
        ("crl", url, 5 * DAY),
        ("certificate", "bridge cluster", DAY + timedelta(hours=1)),
        ("ca", "bridge cluster", 365 * DAY),
    ):
        seconds = scrape.get("expires_in_seconds", kind=kind, owner=owner)
        assert seconds == pytest.approx(left.total_seconds(), abs=3600), (kind, owner)
    assert status == 200, "it is a warning and no more"
    told = {problem["component"]: problem["problem"] for problem in health["problems"]}
    assert told[f"certificate of {url}"] == f"{folder}/server.crt expires in 9 days"
    assert told[f"crl of {url}"] == f"{folder}/crl.pem expires in 4 days"
    assert told["certificate of bridge cluster"] == f"{folder}/bridge.crt expires in 1 day"
    assert not any(component.startswith("ca of") for component in told)
    renewed = later.get("expires_in_seconds", kind="certificate", owner="bridge cluster")
    assert renewed == pytest.approx(100 * 86_400, abs=3600), "the bridge reads it at its next connect"
    renewed = later.get("expires_in_seconds", kind="certificate", owner=url)
    assert renewed == pytest.approx(200 * 86_400, abs=3600)


async def test_what_was_refused_is_shown_until_it_is_mended(folder: Path) -> None:
    broker = Broker(config_in(folder))
    await broker.start()
    what = "certificates of mqtts://127.0.0.1:0"
    good = (folder / "crl.pem").read_bytes()
    try:
        async with web_of(broker) as web:
            assert (await web.scrape()).get("files_refused", files=what) == 0
            (folder / "crl.pem").write_bytes(Issuer("strangers").crl())
            await broker.reload(broker.config)
            scrape = await web.scrape()
            assert scrape.get("files_refused", files=what) == 1
            assert scrape.get("files_refused_total", files=what) == 1
            _, health = await web.get("/healthz")
            (problem,) = [found for found in health["problems"] if found["component"] == what]
            assert "no CA of client_ca signed" in problem["problem"]
            assert "restart" in problem["hint"]
            (folder / "crl.pem").write_bytes(good)
            await broker.watching.look()
            await broker.watching.look()
            assert (await web.scrape()).get("files_refused", files=what) == 0
    finally:
        await broker.stop()


@pytest.mark.parametrize(
    ("file", "contents", "said"),
    [("crl.pem", "nothing", "has no revocation list"), ("denied", "cellar", "line 1: says neither")],
)
async def test_a_wrong_file_keeps_it_from_starting(folder: Path, file: str, contents: str, said: str) -> None:
    """There is nothing from before that could count."""
    (folder / "denied").touch()
    config = msgspec.structs.replace(
        config_in(folder), security=SecurityConfig(deny_file=folder / "denied"), bridges=()
    )
    (folder / file).write_text(contents)
    with pytest.raises(ConfigError, match=said):
        await Broker(config).start()


async def test_a_broker_without_files_has_nothing_to_look_at(tmp_path: Path) -> None:
    broker = Broker(Config(data_dir=tmp_path, listeners=(ListenerConfig(bind="127.0.0.1:0"),)))
    await broker.start()
    try:
        assert broker.watching.watches == {}
        assert list(broker.expiring) == []
    finally:
        await broker.stop()
