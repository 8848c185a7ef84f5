"""Ten power cuts and ten kills under load: nothing acknowledged is lost, nothing of QoS 2 comes twice.

`make torture ROUNDS=200` is the same for longer. The seed is fixed: the dice fall the same way, what the machine does in
between does not.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.torture.account import Verdict
from tests.torture.disk import LoopDisk, PlainDirectory
from tests.torture.run import IN_MEMORY, Plan, Torture
from tests.torture.soundness import problems_in

ROUNDS = 10


def report(verdict: Verdict) -> str:
    return "\n".join(verdict.lines())


@pytest.mark.needs("mosquitto")
@pytest.mark.slow
async def test_ten_power_cuts(power: LoopDisk, tmp_path: Path) -> None:
    verdict = await Torture(Plan(ROUNDS, check=problems_in), power, tmp_path).run()
    print(report(verdict))
    assert verdict.kept_its_promise, report(verdict)
    assert verdict.rounds == ROUNDS
    assert verdict.acknowledged > 1000


@pytest.mark.needs("mosquitto")
@pytest.mark.slow
async def test_ten_kills(directory: PlainDirectory, tmp_path: Path) -> None:
    verdict = await Torture(Plan(ROUNDS, seed=2, check=problems_in), directory, tmp_path).run()
    print(report(verdict))
    assert verdict.kept_its_promise, report(verdict)
    assert verdict.rounds == ROUNDS
    assert verdict.acknowledged > 1000


@pytest.mark.needs("mosquitto")
@pytest.mark.slow
async def test_a_broker_that_does_not_sync_is_found_out(power: LoopDisk, tmp_path: Path) -> None:
    """The control: the same cuts, the same accountant, a store with `synchronous=OFF`."""
    plan = Plan(rounds=1, module="tests.torture.unsynced", patience_seconds=20.0)
    verdict = await Torture(plan, power, tmp_path).run()
    print(report(verdict))
    assert not verdict.kept_its_promise
    assert verdict.lost_messages > 100
    assert verdict.lost_in_rounds == {1}
    assert verdict.forgotten


@pytest.mark.needs("mosquitto")
@pytest.mark.slow
async def test_a_broker_that_keeps_all_in_memory_is_found_out(
    directory: PlainDirectory, tmp_path: Path
) -> None:
    """Another control, by configuration alone."""
    plan = Plan(rounds=3, settings=IN_MEMORY, patience_seconds=10.0)  # one kill may meet next to nothing
    verdict = await Torture(plan, directory, tmp_path).run()
    print(report(verdict))
    assert not verdict.kept_its_promise
    assert verdict.lost_messages > 10
