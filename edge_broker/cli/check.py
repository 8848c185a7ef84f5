"""`edge-broker check FILE`: every mistake in a configuration file, or in a few lines what the broker would do with it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge_broker.cli.configuration import EXIT_CONFIG, load_or_exit
from edge_broker.config.http import HttpConfig
from edge_broker.config.listeners import ListenerConfig
from edge_broker.config.loading import ConfigMistakes
from edge_broker.config.model import Config
from edge_broker.errors import ConfigError

if TYPE_CHECKING:
    from bridge.config import BridgeConfig, RuleConfig
    from edge_broker.security.denied import Denied


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
def check(file: Path) -> None:
    """Say what is wrong with the configuration FILE, or what the broker would do with it.

    Certificates and other files that it names are opened, so run it as the user that runs the broker. Nothing is started.
    Exits with 0 if the file is right, with 2 if not.
    """
    config = load_or_exit(file, "")
    names = _count_names(file, config)
    roles = _count_roles(config)
    denied = _check_certificates(config)
    _check_audit(config)
    keys = _describe_keys(config)
    _read_http_tokens(config)
    key_id = _key_id(config)
    click.echo(f"{file}: OK")
    for line in describe(config):
        click.echo(f"  {line}")
    if names is not None:
        click.echo(f"  users   {names} in {config.security.password_file}")
    if keys is not None:
        click.echo(f"  tokens  {keys}")
    if roles is not None:
        click.echo(f"  acl     {roles} roles in {config.security.acl_file}")
    if denied is not None:
        counts = f"{len(denied.identities)} identities and {len(denied.serials)} certificates"
        click.echo(f"  denied  {counts} in {config.security.deny_file}")
    if config.audit.file is not None:
        click.echo(f"  audit   {config.audit.file}")
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


def _count_roles(config: Config) -> int | None:
    """How many roles the ACL has; every mistake in it, and the end with 2."""
    if config.security.acl_file is None:
        return None
    from edge_broker.config.acl_file import read_acl_file

    try:
        acl = read_acl_file(config.security.acl_file, [bridge.name for bridge in config.bridges])
    except ConfigMistakes as mistakes:
        click.echo(str(mistakes), err=True)
        raise SystemExit(EXIT_CONFIG) from None
    return len(acl.roles)


def _check_audit(config: Config) -> None:
    """That the audit log's folder is there, or is made at the start; else the end with 2, as the broker would not start."""
    file = config.audit.file
    if file is None or file.parent == config.data_dir or file.parent.is_dir():
        return
    hint = "make it, owned by the user that runs the broker"
    mistake = ConfigError("audit.file", f"{file.parent} is no folder", hint)
    click.echo(str(ConfigMistakes("audit", [mistake])), err=True)
    raise SystemExit(EXIT_CONFIG)


def _check_certificates(config: Config) -> Denied | None:
    """Read what the broker reads of deny list and revocation lists; what is wrong in them, and the end with 2.

    The deny list, where there is one.
    """
    from edge_broker.security.certificates import CertificateVetting
    from edge_broker.security.denied import Denied, DenyList
    from edge_broker.wiring import make_demands, make_deny_list

    mistakes = []
    denied = None
    try:
        denied = make_deny_list(config.security).now
    except ConfigError as mistake:
        mistakes.append(mistake)
    for listener in config.listeners:
        demands = make_demands(listener)
        try:
            if demands is not None:
                CertificateVetting(demands, DenyList(Denied()))
        except ConfigError as mistake:
            mistakes.append(mistake)
    for found in mistakes:
        click.echo(str(found), err=True)
    if mistakes:
        raise SystemExit(EXIT_CONFIG)
    return None if config.security.deny_file is None else denied


def _read_http_tokens(config: Config) -> None:
    """What is wrong with the tokens of HTTP, and the end with 2."""
    if config.http.token_file is None:
        return
    from edge_broker.security.http_tokens import read_http_tokens

    try:
        read_http_tokens(config.http.token_file)
    except ConfigError as mistake:
        click.echo(str(ConfigMistakes("http.token_file", [mistake])), err=True)
        raise SystemExit(EXIT_CONFIG) from None


def _describe_keys(config: Config) -> str | None:
    """The keys that verify tokens; what is wrong with them, and the end with 2."""
    security = config.security
    if not security.jwt_keys:
        return None
    from edge_broker.security.token_keys import read_token_keys

    try:
        found = read_token_keys(security.jwt_keys)
    except ConfigError as mistake:
        click.echo(str(ConfigMistakes("security.jwt_keys", [mistake])), err=True)
        raise SystemExit(EXIT_CONFIG) from None
    algorithms = ", ".join(sorted({key.algorithm for key in found.keys}))
    count = "1 key" if len(found.keys) == 1 else f"{len(found.keys)} keys"
    others = f", {found.passed_over} for other purposes passed over" if found.passed_over else ""
    return f"for {security.jwt_audience!r}, verified by {count} ({algorithms}){others}"


