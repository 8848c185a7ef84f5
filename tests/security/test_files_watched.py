"""Every file that a configuration can name is taken anew when it changes, or it is said here why not; and what is broken
in one is refused, shown by health, and harms nobody who is connected.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bridge import Bridge
from bridge.config import BridgeConfig, RuleConfig
from edge_broker.broker import Broker
from edge_broker.config.audit import AuditConfig
from edge_broker.config.model import Config, ControlConfig, HttpConfig, ListenerConfig, StoreConfig
from edge_broker.config.security import SecurityConfig
from edge_broker.ops.facts import gather
from edge_broker.ops.health import assess
from edge_broker.security.authority import Authority
from edge_broker.security.http_tokens import new_token
from tests.security.issuer import AUDIENCE, jwk, write_set
from tests.security.serving import lines

DAY = timedelta(days=1)
NOW = datetime.now(UTC)
NOT_WATCHED = {
    "data_dir": "a folder",
    "audit.file": "written, not read",
    "control.path": "a socket",
    "store.encryption_key_file": "the store is open with it: changing a key is a restart",
    "store.old_encryption_key_files": "likewise",
    "bridges.key": "read at each connect, with its certificate",
    "bridges.password_file": "read at each connect",
}
BROKEN = {
    "listeners.certificate": "certificates of ",
    "listeners.key": "certificates of ",
    "listeners.client_ca": "certificates of ",
    "listeners.crl_files": "certificates of ",
    "security.password_file": "passwords",
    "security.deny_file": "deny list",
    "security.acl_file": "ACL",
    "security.jwt_keys": "keys of tokens",
    "http.certificate": "certificate of http",
    "http.key": "certificate of http",
    "http.token_file": "tokens of http",
}


def paths(value: Any, key: str = "") -> Iterator[tuple[str, Path]]:
    """Every path in a configuration, by its key without numbers."""
    if isinstance(value, Path):
        yield key, value
    elif isinstance(value, tuple):
        for one in value:
            yield from paths(one, key)
    elif isinstance(value, msgspec.Struct):
        for field in msgspec.structs.fields(type(value)):
            yield from paths(getattr(value, field.name), f"{key}.{field.encode_name}".lstrip("."))


def path_keys(struct: type[msgspec.Struct], key: str = "") -> Iterator[str]:
    """Every key that may name a path, of one that is empty too."""
    for field in msgspec.structs.fields(struct):
        name = f"{key}.{field.encode_name}".lstrip(".")
        told = str(field.type)
        if "Path" in told:
            yield name
        default = field.default
        one = default[0] if isinstance(default, tuple) and default else default
        if isinstance(one, msgspec.Struct):
            yield from path_keys(type(one), name)


def full(folder: Path) -> Config:
    """A configuration that names a file under each key that can name one."""
    ca = Authority("ours", NOW, 365 * DAY)
    (folder / "ca.crt").write_bytes(ca.certificate)
    (folder / "crl.pem").write_bytes(ca.revocation_list((), 1, NOW, NOW + 5 * DAY))
    for name in ("server", "http", "bridge"):
        ca.issue(name, NOW, 10 * DAY, hosts=("localhost",)).write(folder, name)
    texts = {
        "passwords": lines("anna", "pencil"),
        "denied": "identity mallory\n",
        "acl.toml": '[roles.all]\nallow.publish = ["#"]\n',
        "http-tokens": f"{new_token('probe', ['read'])[1]}\n",
        "bridge-password": "x",
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o600)
    for name in ("new.key", "old.key"):
        (folder / name).write_text(("00" if name == "old.key" else "11") * 32 + "\n")
        (folder / name).chmod(0o600)
    write_set(folder / "keys.json", jwk("ES256", 0, kid="key-0"))
    return Config(
        data_dir=folder / "data",
        listeners=(
            ListenerConfig(
                "tls",
                "127.0.0.1:0",
                certificate=folder / "server.crt",
                key=folder / "server.key",
                client_ca=folder / "ca.crt",
                crl_files=(folder / "crl.pem",),
            ),
        ),
        store=StoreConfig(
            encryption_key_file=folder / "new.key", old_encryption_key_files=(folder / "old.key",)
        ),
        security=SecurityConfig(
            password_file=folder / "passwords",
            deny_file=folder / "denied",
            acl_file=folder / "acl.toml",
            jwt_keys=(folder / "keys.json",),
            jwt_audience=AUDIENCE,
        ),
        audit=AuditConfig(file=folder / "audit.log"),
        http=HttpConfig(
            bind="127.0.0.1:0",
            certificate=folder / "http.crt",
            key=folder / "http.key",
            token_file=folder / "http-tokens",
        ),
        control=ControlConfig(path=folder / "control.sock"),
        bridges=(
            BridgeConfig(
                urls=("mqtts://127.0.0.1:1",),
                ca=folder / "ca.crt",
                certificate=folder / "bridge.crt",
                key=folder / "bridge.key",
                username="pi",
                password_file=folder / "bridge-password",
                out=(RuleConfig(filter="up/#"),),
            ),
        ),
    )


@asynccontextmanager
async def running(config: Config) -> AsyncIterator[Broker]:
    broker = Broker(config, bridges=[Bridge(bridge) for bridge in config.bridges])
    await broker.start()
    try:
        yield broker
    finally:
        await broker.stop()


async def test_every_file_is_watched(tmp_path: Path) -> None:
    config = full(tmp_path)
    named = dict(paths(config))
    assert set(named) >= set(path_keys(Config)), "a new key is missing here"
    async with running(config) as broker:
        watched = {path for watch in broker.watching.watches.values() for path in watch.paths}
    assert {key for key, path in paths(config) if path not in watched} == set(NOT_WATCHED)
    assert set(named) - set(NOT_WATCHED) - set(BROKEN) == {"bridges.ca", "bridges.certificate"}


@pytest.mark.parametrize("key", BROKEN)
async def test_a_broken_one_is_refused_and_health_says_so(tmp_path: Path, key: str) -> None:
    config = full(tmp_path)
    path = dict(paths(config))[key]
    async with running(config) as broker:
        right = path.read_bytes()
        path.write_bytes(b"\xff nonsense \x00\n")
        for _ in range(2):  # it has to stay as it is from one look to the next
            await broker.watching.look()
        (what,) = broker.watching.refused
        assert what.startswith(BROKEN[key])
        health = assess(gather(broker, broker.swept_at))
        told = [problem for problem in health.problems if "the new file is refused" in problem.problem]
        (problem,) = told
        assert problem.component == what
        assert str(path) in problem.problem, "which file it is"
        assert "nonsense" not in problem.problem, "it may have been somebody's secret"
        path.write_bytes(right)
        for _ in range(2):
            await broker.watching.look()
        assert broker.watching.refused == {}
