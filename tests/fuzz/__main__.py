"""Fuzzing as `make fuzz` does it: `python -m tests.fuzz [SECONDS] [TARGET ...]`, 60 seconds and all targets by default.

The seconds are for all targets together, one after the other on one core; a target's share follows from how much there
is to find in it. What libFuzzer found interesting stays in ``build/fuzz/corpus`` and is where the next run starts; an input
that broke something is in ``build/fuzz/crashes``, and is told together with how to run it again. Ends with 1 then.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final, NamedTuple

from tests.fuzz.corpus import unpack
from tests.fuzz.targets import TARGETS

ROOT: Final = Path(__file__).resolve().parent.parent.parent
WORK: Final = ROOT / "build" / "fuzz"
SHARES: Final = {"decoder": 4, "client": 2, "connection": 6, "segment": 1, "front": 2, "ingest": 2}
LEAST_SECONDS: Final = 2
_NOISE: Final = ("#", "INFO:", "WARNING: Failed to find function")
PATIENCE_SECONDS: Final = 120
"""How much longer than asked for a target may take: libFuzzer looks at the time between two inputs only."""


class Result(NamedTuple):
    """What a run of one target came to. `edges`: places in the instrumented code that were reached."""

    target: str
    executions: int
    edges: int
    exit_code: int
    log: str


def run_target(target: str, seconds: int, corpus: Path, crashes: Path) -> Result:
    """Fuzz one target for `seconds`, in a process of its own; `corpus` is read and added to."""
    corpus.mkdir(parents=True, exist_ok=True)
    crashes.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as seeds:
        unpack(target, Path(seeds))
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "tests.fuzz.drive",
                target,
                f"-max_total_time={seconds}",
                f"-artifact_prefix={crashes}/{target}-",
                "-print_final_stats=1",
                str(corpus),
                seeds,
            ],
            cwd=ROOT,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds + PATIENCE_SECONDS,
        )
    executions = re.findall(r"^stat::number_of_executed_units:\s*(\d+)", done.stderr, re.MULTILINE)
    edges = re.findall(r"\bcov: (\d+)", done.stderr)
    return Result(
        target,
        int(executions[-1]) if executions else 0,
        int(edges[-1]) if edges else 0,
        done.returncode,
        "\n".join(line for line in (done.stdout + done.stderr).splitlines() if not line.startswith(_NOISE)),
    )


def main() -> None:
    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else 60
    targets = sys.argv[2:] or list(TARGETS)
    shares = sum(SHARES[target] for target in targets)
    failed = False
    for target in targets:
        share = max(LEAST_SECONDS, seconds * SHARES[target] // shares)
        result = run_target(target, share, WORK / "corpus" / target, WORK / "crashes")
        print(f"{target}: {share} s, {result.executions} executions, {result.edges} edges", flush=True)
        if result.exit_code:
            failed = True
            print(result.log[-6000:])
            print(f"{target} FAILED; run it again: python -m tests.fuzz.drive {target} FILE", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
