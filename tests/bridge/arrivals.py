"""A thousand gateways that come back to one upstream, each with a policy of its own: how many arrive in the busiest second.

`python -m tests.bridge.arrivals docs/bridge.md` writes the table there anew.
"""

import heapq
import random
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from bridge.config import BridgeConfig
from bridge.places import Upstream
from bridge.policy import Policy
from bridge.upstreams import Member

GATEWAYS = 1000
SPREADS = (0.0, 60.0, 600.0)
REFUSED_AFTER_SECONDS = 0.05
UPSTREAM = Upstream("broker", 8883, True)
BEGIN = "<!-- arrivals: written by `python -m tests.bridge.arrivals docs/bridge.md` -->"
END = "<!-- end of arrivals -->"


class Outage(NamedTuple):
    """`connected_before`: the gateways were, and lost their connections at 0; else they start then."""

    what: str
    seconds: float
    connected_before: bool


OUTAGES = (
    Outage("the upstream restarts: away for 1 s", 1.0, True),
    Outage("the upstream is away for 10 min", 600.0, True),
    Outage("power comes back to all gateways at once", 0.0, False),
)


class Arrivals(NamedTuple):
    """`busiest`: connections in the busiest second. `all_after`: seconds from the upstream's return to the last gateway."""

    busiest: int
    all_after: float


def simulate(outage: Outage, spread_seconds: float, seed: int = 1) -> Arrivals:
    """Every gateway's policy asked what to do next, until each is connected."""
    chance = random.Random(seed)
    config = BridgeConfig(arrival_spread_seconds=spread_seconds)
    waiting: list[tuple[float, int, Policy]] = []
    for number in range(GATEWAYS):
        policy = Policy(config, [Member(UPSTREAM)], chance.random)
        if outage.connected_before:
            policy.on_online(policy.next_attempt(-3600.0), -3600.0)
            policy.on_lost(UPSTREAM, 3600.0, True, False, 0.0)
        waiting.append((policy.next_attempt(0.0).delay_seconds, number, policy))
    heapq.heapify(waiting)
    arrived: list[float] = []
    while waiting:
        now, number, policy = heapq.heappop(waiting)
        attempt = policy.next_attempt(now)
        if now >= outage.seconds:
            policy.on_online(attempt, now)
            arrived.append(now)
            continue
        now += REFUSED_AFTER_SECONDS
        policy.on_failed(attempt, "unreachable", now)
        heapq.heappush(waiting, (now + policy.next_attempt(now).delay_seconds, number, policy))
    seconds = Counter(int(moment) for moment in arrived)
    return Arrivals(max(seconds.values()), max(arrived) - outage.seconds)


def table() -> str:
    """Markdown: a row per outage, a column per spread."""
    heads = "".join(f" `arrival_spread_seconds = {spread:g}` |" for spread in SPREADS)
    rows = [f"| {GATEWAYS:,} gateways, and |{heads}", "|---|" + "---|" * len(SPREADS)]
    for outage in OUTAGES:
        cells = [simulate(outage, spread) for spread in SPREADS]
        texts = "".join(f" {cell.busiest}, all within {cell.all_after:.0f} s |" for cell in cells)
        rows.append(f"| {outage.what} |{texts}")
    return "\n".join(rows)


def replace_table(document: str) -> str:
    """`document` with the table between its markers."""
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    assert begin, "no place for the table"
    assert end, "no place for the table"
    return f"{before}{BEGIN}\n\n{table()}\n\n{END}{after}"


if __name__ == "__main__":
    page = Path(sys.argv[1])
    page.write_text(replace_table(page.read_text("utf-8")), "utf-8")
