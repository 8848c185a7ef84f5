"""What the kernel says about a broker's process: CPU time, memory, bytes written, descendants included.

CPU time is read from the process's own CPU clock (nanoseconds, all threads). Nothing here asks the broker.
"""

import time
from dataclasses import dataclass
from pathlib import Path

CALM_SAMPLE_SECONDS = 0.5


@dataclass(frozen=True)
class Memory:
    """In megabytes of 10^6 bytes."""

    resident_mb: float
    peak_mb: float


def family(pid: int) -> list[int]:
    """The process and its descendants: a broker that forks does not hide its work."""
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").iterdir():
            try:
                children = (task / "children").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue  # a thread that ended just now; what it started has another parent by then
            found += [int(child) for child in children.split()]
    return found


def cpu_seconds(pid: int) -> float:
    """CPU time, user and system, of all threads since the process began."""
    return sum(time.clock_gettime_ns((~member << 3) | 2) for member in family(pid)) / 1e9


def memory(pid: int) -> Memory:
    resident = peak = 0
    for member in family(pid):
        fields = _status(Path(f"/proc/{member}/status").read_text())
        resident += fields["VmRSS"]
        peak += fields["VmHWM"]
    return Memory(resident / 1e6, peak / 1e6)


def _status(text: str) -> dict[str, int]:
    """The sizes in a /proc/PID/status, in bytes."""
    sizes = {}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if value.endswith(" kB"):
            sizes[name] = int(value.split()[0]) * 1024
    return sizes


def written_bytes(pid: int) -> int:
    """Bytes that the process caused to be sent to the storage layer."""
    total = 0
    for member in family(pid):
        for line in Path(f"/proc/{member}/io").read_text().splitlines():
            if line.startswith("write_bytes:"):
                total += int(line.split()[1])
    return total


def machine_busy_seconds() -> float:
    """CPU time that all processes and the hypervisor's other guests took from this machine's cores."""
    fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
    user, nice, system, _idle, _iowait, irq, softirq, steal = (int(field) for field in fields)
    return (user + nice + system + irq + softirq + steal) / 100


def wait_for_calm(patience_seconds: float, calm_percent: float) -> None:
    """Return once other processes take less than `calm_percent` of a core, or when patience ends."""
    deadline = time.monotonic() + patience_seconds
    while time.monotonic() < deadline:
        wall, machine, own = time.monotonic(), machine_busy_seconds(), time.process_time()
        time.sleep(CALM_SAMPLE_SECONDS)
        others = machine_busy_seconds() - machine - (time.process_time() - own)
        if others / (time.monotonic() - wall) * 100 < calm_percent:
            return


class Meter:
    """Measures one interval, from `start` to `stop`: the broker, this generator, and everybody else."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.start()

    def start(self) -> None:
        self._wall = time.monotonic()
        self._machine = machine_busy_seconds()
        self._generator = time.process_time()
        self._broker = cpu_seconds(self._pid)

    def stop(self) -> "Interval":
        broker = cpu_seconds(self._pid) - self._broker
        generator = time.process_time() - self._generator
        machine = machine_busy_seconds() - self._machine
        return Interval(
            seconds=time.monotonic() - self._wall,
            broker_cpu_seconds=broker,
            generator_cpu_seconds=generator,
            others_cpu_seconds=max(0.0, machine - broker - generator),
        )


@dataclass(frozen=True)
class Interval:
    seconds: float
    broker_cpu_seconds: float
    generator_cpu_seconds: float
    others_cpu_seconds: float

    def figures(self, messages: int) -> dict[str, float]:
        """The interval's figures per message, and how busy each party was, in percent of one core."""
        return {
            "messages_per_second": messages / self.seconds,
            "cpu_us_per_message": self.broker_cpu_seconds / messages * 1e6,
            "generator_us_per_message": self.generator_cpu_seconds / messages * 1e6,
            "broker_busy_percent": self.broker_cpu_seconds / self.seconds * 100,
            "generator_busy_percent": self.generator_cpu_seconds / self.seconds * 100,
            "others_busy_percent": self.others_cpu_seconds / self.seconds * 100,
        }
