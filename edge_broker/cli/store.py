"""`edge-broker store`: looking into a store, checking it, taking messages out of it, making its file small.

Thin: what is done is in `edge_broker.store`, how it looks in `store_view`. Ends with 0, with 1 where something is wrong or
cannot be done, with 2 where the configuration is wrong.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

import click

from edge_broker.cli.configuration import load_or_exit
from edge_broker.errors import StoreError

if TYPE_CHECKING:
    from edge_broker.store.inspection import Inspection
    from edge_broker.store.vault import Vault

EXIT_PROBLEM: Final = 1
RETAINED: Final = "retained"
_EPILOG: Final = """\b
Examples:
  edge-broker store status
  edge-broker store verify --data-dir /var/lib/edge-broker
  edge-broker store export bridge:cloud --from 1000 > messages.jsonl
  edge-broker store compact -c /etc/edge-broker/edge-broker.toml
  edge-broker store new-key /etc/edge-broker/store.key

status, verify and export may run beside the broker; compact needs it stopped.
"""
_Command = Callable[..., None]


@click.group(epilog=_EPILOG)
def store() -> None:
    """Look into the store: what it holds, whether it is sound, its messages."""


def _with_directory(command: _Command) -> _Command:
    """The options that say where the store is, and where its keys are."""
    command = click.option(
        "--key-file", "key_files", type=click.Path(path_type=Path), multiple=True, metavar="FILE",
        help="A key that messages are encrypted with, with --data-dir; may be given more than once.",
    )(command)  # fmt: skip
    command = click.option(
        "--data-dir", "data_dir", type=click.Path(path_type=Path), metavar="DIR", help="The directory itself."
    )(command)
    return click.option(
        "-c", "--config", "config", type=click.Path(path_type=Path), metavar="FILE",
        help="The broker's configuration, for its data_dir.",
    )(command)  # fmt: skip


@store.command()
@_with_directory
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def status(config: Path | None, data_dir: Path | None, key_files: tuple[Path, ...], as_json: bool) -> None:
    """Queues, sessions, sizes, and what was set aside as damaged."""
    from edge_broker.cli import store_view
    from edge_broker.store.status import read_status

    with _problems_told(), _inspecting(*_store(config, data_dir, key_files)) as inspection:
        found = read_status(inspection)
    if as_json:
        click.echo(store_view.status_as_json(found, time.time()))
    elif sys.stdout.isatty():
        store_view.show_status(found, time.time())
    else:
        click.echo("\n".join(store_view.status_lines(found, time.time())))


@store.command()
@_with_directory
@click.option(
    "--whole/--rows-only", default=None,
    help="Whether SQLite checks the structure of the file too: one long read, during which a running broker's "
    "write-ahead log only grows. By itself: if no broker runs, or the file is below 64 MB.",
)  # fmt: skip
def verify(
    config: Path | None, data_dir: Path | None, key_files: tuple[Path, ...], whole: bool | None
) -> None:
    """Read every row; say exactly what is damaged or missing.

    Ends with 0 if everything is as it was written, with 1 if not. What was kept in memory only, by choice, is told and is
    no fault.
    """
    from edge_broker.cli import store_view
    from edge_broker.store.verification import verify as verify_store

    with _problems_told(), store_view.counting("messages read") as progress:
        directory, vault = _store(config, data_dir, key_files)
        found = verify_store(directory, whole=whole, vault=vault, progress=progress)
    for line in found.lines():
        click.echo(line)
    click.echo(store_view.verdict(found))
    if not found.sound:
        raise SystemExit(EXIT_PROBLEM)


@store.command()
@click.argument("queue")
@_with_directory
@click.option("--format", "form", type=click.Choice(["json", "cbor"]), default="json", help="One JSON object a line, "
              "or a sequence of CBOR maps.")  # fmt: skip
@click.option("--from", "from_number", type=click.IntRange(min=0), default=0, help="The first number wanted.")
@click.option("--to", "to_number", type=click.IntRange(min=0), default=None, help="The last number wanted.")
@click.option(
    "-o", "--output", type=click.Path(allow_dash=True, dir_okay=False, path_type=Path), default="-",
    help="A file in place of standard output; a new one is for its owner only.",
)  # fmt: skip
def export(
    queue: str,
    config: Path | None,
    data_dir: Path | None,
    key_files: tuple[Path, ...],
    form: str,
    from_number: int,
    to_number: int | None,
    output: Path,
) -> None:
    """The messages of QUEUE that wait, oldest first.

    QUEUE is `bridge:` and a bridge's name, `session:` and a client identifier, either name alone where it is the only one,
    or `retained` for the retained messages. Nothing is taken out of the store. Ends with 1 if some could not be read.
    """
    from edge_broker.cli.store_export import encoder
    from edge_broker.store.exporting import Gaps, export_queue, export_retained

    if form == "cbor" and str(output) == "-" and sys.stdout.isatty():
        raise click.UsageError("CBOR is not for a terminal: redirect it, or give --output")
    if queue == RETAINED and (from_number or to_number is not None):
        raise click.UsageError("retained messages have no numbers: leave --from and --to out")
    gaps = Gaps()
    with _problems_told(), _inspecting(*_store(config, data_dir, key_files)) as inspection:
        inspection.check_keys()
        if queue == RETAINED:
            messages = export_retained(inspection, gaps)
        else:
            queue_id = inspection.find_queue(queue)
            messages = export_queue(inspection, queue_id, gaps, from_number, to_number)
        encode = encoder(form)
        with _writing(output) as file:
            for message in messages:
                file.write(encode(message))
    for line in gaps.lines:
        click.echo(line, err=True)
    if gaps.lines:
        raise SystemExit(EXIT_PROBLEM)


@store.command()
@_with_directory
def compact(config: Path | None, data_dir: Path | None, key_files: tuple[Path, ...]) -> None:
    """Write the file anew without its free pages. The broker must not run, and the disk must hold a second copy.

    With a configuration that has keys, everything is encrypted anew with encryption_key_file; where only old keys are
    left in it, it is written plainly. With keys given by --key-file the first one is the new one.
    """
    from edge_broker.cli import store_view
    from edge_broker.store.compaction import compact as compact_store

    with _problems_told(), store_view.share_done("compacting") as progress:
        directory, vault = _store(config, data_dir, key_files)
        done = compact_store(directory, progress, vault)
    click.echo(f"{store_view.size(done.before_bytes)} before, {store_view.size(done.after_bytes)} now")


@store.command("new-key")
@click.argument("file", type=click.Path(path_type=Path))
def new_key(file: Path) -> None:
    """Make a key for encryption at rest in a new FILE, for its owner only.

    Keep a copy of it in a safe place: without it, what is encrypted is lost.
    """
    from edge_broker.store.keys import new_key as make_key

    with _problems_told():
        make_key(file)
    click.echo(f"{file}: a new key; keep a copy elsewhere, nothing on disk can be read without it")


def _store(config: Path | None, data_dir: Path | None, key_files: tuple[Path, ...]) -> tuple[Path, Vault]:
    """Where the store is, and its keys: as said, or as the configuration says, or as it would be without one."""
    from edge_broker.store.keys import read_key
    from edge_broker.store.vault import Vault

    if config is not None and data_dir is not None:
        raise click.UsageError("--config and --data-dir: one of them is enough")
    if data_dir is None:
        from edge_broker.wiring import make_vault

        if key_files:
            raise click.UsageError("--key-file goes with --data-dir; the configuration names its keys itself")
        loaded = load_or_exit(config, "")
        return loaded.data_dir, make_vault(loaded)
    keys = [read_key(file, data_dir) for file in key_files]
    return data_dir, Vault(keys[0] if keys else None, keys[1:])


@contextlib.contextmanager
def _writing(output: Path) -> Iterator[IO[bytes]]:
    """Standard output, or a file; what is in messages is nobody else's, so a new one is for its owner only."""
    if str(output) == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    try:
        descriptor = os.open(output, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
    except OSError as error:
        raise click.UsageError(f"cannot write {output}: {error.strerror}") from error
    with os.fdopen(descriptor, "wb") as file:
        yield file


@contextlib.contextmanager
def _inspecting(directory: Path, vault: Vault) -> Iterator[Inspection]:
    from edge_broker.store.inspection import Inspection

    with Inspection(directory, vault) as inspection:
        yield inspection


@contextlib.contextmanager
def _problems_told() -> Iterator[None]:
    """What the store raises in the block, as one line and the end with 1."""
    from edge_broker.store.faults import READ_ERRORS, explain, is_damage

    try:
        yield
    except (StoreError, *READ_ERRORS) as error:
        told = str(explain("read", error))
        if is_damage(error):
            told = f"the store is damaged: {error} (edge-broker store verify says where)"
        click.echo(told, err=True)
        raise SystemExit(EXIT_PROBLEM) from None
