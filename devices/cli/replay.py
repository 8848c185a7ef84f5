"""`edge-devices replay`: a recording, sent by a simulated fleet.

Exit codes: 0 every reading acknowledged, 1 not every one, 2 wrong usage, 130 Ctrl-C (143 SIGTERM).
"""

import itertools
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click

from devices.cli.options import Connection, StopRequest, connection_options, show_log, stop_on_signals
from devices.encoding import Encoding
from devices.errors import DeviceError
from devices.fleet import MAX_SPEED, Fleet, FleetStats
from devices.recorded import RecordedReading, packaged_recording, read_recorded, read_repeatedly

_POLL_SECONDS: Final = 0.1
_PROGRESS_ON_TERMINAL_SECONDS: Final = 0.5
_PROGRESS_IN_FILE_SECONDS: Final = 10.0
_FLUSH_AFTER_SIGNAL_SECONDS: Final = 2.0
_DESCRIPTORS_PER_DEVICE: Final = 8


def _speed(text: str) -> float:
    try:
        speed = MAX_SPEED if text == "max" else float(text)
    except ValueError:
        speed = 0.0
    if not speed > 0 or (speed == MAX_SPEED and text != "max"):
        raise click.BadParameter(f"{text!r} is neither a number above 0 nor 'max'")
    return speed


