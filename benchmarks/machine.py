"""The machine that the figures come from: its cores, its limits, and its name for the report."""

import os
import platform
import resource
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Cores:
    """Which core serves whom; the same one twice, where there is only one."""

    generator: int
    broker: int

    @classmethod
    def of_this_process(cls) -> "Cores":
        allowed = sorted(os.sched_getaffinity(0))
        return cls(generator=allowed[0], broker=allowed[-1])

    @property
    def are_apart(self) -> bool:
        return self.generator != self.broker


@dataclass(frozen=True)
class Machine:
    cpu: str
    cores: int
    memory_gb: float
    kernel: str
    python: str
    data_filesystem: str

    @classmethod
    def here(cls, data_directory: Path) -> "Machine":
        page_bytes, pages = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_PHYS_PAGES")
        return cls(
            cpu=_cpu_model(Path("/proc/cpuinfo").read_text()) or platform.machine(),
            cores=os.cpu_count() or 1,
            memory_gb=page_bytes * pages / 1e9,
            kernel=f"{platform.system()} {platform.release()} {platform.machine()}",
            python=f"{platform.python_implementation()} {platform.python_version()}",
            data_filesystem=filesystem_of(data_directory, Path("/proc/self/mounts").read_text()),
        )

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def _cpu_model(cpuinfo: str) -> str:
    """x86 says `model name`, a Raspberry Pi says `Model`."""
    for key in ("model name", "Model"):
        for line in cpuinfo.splitlines():
            if line.partition(":")[0].strip() == key:
                return line.partition(":")[2].strip()
    return ""


def filesystem_of(directory: Path, mounts: str) -> str:
    """The type of the filesystem that holds the directory, after the longest mount point above it."""
    resolved = directory.resolve()
    best, kind = -1, "unknown"
    for line in mounts.splitlines():
        mount_point, filesystem = line.split()[1:3]
        point = Path(mount_point.replace("\\040", " "))
        if resolved.is_relative_to(point) and len(point.parts) >= best:
            best, kind = len(point.parts), filesystem
    return kind


def raise_open_files_limit(wanted: int) -> None:
    """For this process and the brokers it starts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= wanted:
        return
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise SystemExit(f"{wanted} open files are needed and {hard} allowed: raise it (ulimit -Hn {wanted})")
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
