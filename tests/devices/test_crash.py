"""A script that is killed with kill -9: what it published is not lost, and no number is used twice."""

import json
import random
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.devices.collector import Collector, without_duplicates
from tests.devices.cutting_proxy import CuttingProxy
from tests.devices.mosquitto import Mosquitto, need

Collect = Callable[..., Collector]

SCRIPT = """
import sys
from devices import Device, Timing
broker, spool, first = sys.argv[1], sys.argv[2], int(sys.argv[3])
timing = Timing(reconnect_first=0.05, reconnect_longest=0.2)
with Device("porch", broker, spool=spool, timing=timing) as device:
    for value in range(first, first + 100_000):
        sequence = device.publish_reading({"value": value})
        print(sequence, value, flush=True)
"""

FINISH = """
import sys
from devices import Device
with Device("porch", sys.argv[1], spool=sys.argv[2]) as device:
    print(device.flush(30), device.stats.spooled)
"""


def publish_until_killed(broker_url: str, spool: Path, first: int, lines: int) -> list[tuple[int, int]]:
    """Run the script, kill it after so many readings, and return what it said it had published."""
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, broker_url, spool, str(first)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    accepted = []
    for line in process.stdout:
        accepted.append(line)
        if len(accepted) == lines:
            process.kill()
    process.wait(10)
    pairs = [line.split() for line in accepted if line.endswith("\n")]
    return [(int(sequence), int(value)) for sequence, value in pairs]


def test_kill_9_again_and_again(
    mosquitto: Mosquitto, proxy: CuttingProxy, collect: Collect, tmp_path: Path
) -> None:
    collector = collect(mosquitto.port)
    spool = tmp_path / "porch.spool"
    chance = random.Random(20150202)
    accepted: list[tuple[int, int]] = []
    for round_number in range(6):
        if round_number in (2, 3):
            proxy.block()  # the broker is away for two lives of the script
            proxy.cut()
        else:
            proxy.allow()
        accepted += publish_until_killed(proxy.url, spool, len(accepted), chance.randint(20, 300))
    proxy.allow()
    result = subprocess.run(
        [sys.executable, "-c", FINISH, proxy.url, spool], capture_output=True, text=True, timeout=60
    )
    assert result.stdout.split() == ["True", "0"], result.stderr

    # A reading may be in the spool whose line was not printed any more: its number is used, and it arrives.
    numbers = [sequence for sequence, _ in accepted]
    assert numbers == sorted(set(numbers))
    last = max(one.sequence or 0 for one in collector.received)
    collector.wait_for_sequences("porch", max(numbers))
    assert without_duplicates(collector.sequences("porch")) == list(range(1, last + 1))
    arrived = {one.sequence: json.loads(one.payload)["value"] for one in collector.received}
    assert all(arrived[sequence] == value for sequence, value in accepted)
    for one in collector.received:  # a duplicate is the same reading
        assert json.loads(one.payload)["value"] == arrived[one.sequence]
    assert len({one.spool for one in collector.received}) == 1


MARKS = """
import os, sys
from devices import Device
device = Device("porch", spool=sys.argv[1])
os.write(1, b"mark 0\\n")
for number in range(1, 6):
    device.publish_reading(number)
    os.write(1, b"mark %d\\n" % number)
"""


def test_publish_reading_returns_after_the_sync(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    command = [need("strace"), "-f", "-e", "trace=write,fdatasync,fsync", "-o", trace]
    subprocess.run([*command, sys.executable, "-c", MARKS, tmp_path / "porch.spool"], check=True, timeout=60)
    calls = re.findall(r'(fdatasync|fsync)\(|write\(1, "mark (\d)', trace.read_text())
    between: dict[int, int] = {}
    mark = -1
    for sync, number in calls:
        if sync:
            between[mark] = between.get(mark, 0) + 1
        else:
            mark = int(number)
    assert mark == 5
    assert {before: between.get(before, 0) >= 1 for before in range(5)} == dict.fromkeys(range(5), True)
