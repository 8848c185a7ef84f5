"""`docs/security.md`: what it shows is what there is."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import aiohttp
import msgspec
from click.testing import CliRunner

from edge_broker.broker import Broker
from edge_broker.cli import main
from edge_broker.config.acl_file import read_acl_file
from edge_broker.config.http import HttpConfig
from edge_broker.config.listeners import ListenerConfig
from edge_broker.config.model import Config
from edge_broker.config.security import SecurityConfig
from edge_broker.security.passwords import parse_passwords

PAGE = (Path(__file__).parents[2] / "docs" / "security.md").read_text("utf-8")


def test_the_password_file_that_it_shows_is_one() -> None:
    found = re.search(r"```text\n(# the cellar\n.*?)```", PAGE, re.DOTALL)
    assert found
    read = parse_passwords(found[1], Path("docs/security.md"))
    assert (read.argon2("cellar") is None, read.scram("cellar") is None) == (False, False)


def test_the_defaults_that_it_tells() -> None:
    rows = re.findall(r"^\| .* \| ([^|]+) \| `(\w+)` \|$", PAGE, re.MULTILINE)
    told = {key: text for text, key in rows}
    values = msgspec.structs.asdict(SecurityConfig())
    assert set(told) < set(values)
    assert len(told) == 5
    for key, text in told.items():
        number = re.search(r"\d+", text)
        assert number
        assert values[key] == int(number[0]) * (60 if "min" in text else 1), key


def test_the_acl_that_it_shows_does_what_it_tells(tmp_path: Path) -> None:
    found = re.search(r"```toml\n(# acl\.toml\n.*?)```", PAGE, re.DOTALL)
    assert found
    path = tmp_path / "acl.toml"
    path.write_text(found[1])
    questions = re.findall(
        r"\$ edge-broker acl explain acl\.toml (.*)\n((?:allowed|denied).*\n(?: .*\n)*)", PAGE
    )
    assert len(questions) == 2
    for question, answer in questions:
        result = CliRunner().invoke(main, ["acl", "explain", str(path), *shlex.split(question)])
        assert result.output == answer
    assert read_acl_file(path, ["cloud"]).bridges == {"cloud": ("uplink",)}


async def test_the_metrics_that_it_names_exist(tmp_path: Path) -> None:
    broker = Broker(
        Config(
            data_dir=tmp_path / "data",
            listeners=(ListenerConfig(bind="127.0.0.1:0"),),
            http=HttpConfig(bind="127.0.0.1:0"),
        )
    )
    await broker.start()
    try:
        assert broker._http is not None
        async with aiohttp.ClientSession() as web, web.get(broker._http.url + "/metrics") as response:
            there = set(re.findall(r"^# TYPE (\S+) ", await response.text(), re.MULTILINE))
    finally:
        await broker.stop()
    named = set(re.findall(r"`(edge_broker_\w+)", PAGE))
    assert len(named) > 8
    assert named - there == set()
