"""Many clients that come back at once, small: whoever is connected does not notice, and who was there is in at once.

`python -m tests.security.storm 2000` is the same in full.
"""

from __future__ import annotations

from pathlib import Path

from tests.security.storm import measure

CLIENTS = 60
IN_FULL = 2_000


async def test_a_reconnect_storm(tmp_path: Path) -> None:
    figures = await measure(tmp_path, CLIENTS, quiet_probes=200)
    assert figures.cold < 0.1 + 2 * figures.quiet, figures
    assert figures.warm < 0.1 + 2 * figures.quiet, figures
    assert figures.warm_all < 3, figures
    assert figures.warm_cpu / CLIENTS * IN_FULL < 3, figures
    assert figures.cold_cpu / 2 / CLIENTS * IN_FULL < 60, "on two threads"
