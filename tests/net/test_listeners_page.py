"""`docs/listeners.md`: every configuration in it starts a broker that listens as it says."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from edge_broker.cli import main
from tests.integration.serving import Serving

PAGE = (Path(__file__).parents[2] / "docs" / "listeners.md").read_text("utf-8")
EXAMPLES = re.findall(r"^```toml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
URLS = [
    r"mqtt://127\.0\.0\.1:\d+",
    r"mqtts://0\.0\.0\.0:\d+",
    r"wss://0\.0\.0\.0:\d+/mqtt",
    r"ws://127\.0\.0\.1:\d+/broker",
    r"unix:///.*/mqtt\.sock",
    r"mqtt://0\.0\.0\.0:\d+",
]


@pytest.fixture
def folder(tmp_path: Path, pki: Path) -> Path:
    """A folder with the certificates that the page names."""
    (tmp_path / "tls").mkdir()
    for source, name in (
        ("server.crt", "gateway.crt"),
        ("server.key", "gateway.key"),
        ("ca.crt", "sensors-ca.crt"),
    ):
        shutil.copy(pki / source, tmp_path / "tls" / name)
    return tmp_path


def test_there_is_one_for_each_transport() -> None:
    assert len(EXAMPLES) == len(URLS)
    assert {found for text in EXAMPLES for found in re.findall(r'transport = "(\w+)"', text)} == {
        "tcp",
        "tls",
        "ws",
        "wss",
        "unix",
    }


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_an_example(folder: Path, number: int) -> None:
    path = folder / "edge-broker.toml"
    path.write_text(f'data_dir = "data"\n{EXAMPLES[number]}')
    result = CliRunner().invoke(main, ["check", str(path)])
    assert result.exit_code == 0, result.output
    with_free_port = re.sub(r'(bind = "[\d.]+):\d+', r"\1:0", EXAMPLES[number])
    table = with_free_port.replace("/run/edge-broker/", f"{folder}/").replace("[[listeners]]\n", "")
    serving = Serving(folder, table).start()
    (url,) = serving.urls
    assert re.fullmatch(URLS[number], url)
    assert serving.stop() == 0
