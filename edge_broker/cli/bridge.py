"""`edge-broker bridge`: what the bridges of the running broker are doing.

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

_WATCH_SECONDS: Final = 1.0
_EPILOG: Final = """\b
Examples:
  edge-broker bridge status
  edge-broker bridge status --watch -c /etc/edge-broker/edge-broker.toml
  edge-broker bridge status --json | jq '.bridges[].depth'
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
