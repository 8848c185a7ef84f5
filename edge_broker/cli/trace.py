"""`edge-broker trace`: follows messages through a running broker and says what becomes of each.

Thin: the broker follows, `trace_view` says how it looks. Ends with 0, also when it is interrupted; with 1 where the broker
cannot be asked.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import click

from edge_broker.cli import trace_view
from edge_broker.cli.control import follow, socket_path, which_broker

_EPILOG: Final = """\b
What each step means:
  accepted      the broker took it from its publisher       refused   it did not, and says why
  queued        it has a place in a durable queue           written   it is on the disk, synced
  sent          it went out to the recipient                received  QoS 2: the recipient has it
  acknowledged  the recipient answered for good             elided    so soon that it was never written
  expired       too old when its turn came                  dropped   not delivered, and why
  answered      its publisher got its PUBACK or PUBREC

\b
Examples:
  edge-broker trace --topic 'sensors/#'
  edge-broker trace --topic sensors/porch/temperature --count 1
  edge-broker trace --client porch --seconds 600 --json > porch.jsonl

Sizes are shown, never payloads. The broker does a little more work while a trace runs, and tells 200 steps a second at
most: what is left out is counted. One trace at a time.
"""


@click.command(epilog=_EPILOG)
@click.option("--client", metavar="ID", help="What this client publishes, and what is delivered to it. A bridge is "
              "`bridge:` and its name.")  # fmt: skip
@click.option("--topic", metavar="FILTER", help="Messages of the topics that match.")
@click.option("--seconds", type=click.IntRange(1, 3600), metavar="N", help="For how long, 60 if not said.")
@click.option("--count", type=click.IntRange(1, 10_000), metavar="N", help="End when so many messages have arrived, or "
              "wait on the disk. With 1: one picture of its way.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="For programs: one object a line.")
@which_broker
def trace(
    client: str | None,
    topic: str | None,
    seconds: int | None,
    count: int | None,
    as_json: bool,
    config: Path | None,
    data_dir: Path | None,
) -> None:
    """Follow messages through the running broker: who published, who got it, what was written, why not.

    Give --client or --topic, or both.
    """
    if not client and not topic:
        raise click.UsageError("say what to follow: --client ID or --topic FILTER")
    answers = follow(
        socket_path(config, data_dir), "trace", client=client, topic=topic, seconds=seconds, count=count
    )
    try:
        if as_json:
            _print_json(answers)
        elif count == 1:
            _print_picture(answers)
        else:
            _print_lines(answers)
    except KeyboardInterrupt:
        click.echo(err=True)


def _print_json(answers: Iterator[dict[str, Any]]) -> None:
    for answer in answers:
        if "tracing" in answer:
            click.echo(trace_view.remark(answer), err=True)
        else:
            click.echo(json.dumps(answer))


def _print_lines(answers: Iterator[dict[str, Any]]) -> None:
    for answer in answers:
        if "event" in answer:
            click.echo(trace_view.line(answer))
        else:
            click.echo(trace_view.remark(answer), err=True)


def _print_picture(answers: Iterator[dict[str, Any]]) -> None:
    """Of one message; also where it was interrupted on its way."""
    events: list[dict[str, Any]] = []
    try:
        for answer in answers:
            if "event" in answer:
                events.append(answer)
            elif "ended" not in answer or not events:
                click.echo(trace_view.remark(answer), err=True)
    finally:
        for line in trace_view.picture(events):
            click.echo(line)
