"""How sizes, ages and times read."""

from __future__ import annotations

import pytest

from edge_broker.cli.store_view import duration, size, status_lines
from edge_broker.store.status import QueueStatus, SessionStatus, SetAside, StoreStatus


@pytest.mark.parametrize(
    ("count", "said"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_949, "999.9 kB"), (999_960, "1.0 MB"), (4_200_000_000, "4.2 GB"),
     (7_500_000_000_000_000, "7500.0 TB")],
)  # fmt: skip
def test_size(count: int, said: str) -> None:
    assert size(count) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(-5, "0 s"), (59.9, "59 s"), (61, "1 min 1 s"), (7_260, "2 h 1 min"), (200_000, "2 d 7 h")],
)
def test_duration(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_lines_for_a_pipe() -> None:
    queue = QueueStatus("bridge:cloud", 3, 5, 9, 900.0, 2000.0, 2, 1500, 2)
    session = SessionStatus("display", "", 0xFFFFFFFF, None, False, 2, 0)
    status = StoreStatus(
        "/data",
        None,
        1,
        7,
        4096,
        0,
        0,
        0,
        [queue],
        [session],
        0,
        0,
        [],
        [SetAside("broker.db.damaged-x", 400.0, 2048)],
    )
    assert list(status_lines(status, 1000.0)) == [
        "/data: no broker runs on it",
        "file 4.1 kB (0 B free inside), write-ahead log 0 B, reserve 0 B",
        "schema 1, epoch 7",
        "retained messages: 0, 0 B",
        "set aside as damaged 10 min 0 s ago: broker.db.damaged-x, 2.0 kB",
        # the newest is from the future: the clock was set back
        "bridge:cloud: waiting 3, numbers 5 to 9, 2 lost, oldest 1 min 40 s, newest 1970-01-01T00:33:20+00:00,"
        " on disk 1.5 kB",
        "client display: identity -, away since -, expires after never, subscriptions 2",
    ]
