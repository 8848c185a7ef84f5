"""What expires is told a month before, and the first of several counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_broker.ops.expiring import Expiring

DAY = 86_400.0
NOW = 1_800_000_000.0


def read(data: bytes, kind: str) -> float | None:
    """A file has its moment in it."""
    return float(data) if data else None


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "gateway.pem"


@pytest.mark.parametrize(
    ("days", "said"),
    [
        (31, None),
        (29.5, "expires in 29 days"),
        (1.5, "expires in 1 day"),
        (0.5, "expires in less than a day"),
        (-0.5, "expired less than a day ago"),
        (-3.5, "expired 3 days ago"),
    ],
)
def test_when_it_is_told(file: Path, days: float, said: str | None) -> None:
    file.write_text(str(NOW + days * DAY))
    expiring = Expiring(read)
    expiring.put("certificate", "mqtts://a:8883", [file])
    problems = expiring.problems(NOW)
    if said is None:
        assert problems == []
        return
    (problem,) = problems
    assert problem.component == "certificate of mqtts://a:8883"
    assert problem.problem == f"{file} {said}"
    assert "without a restart" in problem.hint


def test_the_first_of_several_files_counts(file: Path) -> None:
    other = file.with_name("other.pem")
    file.write_text(str(NOW + 40 * DAY))
    other.write_text(str(NOW + 20 * DAY))
    expiring = Expiring(read)
    expiring.put("crl", "x", [file, other])
    (entry,) = expiring
    assert entry.at == NOW + 20 * DAY


def test_a_new_file_counts_when_it_is_put_again(file: Path) -> None:
    expiring = Expiring(read)
    file.write_text(str(NOW))
    expiring.put("ca", "x", [file])
    assert expiring.problems(NOW)
    file.write_text(str(NOW + 400 * DAY))
    expiring.put("ca", "x", [file])
    assert expiring.problems(NOW) == []
    file.write_text("")
    expiring.put("ca", "x", [file])
    assert list(expiring) == []


@pytest.mark.parametrize("contents", [None, "no number"])
def test_what_cannot_be_read_is_somebody_elses_to_complain_of(file: Path, contents: str | None) -> None:
    if contents is not None:
        file.write_text(contents)
    expiring = Expiring(read)
    expiring.put("ca", "x", [file])
    assert list(expiring) == []
