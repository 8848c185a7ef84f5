"""How `edge-broker status` looks: one screen of plain lines. Colours are taken off by `click.echo` without a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import click

from edge_broker.cli.store_view import duration, size
from edge_broker.cli.text import count, plural, printable

_LABEL_WIDTH: Final = 10
_SHOWN_QUEUES: Final = 5


def lines(status: dict[str, Any]) -> Iterator[str]:
    """What the command `status` answered."""
    if status["ready"]:
        verdict = click.style("ready", fg="green", bold=True)
    else:
        verdict = click.style("NOT READY" if status["live"] else "NOT WORKING", fg="red", bold=True)
    yield (
        f"edge-broker {status['version']}: {verdict}, up for {duration(status['uptime_seconds'])}"
        f" (process {status['pid']})"
    )
    for problem in status["problems"]:
        yield click.style(f"  ! {problem['component']}: {printable(problem['problem'])}", fg="yellow")
        yield f"    {printable(problem['hint'])}"
    yield ""
    yield _row("listening", ", ".join(status["listeners"]["up"]) or "nowhere")
    for url in status["listeners"]["down"]:
        yield _row("", f"{url}: not yet")
    yield _row("clients", _clients(status["clients"]))
    yield from _messages(status["messages"])
    yield from _queues(status["queues"])
    yield from _disk(status["store"])
    for bridge in status["bridges"]:
        yield _row("bridge", bridge_line(bridge))


def bridge_line(bridge: dict[str, Any]) -> str:
    """One bridge in one line."""
    state = click.style(bridge["state"], fg="green" if bridge["connected"] else "yellow")
    return (
        f"{bridge['name']}: {state}, {bridge['upstream']}, {plural(bridge['depth'], 'message')} to send"
        f"{_drained(bridge)}"
    )


def _drained(bridge: dict[str, Any]) -> str:
    seconds = bridge["drained_in_seconds"]
    return "" if seconds is None else f", gone in about {duration(seconds)}"


def _row(label: str, text: str) -> str:
    return f"{label:<{_LABEL_WIDTH}}{text}"


def _clients(clients: dict[str, int]) -> str:
    return (
        f"{count(clients['connected'])} connected, {count(clients['away'])} away,"
        f" {plural(clients['subscriptions'], 'subscription')}"
    )


def _messages(messages: dict[str, Any]) -> Iterator[str]:
    yield _row(
        "messages",
        f"{count(messages['received_per_second'])}/s in, {count(messages['sent_per_second'])}/s out"
        f" (since the start {count(messages['received'])} in, {count(messages['sent'])} out),"
        f" {count(messages['retained'])} retained",
    )
    losses = [f"{count(number)} {reason}" for reason, number in messages["dropped"].items()]
    losses += [f"{count(messages['denied'])} not allowed"] if messages["denied"] else []
    if losses:
        yield _row("", f"not delivered: {', '.join(losses)}")


def _queues(queues: list[dict[str, Any]]) -> Iterator[str]:
    if not queues:
        yield _row("queues", "nothing waits")
    for position, queue in enumerate(queues[:_SHOWN_QUEUES]):
        age = queue["oldest_age_seconds"]
        since = "" if age is None else f", the oldest for {duration(age)}"
        name = printable(queue["name"])
        yield _row("" if position else "queues", f"{name}: {plural(queue['messages'], 'message')}{since}")
    if len(queues) > _SHOWN_QUEUES:
        yield _row("", "and more: edge-broker store status")


def _disk(store: dict[str, Any]) -> Iterator[str]:
    parts = [] if store["bytes"] is None else [f"the store takes {size(store['bytes'])}"]
    if store["written_today_bytes"] is not None:
        parts.append(f"written today {size(store['written_today_bytes'])}")
    if store["card_years"] is not None:
        parts.append(f"the card lasts {_years(store['card_years'])} at this rate")
    parts.append(plural(store["commits"], "commit"))
    yield _row("disk", ", ".join(parts))


def _years(years: float) -> str:
    return "more than 100 years" if years > 100 else f"{count(round(years, 1))} years"
