"""`edge-broker status`: one screen of how the running broker is; `edge-broker reload`: what SIGHUP does, with an answer.

Ends with 0; with 1 where the broker cannot be asked, is not ready, or kept its old configuration.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import click

from edge_broker.cli import status_view
from edge_broker.cli.control import EXIT_PROBLEM, ask, socket_path, which_broker
from edge_broker.cli.text import printable

_EPILOG: Final = """\b
Examples:
  edge-broker status
  edge-broker status -c /etc/edge-broker/edge-broker.toml
  edge-broker status --json | jq .messages
"""


@click.command(epilog=_EPILOG)
@which_broker
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def status(config: Path | None, data_dir: Path | None, as_json: bool) -> None:
    """How the running broker is: clients, messages, queues, disk, bridges, and what is wrong.

    Ends with 0 if it can do its work, with 1 if not.
    """
    found = ask(socket_path(config, data_dir), "status")
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        for line in status_view.lines(found):
            click.echo(line)
    if not found["ready"]:
        raise SystemExit(EXIT_PROBLEM)


@click.command()
@which_broker
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def reload(config: Path | None, data_dir: Path | None, as_json: bool) -> None:
    """Have the running broker read its configuration again, and say what came of it.

    It is the file that the broker was started with. Ends with 0 if it was taken over with all the files that it names, with
    1 if the old one goes on, or what one of the files had before.
    """
    done = ask(socket_path(config, data_dir), "reload")
    if as_json:
        click.echo(json.dumps(done, indent=2))
    else:
        for entry in done["log"]:
            click.echo(f"{entry['level']}: {printable(entry['message'])}")
        click.echo(_outcome(done))
    if not done["reloaded"] or _refusals(done):
        raise SystemExit(EXIT_PROBLEM)


def _outcome(done: dict[str, Any]) -> str:
    if not done["reloaded"]:
        return "the configuration stays as it was"
    return "taken over, but not the files that are refused above" if _refusals(done) else "taken over"


def _refusals(done: dict[str, Any]) -> int:
    """How many of the files that it names were not taken, and so what was in them before counts."""
    return sum("the new file is refused" in entry["message"] for entry in done["log"])
