"""A minute of libFuzzer over all targets in every run of the suite, from the committed seeds; more with `make fuzz`.

Needs Atheris, which has wheels for Linux on x86-64; elsewhere the tests beside this one send mutated vectors through the
decoder with Hypothesis, and every seed through its target.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from tests.conftest import do_without
from tests.fuzz.__main__ import SHARES, run_target
from tests.fuzz.targets import TARGETS

SECONDS_IN_ALL = 60
LEAST_EXECUTIONS = 200
"""Far fewer than any machine does in that time: to notice a target that does nothing."""


@pytest.fixture(scope="module", autouse=True)
def _atheris() -> None:
    """As for a missing program: skipped here, failed in CI."""
    if importlib.util.find_spec("atheris") is None:
        do_without("needs Atheris, which has no wheel for this machine")


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_nothing_is_found_in_its_share_of_a_minute(target: str, tmp_path: Path) -> None:
    seconds = SECONDS_IN_ALL * SHARES[target] // sum(SHARES.values())
    result = run_target(target, seconds, tmp_path / "corpus", tmp_path / "crashes")
    assert result.exit_code == 0, result.log[-6000:]
    assert list((tmp_path / "crashes").iterdir()) == []
    assert result.executions > LEAST_EXECUTIONS
    assert result.edges > 0


def test_a_bug_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole run that must fail: the first input is told, and kept."""
    (tmp_path / "sitecustomize.py").write_text(
        "import zlib\nzlib.crc32 = None\n"  # the segment's target calls it at once
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    result = run_target("segment", 5, tmp_path / "corpus", tmp_path / "crashes")
    assert result.exit_code != 0
    assert "TypeError" in result.log
    assert len(list((tmp_path / "crashes").iterdir())) == 1
