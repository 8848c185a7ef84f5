"""`edge-devices sense`: this machine's own sensors, at an interval.

Exit codes: 0 when `--count` readings were acknowledged, 1 when not all were, 2 wrong usage, 130 Ctrl-C (143 SIGTERM).
"""

import socket
import time
from pathlib import Path
from typing import Final

import click

from devices.cli.options import Connection, StopRequest, connection_options, show_log, stop_on_signals
from devices.device import Device
from devices.errors import DeviceError, SensorError
from devices.sensors import Sensor, machine_sensors, read_all

_CLOSE_AFTER_SIGNAL_SECONDS: Final = 2.0


@click.command()
@click.option("--name", default=socket.gethostname, help="The device's name (default: this machine's).")
@click.option(
    "--interval-seconds",
    type=click.FloatRange(min=0, min_open=True),
    metavar="S",
    default=10.0,
    show_default=True,
)
@click.option("--count", type=click.IntRange(1), metavar="N", help="End after so many readings.")
@click.option(
    "--topic-prefix", default="devices", show_default=True, help="The topic is PREFIX/NAME/readings."
)
@click.option(
    "--spool",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Keep unacknowledged readings in this file (default: in memory).",
)
@click.option(
    "--give-up-seconds",
    type=click.FloatRange(min=0),
    metavar="S",
    default=10.0,
    show_default=True,
    help="How long to wait for the last acknowledgements.",
)
@click.option("--verbose", is_flag=True, help="Show every reading, and when the device connects.")
@connection_options
@click.pass_context
def sense(
    context: click.Context,
    connection: Connection,
    name: str,
    interval_seconds: float,
    count: int | None,
    topic_prefix: str,
    spool: Path | None,
    give_up_seconds: float,
    verbose: bool,
) -> None:
    """Send this machine's processor temperature, load and memory until stopped."""
    show_log(verbose)
    try:
        device = Device(
            name,
            connection.address,
            spool=spool,
            topic_prefix=topic_prefix,
            mqtt_version=connection.mqtt_version,
        )
    except (DeviceError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    with stop_on_signals() as stop:
        try:
            device.start()
            _send_readings(device, machine_sensors(), interval_seconds, count, stop, verbose)
        finally:
            device.close(give_up_seconds if stop.signal_number is None else _CLOSE_AFTER_SIGNAL_SECONDS)
    stats = device.stats
    click.echo(
        f"{stats.published} readings sent: {stats.acknowledged} acknowledged, {stats.spooled} still spooled"
    )
    context.exit(stop.exit_code or int(stats.spooled > 0))


def _send_readings(
    device: Device,
    sensors: list[Sensor],
    interval_seconds: float,
    count: int | None,
    stop: StopRequest,
    verbose: bool,
) -> None:
    due_at = time.monotonic()
    while count is None or device.stats.published < count:
        try:
            reading = read_all(sensors)
            sequence = device.publish_reading(reading)
        except DeviceError as error:  # a sensor that fails, or a full disk, may recover
            what = "no reading" if isinstance(error, SensorError) else "the reading is lost"
            click.echo(f"{what}: {error}", err=True)
        else:
            if verbose:
                values = ", ".join(f"{key} {value}" for key, value in reading.items())
                click.echo(f"{sequence}: {values}", err=True)
        if device.stats.published == count:
            return
        due_at += interval_seconds
        if stop.wait(max(0.0, due_at - time.monotonic())):
            return
