"""What `[[bridges]]` says of who we are and whom we trust: what a right one becomes, and what a wrong one is told."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from bridge.config import BridgeConfig
from bridge.config_checks import parse_bridges
from bridge.places import Upstream, parse_upstream
from edge_broker.config.reading import Reading
from edge_broker.errors import ConfigError
from tests.config.certificates import write_pair

BROKER = "spiffe://cluster.example/ns/mqtt/sa/broker"
PLAIN: dict[str, object] = {"urls": ["mqtts://h"], "out": [{"filter": "#"}]}
BUNDLES = {"cluster.example": "pi.crt", "other.example": "other.crt"}
MESHED = PLAIN | {"upstream_identity": BROKER, "trust_bundles": BUNDLES}
SPIRE = PLAIN | {
    "upstream_identity": BROKER,
    "identity": "spire",
    "spire_socket": "unix:///run/agent.sock",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("identity")
    write_pair(path, "pi")
    write_pair(path, "other")
    (path / "empty").write_bytes(b"")
    return path


@pytest.fixture(autouse=True)
def _no_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPIFFE_ENDPOINT_SOCKET", raising=False)


def read(folder: Path, table: dict[str, object]) -> tuple[BridgeConfig | None, list[ConfigError]]:
    reading = Reading(folder)
    (bridge,) = parse_bridges([table], reading)
    return bridge, reading.mistakes


def test_bundles_by_trust_domain(folder: Path) -> None:
    bridge, mistakes = read(folder, MESHED)
    assert mistakes == []
    assert bridge is not None
    assert bridge.upstream_identity == BROKER
    assert bridge.trust_bundles == {
        "cluster.example": folder / "pi.crt",
        "other.example": folder / "other.crt",
    }
    assert (bridge.identity, bridge.spire_socket) == ("files", None)


@pytest.mark.parametrize(
    "table",
    [
        MESHED | {"certificate": "pi.crt", "key": "pi.key", "server_name": "sni.example"},
        MESHED | {"upstream_identity": "spiffe://other.example/ns/*/sa/**"},
        SPIRE,
        PLAIN | {"identity": "spire", "spire_socket": "unix:///run/agent.sock", "ca": "pi.crt"},
    ],
)
def test_what_goes_together(folder: Path, table: dict[str, object]) -> None:
    assert read(folder, table)[1] == []


def test_the_agent_of_the_environment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = {key: value for key, value in SPIRE.items() if key != "spire_socket"}
    assert read(folder, table)[1][0].key == "bridges[0].spire_socket"
    monkeypatch.setenv("SPIFFE_ENDPOINT_SOCKET", "unix:///run/agent.sock")
    assert read(folder, table)[1] == []


def test_the_package_that_the_agent_needs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    (mistake,) = read(folder, SPIRE)[1]
    assert (mistake.key, mistake.hint) == ("bridges[0].identity", "pip install 'edge-broker[spire]'")


WRONG: list[tuple[dict[str, object], str, str, str]] = [
    (MESHED | {"urls": ["mqtt://h"], "trust_bundles": None}, "trust_bundles", "must be a table", "write trust"),
    (PLAIN | {"urls": ["mqtt://h"], "upstream_identity": BROKER}, "upstream_identity", "without TLS", "mqtts"),
    (PLAIN | {"urls": ["mqtt://h"], "identity": "spire"}, "identity", "without TLS", "mqtts://"),
    (PLAIN | {"trust_bundles": BUNDLES}, "trust_bundles", "without upstream_identity", "or ca instead"),
    (MESHED | {"ca": "pi.crt"}, "ca", "no meaning with upstream_identity", "trust_bundles"),
    (MESHED | {"upstream_identity": "broker.example.com"}, "upstream_identity", "begins with spiffe://", "spiffe:"),
    (MESHED | {"upstream_identity": f"{BROKER}*"}, "upstream_identity", "a whole segment", "spiffe://"),
    (MESHED | {"upstream_identity": "spiffe://third.example/x"}, "trust_bundles", "none for third.example", "third."),
    (PLAIN | {"upstream_identity": BROKER}, "trust_bundles", "has none for cluster.example", '"cluster.example" ='),
    (MESHED | {"trust_bundles": "pi.crt"}, "trust_bundles", "must be a table, not text", '{ "cluster.example" ='),
    (MESHED | {"trust_bundles": BUNDLES | {"other.example": 5}}, "trust_bundles.other.example", "a path", "write"),
    (MESHED | {"trust_bundles": BUNDLES | {"other.example": "gone"}}, "trust_bundles.other.example", "No such", ""),
    (MESHED | {"trust_bundles": BUNDLES | {"other.example": "empty"}}, "trust_bundles.other.example", "no cert", ""),
    (MESHED | {"trust_bundles": BUNDLES | {"A B": "pi.crt"}}, "trust_bundles", "'A B' is no trust domain", "cluster"),
    (MESHED | {"spire_socket": "unix:///x"}, "spire_socket", 'without identity = "spire"', "leave it out"),
    (MESHED | {"identity": "vault"}, "identity", "cannot be 'vault'", '"spire"'),
    (SPIRE | {"spire_socket": "tcp://127.0.0.1:1"}, "spire_socket", "is no Unix socket", "unix:///run"),
    (SPIRE | {"trust_bundles": BUNDLES}, "trust_bundles", 'no meaning with identity = "spire"', "leave it out"),
    (SPIRE | {"key": "pi.key"}, "key", 'no meaning with identity = "spire"', "leave it out"),
    (PLAIN | {"urls": ["mqtt+unix://run/x"]}, "urls[0]", "no path from the root on", "three slashes"),
    (PLAIN | {"urls": ["mqtt+unix:///run/"]}, "urls[0]", "no path from the root on", "three slashes"),
    (PLAIN | {"urls": [f"mqtt+unix:///{'x' * 107}"]}, "urls[0]", "more than 107 bytes", "shorter"),
    (PLAIN | {"urls": ["unix:///run/x"]}, "urls[0]", "must begin with", "write mqtt+unix:///run/x"),
    (PLAIN | {"urls": ["mqtt+unix:///run/x"], "ca": "pi.crt"}, "ca", "no meaning without TLS", "mqtts://"),
]  # fmt: skip


@pytest.mark.parametrize(("table", "key", "problem", "hint"), WRONG)
def test_a_wrong_key_is_explained(
    folder: Path, table: dict[str, object], key: str, problem: str, hint: str
) -> None:
    mistake = read(folder, table)[1][0]
    assert mistake.key == f"bridges[0].{key}"
    assert problem in mistake.problem
    assert hint in mistake.hint


def test_a_sockets_url() -> None:
    upstream = parse_upstream("mqtt+unix:///run/envoy/upstream.sock")
    assert upstream == Upstream("", 0, False, "/run/envoy/upstream.sock")
    assert str(upstream) == "mqtt+unix:///run/envoy/upstream.sock"


def test_a_password_over_a_socket_crosses_no_network(folder: Path) -> None:
    (folder / "password").write_text("x")
    table = PLAIN | {"urls": ["mqtt+unix:///run/x"], "username": "u", "password_file": "password"}
    bridge, mistakes = read(folder, table)
    assert mistakes == []
    assert bridge is not None
    assert not bridge.exposes_password
