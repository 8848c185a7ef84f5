"""One broker that listens on every transport, and MQTT.js from its registry."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import do_without, find_program
from tests.foreign.port import TRANSPORTS
from tests.foreign.with_mqttjs import FOLDER
from tests.integration.conftest import pki  # noqa: F401 - a fixture
from tests.integration.serving import Serving

pytest.register_assert_rewrite("tests.foreign.script")

_INSTALL_SECONDS = 100.0
# A message for a client that is away waits this long for company before it is written and acknowledged; here each is alone.
_SETTINGS = "[store]\ncommit_delay_ms = 1\n"


@pytest.fixture(scope="session")
def serving(tmp_path_factory: pytest.TempPathFactory, pki: Path) -> Iterator[Serving]:  # noqa: F811
    """A running broker with a listener for each of TRANSPORTS, in that order; all cells share it."""
    pair = f'certificate = "{pki}/server.crt"\nkey = "{pki}/server.key"\n'
    tables = [
        f'transport = "{transport}"\nbind = "127.0.0.1:0"\n{pair if transport in ("tls", "wss") else ""}'
        for transport in TRANSPORTS
    ]
    broker = Serving(tmp_path_factory.mktemp("foreign"), *tables, settings=_SETTINGS).start()
    yield broker
    assert broker.stop() == 0


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """MQTT.js as `package.json` asks for it, installed beside it once; git ignores the folder."""
    installed, wanted = FOLDER / "node_modules", FOLDER / "package.json"
    stamp = installed / ".wanted.json"
    if stamp.exists() and stamp.read_bytes() == wanted.read_bytes():
        return installed
    npm = find_program("npm")
    assert npm is not None
    with tempfile.TemporaryDirectory(dir=FOLDER, prefix="node_modules.") as scratch:
        shutil.copy(wanted, scratch)
        options = ["--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts", "--omit=dev"]
        done = subprocess.run(
            [npm, "install", *options], cwd=scratch, capture_output=True, text=True, timeout=_INSTALL_SECONDS
        )
        if done.returncode != 0:
            do_without(f"needs MQTT.js, which npm could not install:\n{done.stderr[-2000:]}")
        made = Path(scratch) / "node_modules"
        shutil.copy(wanted, made / stamp.name)
        shutil.rmtree(installed, ignore_errors=True)
        made.rename(installed)
    return installed
