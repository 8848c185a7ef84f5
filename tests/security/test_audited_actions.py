"""What is done to a running broker is in its audit log with who did it, and what is looked at shows no secret."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from edge_broker.broker import Broker
from edge_broker.config.audit import AuditConfig
from edge_broker.config.dead_letters import DeadLettersConfig
from edge_broker.config.model import Config, ListenerConfig, StoreConfig
from edge_broker.config.security import SecurityConfig
from edge_broker.core.dead_letters import SESSION
from edge_broker.core.message import build_message
from edge_broker.wire import const
from edge_broker.wire.encoder import encode_connect, encode_publish, encode_subscribe
from edge_broker.wire.packets import Connack, Connect, Publish, Suback, SubscriptionRequest
from tests.net.hub import Peer
from tests.ops.gateway import until
from tests.ops.test_control import Peer as Administrator
from tests.secrets import secret
from tests.security.issuer import AUDIENCE, claims, issue, jwk, write_set
from tests.security.serving import lines

PASSWORD = secret("a password that no trace shows")
PAYLOAD = secret("a payload that no trace shows")
ME = f"uid={os.getuid()}"
ACL = """
[roles.all]
allow.publish = ["#"]
allow.subscribe = ["#"]
[roles.less]
allow.subscribe = ["b"]
[identities]
anna = ["%s"]
robot = ["all"]
"""


@asynccontextmanager
async def audited(folder: Path) -> AsyncIterator[Broker]:
    passwords, keys, rules = folder / "passwords", folder / "keys.json", folder / "acl.toml"
    passwords.write_text(lines("anna", PASSWORD))
    write_set(keys, jwk("ES256", 0, kid="key-0"))
    passwords.chmod(0o600)
    rules.write_text(ACL % "all")
    security = SecurityConfig(
        password_file=passwords, jwt_keys=(keys,), jwt_audience=AUDIENCE, acl_file=rules
    )
    broker = Broker(
        Config(
            data_dir=folder / "data",
            listeners=(ListenerConfig(bind="127.0.0.1:0", anonymous=False),),
            security=security,
            store=StoreConfig(commit_delay_ms=1),
            dead_letters=DeadLettersConfig(enabled=True),
            audit=AuditConfig(file=folder / "audit.log"),
        )
    )
    await broker.start()
    try:
        yield broker
    finally:
        await broker.stop()


async def client(broker: Broker, client_id: str, name: str, password: bytes) -> Peer:
    port = int(broker.listening[0].rsplit(":", 1)[1])
    peer = Peer(*await asyncio.open_connection("127.0.0.1", port), const.MQTT_5)
    peer.writer.write(encode_connect(Connect(const.MQTT_5, client_id, True, 0, name, password)))
    answer = await peer.receive()
    assert isinstance(answer, Connack)
    assert answer.reason_code == 0
    return peer


def told(folder: Path, event: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (folder / "audit.log").read_text("ascii").splitlines()]
    return [
        {key: value for key, value in line.items() if key not in ("time", "event")}
        for line in found
        if line["event"] == event
    ]


async def test_who_did_what(tmp_path: Path) -> None:
    async with audited(tmp_path) as broker:
        token = issue(claims("robot", now=time.time(), lasts=3600), "ES256", 0)
        robot = await client(broker, "r2", "robot", token)
        anna = await client(broker, "a1", "anna", PASSWORD.encode())
        requests = [SubscriptionRequest(topic_filter, 1) for topic_filter in ("a", "b", "c/#")]
        anna.writer.write(encode_subscribe(const.MQTT_5, 1, requests))
        assert isinstance(await anna.receive(), Suback)
        assert broker.config.control_path is not None
        administrator = await Administrator.of(broker.config.control_path)

        lie = {"by": "uid=4711"}
        dead_letters = broker.router.dead_letters
        assert dead_letters is not None
        dead_letters.bury(build_message("a", PAYLOAD.encode(), qos=1), "expired", SESSION + "a1")
        broker.request_tick()
        await until(lambda: dead_letters.depth, "no dead letter")
        await until(lambda: broker.router.pending.empty, "no commit")
        assert (await administrator.ask("dead-letters drop", **lie))["done"] == 1
        (tmp_path / "acl.toml").write_text(ACL % "less")
        await broker.watching.reload_all()

        begun = await administrator.ask("trace", topic="#", seconds=60, **lie)
        assert "tracing" in begun
        robot.writer.write(encode_publish(const.MQTT_5, "b", PAYLOAD.encode(), 1, packet_id=1))
        assert isinstance(await anna.receive(), Publish)
        shown: list[Any] = []
        while not shown or shown[-1].get("client") != "a1":
            shown.append(await administrator.next())
        await administrator.close()
        assert PAYLOAD not in json.dumps(shown)
        assert PASSWORD not in json.dumps(shown)

    assert told(tmp_path, "action") == [
        {"action": "dead letters: drop", "by": ME, "which": "all", "done": 1},
        {"action": "trace", "by": ME, "topic": "#", "seconds": 60},
    ]
    assert told(tmp_path, "removed") == [{"client_id": "a1", "identity": "anna", "topic": "a", "count": 2}]
    assert [(line["client_id"], line["by"]) for line in told(tmp_path, "connected")] == [
        ("r2", "token"),
        ("a1", "password"),
    ]
    assert {line["what"] for line in told(tmp_path, "reloaded")} == {
        "ACL",
        "keys of tokens",
        "passwords",
    }
