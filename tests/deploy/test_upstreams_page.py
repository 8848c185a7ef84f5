"""`docs/upstreams.md`: what a reader copies out of it is taken by whom it is for.

The configurations of NATS and RabbitMQ are run by `tests/integration/upstreams`, which read them from this page.
"""

from __future__ import annotations

import re
import socket
import subprocess
from pathlib import Path

import pytest
import yaml

from bridge.ingest.loading import load_ingest_config
from edge_broker.cli.configuration import load_config
from tests.bridge.real import free_port, until
from tests.bridge.svids import TrustDomain
from tests.conftest import find_program
from tests.deploy.test_guides import UPSTREAMS, blocks

TOML = blocks(UPSTREAMS, "toml")


def of(name: str) -> list[str]:
    return [block for block in TOML if block.startswith(f"# {name}\n")]


def test_every_block_says_whose_it_is() -> None:
    assert len(of("edge-broker.toml")) == 5
    assert sorted(block.partition("\n")[0] for block in TOML if block not in of("edge-broker.toml")) == [
        "# ingest.toml",
        "# upstream edge-broker.toml",
    ]


@pytest.mark.parametrize("text", of("edge-broker.toml") + of("upstream edge-broker.toml"))
def test_the_broker_takes_it(tmp_path: Path, text: str) -> None:
    """With the files that it names, each with what its name says."""
    domain = TrustDomain("cluster.example")
    svid = domain.issue()
    for name in re.findall(r'"(?:/etc/edge-broker|/run/svid)/([\w.-]+)"', text):
        is_authority = "ca" in re.split(r"\W", name) or name == "bundle.pem"
        content = domain.bundle if is_authority else svid.chain_pem
        (tmp_path / name).write_bytes(svid.key_pem if name.endswith(".key") else content)
    path = tmp_path / "edge-broker.toml"
    path.write_text(re.sub(r"/etc/edge-broker|/run/svid", str(tmp_path), text))
    config = load_config(path)
    assert config.bridges or config.listeners[0].transport == "tls"
    for bridge in config.bridges:
        assert bridge.out[0].qos == 1
        assert all(rule.ingested == bridge.envelopes.enabled for rule in bridge.out)


def test_the_ingester_takes_it(tmp_path: Path) -> None:
    (text,) = of("ingest.toml")
    (tmp_path / "ingest.toml").write_text(text)
    assert len(load_ingest_config(tmp_path / "ingest.toml").cluster.urls) == 3


@pytest.mark.needs("mosquitto")
async def test_mosquitto_takes_it(tmp_path: Path) -> None:
    (text,) = [block for block in blocks(UPSTREAMS, "conf") if block.startswith("# mosquitto.conf\n")]
    port = free_port()
    path = tmp_path / "mosquitto.conf"
    path.write_text(
        text.replace("listener 1883", f"listener {port}").replace("/var/lib/mosquitto/", f"{tmp_path}/")
        + "user root\n"
    )
    program = find_program("mosquitto")
    assert program is not None
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([program, "-c", path], stdout=log, stderr=log)

    def listens() -> bool:
        assert process.poll() is None, (tmp_path / "log").read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    try:
        await until(listens, "it does not listen")
    finally:
        process.terminate()
        process.wait(10)


def test_the_meshes_pieces_are_what_they_say() -> None:
    """As far as it can be told without the mesh: YAML, each with its kind; and nobody claims that they were run."""
    pieces = [piece for block in blocks(UPSTREAMS, "yaml") for piece in yaml.safe_load_all(block)]
    assert [piece["kind"] for piece in pieces] == [
        *("Gateway", "VirtualService", "AuthorizationPolicy"),
        *("ExternalWorkload", "Server", "MeshTLSAuthentication", "AuthorizationPolicy"),
    ]
    assert all({"apiVersion", "metadata", "spec"} <= set(piece) for piece in pieces)
    for mesh in ("Istio", "Linkerd", "Consul"):
        section = UPSTREAMS.read_text().partition(f"\n### {mesh}\n")[2].strip()
        assert section.startswith("From its documentation, not run here.")


def test_the_envoy_files_that_it_names_are_shipped() -> None:
    named = set(re.findall(r"deploy/envoy/\w+\.yaml", UPSTREAMS.read_text()))
    assert named == {f"deploy/envoy/{name}.yaml" for name in ("upstream", "cluster", "sidecar")}
    assert all((UPSTREAMS.parents[1] / name).exists() for name in named)
