"""`make torture`: `python -m tests.torture [ROUNDS]` with progress. Ends with 1 if anything was lost."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

from tests.torture.disk import LoopDisk, PlainDirectory, why_not
from tests.torture.line import LineTorture
from tests.torture.run import IN_MEMORY, Plan, Torture
from tests.torture.soundness import problems_in


def main() -> int:
    """Run as asked; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("rounds", nargs="?", type=int, default=200)
    parser.add_argument(
        "--fault", choices=("power", "kill"), default="power", help="power cut (root) or kill -9"
    )
    parser.add_argument("--unsynced", action="store_true", help="the control: a broker that does not sync")
    parser.add_argument(
        "--in-memory", action="store_true", help='another control: a broker told durability = "memory"'
    )
    parser.add_argument(
        "--line",
        action="store_true",
        help="as far as an ingester's files, and upstream and ingester are killed too",
    )
    parser.add_argument("--seed", type=int, default=int(time.time()), help="to have the same dice again")
    asked = parser.parse_args()
    if asked.fault == "power" and (reason := why_not()):
        print(f"a power cut {reason}; try --fault kill", file=sys.stderr)
        return 2
    module = "tests.torture.unsynced" if asked.unsynced else "edge_broker"
    print(f"seed {asked.seed}, {asked.fault}, {module}", flush=True)
    plan = Plan(
        rounds=asked.rounds,
        seed=asked.seed,
        module=module,
        settings=IN_MEMORY if asked.in_memory else "",
        patience_seconds=15.0 if asked.unsynced or asked.in_memory else 60.0,
        check=problems_in,
        progress=lambda line: print(line, flush=True),
    )
    directory = Path(tempfile.mkdtemp(prefix="torture-"))
    place = LoopDisk(directory) if asked.fault == "power" else PlainDirectory(directory)
    started = time.monotonic()
    try:
        torture = (LineTorture if asked.line else Torture)(plan, place, directory)
        verdict = asyncio.run(torture.run())
    finally:
        place.close()
    print(f"\n{time.monotonic() - started:.0f} s; the logs are in {directory}")
    print("\n".join(verdict.lines()))
    return 0 if verdict.kept_its_promise else 1


if __name__ == "__main__":
    sys.exit(main())
