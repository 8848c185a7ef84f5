"""How `edge-broker bridge status` looks: a block of lines for each bridge, and the same looked at again and again.

rich is imported only for the live view. Colours are taken off by `click.echo` where there is no terminal.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import click

from edge_broker.cli.store_view import duration, size
from edge_broker.cli.text import count, plural, printable

_LABEL_WIDTH: Final = 14
_FAVOURED: Final = ("high", "normal", "low")
"""The priorities, in the order in which their messages go."""


def lines(bridges: list[dict[str, Any]], now: float) -> Iterator[str]:
    """What the command `bridges` answered; `now` in wall seconds."""
    for position, bridge in enumerate(bridges):
        if position:
            yield ""
        yield from _block(bridge, now)


def watch(look: Callable[[], list[dict[str, Any]]], every_seconds: float) -> None:
    """Show what `look` brings on the terminal, again and again."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    with Live(console=Console(), auto_refresh=False) as live:
        while True:
            live.update(Text.from_ansi("\n".join(lines(look(), time.time()))), refresh=True)
            time.sleep(every_seconds)


def _block(bridge: dict[str, Any], now: float) -> Iterator[str]:
    version = f", MQTT {bridge['version']}" if bridge["version"] else ""
    state = click.style(bridge["state"], fg="green" if bridge["connected"] else "yellow", bold=True)
    yield f"{click.style(bridge['name'], bold=True)}: {state}, {bridge['upstream']}{version}"
    yield _row("waiting", _waiting(bridge))
    if len(bridge["lanes"]) > 1:
        for lane in sorted(bridge["lanes"], key=lambda lane: _FAVOURED.index(lane["priority"])):
            yield _row(f"  {lane['priority']}", _lane(lane))
    yield _row("speed", _speed(bridge))
    if bridge["canary_percent"] is not None:
        yield _row("canary", f"{bridge['canary_percent']:g} % of the topics go to {bridge['name']}!canary")
    yield from _policy(bridge["policy"])
    yield _row(
        "sent",
        f"{count(sum(bridge['sent']))} (QoS 0: {count(bridge['sent'][0])}, 1: {count(bridge['sent'][1])},"
        f" 2: {count(bridge['sent'][2])}), acknowledged {count(bridge['acknowledged'])},"
        f" sent again {count(bridge['resent'])}",
    )
    if bridge.get("envelopes"):
        yield _row("envelopes", _envelopes(bridge["envelopes"]))
    late = f", {count(bridge['late'])} late" if bridge["late"] else ""
    yield _row("received", f"{count(sum(bridge['received']))}{late}")
    for label, losses in (("dropped", bridge["dropped"]), ("given up", bridge["given_up"])):
        if losses:
            yield _row(label, ", ".join(f"{count(number)} {reason}" for reason, number in losses.items()))
    if any(bridge["skipped"].values()):
        yield _row("announced", _announced(bridge["skipped"]))
    acknowledged_at = bridge["last_acknowledged_at"]
    if acknowledged_at is not None:
        yield _row("last answer", f"{duration(now - acknowledged_at)} ago")
    yield _row("connections", count(bridge["connects"]))
    if bridge["last_error"]:
        was = "" if not bridge["connected"] else " (over: it is connected now)"
        yield _row("last error", f"{printable(bridge['last_error'])}{was}")
        if bridge["last_hint"]:
            yield _row("", printable(bridge["last_hint"]))


def _announced(skipped: dict[str, int]) -> str:
    """What the ingester was told not to wait for."""
    said = f"{count(skipped['announced'])} of what was dropped"
    if skipped["refused"]:
        said += f", the upstream refused to take it for {count(skipped['refused'])}"
    return said + (", more is to be" if skipped["waiting"] else "")


_LEASES: Final = {
    "off": "by themselves, towards MQTT 3.1.1",
    "none": "no ingester has announced itself",
    "expired": "the ingester {} has not announced itself in time",
    "withdrawn": "the ingester {} takes none any more",
    "unfit": "the ingester {} does not understand ours",
    "refused": "the upstream does not let us hear of an ingester",
    "held": "the ingester {} takes them",
}


def _envelopes(envelopes: dict[str, Any]) -> str:
    lease = _LEASES[envelopes["lease"]].format(printable(envelopes["ingester"]))
    if not envelopes["sent"]:
        return lease
    before, after = envelopes["bytes_before"], envelopes["bytes_after"]
    apart = f", {count(envelopes['fallen_apart'])} fell apart" if envelopes["fallen_apart"] else ""
    return (
        f"{count(envelopes['sent'])} with {plural(envelopes['messages'], 'message')}, {size(before)} as {size(after)}"
        f" ({after / before:.0%}){apart}; {lease}"
    )


def _policy(policy: dict[str, Any]) -> Iterator[str]:
    """What is not as it is where there is one upstream, no limit and no trouble."""
    upstreams = policy["upstreams"]
    if len(upstreams) > 1:
        for position, upstream in enumerate(upstreams):
            yield _row("" if position else "upstreams", _upstream(upstream))
        yield _row(
            "failovers", f"{count(policy['failovers'])}, left alone {plural(policy['ejections'], 'time')}"
        )
    if policy["breaker"] != "closed" or policy["breaker_opened"]:
        yield _row("breaker", f"{policy['breaker']}, opened {plural(policy['breaker_opened'], 'time')}")
    if policy["drain_seconds"]:
        left = plural(policy["draining"], "message")
        yield _row("draining", f"{left} that waited, in {duration(policy['drain_seconds'])} at their rate")
    if policy["month_bytes"]:
        used, whole = policy["month_used_bytes"], policy["month_bytes"]
        yield _row("this month", f"{size(used)} of {size(whole)} ({used / whole:.0%})")


def _upstream(upstream: dict[str, Any]) -> str:
    answers = ", ".join(f"{kind.upper()} {1000 * s:.0f} ms" for kind, s in upstream["seconds"].items())
    marks = ("chosen" if upstream["chosen"] else "", "left alone" if upstream["ejected"] else "", answers)
    said = ", ".join(mark for mark in marks if mark)
    return f"{printable(upstream['url'])} (priority {upstream['priority']})" + (f": {said}" if said else "")


def _row(label: str, text: str) -> str:
    return f"  {label:<{_LABEL_WIDTH}}{text}"


def _waiting(bridge: dict[str, Any]) -> str:
    return f"{_lane(bridge)}; {count(bridge['in_flight'])} under way" if bridge["depth"] else "nothing"


def _lane(lane: dict[str, Any]) -> str:
    if not lane["depth"]:
        return "nothing"
    age = lane["oldest_age_seconds"]
    since = "" if age is None else f", the oldest for {duration(age)}"
    return f"{plural(lane['depth'], 'message')}, {size(lane['bytes'])}{since}"


def _speed(bridge: dict[str, Any]) -> str:
    rate, seconds = bridge["drain_per_second"], bridge["drained_in_seconds"]
    if seconds is not None:
        return f"{count(rate)} messages/s fewer: gone in about {duration(seconds)}"
    if rate < 0:
        return f"{count(-rate)} messages/s more: it grows"
    return "the backlog stands still" if bridge["depth"] else "there is no backlog"
