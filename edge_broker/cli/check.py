"""`edge-broker check FILE`: every mistake in a configuration file, or in a few lines what the broker would do with it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge_broker.cli.configuration import EXIT_CONFIG, load_or_exit
from edge_broker.config.loading import ConfigMistakes
from edge_broker.config.model import Config, ListenerConfig

if TYPE_CHECKING:
    from bridge.config import BridgeConfig, RuleConfig


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
def check(file: Path) -> None:
    """Say what is wrong with the configuration FILE, or what the broker would do with it.

    Certificates and other files that it names are opened, so run it as the user that runs the broker. Nothing is started.
    Exits with 0 if the file is right, with 2 if not.
    """
    config = load_or_exit(file, "")
    names = _count_names(file, config)
    key_id = _key_id(config)
    click.echo(f"{file}: OK")
    for line in describe(config):
        click.echo(f"  {line}")
    if names is not None:
        click.echo(f"  users   {names} in {config.security.password_file}")
    if key_id is not None:
        click.echo(f"  key     messages on disk are encrypted (key {key_id})")


def _key_id(config: Config) -> str | None:
    """The id of the key that messages are encrypted with; a key that will not do, and the end with 2."""
    from edge_broker.errors import StoreError
    from edge_broker.wiring import make_vault

    store = config.store
    if store.encryption_key_credential and not os.environ.get("CREDENTIALS_DIRECTORY"):
        return "of a systemd credential, which is only there for the service"
    try:
        return make_vault(config).key_id
    except StoreError as error:
        click.echo(str(error), err=True)
        raise SystemExit(EXIT_CONFIG) from None


def _count_names(file: Path, config: Config) -> int | None:
    """How many have a password; every mistake in the password file, and the end with 2."""
    if config.security.password_file is None:
        return None
    from edge_broker.security.passwords import PasswordFileMistakes, read_passwords

    try:
        return len(read_passwords(config.security.password_file).users)
    except PasswordFileMistakes as mistakes:
        found = list(mistakes.mistakes)
        click.echo(str(ConfigMistakes(str(config.security.password_file), found)), err=True)
        raise SystemExit(EXIT_CONFIG) from None


def describe(config: Config) -> Iterator[str]:
    """What the broker would do, a line for each thing that listens, keeps or leaves."""
    yield f"data    {config.data_dir}"
    for listener in config.listeners:
        yield f"listen  {listener.url}  {_who(listener, config.security.password_file is not None)}"
    yield f"http    {config.http.bind or 'off'}"
    for bridge in config.bridges:
        yield from _describe_bridge(bridge)
    yield f"log     {config.log.level} and worse, as {config.log.format}"


def _who(listener: ListenerConfig, has_passwords: bool) -> str:
    """Who may connect, in words."""
    if listener.require_client_certificate:
        return f"clients with a certificate of {listener.client_ca}"
    if not listener.anonymous and has_passwords:
        who = "clients with a password"
        if listener.client_ca is not None:
            who += f" or a certificate of {listener.client_ca}"
        exposed = not listener.encrypted and not listener.address.is_loopback
        return f"{who}{', PASSWORDS UNENCRYPTED' if exposed else ''}"
    if not listener.anonymous:
        return f"clients with a certificate of {listener.client_ca}; others get as far as their CONNECT"
    if listener.address.is_loopback:
        return "anyone on this machine"
    return f"ANYONE who reaches it{'' if listener.encrypted else ', unencrypted'}"


def _describe_bridge(bridge: BridgeConfig) -> Iterator[str]:
    upstreams = ", ".join(str(upstream) for upstream in bridge.upstreams)
    yield f"bridge  {bridge.name}: {upstreams} as {bridge.client_id}"
    for rule in bridge.out:
        yield f"          up    {rule.local_filter} -> {rule.remote_filter}{_qos(rule)}"
    for rule in bridge.in_:
        yield f"          down  {rule.remote_filter} -> {rule.local_filter}{_qos(rule)}"
    if bridge.exposes_password:
        yield "          WARNING: its password crosses the network unencrypted; use mqtts://"


def _qos(rule: RuleConfig) -> str:
    return f", QoS {rule.qos} at most"
