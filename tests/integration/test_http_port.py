"""The HTTP port of a broker process as others use it: curl and Prometheus, over TLS with a token, on both event loops."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from edge_broker.security.authority import Authority
from tests.conftest import find_program
from tests.integration.broker_process import BrokerProcess, until

PAGE = (Path(__file__).parents[2] / "docs" / "monitoring.md").read_text("utf-8")


def new_token(file: Path, name: str, *more: str) -> str:
    command = [sys.executable, "-m", "edge_broker", "http-token", "add", name, "--file", str(file), *more]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()


@pytest.fixture(params=["uvloop", "asyncio"])
def broker(request: pytest.FixtureRequest, tmp_path: Path, pki: Path) -> Iterator[BrokerProcess]:
    for kind in ("crt", "key"):
        shutil.copy(pki / f"server.{kind}", tmp_path / f"http.{kind}")
    (tmp_path / "prometheus.token").write_text(new_token(tmp_path / "http-tokens", "prometheus"))
    settings = (
        f'[http]\nbind = "127.0.0.1:0"\ncertificate = "{tmp_path}/http.crt"\nkey = "{tmp_path}/http.key"\n'
        f'token_file = "{tmp_path}/http-tokens"\nopen_health = true\n'
    )
    process = BrokerProcess(tmp_path / "broker", settings, loop=request.param)
    process.start()
    until(lambda: "health and metrics on https://" in process.log, "no HTTP")
    yield process
    assert process.stop() == 0
    assert "Traceback" not in process.log
    assert "ebh_" not in process.log


def port_of(broker: BrokerProcess) -> str:
    found = re.search(r"health and metrics on https://127\.0\.0\.1:(\d+)", broker.log)
    assert found
    return found[1]


def curl(broker: BrokerProcess, ca: Path, path: str, *more: str) -> tuple[int, str]:
    """The status and the body."""
    url = f"https://localhost:{port_of(broker)}{path}"
    done = subprocess.run(
        ["curl", "-sS", "--cacert", str(ca), "-w", "\n%{http_code}", *more, url],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    body, _, code = done.stdout.rpartition("\n")
    return int(code), body


@pytest.mark.needs("curl")
def test_curl(broker: BrokerProcess, tmp_path: Path, pki: Path) -> None:
    ca = pki / "ca.crt"
    bearer = ("-H", f"Authorization: Bearer {(tmp_path / 'prometheus.token').read_text()}")
    assert curl(broker, ca, "/metrics")[0] == 401
    code, body = curl(broker, ca, "/metrics", *bearer)
    assert (code, "edge_broker_connections " in body) == (200, True)
    assert curl(broker, ca, "/livez") == (200, '{\n  "live": true\n}\n')
    assert curl(broker, ca, "/metrics", "-X", "POST", *bearer)[0] == 403
    assert curl(broker, ca, "/livez/../metrics", "--path-as-is")[0] == 401


@pytest.mark.needs("curl")
def test_certificate_and_tokens_on_sighup(broker: BrokerProcess, tmp_path: Path, pki: Path) -> None:
    now, day = datetime.now(UTC), timedelta(days=1)
    others = Authority("others", now, day)
    (tmp_path / "others.crt").write_bytes(others.certificate)
    assert curl(broker, pki / "ca.crt", "/livez")[0] == 200
    others.issue("gateway", now, day, hosts=("localhost",)).write(tmp_path, "http")
    new = new_token(tmp_path / "http-tokens", "grafana")
    os.kill(broker.pid, signal.SIGHUP)
    until(lambda: "2 tokens of HTTP" in broker.log, "it was not read again")
    assert curl(broker, tmp_path / "others.crt", "/metrics", "-H", f"Authorization: Bearer {new}")[0] == 200


@pytest.mark.needs("curl", "prometheus", "promtool")
def test_prometheus_with_the_configuration_of_the_page(
    broker: BrokerProcess, tmp_path: Path, pki: Path, free_port: int
) -> None:
    found = re.search(r"over HTTPS.*?```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert found
    config = yaml.safe_load(textwrap.dedent(found[1]))
    (job,) = config["scrape_configs"]
    assert job["authorization"]["credentials_file"] == "/etc/prometheus/edge-broker.token"
    job["authorization"]["credentials_file"] = str(tmp_path / "prometheus.token")
    job["tls_config"]["ca_file"] = str(pki / "ca.crt")
    job["static_configs"][0]["targets"] = [f"localhost:{port_of(broker)}"]
    job["scrape_interval"] = job["scrape_timeout"] = "1s"
    file = tmp_path / "prometheus.yml"
    file.write_text(yaml.safe_dump(config))
    promtool, prometheus = find_program("promtool"), find_program("prometheus")
    assert promtool is not None
    assert prometheus is not None
    subprocess.run([promtool, "check", "config", str(file)], check=True, capture_output=True, timeout=30)
    address = f"127.0.0.1:{free_port}"
    with (tmp_path / "prometheus.log").open("wb") as log:
        server = subprocess.Popen(
            [
                prometheus,
                f"--config.file={file}",
                f"--storage.tsdb.path={tmp_path / 'tsdb'}",
                f"--web.listen-address={address}",
            ],
            stdout=log,
            stderr=log,
        )
    try:
        query = f"http://{address}/api/v1/query?query=edge_broker_info"

        def scraped() -> bool:
            done = subprocess.run(["curl", "-s", query], capture_output=True, text=True, timeout=30)
            return '"__name__":"edge_broker_info"' in done.stdout

        until(scraped, f"nothing scraped:\n{(tmp_path / 'prometheus.log').read_text()}")
    finally:
        server.terminate()
        server.wait(30)
