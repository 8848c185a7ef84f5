"""`edge-broker run`: reads the configuration, chooses the event loop, puts broker and bridges together and serves.

Ends with 0 when it was told to stop, 1 when it could not start or stop properly, 2 when the configuration is wrong: one
clear message each, a traceback only for what nobody foresaw.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from edge_broker import __version__
from edge_broker.cli.configuration import load_config, load_or_exit
from edge_broker.cli.failures import explain_start_failure
from edge_broker.cli.service import Service
from edge_broker.config.model import Config
from edge_broker.errors import EdgeBrokerError
from edge_broker.ops.logging import configure_logging
from edge_broker.ops.systemd import Systemd

if TYPE_CHECKING:
    from edge_broker.broker import Broker

EXIT_RUNTIME: Final = 1
_LOG: Final = logging.getLogger("edge_broker")
_EPILOG: Final = """\b
Signals:
  SIGTERM, SIGINT   stop; a second one stops at once, which loses nothing acknowledged
  SIGHUP            read the configuration again; a wrong one is refused, the old one goes on

\b
Environment (wins over the file):
  EDGE_BROKER_DATA_DIR, EDGE_BROKER_LOG_LEVEL, EDGE_BROKER_LOOP

\b
Examples:
  edge-broker run
  edge-broker run --config /etc/edge-broker/edge-broker.toml
  EDGE_BROKER_LOG_LEVEL=debug edge-broker run
"""


@click.command(epilog=_EPILOG)
@click.option(
    "-c", "--config", "path", type=click.Path(path_type=Path), metavar="FILE", help="The configuration, TOML."
)
def run(path: Path | None) -> None:
    """Run the broker until it is told to stop.

    Without a file: anonymous MQTT on 127.0.0.1:1883, data in ~/.local/state/edge-broker.
    """
    config = load_or_exit(path, "edge-broker does not start: ")
    configure_logging(config.log.level, config.log.format)
    if path is None:
        _LOG.info("no configuration file: anonymous MQTT on 127.0.0.1:1883, data in %s", config.data_dir)
    with asyncio.Runner(loop_factory=loop_factory(config.runtime.loop)) as runner:
        raise SystemExit(runner.run(_serve(config, path)))


def loop_factory(choice: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """How the event loop is made; the configuration has been checked, so uvloop is there if it was asked for by name."""
    if choice != "asyncio":
        try:
            import uvloop
        except ImportError:
            _LOG.info("uvloop is not installed: running on asyncio's own event loop")
        else:
            return uvloop.new_event_loop
    return asyncio.new_event_loop


def _compose(config: Config) -> Broker:
    """The broker, with a bridge for each one configured; without any, the bridge's code stays out of memory."""
    from edge_broker.broker import Broker  # a wrong configuration is told sooner without it

    if not config.bridges:
        return Broker(config, bridges=[])
    from bridge import make_bridges

    return Broker(config, bridges=make_bridges(config.bridges, config.tracing, data_dir=config.data_dir))


async def _serve(config: Config, path: Path | None) -> int:
    """Start, serve until told to stop, stop; the exit code."""
    broker = _compose(config)
    service = Service(broker, config, lambda: load_config(path), Systemd())
    broker.commands["reload"] = service.answer_reload
    try:
        await service.start()
    except (EdgeBrokerError, OSError) as error:
        _LOG.error("edge-broker %s does not start: %s", __version__, explain_start_failure(error, config))
        return EXIT_RUNTIME
    return 0 if await service.serve() else EXIT_RUNTIME
