"""`edge-broker demo`: recorded room readings from simulated sensors, through a gateway, to a cluster behind mTLS.

Real processes throughout; only the cluster is a stand-in, a second edge-broker. With `--outage` the upstream is stopped
for ten seconds, the backlog grows and drains, and every reading is accounted for at the end.
"""

from __future__ import annotations

import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Final

import click
from rich.console import Console

from devices.fleet import Fleet
from devices.recorded import packaged_recording, read_repeatedly
from edge_broker.cli.demo.cluster import ClusterReader
from edge_broker.cli.demo.stage import DemoError, Stage
from edge_broker.cli.demo.view import Moment, View

_RECORDED_INTERVAL_SECONDS: Final = 60.0  # the room was measured about once a minute
_BEFORE_OUTAGE_SECONDS: Final = 6.0
_OUTAGE_SECONDS: Final = 10.0
_AFTER_OUTAGE_SECONDS: Final = 4.0
_DRAIN_SECONDS: Final = 60.0
_TERMINAL_INTERVAL_SECONDS: Final = 0.25
_LINE_INTERVAL_SECONDS: Final = 1.0


@click.command()
@click.option(
    "--outage", is_flag=True, help="Cut the upstream for ten seconds, then show that nothing was lost."
)
@click.option("--seconds", type=click.FloatRange(min=1), help="End by itself after this long.")
@click.option(
    "--devices", type=click.IntRange(1, 200), default=10, show_default=True, help="How many sensors."
)
@click.option(
    "--rate", type=click.FloatRange(0.1, 5000), default=50.0, show_default=True, help="Readings a second."
)
@click.option(
    "--port", type=click.IntRange(1, 65535), default=1883, show_default=True, help="The gateway's port."
)
def demo(outage: bool, seconds: float | None, devices: int, rate: float, port: int) -> None:
    """Sensors, gateway, bridge and cluster on this machine, live.

    Point any MQTT client at 127.0.0.1:1883 while it runs. Ctrl-C ends it.
    """
    console = Console()
    with tempfile.TemporaryDirectory(prefix="edge-broker-demo-") as directory:
        try:
            lost = _Demo(console, Path(directory), devices, rate, port).run(outage, seconds)
        except DemoError as error:
            console.print(f"demo: {error}", style="red", highlight=False)
            raise SystemExit(1) from None
    raise SystemExit(1 if lost else 0)


class _Demo:
    """One run of the demo, from curtain to verdict."""

    def __init__(self, console: Console, directory: Path, devices: int, rate: float, port: int) -> None:
        self._console = console
        self._stage = Stage(directory, port)
        self._devices = devices
        readings = read_repeatedly(packaged_recording())
        self._fleet = Fleet(
            readings,
            devices,
            f"mqtt://127.0.0.1:{port}",
            speed=rate * _RECORDED_INTERVAL_SECONDS,
            topic_prefix="devices",
        )
        self._reader = ClusterReader(
            self._stage.upstream.port, self._stage.ca, directory / "operator.crt", directory / "operator.key"
        )
        self._started_at = 0.0
        self._last = (0.0, 0)
        self._per_second = 0.0

    def run(self, outage: bool, seconds: float | None) -> bool:
        """Play it; whether a reading was lost."""
        stage = self._stage
        try:
            stage.start()
            if not self._reader.start(timeout_seconds=20):
                raise DemoError(f"the cluster's reader could not subscribe:\n{stage.upstream.log_tail()}")
            self._console.print(
                f"gateway on mqtt://127.0.0.1:{stage.gateway.port}, "
                f"health and metrics on http://127.0.0.1:{stage.http_port}, Ctrl-C ends the demo",
                highlight=False,
            )
            self._started_at = time.monotonic()
            self._fleet.start()
            with View(
                self._console, "edge-broker demo: a room's sensors → gateway → mTLS bridge → cluster"
            ) as view:
                try:
                    self._play(view, outage, seconds)
                except KeyboardInterrupt:
                    return False
                published = self._drain(view) if outage or seconds else None
            return self._judge(published) if published is not None else False
        finally:
            self._fleet.stop(flush_seconds=0.5)
            self._reader.stop()
            stage.stop()
            self._console.print(
                "ended; everything that the demo started is stopped and removed", highlight=False
            )

    def _play(self, view: View, outage: bool, seconds: float | None) -> None:
        if not outage:
            self._watch(view, "readings flow", seconds)
            return
        self._watch(view, "readings flow", _BEFORE_OUTAGE_SECONDS)
        self._stage.upstream.stop()
        self._watch(view, "the upstream is down: readings queue on disk", _OUTAGE_SECONDS)
        self._stage.upstream.start()
        self._watch(view, "the upstream is back: the backlog drains", _AFTER_OUTAGE_SECONDS)

    def _watch(self, view: View, act: str, seconds: float | None) -> None:
        """Show how it goes, for so long or until interrupted."""
        ends_at = None if seconds is None else time.monotonic() + seconds
        interval = _TERMINAL_INTERVAL_SECONDS if self._console.is_terminal else _LINE_INTERVAL_SECONDS
        while ends_at is None or time.monotonic() < ends_at:
            if not self._stage.gateway.running:
                raise DemoError(f"the gateway ended by itself:\n{self._stage.gateway.log_tail()}")
            view.show(self._look(act))
            time.sleep(interval)

    def _drain(self, view: View) -> dict[str, int]:
        """Stop the sensors and wait until everything has arrived; returns how much each of them published."""
        self._fleet.stop(flush_seconds=10.0)
        published = {name: stats.published for name, stats in self._fleet.stats_by_device.items()}
        deadline = time.monotonic() + _DRAIN_SECONDS
        while self._reader.missing(published) and time.monotonic() < deadline:
            view.show(self._look("the sensors are done: the last readings arrive"))
            time.sleep(_TERMINAL_INTERVAL_SECONDS)
        view.show(self._look("done"))
        return published

    def _judge(self, published: dict[str, int]) -> bool:
        """Say what the account says; whether a reading was lost."""
        account = self._reader.account
        missing = self._reader.missing(published)
        verdict = "nothing lost" if not missing else f"{missing} LOST"
        self._console.print(
            f"{sum(published.values())} readings sent, {account.arrived} arrived, {verdict}, "
            f"{account.duplicates} duplicates, {account.out_of_order} out of order",
            style="green" if not missing else "bold red",
            highlight=False,
        )
        return missing > 0

    def _look(self, act: str) -> Moment:
        now = time.monotonic()
        stats = self._fleet.stats
        since, before = self._last
        if now - since >= 1.0 or not since:
            self._per_second = (stats.acknowledged - before) / (now - since) if since else 0.0
            self._last = (now, stats.acknowledged)
        metrics = _metrics(self._stage.http_port)
        arrived_at = self._reader.last_arrival_at
        return Moment(
            elapsed_seconds=now - self._started_at,
            act=act,
            devices=self._devices,
            sent=stats.acknowledged,
            per_second=self._per_second,
            queued=int(metrics.get('edge_broker_queue_messages{queue="bridge:cluster"}', 0)),
            arrived=self._reader.account.arrived,
            upstream_connected=metrics.get('edge_broker_bridge_connected{bridge="cluster"}', 0) == 1,
            last_ago_seconds=now - arrived_at if arrived_at else None,
        )


def _metrics(port: int) -> dict[str, float]:
    """The gateway's metrics, by name and labels; nothing while it does not answer."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=1.0) as response:
            lines = response.read().decode().splitlines()
    except OSError:
        return {}
    samples = (line.rsplit(" ", 1) for line in lines if line and not line.startswith("#"))
    return {name: float(value) for name, value in samples}
