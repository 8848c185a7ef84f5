"""`edge-broker ingest`: the other end of gateways' bridges, run beside the cluster's broker.

Thin: what is done is in `bridge.ingest`. Ends with 0, with 1 where something cannot be done, with 2 where the configuration
is wrong.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
import msgspec

from edge_broker import __version__
from edge_broker.cli.configuration import EXIT_CONFIG
from edge_broker.cli.run import loop_factory
from edge_broker.config.loading import ConfigMistakes
from edge_broker.errors import EdgeBrokerError, StoreError
from edge_broker.ops.logging import configure_logging
from edge_broker.ops.systemd import Systemd

if TYPE_CHECKING:
    from bridge.ingest.config import IngestConfig

_LOG: Final = logging.getLogger("bridge.ingest")
_EXIT_RUNTIME: Final = 1
_EPILOG: Final = """\b
Examples:
  edge-broker ingest check ingest.toml
  edge-broker ingest run --config /etc/edge-broker/ingest.toml
  edge-broker ingest status --config /etc/edge-broker/ingest.toml

docs/ingest.md has the whole file and what crosses the line.
"""


@click.group(epilog=_EPILOG)
def ingest() -> None:
    """Take what gateways sent to the cluster, once each, and say what is missing."""


_config_option: Final = click.option(
    "-c", "--config", "path", type=click.Path(path_type=Path), metavar="FILE", required=True,
    help="The ingester's configuration, TOML.",
)  # fmt: skip


@ingest.command()
@_config_option
def run(path: Path) -> None:
    """Run the ingester until it is told to stop."""
    config = _load_or_exit(path, "the ingester does not start: ")
    configure_logging(config.log.level, config.log.format)
    with asyncio.Runner(loop_factory=loop_factory("auto")) as runner:
        raise SystemExit(runner.run(_serve(config)))


@ingest.command()
@click.argument("file", type=click.Path(path_type=Path))
def check(file: Path) -> None:
    """Say what is wrong with the configuration FILE, or what the ingester would do with it."""
    config = _load_or_exit(file, "")
    click.echo(f"{file}: OK")
    for line in _describe(config):
        click.echo(f"  {line}")


@ingest.command()
@_config_option
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def status(path: Path, as_json: bool) -> None:
    """What was taken, what is missing of which gateway, what was rejected; also of an ingester that is stopped."""
    from bridge.ingest.status import read_status, status_lines

    with _problems_told():
        found = read_status(_load_or_exit(path, "").data_dir)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(found), indent=2))
    else:
        click.echo("\n".join(status_lines(found, time.time())))


@ingest.command()
@_config_option
@click.argument("number", type=int)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="FILE", required=True, help="Where it goes."
)
def rejected(path: Path, number: int, output: Path) -> None:
    """Take out the payload of what was set aside as NUMBER; `status` says which there are."""
    from bridge.ingest.database import open_for_reading, read_rejected

    with _problems_told(), contextlib.closing(open_for_reading(_load_or_exit(path, "").data_dir)) as database:
        found = {at: one for at, one in read_rejected(database) if at == number}
        if not found:
            raise StoreError("rejected", f"there is no {number}", "see edge-broker ingest status")
        output.write_bytes(found[number].payload)
    click.echo(f"{found[number].topic}: {found[number].reason}")


@ingest.command()
@click.option(
    "--update", type=click.Path(path_type=Path, exists=True, dir_okay=False), metavar="FILE",
    help="Write it between the markers in FILE instead (docs/ingest.md).",
)  # fmt: skip
def reference(update: Path | None) -> None:
    """Print every key of the ingester's configuration: default, range and meaning, as Markdown."""
    from bridge.ingest.config import IngestConfig
    from edge_broker.config.reference import render_file_reference, replace_reference

    text = render_file_reference(IngestConfig)
    if update is None:
        click.echo(text, nl=False)
        return
    try:
        update.write_text(replace_reference(update.read_text("utf-8"), text), "utf-8")
    except ValueError as error:
        raise click.ClickException(f"{update}: {error}") from None


def _load_or_exit(path: Path, refusal: str) -> IngestConfig:
    from bridge.ingest.loading import load_ingest_config

    try:
        return load_ingest_config(path)
    except ConfigMistakes as mistakes:
        click.echo(f"{refusal}{mistakes}", err=True)
        raise SystemExit(EXIT_CONFIG) from None


@contextlib.contextmanager
def _problems_told() -> Iterator[None]:
    try:
        yield
    except (EdgeBrokerError, OSError, sqlite3.Error) as error:
        click.echo(str(error), err=True)
        raise SystemExit(_EXIT_RUNTIME) from None


def _describe(config: IngestConfig) -> Iterator[str]:
    yield f"data     {config.data_dir}"
    yield f"cluster  {', '.join(config.cluster.urls)} as {config.cluster.client_id}"
    for topic_filter in config.topics.filters:
        yield f"         {topic_filter}"
    if config.output == "file":
        yield f"output   files of {config.file.format} in {config.file_directory}"
    elif config.output == "table":
        yield f"output   the table messages in {config.table_path}"
    elif config.target is not None:
        yield f"output   {', '.join(config.target.urls)} at QoS 2, as {config.mqtt.topic_prefix}TOPIC"
    yield f"lease    {config.lease.topic or 'never announced: gateways send no envelopes'}"
    yield f"http     {config.http.bind or 'off'}"


async def _serve(config: IngestConfig) -> int:
    """Start, run until told to stop, stop; the exit code."""
    from bridge.ingest.ingester import Ingester

    systemd = Systemd()
    stop_wanted = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_stop(number: signal.Signals) -> None:
        _LOG.info("stopping on %s", number.name)
        stop_wanted.set()
        for each in (signal.SIGTERM, signal.SIGINT):  # the next one ends the process at once
            loop.remove_signal_handler(each)
            signal.signal(each, signal.SIG_DFL)

    for each in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(each, on_stop, each)
    ingester = Ingester(config)
    try:
        await ingester.start()
    except (EdgeBrokerError, OSError) as error:
        _LOG.error("the ingester %s does not start: %s", __version__, error)
        return _EXIT_RUNTIME
    gc.freeze()  # what is there now stays: no collection needs to look through it again
    systemd.send_ready(f"edge-broker {__version__} ingests from {', '.join(config.cluster.urls)}")
    watchdog = asyncio.create_task(_keep_alive(systemd))
    await stop_wanted.wait()
    watchdog.cancel()
    systemd.send_stopping()
    try:
        await ingester.stop()
    except (EdgeBrokerError, OSError, sqlite3.Error) as error:
        _LOG.error("not stopped properly: %s", error)
        return _EXIT_RUNTIME
    return 0


async def _keep_alive(systemd: Systemd) -> None:
    """Tell systemd's watchdog, from the event loop, twice as often as it asks."""
    while systemd.watchdog_seconds is not None:
        systemd.send_alive()
        await asyncio.sleep(systemd.watchdog_seconds / 2)
