"""What a person sees of the demo, on a terminal and in a file."""

from __future__ import annotations

import io
from dataclasses import replace

from rich.console import Console

from edge_broker.cli.demo.view import Moment, View

FLOWING = Moment(
    elapsed_seconds=3.2,
    act="readings flow",
    devices=10,
    sent=150,
    per_second=50.0,
    queued=0,
    arrived=150,
    upstream_connected=True,
    last_ago_seconds=0.04,
)
CUT = replace(FLOWING, act="the upstream is down", queued=70, upstream_connected=False, last_ago_seconds=1.4)


def _shown(console: Console, *moments: Moment) -> str:
    with View(console, "the demo") as view:
        for moment in moments:
            view.show(moment)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_file_gets_a_line_a_moment() -> None:
    lines = _shown(Console(file=io.StringIO(), width=200), FLOWING, CUT).splitlines()
    assert lines[0] == (
        "   3 s  in 50/s (150)  queued 0  upstream connected, arrived 150, last 0.0 s ago  readings flow"
    )
    assert "queued 70" in lines[1]
    assert "upstream away" in lines[1]


def test_a_terminal_gets_a_table_with_a_bar_of_the_backlog() -> None:
    shown = _shown(
        Console(file=io.StringIO(), width=100, force_terminal=True, color_system=None), FLOWING, CUT
    )
    assert "the demo" in shown
    assert "70" in shown
    assert "█" in shown
    assert "away" in shown


def test_before_the_first_arrival_it_says_never() -> None:
    never = replace(FLOWING, last_ago_seconds=None)
    assert "last never" in _shown(Console(file=io.StringIO(), width=200), never)
