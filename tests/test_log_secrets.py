"""Whether a secret in a log fails a test: a suite of its own, in a process of its own, with leaks of every kind."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

SUITE = """
import asyncio, base64, logging, subprocess, sys
import pytest
from tests.secrets import secret

WORD = secret("open-sesame-4711")
SAY = "import sys; print('edge_broker', sys.argv[1])"

def test_harmless(caplog):
    caplog.set_level(logging.DEBUG)
    logging.getLogger("edge_broker").info("nothing to see: %s", WORD[:5])
    print("open-sesame")

def test_printed():
    print(WORD)

def test_on_standard_error(capfd):
    sys.stderr.write(WORD)

def test_logged():
    logging.getLogger("edge_broker").warning("password %r", WORD)

def test_logged_as_base64():
    logging.getLogger("edge_broker").warning("%s", base64.b64encode(WORD.encode()).decode())

def test_logged_where_no_handler_listens():
    logger = logging.getLogger("edge_broker.deaf")
    logger.propagate = False
    logger.addHandler(logging.NullHandler())
    logger.error("%s", WORD)

def test_in_a_traceback():
    try:
        raise ValueError(WORD)
    except ValueError:
        logging.getLogger("edge_broker").exception("a fault")

def test_in_a_process_file(tmp_path):
    with (tmp_path / "log").open("wb") as log:
        subprocess.run([sys.executable, "-c", SAY, WORD], stdout=log, check=True)

def test_from_a_process_pipe():
    subprocess.run([sys.executable, "-c", SAY, WORD], capture_output=True, check=True)

async def test_from_a_process_of_asyncio(tmp_path):
    with (tmp_path / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", SAY, WORD, stdout=log, stderr=log)
        await process.wait()

@pytest.fixture
def late():
    yield
    logging.getLogger("edge_broker").warning(WORD)

def test_while_cleaning_up(late):
    pass
"""


def test_each_leak_fails_its_test(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\n")
    (tmp_path / "test_leaks.py").write_text(SUITE)
    process = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "tests.log_secrets",
            "-rA",
            "--rootdir",
            tmp_path,
            "test_leaks.py",
        ],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 1, process.stdout
    names = re.findall(r"^(?:async )?def (test_\w+)", SUITE, re.MULTILINE)
    outcomes = dict.fromkeys(names, "PASSED")
    for outcome, name in re.findall(r"^(FAILED|ERROR) \S+::(test_\w+)", process.stdout, re.MULTILINE):
        outcomes[name] = outcome
    assert outcomes.pop("test_harmless") == "PASSED", process.stdout
    assert set(outcomes.values()) == {"FAILED", "ERROR"}, outcomes
    assert outcomes["test_while_cleaning_up"] == "ERROR"
    assert "a log has a secret: ope…11" in process.stdout
