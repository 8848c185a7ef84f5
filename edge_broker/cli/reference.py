"""`edge-broker reference`: every key of the configuration file; it also writes the copy in the documentation."""

from __future__ import annotations

from pathlib import Path

import click

from edge_broker.config.reference import render_reference, replace_reference


@click.command()
@click.option(
    "--update",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="Write it between the markers in FILE instead (docs/configuration.md).",
)
def reference(update: Path | None) -> None:
    """Print every key of the configuration file: default, range and meaning, as Markdown."""
    from bridge.config import BridgeConfig  # as everywhere here, the bridge only when it is asked for

    text = render_reference({"bridges": BridgeConfig})
    if update is None:
        click.echo(text, nl=False)
        return
    try:
        update.write_text(replace_reference(update.read_text("utf-8"), text), "utf-8")
    except ValueError as error:
        raise click.ClickException(f"{update}: {error}") from None
