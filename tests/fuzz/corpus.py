"""Inputs kept in the repository: the seeds that fuzzing starts from, and what broke something once.

Both are text, one file per target: a line is a name and the input in hexadecimal. A directory with a file per input,
which libFuzzer wants, is made of it when needed.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

SEEDS: Final = Path(__file__).parent / "corpus"
CRASHES: Final = Path(__file__).parent / "crashes"
"""A crash is added by hand, with a name that says what was wrong; it stays after the bug is gone."""

Seed = tuple[str, bytes]


def read_seeds(target: str, folder: Path = SEEDS) -> list[Seed]:
    """(name, input) of each one; none where there is no file for the target."""
    path = folder / f"{target}.txt"
    if not path.exists():
        return []
    lines = [line.split() for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return [(name, bytes.fromhex(digits[0] if digits else "")) for name, *digits in lines]


def write_seeds(target: str, found: Iterable[Seed], folder: Path = SEEDS) -> None:
    """The file of the target, in the order given."""
    folder.mkdir(exist_ok=True)
    (folder / f"{target}.txt").write_text("".join(f"{name} {data.hex()}\n" for name, data in found))


def unpack(target: str, folder: Path) -> None:
    """A file for each seed and each crash of the target."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in read_seeds(target) + read_seeds(target, CRASHES):
        (folder / name).write_bytes(data)
