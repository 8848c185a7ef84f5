"""The guides: what a reader copies out of them works."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.deploy.conftest import CHECKOUT, MONITORING, PROMETHEUS

RASPBERRY_PI_GUIDE = CHECKOUT / "docs" / "raspberry-pi.md"
UPSTREAMS = CHECKOUT / "docs" / "upstreams.md"


def blocks(guide: Path, language: str) -> list[str]:
    """The guide's code blocks in a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", guide.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.needs("promtool")
@pytest.mark.parametrize(("position", "mode"), [(0, []), (1, ["--agent"])], ids=["prometheus", "agent"])
def test_prometheus_takes_the_scrape_config(position: int, mode: list[str], tmp_path: Path) -> None:
    text = blocks(MONITORING, "yaml")[position]
    text = text.replace("/etc/prometheus/edge-broker.rules.yml", str(PROMETHEUS / "edge-broker.rules.yml"))
    for name in re.findall(r"/etc/prometheus/(\S+\.(?:crt|key))", text):
        (tmp_path / name).touch()
    config = tmp_path / "prometheus.yml"
    config.write_text(text.replace("/etc/prometheus", str(tmp_path)))
    process = subprocess.run(["promtool", "check", "config", *mode, config], capture_output=True, text=True)
    assert process.returncode == 0, process.stdout + process.stderr
    assert "job_name: edge-broker" in text


@pytest.mark.needs("promtool")
def test_prometheus_takes_the_queries(tmp_path: Path) -> None:
    questions = MONITORING.read_text().partition("how to ask them:")[2].partition("\n## ")[0]
    queries = re.findall(r"\| `(.+)` \|$", questions, re.MULTILINE)
    assert len(queries) == 4
    rules = "".join(
        f"  - record: question{number}\n    expr: {query}\n" for number, query in enumerate(queries)
    )
    (tmp_path / "queries.yml").write_text(f"groups:\n- name: questions\n  rules:\n{rules}")
    process = subprocess.run(
        ["promtool", "check", "rules", tmp_path / "queries.yml"], capture_output=True, text=True
    )
    assert process.returncode == 0, process.stdout + process.stderr


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory in which the guide's certificate commands were run, as they stand there."""
    directory = tmp_path_factory.mktemp("certificates")
    commands = next(block for block in blocks(RASPBERRY_PI_GUIDE, "sh") if "-out ca.crt" in block)
    process = subprocess.run(["sh", "-eu", "-c", commands], cwd=directory, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    return directory


def openssl_verify(directory: Path, *arguments: str) -> bool:
    command = ["openssl", "verify", "-CAfile", "ca.crt", *arguments]
    return subprocess.run(command, cwd=directory, capture_output=True).returncode == 0


@pytest.mark.needs("openssl")
def test_the_guides_certificates_are_good_for_their_purpose_and_no_other(certificates: Path) -> None:
    assert openssl_verify(
        certificates, "-purpose", "sslserver", "-verify_hostname", "pi-1.local", "gateway.crt"
    )
    assert openssl_verify(certificates, "-purpose", "sslserver", "-verify_ip", "192.168.1.20", "gateway.crt")
    assert not openssl_verify(certificates, "-verify_hostname", "pi-2.local", "gateway.crt")
    assert openssl_verify(certificates, "-purpose", "sslclient", "cellar.crt")
    assert not openssl_verify(certificates, "-purpose", "sslclient", "gateway.crt")


@pytest.mark.needs("systemd-analyze")
def test_systemd_takes_the_sensors_unit(tmp_path: Path) -> None:
    unit = tmp_path / "pi-temperature.service"
    unit.write_text(blocks(RASPBERRY_PI_GUIDE, "ini")[0])
    process = subprocess.run(
        ["systemd-analyze", "verify", "--recursive-errors=no", unit], capture_output=True, text=True
    )
    assert process.stdout + process.stderr == ""


def test_every_file_and_heading_that_the_guides_point_to_exists() -> None:
    for guide in (RASPBERRY_PI_GUIDE, MONITORING, UPSTREAMS):
        text = guide.read_text()
        for target in re.findall(r"\]\(([^)]+)\)", text):
            name, _, heading = target.partition("#")
            page = guide if not name else guide.parent / name
            assert page.exists(), target
            headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
            anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in headings}
            assert not heading or heading in anchors, target
        for path in re.findall(r"\b(?:deploy|docs)/[\w./-]+\w", text):
            assert (CHECKOUT / path).exists(), path
