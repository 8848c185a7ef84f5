"""How a trace looks: a line for each step, or the way of one message as a picture. Colours are taken off by `click.echo`
where there is no terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import click

from edge_broker.cli.store_view import duration, size
from edge_broker.cli.text import clock, plural, printable

_COLOURS: Final = {
    "accepted": "cyan",
    "sent": "blue",
    "written": "yellow",
    "acknowledged": "green",
    "answered": "green",
    "elided": "green",
    "refused": "red",
    "dropped": "red",
    "expired": "red",
    "unanswered": "red",
    "waiting": "red",
}
_EVENT_WIDTH: Final = len("acknowledged")
_CLIENT_WIDTH: Final = 20
_TOPIC_WIDTH: Final = 28
_NOBODY: Final = "(nobody)"
"""The publisher of a will, or of what was published before the trace began."""
_MEANINGS: Final = {"elided": "never written: it was acknowledged in time", "written": "on disk, synced"}


def line(event: dict[str, Any]) -> str:
    """One step on one line: time, message, what, whom, topic, QoS, size, the rest."""
    rest = [f"queue #{event['queue_number']}"] if "queue_number" in event else []
    rest += [printable(event["detail"])] if "detail" in event else []
    return (
        f"{clock(event['at'])}  {'#' + str(event['message']):<6} {_styled(event['event'])}  "
        f"{_client(event):<{_CLIENT_WIDTH}}  {printable(event['topic']):<{_TOPIC_WIDTH}}  "
        f"QoS {event['qos']}  {size(event['payload_bytes']):>8}  {', '.join(rest)}"
    ).rstrip()


def remark(answer: dict[str, Any]) -> str:
    """What is said beside the steps: that it began, what was left out, how it ended."""
    if "tracing" in answer:
        tracing = answer["tracing"]
        whom = [f"client {printable(tracing['client'])}"] if tracing["client"] else []
        whom += [f"topic {printable(tracing['topic'])}"] if tracing["topic"] else []
        return f"following {', '.join(whom)} for {duration(tracing['seconds'])} (Ctrl-C ends it)"
    if "ended" in answer:
        skipped = f", {plural(answer['skipped'], 'step')} left out" if answer["skipped"] else ""
        return f"{plural(answer['messages'], 'message')}{skipped}: {answer['ended']}"
    return f"{plural(answer['skipped'], 'step')} left out: more than can be told in a second"


def picture(events: list[dict[str, Any]]) -> Iterator[str]:
    """The way of one message: its publisher first and last, between them each recipient with its steps."""
    if not events:
        return
    first = events[0]
    yield click.style(printable(first["topic"]), bold=True) + (
        f"   QoS {first['qos']}, {size(first['payload_bytes'])}, {clock(first['at'])}"
    )
    groups = _by_client(events)
    for position, (client, steps) in enumerate(groups):
        is_last = position == len(groups) - 1
        yield "│"
        yield f"{'└' if is_last else '├'}─ {client}"
        for step in steps:
            yield f"{' ' if is_last else '│'}    {_step(step, first['at'])}"


def _by_client(events: list[dict[str, Any]]) -> list[tuple[str, list[dict[str, Any]]]]:
    """Stretches of the publisher's steps and of each recipient's: who answers whom is seen from top to bottom."""
    publisher = events[0]["client"] if events[0]["event"] in ("accepted", "refused", "waiting") else None
    begins: list[dict[str, Any]] = []
    ends: list[dict[str, Any]] = []
    recipients: dict[str, list[dict[str, Any]]] = {}
    for event in events:
        if event["client"] != publisher or "queue_number" in event:
            recipients.setdefault(_client(event), []).append(event)
        elif event["event"] in ("answered", "unanswered"):
            ends.append(event)
        else:
            begins.append(event)
    groups = [(_client(begins[0]), begins)] if begins else []
    groups += recipients.items()
    return [*groups, (_client(ends[0]), ends)] if ends else groups


def _step(event: dict[str, Any], began_at: float) -> str:
    rest = [f"queue #{event['queue_number']}"] if event["event"] == "queued" else []
    rest += [printable(event["detail"])] if "detail" in event else []
    rest += [_MEANINGS[event["event"]]] if event["event"] in _MEANINGS else []
    after = f"+{(event['at'] - began_at) * 1000:,.1f} ms"
    return f"{after:>12}  {_styled(event['event'], pads=bool(rest))}  {', '.join(rest)}".rstrip()


def _client(event: dict[str, Any]) -> str:
    return printable(event["client"]) or _NOBODY


def _styled(what: str, pads: bool = True) -> str:
    return click.style(f"{what:<{_EVENT_WIDTH}}" if pads else what, fg=_COLOURS.get(what))
