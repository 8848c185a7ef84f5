"""`edge-broker bridge`: what the bridges of the running broker are doing, and what share a canary has.

Thin: the broker tells, `bridge_view` says how it looks. Ends with 0, with 1 where the broker cannot be asked.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any, Final

import click

from edge_broker.cli import bridge_view
from edge_broker.cli.control import ask, socket_path, which_broker
from edge_broker.cli.text import printable

_WATCH_SECONDS: Final = 1.0
_EPILOG: Final = """\b
Examples:
  edge-broker bridge status
  edge-broker bridge status --watch -c /etc/edge-broker/edge-broker.toml
  edge-broker bridge status --json | jq '.bridges[].depth'
"""
_CANARY_EPILOG: Final = """\b
Examples:
  edge-broker bridge canary cloud
  edge-broker bridge canary cloud 10 -c /etc/edge-broker/edge-broker.toml
  edge-broker bridge canary cloud 0
"""


@click.group()
def bridge() -> None:
    """The bridges of the running broker."""


@bridge.command(epilog=_EPILOG)
@which_broker
@click.option("--json", "as_json", is_flag=True, help="For programs; with --watch one line each second.")
@click.option("--watch", is_flag=True, help="Look again every second, until Ctrl-C.")
def status(config: Path | None, data_dir: Path | None, as_json: bool, watch: bool) -> None:
    """Each bridge: is its upstream there, how much waits, how fast it goes, what went wrong last."""
    path = socket_path(config, data_dir)
    try:
        if not watch:
            _print(ask(path, "bridges"), as_json)
        elif as_json:
            _print_each_second(path)
        elif sys.stdout.isatty():
            bridge_view.watch(lambda: _bridges(path), _WATCH_SECONDS)
        else:
            raise click.UsageError("--watch is for a terminal, or give --json too")
    except KeyboardInterrupt:
        click.echo(err=True)


def _print(answer: dict[str, Any], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(answer, indent=2))
    elif not answer["bridges"]:
        click.echo("there is no bridge: [[bridges]] in the configuration makes one")
    else:
        for line in bridge_view.lines(answer["bridges"], time.time()):
            click.echo(line)


def _print_each_second(path: Path) -> None:
    while True:
        click.echo(json.dumps(ask(path, "bridges")))
        time.sleep(_WATCH_SECONDS)


def _bridges(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = ask(path, "bridges")["bridges"]
    return found


@bridge.command(epilog=_CANARY_EPILOG)
@click.argument("name")
@click.argument("percent", required=False, type=click.FloatRange(0, 100))
@which_broker
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def canary(
    name: str, percent: float | None, config: Path | None, data_dir: Path | None, as_json: bool
) -> None:
    """What share of the topics goes to the canary of the bridge NAME; with PERCENT, so many from now on.

    It holds until the broker ends; then what the configuration says counts again. What waits stays where it is.
    """
    wanted = {} if percent is None else {"percent": percent}
    answer = ask(socket_path(config, data_dir), "bridge canary", name=name, **wanted)
    if as_json:
        click.echo(json.dumps(answer, indent=2))
        return
    now = f"{answer['percent']:g} % of the topics of {printable(name)} go to its canary"
    click.echo(
        now
        if percent is None
        else f"{now}, {answer['before']:g} % before; to keep it, write it into the file"
    )
