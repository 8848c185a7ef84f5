"""`edge-broker acl`: what an ACL file says, without a broker: whether it is right, who may do what, and by which rule."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from edge_broker.cli.configuration import EXIT_CONFIG
from edge_broker.errors import ConfigError, MqttError

if TYPE_CHECKING:
    from edge_broker.core.ports import Principal
    from edge_broker.security.acl import Acl
    from edge_broker.security.acl_decisions import Decision

EXIT_DENIED: Final = 1
_EXAMPLES: Final = """\b
Examples:
  edge-broker acl check acl.toml
  edge-broker acl explain acl.toml --identity cellar publish sensors/cellar/temperature
  edge-broker acl explain acl.toml --identity cellar publish sensors/cellar/state --qos 1 --retain
  edge-broker acl explain acl.toml --identity anna --group staff subscribe 'sensors/#'
  edge-broker acl explain acl.toml --identity anna receive '$SYS/broker/uptime'
  edge-broker acl explain acl.toml --bridge cloud receive sensors/cellar/temperature
"""
_VERBS: Final = {"publish": "publish to", "subscribe": "subscribe to", "receive": "receive"}


@click.group(epilog=_EXAMPLES)
def acl() -> None:
    """What an ACL file allows, and why."""


@acl.command()
@click.argument("file", type=click.Path(path_type=Path))
def check(file: Path) -> None:
    """Say what is wrong with the ACL in FILE, or whom it knows. Exits with 0 if it is right, with 2 if not."""
    rules = _read(file)
    click.echo(f"{file}: OK")
    for line in describe(rules):
        click.echo(f"  {line}")


def describe(rules: Acl) -> list[str]:
    """What there is in it, a line each."""
    wide = "get what is allowed of them" if rules.filters_wide else "are refused"
    return [
        f"roles       {', '.join(rules.roles) or 'none: nobody may do anything'}",
        f"identities  {len(rules.identities)}",
        f"groups      {len(rules.groups)}",
        f"bridges     {', '.join(rules.bridges) or 'none is restricted'}",
        f"subscriptions that are too wide {wide}",
    ]


@acl.command(epilog=_EXAMPLES.replace("  edge-broker acl check acl.toml\n", ""))
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("action", type=click.Choice(list(_VERBS)))
@click.argument("topic")
@click.option(
    "--identity", help="Who the client is proved to be: its certificate's name, its user name, anonymous."
)
@click.option("--client-id", default="", help="Its client identifier.")
@click.option("--username", default="", help="Its user name, where that is its identity.")
@click.option(
    "--group", "groups", multiple=True, help="A group that it is proved to be in; may be given repeatedly."
)
@click.option("--bridge", default="", help="A bridge of the broker itself, instead of --identity.")
@click.option(
    "--qos", type=click.IntRange(0, 2), default=0, help="Of the message or the subscription; 0 if not given."
)
@click.option("--retain", is_flag=True, help="The message is to be retained.")
def explain(
    file: Path,
    action: str,
    topic: str,
    identity: str | None,
    client_id: str,
    username: str,
    groups: tuple[str, ...],
    bridge: str,
    qos: int,
    retain: bool,
) -> None:
    """Say whether a client may, by the ACL in FILE, and which rule decides.

    ACTION is publish, subscribe or receive. TOPIC is a topic, for subscribe a topic filter, also one with $share/NAME/
    before it. Exits with 0 if it is allowed, with 1 if not, with 2 if FILE is wrong.
    """
    from edge_broker.core.ports import Principal

    if (identity is None) == (not bridge):
        raise click.UsageError("give --identity or --bridge")
    if username and username != identity:
        raise click.UsageError(
            "a user name counts only where it is the identity: leave it out, or give it as --identity"
        )
    if retain and action != "publish":
        raise click.UsageError("--retain is of messages that are published")
    principal = Principal(identity or f"bridge:{bridge}", client_id, username, groups, bridge)
    is_allowed, lines = answer(_read(file), principal, action, topic, qos, retain)
    for line in lines:
        click.echo(line)
    raise SystemExit(0 if is_allowed else EXIT_DENIED)


def answer(
    rules: Acl, principal: Principal, action: str, topic: str, qos: int, retain: bool
) -> tuple[bool, list[str]]:
    """Whether it is allowed, and why, in lines. `UsageError` for what is no topic."""
    from edge_broker.core.ports import NEVER
    from edge_broker.security.acl import rules_for
    from edge_broker.security.acl_decisions import AclAuthorizer, explanation

    _check_topic(action, topic)
    permissions = AclAuthorizer(rules).permissions_of(principal)
    if permissions is None:
        return True, [
            f"allowed: the ACL does not name the bridge {principal.bridge!r}, which may do what its rules say"
        ]
    decision: Decision
    if action == "publish":
        from edge_broker.core.delayed import target_of  # permission is asked for the topic behind the delay

        decision = permissions.decide_publish(target_of(topic), retain)
    elif action == "subscribe":
        from edge_broker.wire.topics import split_share

        share_name, topic_filter = split_share(topic)
        decision = permissions.decide_subscribe(topic_filter, bool(share_name))
    else:
        decision = permissions.decide_receive(topic)
    is_allowed = decision.qos != NEVER and (qos <= decision.qos or action != "publish")
    verb = "publish a retained message to" if retain else _VERBS[action]
    lines = [explanation(principal, verb, topic, decision)]
    if decision.qos != NEVER and qos > decision.qos:
        lines.append(
            f"QoS {qos} is more: {'refused' if not is_allowed else f'QoS {decision.qos} is what it gets'}"
        )
    roles = [f"{role} ({why})" for role, why in permissions.roles.items()]
    lines.append(f"roles: {', '.join(roles) or 'none'}")
    if not principal.client_id and any("{client_id}" in rule.pattern for rule in rules_for(rules, principal)):
        lines.append("some of its rules have {client_id}, and there is no --client-id here")
    return is_allowed, [
        f"{'allowed' if is_allowed else 'denied'}: {lines[0]}",
        *(f"  {line}" for line in lines[1:]),
    ]


def _check_topic(action: str, topic: str) -> None:
    from edge_broker.wire.topics import check_topic_filter, check_topic_name

    try:
        if action == "subscribe":
            check_topic_filter(topic)
        else:
            check_topic_name(topic)
    except MqttError as error:
        raise click.UsageError(f"TOPIC {topic!r}: {error.detail}") from None


def _read(file: Path) -> Acl:
    """The rules in `file`; every mistake in it, and the end with 2."""
    from edge_broker.config.acl_file import read_acl_file
    from edge_broker.wiring import make_acl

    try:
        return make_acl(read_acl_file(file))
    except ConfigError as mistakes:
        click.echo(str(mistakes), err=True)
        raise SystemExit(EXIT_CONFIG) from None
