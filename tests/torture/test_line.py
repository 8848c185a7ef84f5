"""From the gateway to the ingester's files, through power cuts and kills of each: nothing lost, nothing of QoS 2 twice.

`make torture ROUNDS=100 ARGS=--line` is the same for longer.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.torture.disk import LoopDisk
from tests.torture.line import GATEWAY, INGESTER, UPSTREAM, LineTorture
from tests.torture.run import Plan
from tests.torture.soundness import problems_in
from tests.torture.test_torture import report

ROUNDS = 12


@pytest.mark.slow
@pytest.mark.parametrize("bridge_keys", ["", None], ids=["plain", "envelopes"])
async def test_each_message_is_ingested(power: LoopDisk, tmp_path: Path, bridge_keys: str | None) -> None:
    plan = Plan(ROUNDS, seed=5, goal=1000, check=problems_in)
    torture = LineTorture(plan, power, tmp_path, *([] if bridge_keys is None else [bridge_keys]))
    verdict = await torture.run()
    print(report(verdict), torture.faults)
    assert verdict.kept_its_promise, report(verdict)
    assert verdict.rounds == ROUNDS
    assert verdict.acknowledged > 1000
    assert min(torture.faults[one] for one in (GATEWAY, UPSTREAM, INGESTER)) > 0
    ingested = torture.ingester.log
    assert "Traceback" not in ingested, ingested