def describe(config: Config) -> Iterator[str]:
    """What the broker would do, a line for each thing that listens, keeps or leaves."""
    yield f"data    {config.data_dir}"
    for listener in config.listeners:
        yield f"listen  {listener.url}  {_who(listener, _what_is_proved(config))}"
    yield f"http    {_describe_http(config.http)}"
    for bridge in config.bridges:
        yield from _describe_bridge(bridge)
    yield f"log     {config.log.level} and worse, as {config.log.format}"


def _describe_http(http: HttpConfig) -> str:
    """Where it is, and who may look, in words."""
    if not http.bind:
        return "off"
    url = f"{'http' if http.certificate is None else 'https'}://{http.address}"
    who = "anyone on this machine"
    if http.token_file is not None:
        who = f"whoever has a token of {http.token_file}"
    elif http.address is not None and not http.address.is_loopback:
        who = "nobody"
    return f"{url}  {who}{'; health for anyone' if http.open_health and not who.startswith('any') else ''}"


def _what_is_proved(config: Config) -> str:
    """What clients may come in by instead of a certificate, in words; empty where there is nothing."""
    ways = [
        way
        for way, offered in (("password", config.security.password_file), ("token", config.security.jwt_keys))
        if offered
    ]
    return " or a ".join(ways)


def _who(listener: ListenerConfig, proved_by: str) -> str:
    """Who may connect, in words."""
    if listener.require_client_certificate:
        return _certified(listener)
    if not listener.anonymous and proved_by:
        who = f"clients with a {proved_by}"
        if listener.client_ca is not None:
            who += f" or a certificate of {listener.client_ca}"
        exposed = not listener.encrypted and not listener.address.is_loopback
        return f"{who}{f', {proved_by.split()[0].upper()}S UNENCRYPTED' if exposed else ''}"
    if not listener.anonymous:
        return f"{_certified(listener)}; others get as far as their CONNECT"
    if listener.address.is_loopback:
        return "anyone on this machine"
    return f"ANYONE who reaches it{'' if listener.encrypted else ', unencrypted'}"


def _certified(listener: ListenerConfig) -> str:
    named = f" named {' or '.join(listener.allowed_names)}" if listener.allowed_names else ""
    revoked = ", unless revoked" if listener.crl_files else ""
    return f"clients with a certificate of {listener.client_ca}{named}{revoked}"


def _describe_bridge(bridge: BridgeConfig) -> Iterator[str]:
    upstreams = ", ".join(str(place.where) for place in bridge.places)
    uplink = f", and as {bridge.main_line.client_id} for what goes up" if bridge.separate_uplink else ""
    yield f"bridge  {bridge.name}: {upstreams} as {bridge.client_id}{uplink}"
    for rule in bridge.out:
        yield f"          up    {' -> '.join(rule.sides_up)}{_more(rule)}"
    for rule in bridge.in_:
        yield f"          down  {' -> '.join(rule.sides_down)}{_more(rule)}"
    if bridge.envelopes.enabled:
        yield f"          up    in envelopes, while an ingester announces itself on {bridge.envelopes.lease_topic}"
    if bridge.canary is not None:
        canary = bridge.canary_line
        assert canary is not None
        upstreams = ", ".join(str(place.where) for place in canary.places)
        yield f"          {bridge.canary.percent:g} % of the topics go to {upstreams} as {canary.client_id}"
    if any(line.exposes_password for line in bridge.lines):
        yield "          WARNING: its password crosses the network unencrypted; use mqtts://"


def _more(rule: RuleConfig) -> str:
    """What else a rule says, of what is not the default."""
    said = [f", QoS {rule.qos} at most"]
    if rule.except_:
        said.append(f", but for {' and '.join(rule.except_)}")
    if rule.characters:
        said.append(f", with {', '.join(f'{old!r} as {new!r}' for old, new in rule.characters.items())}")
    if rule.retain == "clear":
        said.append(", never retained")
    if rule.expiry_seconds:
        said.append(f", for {rule.expiry_seconds} s")
    if rule.payload != "keep":
        said.append(f", {rule.payload.replace('_', ' ')} ({rule.unreadable} what cannot be)")
    if rule.max_age_seconds:
        said.append(f", no older than {rule.max_age_seconds:g} s")
    if rule.keep_latest:
        said.append(", the latest of each topic")
    if rule.ingested:
        said.append(", for an ingester")
    if not rule.envelope:
        said.append(", in no envelope with others")
    if rule.priority == "high":
        said.append(", before all others, in a spent month too")
    if rule.priority == "low":
        said.append(", behind all others")
    if rule.when_late != "mark":
        said.append(f", {rule.when_late} what is late")
    return "".join(said)
