from __future__ import annotations

import pytest

from tests.pump.pump import Pump


@pytest.fixture
def pump() -> Pump:
    """A broker core on an empty store, with the default limits."""
    return Pump()
