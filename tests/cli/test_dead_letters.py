"""`edge-broker dead-letters` as a person runs it: on a store that has some, on one that has none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from edge_broker.cli import main
from edge_broker.cli.dead_letters import _read, _show_table
from edge_broker.core.dead_letters import QUEUE_NAME, REASON, RECIPIENT
from edge_broker.core.message import Message, build_message
from edge_broker.core.ops import Batch, QueueWrite
from edge_broker.store.exporting import Gaps
from edge_broker.store.vault import Vault
from edge_broker.wire import const
from edge_broker.wire.properties import encode_properties
from tests.store.sample import opened


def letter(number: int, reason: str) -> Message:
    properties = {const.USER_PROPERTY: [(REASON, reason), (RECIPIENT, "session:display")]}
    return build_message(f"room/{number}", b"21.5", qos=1, property_block=encode_properties(properties))


async def make_store(directory: Path, *reasons: str) -> Path:
    """A store with a dead letter for each of `reasons`."""
    async with opened(directory) as (store, _):
        messages = [(number, letter(number, reason)) for number, reason in enumerate(reasons, 1)]
        if reasons:
            await store.commit(Batch(outboxes=[(9, QUEUE_NAME)], queues=[QueueWrite(9, messages, 1, [], [])]))
    return directory


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["dead-letters", *map(str, arguments)])


async def test_a_line_for_each(tmp_path: Path) -> None:
    directory = await make_store(tmp_path / "data", "expired", "queue_full")
    done = run("list", "--data-dir", directory)
    assert done.exit_code == 0
    first, second = done.output.splitlines()
    assert first.startswith("number 1, died ")
    assert first.endswith("ago, reason expired, for session:display, topic room/1, bytes 4 B")
    assert "reason queue_full" in second


async def test_what_clients_chose_writes_no_lines_of_its_own(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    nasty = build_message(
        "room\x1b[2J\nnumber 2", b"", qos=1, property_block=letter(1, "expired").property_block
    )
    async with opened(directory) as (store, _):
        await store.commit(Batch(outboxes=[(9, QUEUE_NAME)], queues=[QueueWrite(9, [(1, nasty)], 1, [], [])]))
    (line,) = run("list", "--data-dir", directory).output.splitlines()
    assert "topic room?[2J?number 2" in line


async def test_a_table_on_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = await make_store(tmp_path / "data", "expired", "queue_full")
    monkeypatch.setenv("COLUMNS", "160")
    _show_table(_read(directory, Vault(), Gaps()))
    head, first, second = capsys.readouterr().out.splitlines()
    assert head.split() == ["number", "died", "reason", "for", "topic", "bytes"]
    assert [first.split()[0], second.split()[0]] == ["1", "2"]
    _show_table(_read(await make_store(tmp_path / "empty"), Vault(), Gaps()))
    assert capsys.readouterr().out == "no dead letters\n"


async def test_as_json_like_an_export(tmp_path: Path) -> None:
    directory = await make_store(tmp_path / "data", "expired")
    (line,) = run("list", "--json", "--data-dir", directory).output.splitlines()
    found = json.loads(line)
    assert (found["number"], found["topic"], found["payload"]) == (1, "room/1", "21.5")
    assert [REASON, "expired"] in found["properties"]["user_properties"]


async def test_one_of_them(tmp_path: Path) -> None:
    directory = await make_store(tmp_path / "data", "expired", "queue_full")
    done = run("show", 2, "--data-dir", directory)
    assert done.exit_code == 0
    assert json.loads(done.output)["topic"] == "room/2"


@pytest.mark.parametrize("reasons", [(), ("expired",)])
async def test_one_that_is_not_there(tmp_path: Path, reasons: tuple[str, ...]) -> None:
    directory = await make_store(tmp_path / "data", *reasons)
    done = run("show", 7, "--data-dir", directory)
    assert done.exit_code == 1
    assert "there is no dead letter 7" in done.output


async def test_none_at_all_is_no_fault(tmp_path: Path) -> None:
    done = run("list", "--data-dir", await make_store(tmp_path / "data"))
    assert (done.exit_code, done.output) == (0, "")


def test_no_store(tmp_path: Path) -> None:
    done = run("list", "--data-dir", tmp_path)
    assert done.exit_code == 1
    assert "there is no store" in done.output