@click.command()
@click.argument("recording", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=False)
@click.option(
    "--devices",
    type=click.IntRange(1, 1000),
    default=10,
    show_default=True,
    help="Rows are dealt to them in turn.",
)
@click.option(
    "--speed",
    type=_speed,
    metavar="X|max",
    default="60",
    show_default=True,
    help="1 is as recorded, 60 a minute in a second, max as fast as acknowledged.",
)
@click.option("--limit", type=click.IntRange(1), metavar="N", help="End after so many readings.")
@click.option("--loop", is_flag=True, help="Begin anew at the end of the recording, without end.")
@click.option("--qos", type=click.Choice(["0", "1"]), default="1", show_default=True)
@click.option("--encoding", type=click.Choice(["json", "cbor"]), default="json", show_default=True)
@click.option("--topic-prefix", default="devices", show_default=True, help="Topics are PREFIX/NAME/readings.")
@click.option("--name-prefix", default="sensor-", show_default=True, help="Names are PREFIX and a number.")
@click.option(
    "--spool-dir",
    type=click.Path(exists=True, file_okay=False, writable=True, path_type=Path),
    metavar="DIR",
    help="Keep each device's spool in a file there (default: in memory).",
)
@click.option(
    "--give-up-seconds",
    type=click.FloatRange(min=0, min_open=True),
    metavar="S",
    default=60.0,
    show_default=True,
    help="End when nothing more can be dealt and nothing was acknowledged for so long.",
)
@click.option("--quiet", is_flag=True, help="No progress, only the summary.")
@click.option("--verbose", is_flag=True, help="Also say when a device connects.")
@connection_options
@click.pass_context
def replay(
    context: click.Context,
    connection: Connection,
    recording: Path | None,
    devices: int,
    speed: float,
    limit: int | None,
    loop: bool,
    qos: str,
    encoding: Encoding,
    topic_prefix: str,
    name_prefix: str,
    spool_dir: Path | None,
    give_up_seconds: float,
    quiet: bool,
    verbose: bool,
) -> None:
    """Send the readings of a RECORDING (a CSV) as a fleet of devices.

    Without a RECORDING, 2,000 real readings of a room's sensors are sent, which come with this program. The exit code is
    0 when the broker acknowledged every reading, and 1 when it did not.
    """
    show_log(verbose)
    if spool_dir is not None:
        _allow_open_files(devices * _DESCRIPTORS_PER_DEVICE)
    try:
        fleet = Fleet(
            itertools.islice(_readings(recording, loop), limit),
            devices,
            connection.address,
            speed=speed,
            name_prefix=name_prefix,
            topic_prefix=topic_prefix,
            qos=int(qos),
            encoding=encoding,
            spool_dir=spool_dir,
            mqtt_version=connection.mqtt_version,
        )
    except (DeviceError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    progress = _Progress(quiet)
    started_at = time.monotonic()
    with stop_on_signals() as stop:
        fleet.start()
        _watch(fleet, stop, progress, speed, give_up_seconds)
        fleet.stop(_FLUSH_AFTER_SIGNAL_SECONDS if stop.signal_number is not None else 0.0)
    progress.end()
    stats = fleet.stats
    click.echo(_summary(stats, time.monotonic() - started_at, spool_dir))
    incomplete = fleet.error is not None or stats.spooled or stats.dropped or stats.rejected
    context.exit(stop.exit_code or int(bool(incomplete)))


def _readings(recording: Path | None, loop: bool) -> Iterator[RecordedReading]:
    path = recording or packaged_recording()
    return read_repeatedly(path) if loop else read_recorded(path)


def _watch(
    fleet: Fleet, stop: StopRequest, progress: "_Progress", speed: float, give_up_seconds: float
) -> None:
    """Return when all is acknowledged, when a signal came, or when the broker gave no sign for too long."""
    acknowledged, progress_at = 0, time.monotonic()
    while not stop.wait(_POLL_SECONDS):
        stats = fleet.stats
        progress.show(stats)
        if fleet.finished and stats.spooled == 0:
            return
        now = time.monotonic()
        # At a chosen speed there is more to deal meanwhile, and the outage may end.
        waits_for_broker = fleet.finished or speed == MAX_SPEED
        if stats.acknowledged != acknowledged or not waits_for_broker:
            acknowledged, progress_at = stats.acknowledged, now
        elif now - progress_at > give_up_seconds:
            click.echo(
                f"gave up: nothing acknowledged for {give_up_seconds:g} s ({stats.problem or 'no answer'})",
                err=True,
            )
            return


class _Progress:
    """A line on stderr: rewritten in place on a terminal, a new one now and then elsewhere."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._in_place = sys.stderr.isatty()
        self._every_seconds = _PROGRESS_ON_TERMINAL_SECONDS if self._in_place else _PROGRESS_IN_FILE_SECONDS
        self._next_at = 0.0

    def show(self, stats: FleetStats) -> None:
        if self._quiet or time.monotonic() < self._next_at:
            return
        self._next_at = time.monotonic() + self._every_seconds
        line = (
            f"{stats.dealt} readings sent, {stats.acknowledged} acknowledged, {stats.spooled} spooled;"
            f" {stats.connected} of {stats.devices} devices connected"
        )
        if self._in_place:
            click.echo(f"\r\033[K{line}", nl=False, err=True)
        else:
            click.echo(line, err=True)

    def end(self) -> None:
        if self._in_place and not self._quiet:
            click.echo("\r\033[K", nl=False, err=True)


def _summary(stats: FleetStats, seconds: float, spool_dir: Path | None) -> str:
    parts = [f"{stats.acknowledged} acknowledged"]
    if stats.spooled:
        where = f"spooled in {spool_dir}" if spool_dir is not None else "lost (no --spool-dir)"
        parts.append(f"{stats.spooled} not acknowledged, {where}")
    if stats.dropped:
        parts.append(f"{stats.dropped} dropped by a full spool")
    if stats.rejected:
        parts.append(f"{stats.rejected} rejected by the broker")
    if stats.reconnects:
        parts.append(f"{stats.reconnects} reconnects")
    return f"{stats.dealt} readings sent by {stats.devices} devices in {seconds:.1f} s: {', '.join(parts)}"


def _allow_open_files(count: int) -> None:
    """Raise the soft limit of open files as far as needed and allowed; what is missing shows as an error later."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + 256
    if soft != resource.RLIM_INFINITY and soft < wanted:
        allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
