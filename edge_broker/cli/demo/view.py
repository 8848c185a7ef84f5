"""What a person sees of the demo: a few lines that stay in place on a terminal, one line a second elsewhere."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text


@dataclass(frozen=True, slots=True)
class Moment:
    """How the demo stands. Counts since its start, except `per_second` and `queued`; `last_ago_seconds` None: never."""

    elapsed_seconds: float
    act: str
    devices: int
    sent: int
    per_second: float
    queued: int
    arrived: int
    upstream_connected: bool
    last_ago_seconds: float | None


class View:
    """Shows moments; a context manager, so that the terminal is left as it was."""

    def __init__(self, console: Console, title: str) -> None:
        self._console = console
        self._title = title
        self._deepest = 1
        self._live = (
            Live(console=console, auto_refresh=False, transient=False) if console.is_terminal else None
        )

    def __enter__(self) -> View:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, moment: Moment) -> None:
        """Show how things stand now."""
        self._deepest = max(self._deepest, moment.queued)
        if self._live is not None:
            self._live.update(self._table(moment), refresh=True)
        else:
            self._console.print(self._line(moment), highlight=False, soft_wrap=True)

    def _table(self, moment: Moment) -> Table:
        table = Table(title=self._title, title_justify="left", show_header=False, box=None, padding=(0, 2))
        table.add_column(style="bold", min_width=20)
        table.add_column(min_width=48)
        link = Text("connected", "green") if moment.upstream_connected else Text("away", "bold red")
        bar = "█" * round(36 * moment.queued / self._deepest) if moment.queued else ""
        table.add_row("now", f"{moment.act}   ({moment.elapsed_seconds:.0f} s)")
        table.add_row(
            "sensors", f"{moment.devices} devices, {moment.per_second:.0f} readings/s, {moment.sent} so far"
        )
        table.add_row("upstream", link)
        table.add_row("queued on disk", Text(f"{moment.queued:<6} ") + Text(bar, "yellow"))
        table.add_row("arrived upstream", str(moment.arrived))
        table.add_row("last acknowledged", _ago(moment.last_ago_seconds))
        return table

    def _line(self, moment: Moment) -> str:
        return (
            f"{moment.elapsed_seconds:4.0f} s  in {moment.per_second:.0f}/s ({moment.sent})  queued {moment.queued}  "
            f"upstream {'connected' if moment.upstream_connected else 'away'}, arrived {moment.arrived}, "
            f"last {_ago(moment.last_ago_seconds)}  {moment.act}"
        )


def _ago(seconds: float | None) -> str:
    return "never" if seconds is None else f"{max(0.0, seconds):.1f} s ago"
