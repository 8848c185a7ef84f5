"""What scenarios about the bridge's line share: an ingester, what the broker says of its bridges."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.links import Address
from benchmarks.wire import BrokerMisbehaved

DEVICES = 100
PATIENCE_SECONDS = 30.0


def topic_of(device: int) -> str:
    """As the SDK has it."""
    return f"devices/sensor-{device + 1:03d}/readings"


def bridges_of(data_dir: Path) -> list[dict[str, object]]:
    """What `edge-broker bridge status` shows of the broker whose store is there."""
    with socket.socket(socket.AF_UNIX) as control:
        control.settimeout(PATIENCE_SECONDS)
        control.connect(str(data_dir / "control.sock"))
        control.sendall(b'{"command":"bridges"}\n')
        answer = b""
        while not answer.endswith(b"\n"):
            data = control.recv(1 << 20)
            if not data:
                raise BrokerMisbehaved("the broker does not say what its bridges do")
            answer += data
    found: list[dict[str, object]] = json.loads(answer)["bridges"]
    return found


def wait_until(condition: Callable[[], bool], what: str, seconds: float = PATIENCE_SECONDS) -> None:
    """Look every 20 ms, for so long."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise BrokerMisbehaved(f"{what} did not happen within {seconds:g} s")
        time.sleep(0.02)


@contextmanager
def ingester(directory: Path, cluster: Address, more: str = "", core: int | None = None) -> Iterator[int]:
    """`edge-broker ingest`, once it is connected and has announced itself; its process. `more`: of its configuration."""
    directory.mkdir(parents=True)
    config = directory / "ingest.toml"
    config.write_text(
        f'data_dir = "{directory}"\n[cluster]\nurls = ["mqtt://{cluster[0]}:{cluster[1]}"]\nclient_id = "ingest"\n{more}\n'
    )
    program = Path(sys.executable).parent / "edge-broker"
    command = [str(program), "ingest", "run", "--config", str(config)]
    if core is not None:
        command = ["taskset", "--cpu-list", str(core), *command]
    log = directory / "log"
    with log.open("wb") as sink:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink)
    try:
        wait_until(
            lambda: b"cluster: connected" in log.read_bytes(), f"that the ingester connects, see {log},"
        )
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def ingested(directory: Path) -> dict[str, list[int]]:
    """The numbers that the ingester wrote, in its order, by gateway."""
    found: dict[str, list[int]] = {}
    for path in sorted((directory / "output").glob("*.jsonl")):
        with path.open() as file:
            for line in file:
                message = json.loads(line)
                found.setdefault(message["gateway"], []).append(message["sequence"])
    return found


def written_bytes(directory: Path) -> int:
    """How large the ingester's output is."""
    return sum(path.stat().st_size for path in (directory / "output").glob("*.jsonl"))


def require_each_once(numbers: list[int], messages: int) -> None:
    """Raises unless the numbers from 1 to `messages` are there, once each."""
    if len(numbers) != messages or sorted(numbers) != list(range(1, messages + 1)):
        raise BrokerMisbehaved(
            f"{len(numbers)} messages came, {len(set(numbers))} different ones, of {messages} that were sent"
        )
