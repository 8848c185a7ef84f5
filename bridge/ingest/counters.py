"""What the ingester counts: since its database was made, written with each batch, so that a crash counts nothing twice."""

from __future__ import annotations

import msgspec


class Counters(msgspec.Struct):
    """Messages, but where it says otherwise. `taken`: what the cluster sent, envelopes as one. `written`: to the output.

    `duplicates` were dropped, `device_duplicates` for their device's own number; `without_origin` and `untracked` passed
    with whatever duplicates they had. `already_there`: what the output's table had already. `rejected`: by reason, what
    could not be unpacked, or was refused by the target. `forgotten_lanes`: lanes and spools given up at a limit.
    """

    taken: int = 0
    envelopes: int = 0
    written: int = 0
    duplicates: int = 0
    device_duplicates: int = 0
    without_origin: int = 0
    untracked: int = 0
    skipped: int = 0
    already_there: int = 0
    forgotten_lanes: int = 0
    commits: int = 0
    rejected: dict[str, int] = {}

    def reject(self, reason: str) -> None:
        """Count one rejected; `reason` is of a fixed vocabulary."""
        self.rejected[reason] = self.rejected.get(reason, 0) + 1
