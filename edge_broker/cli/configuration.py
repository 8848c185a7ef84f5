"""The configuration as the command line reads it: the broker's own sections, and the bridges, imported if there are any."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import click

from edge_broker.config.loading import ConfigMistakes, load
from edge_broker.config.model import Config
from edge_broker.config.reading import Reading

EXIT_CONFIG: Final = 2


def load_or_exit(path: Path | None, refusal: str) -> Config:
    """The configuration, or `refusal` and every mistake on standard error and the end with 2."""
    try:
        return load_config(path)
    except ConfigMistakes as mistakes:
        click.echo(f"{refusal}{mistakes}", err=True)
        raise SystemExit(EXIT_CONFIG) from None


def load_config(path: Path | None) -> Config:
    """The configuration in the file at `path`, or the defaults without one; raises `ConfigMistakes`."""
    return load(path, sections={"bridges": _read_bridges})


def _read_bridges(data: object, reading: Reading) -> tuple[Any, ...]:
    from bridge.config_checks import parse_bridges

    return parse_bridges(data, reading)
