"""Lanes and what is marked: who a bridge is to its messages follows from the store and the configuration."""

from __future__ import annotations

import pytest

from bridge.config import BridgeConfig
from bridge.marking import find_lane, make_marks
from edge_broker.core.ops import Snapshot
from edge_broker.core.pending import Pending


def snapshot(lanes: dict[str, str]) -> Snapshot:
    return Snapshot(1, [], [], {}, dict.fromkeys(lanes, 7), [], [], 8, lanes=lanes)


def test_a_lane_is_made_once_and_kept() -> None:
    pending = Pending(1, 1000)
    assert find_lane("cloud", 7, snapshot({}), pending, lambda: 0.5) == "cloud-80000000"
    batch = pending.seal().batch
    assert batch.outboxes == [(7, "cloud/80000000")]
    again = Pending(2, 1000)
    assert find_lane("cloud", 7, snapshot({"cloud": "80000000"}), again, lambda: 0.9) == "cloud-80000000"
    assert again.seal().batch.outboxes == []


def test_another_outbox_gets_another_lane() -> None:
    pending = Pending(1, 1000)
    one = find_lane("cloud", 7, snapshot({"other": "1"}), pending, lambda: 0.1)
    other = find_lane("cloud", 7, snapshot({}), pending, lambda: 0.2)
    assert one != other


@pytest.mark.parametrize(
    ("origin", "max_hops", "up", "down", "limit"),
    [
        (True, 8, True, True, True),
        (True, 0, True, False, False),
        (False, 8, True, True, True),
        (False, 0, False, False, False),
    ],
)
def test_what_is_not_configured_is_not_made(
    origin: bool, max_hops: int, up: bool, down: bool, limit: bool
) -> None:
    config = BridgeConfig(urls=("mqtt://h",), origin=origin, max_hops=max_hops)
    marks = make_marks(config, "cloud-1", 1)
    assert (marks.up is not None, marks.down is not None, marks.limit is not None) == (up, down, limit)
