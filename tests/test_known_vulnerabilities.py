"""What `.ci/audit.py` makes of pip-audit's answers: a vulnerability fails it, and what nobody looked at is not claimed."""

from __future__ import annotations

import importlib.util
import json
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / ".ci" / "audit.py"


@pytest.fixture
def audit() -> ModuleType:
    spec = importlib.util.spec_from_file_location("ci_audit", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def answer(*vulnerable: str, well: tuple[str, ...] = (), skipped: tuple[str, ...] = ()) -> str:
    dependencies: list[dict[str, Any]] = [
        {"name": name, "version": "1", "vulns": [{"id": f"PYSEC-{name}", "fix_versions": ["2"]}]}
        for name in vulnerable
    ]
    dependencies += [{"name": name, "version": "1", "vulns": []} for name in well]
    dependencies += [{"name": name, "skip_reason": "not found"} for name in skipped]
    return json.dumps({"dependencies": dependencies})


CANARY = answer("aiohttp")
BROKEN = "ERROR:pip_audit: HTTPSConnectionPool: Max retries exceeded: Name or service not known"


@pytest.mark.parametrize(
    ("answers", "code", "said"),
    [
        ([CANARY, answer(well=("a", "b"))], 0, "0 known vulnerabilities"),
        ([CANARY, answer("a", well=("b",))], 1, "vulnerable: a 1: PYSEC-a, fixed in 2"),
        ([CANARY, answer("a", skipped=("b",))], 1, "vulnerable: a 1"),
        ([CANARY, answer(skipped=("b",))], 0, "NOT CHECKED: known vulnerabilities of"),
        ([answer(well=("aiohttp",))], 0, "it knows nothing of aiohttp==3.8.0"),
        ([None], 0, "Name or service not known"),
        ([CANARY, None], 0, "NOT CHECKED"),
        ([TimeoutError], 0, "no answer within 5 s"),
        ([CANARY, "[]"], 0, "NOT CHECKED"),
    ],
)
def test_the_verdict(
    audit: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    answers: list[Any],
    code: int,
    said: str,
) -> None:
    coming = iter(answers)

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        assert "pip_audit" in command
        now = next(coming)
        if now is TimeoutError:
            raise subprocess.TimeoutExpired(command, options["timeout"])
        return subprocess.CompletedProcess(command, 1, now or "", BROKEN if now is None else "")

    monkeypatch.setattr(audit.subprocess, "run", run)
    assert audit.main() == code
    assert said in capsys.readouterr().out
    assert next(coming, "all asked") == "all asked"


def test_what_a_gateway_installs_is_looked_at_and_nothing_else(audit: ModuleType) -> None:
    names = {line.split("==")[0] for line in audit.installed()}
    assert {"aiohttp", "yarl", "cffi", "uvloop", "cryptography"} <= names
    assert not names & {"pytest", "mypy", "edge-broker", "hypothesis"}


def test_what_is_accepted_is_not_told_again(audit: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    done = subprocess.CompletedProcess([], 1, answer("a"), "")
    monkeypatch.setattr(audit.subprocess, "run", lambda *_, **__: done)
    assert audit.vulnerabilities(["a==1"], 1.0)
    monkeypatch.setitem(audit.ACCEPTED, "PYSEC-a", "the broker never does that")
    assert audit.vulnerabilities(["a==1"], 1.0) == []


def test_the_real_tool_answers_or_says_that_it_cannot(audit: ModuleType) -> None:
    """With no network at all: pip-audit is there, takes these options, and its failure is understood."""
    pytest.importorskip("pip_audit")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
        patch.setenv("https_proxy", "http://127.0.0.1:9")
        with pytest.raises(audit.NotAsked) as why:
            audit.vulnerabilities([audit.CANARY], 30.0)
    assert "127.0.0.1" in str(why.value) or "onnection" in str(why.value)
