"""Where the deployment's files are, and who may run the tests that install."""

import os
from pathlib import Path

import pytest

from tests.conftest import do_without

CHECKOUT = Path(__file__).resolve().parents[2]
RASPBERRY_PI = CHECKOUT / "deploy" / "raspberrypi"
PROMETHEUS = CHECKOUT / "deploy" / "prometheus"
MONITORING = CHECKOUT / "docs" / "monitoring.md"


@pytest.fixture(scope="session")
def as_root() -> None:
    """Installing sets owners, which only root may: skipped for others, failed in CI."""
    if os.geteuid() != 0:
        do_without("the installer runs as root only")
