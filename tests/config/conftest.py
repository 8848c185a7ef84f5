"""What the tests of the configuration share: a folder with certificates, and a file read out of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from bridge.config_checks import parse_bridges
from edge_broker.config.loading import load
from edge_broker.config.model import Config
from tests.config.certificates import write_pair

Load = Callable[..., Config]


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `tls/`: pairs named gateway and other, one with a passphrase, and files that will not do."""
    folder = tmp_path_factory.mktemp("certificates")
    tls = folder / "tls"
    tls.mkdir()
    write_pair(tls, "gateway")
    write_pair(tls, "other")
    write_pair(tls, "locked", b"a passphrase")
    (tls / "nothing.pem").write_text("no certificate at all\n")
    (tls / "password").write_text("secret\n")
    (tls / "empty").write_text("\n")
    return folder


@pytest.fixture
def load_text(certificates: Path) -> Load:
    """Reads a configuration given as text, as if its file lay beside `tls/`."""

    def load_it(text: str, environ: Mapping[str, str] | None = None) -> Config:
        path = certificates / "edge-broker.toml"
        path.write_text(text)
        return load(path, sections={"bridges": parse_bridges}, environ=environ or {"HOME": "/home/pi"})

    return load_it
