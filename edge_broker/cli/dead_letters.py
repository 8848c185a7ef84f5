"""`edge-broker dead-letters`: what the broker's queues let go without their recipients, and why.

`list` and `show` read the store, beside a running broker or without one; `retry` and `drop` ask the running broker. Ends
with 0, with 1 where something is wrong or cannot be read, with 2 where the configuration is wrong.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from edge_broker.cli.control import ask, socket_path, which_broker
from edge_broker.cli.store import EXIT_PROBLEM, _inspecting, _problems_told, _store, _with_directory

if TYPE_CHECKING:
    from edge_broker.core.message import Message
    from edge_broker.store.exporting import Exported, Gaps
    from edge_broker.store.vault import Vault

_COLUMNS: Final = ("number", "died", "reason", "for", "topic", "bytes")
_LONGEST_TOPIC: Final = 60
_EPILOG: Final = """\b
Examples:
  edge-broker dead-letters list -c /etc/edge-broker/edge-broker.toml
  edge-broker dead-letters list --json > letters.jsonl
  edge-broker dead-letters show 17
  edge-broker dead-letters retry 17 18
  edge-broker dead-letters drop --all

They are kept where the configuration says so: [dead_letters] enabled = true.
"""


@click.group("dead-letters", epilog=_EPILOG)
def dead_letters() -> None:
    """Messages that their recipients will not get: which, and why."""


@dead_letters.command("list")
@_with_directory
@click.option(
    "--json", "as_json", is_flag=True, help="For programs: one object a line, as `store export` has it."
)
def list_letters(
    config: Path | None, data_dir: Path | None, key_files: tuple[Path, ...], as_json: bool
) -> None:
    """All dead letters, the oldest first."""
    from edge_broker.cli.store_export import encoder
    from edge_broker.store.exporting import Gaps

    gaps = Gaps()
    with _problems_told():
        letters = _read(*_store(config, data_dir, key_files), gaps)
        if as_json:
            encode = encoder("json")
            for letter in letters:
                click.echo(encode(letter), nl=False)
        elif sys.stdout.isatty():
            _show_table(letters)
        else:
            for letter in letters:
                cells = dict(zip(_COLUMNS, _cells(letter, time.time()), strict=True))
                click.echo(", ".join(f"{name} {value}" for name, value in cells.items()))
    _end(gaps)


@dead_letters.command()
@click.argument("number", type=click.IntRange(min=1))
@_with_directory
def show(number: int, config: Path | None, data_dir: Path | None, key_files: tuple[Path, ...]) -> None:
    """Everything of one dead letter, its payload too, as JSON."""
    import msgspec

    from edge_broker.cli.store_export import encoder
    from edge_broker.store.exporting import Gaps

    gaps = Gaps()
    with _problems_told():
        found = list(_read(*_store(config, data_dir, key_files), gaps, number, number))
    if not found:
        gaps.lines.append(
            f"there is no dead letter {number} (edge-broker dead-letters list says which there are)"
        )
    for letter in found:
        click.echo(msgspec.json.format(encoder("json")(letter).strip(), indent=2))
    _end(gaps)


@dead_letters.command()
@click.argument("numbers", nargs=-1, type=click.IntRange(min=1))
@click.option("--all", "everything", is_flag=True, help="All that there are.")
@which_broker
def retry(numbers: tuple[int, ...], everything: bool, config: Path | None, data_dir: Path | None) -> None:
    """Have the running broker deliver dead letters to whom they were for."""
    _ask("retry", "delivered again", numbers, everything, socket_path(config, data_dir))


@dead_letters.command()
@click.argument("numbers", nargs=-1, type=click.IntRange(min=1))
@click.option("--all", "everything", is_flag=True, help="All that there are.")
@which_broker
def drop(numbers: tuple[int, ...], everything: bool, config: Path | None, data_dir: Path | None) -> None:
    """Have the running broker throw dead letters away."""
    _ask("drop", "thrown away", numbers, everything, socket_path(config, data_dir))


def _ask(command: str, done: str, numbers: tuple[int, ...], everything: bool, path: Path) -> None:
    if everything == bool(numbers):
        raise click.UsageError("give the numbers of dead letters, or --all")
    answer = ask(path, f"dead-letters {command}", numbers=None if everything else list(numbers))
    click.echo(f"{answer['done']} {done}")
    for failure in answer["failed"]:
        click.echo(f"{failure['number']}: {failure['problem']}", err=True)
    if answer["failed"]:
        raise SystemExit(EXIT_PROBLEM)


def _read(
    directory: Path, vault: Vault, gaps: Gaps, first: int = 0, last: int | None = None
) -> Iterator[Exported]:
    """The dead letters with these numbers; none where no broker ever kept any."""
    from edge_broker.core.dead_letters import QUEUE_NAME
    from edge_broker.store.exporting import export_queue

    with _inspecting(directory, vault) as inspection:
        queue_ids = [queue_id for queue_id, name in inspection.owners().items() if name == QUEUE_NAME]
        for queue_id in queue_ids:
            yield from export_queue(inspection, queue_id, gaps, first, last)


def _cells(letter: Exported, now: float) -> tuple[str, ...]:
    from edge_broker.cli.store_view import duration, size
    from edge_broker.core.dead_letters import REASON, RECIPIENT, note

    message: Message = letter.message
    topic = message.topic if len(message.topic) <= _LONGEST_TOPIC else message.topic[:_LONGEST_TOPIC] + "..."
    return (
        str(letter.number),
        f"{duration(now - message.received_at)} ago",
        _printable(note(message, REASON)),
        _printable(note(message, RECIPIENT)),
        _printable(topic),
        size(len(message.frame) - message.payload_at),
    )


def _show_table(letters: Iterator[Exported]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*_COLUMNS, box=None, padding=(0, 2, 0, 0), header_style="bold")
    now = time.time()
    for letter in letters:
        table.add_row(*(Text(cell) for cell in _cells(letter, now)))
    console: Any = Console()
    if table.row_count:
        console.print(table)
    else:
        console.print("no dead letters")


def _printable(text: str) -> str:
    """Names are what clients chose: nothing of them shall steer a terminal, or look like another line."""
    return "".join(character if character.isprintable() else "?" for character in text)


def _end(gaps: Gaps) -> None:
    for line in gaps.lines:
        click.echo(line, err=True)
    if gaps.lines:
        raise SystemExit(EXIT_PROBLEM)
