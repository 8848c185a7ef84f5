"""The command line. Each command is a module of its own, imported when it is called: a running broker holds in memory what
it needs, and the demo's live view is not among that.
"""

from __future__ import annotations

import importlib.util
from typing import Final, NamedTuple

import click

from edge_broker import __version__

_EXAMPLES: Final = """\b
Examples:
  edge-broker run                          anonymous MQTT on 127.0.0.1:1883
  edge-broker run --config broker.toml     as the file says
  edge-broker check broker.toml            what the file would do, or what is wrong with it
  edge-broker status                       how the running broker is
  edge-broker trace --topic 'sensors/#'    what becomes of these messages
  edge-broker reference                    every key that the file may have
"""


class _Command(NamedTuple):
    module: str
    attribute: str
    summary: str


_COMMANDS: Final = {
    "run": _Command("edge_broker.cli.run", "run", "Run the broker."),
    "check": _Command(
        "edge_broker.cli.check", "check", "Say what is wrong with a configuration file, or what it does."
    ),
    "status": _Command("edge_broker.cli.status", "status", "How the running broker is, on one screen."),
    "trace": _Command("edge_broker.cli.trace", "trace", "Follow messages through the running broker."),
    "bridge": _Command(
        "edge_broker.cli.bridge", "bridge", "What the bridges of the running broker are doing."
    ),
    "reload": _Command(
        "edge_broker.cli.status", "reload", "Have the running broker read its configuration again."
    ),
    "passwd": _Command(
        "edge_broker.cli.passwd", "passwd", "Set, change or take away a password in a password file."
    ),
    "acl": _Command("edge_broker.cli.acl", "acl", "What an ACL file allows, and by which rule."),
    "pki": _Command("edge_broker.cli.pki", "pki", "A small CA: certificates for the broker and its devices."),
    "http-token": _Command(
        "edge_broker.cli.http_token", "http_token", "Make, list and take away the tokens of the HTTP port."
    ),
    "reference": _Command(
        "edge_broker.cli.reference", "reference", "Print every key of the configuration file."
    ),
    "store": _Command("edge_broker.cli.store", "store", "What the store holds, and whether it is sound."),
    "token": _Command("edge_broker.cli.token", "token", "Why a JSON Web Token is taken or refused."),
    "dead-letters": _Command(
        "edge_broker.cli.dead_letters",
        "dead_letters",
        "What queues let go without their recipients, and why.",
    ),
    "demo": _Command("edge_broker.cli.demo", "demo", "Sensors, broker, bridge and upstream on this machine."),
}


class _LazyGroup(click.Group):
    """Commands by name, imported when one is asked for; a module that is not installed is a command that is not there."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name, command in _COMMANDS.items() if importlib.util.find_spec(command.module)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        command = _COMMANDS[cmd_name]
        found = getattr(importlib.import_module(command.module), command.attribute)
        assert isinstance(found, click.Command)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, _COMMANDS[name].summary) for name in self.list_commands(ctx)])


@click.group(cls=_LazyGroup, epilog=_EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="edge-broker", message="%(prog)s %(version)s")
def main() -> None:
    """edge-broker: an MQTT broker for IoT gateways. What it acknowledged, it keeps."""
