"""A fleet that comes back does not arrive at once, and the page says what it does."""

from pathlib import Path

import pytest

from tests.bridge.arrivals import GATEWAYS, OUTAGES, Outage, replace_table, simulate

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "bridge.md"


@pytest.mark.parametrize("outage", OUTAGES, ids=lambda outage: outage.what)
def test_a_spread_of_a_minute_spreads_over_a_minute(outage: Outage) -> None:
    """Evenly it would be 17 a second; chance makes the busiest somewhat more."""
    arrivals = simulate(outage, 60.0)
    assert arrivals.busiest < GATEWAYS / 60 * 3
    assert arrivals.all_after <= 121.0


def test_without_a_spread_all_that_start_together_arrive_together() -> None:
    assert simulate(OUTAGES[2], 0.0).busiest == GATEWAYS


def test_after_a_long_outage_the_pauses_alone_spread_them() -> None:
    assert simulate(OUTAGES[1], 0.0).busiest < GATEWAYS / 10


def test_the_page_has_the_figures_of_now() -> None:
    text = PAGE.read_text("utf-8")
    assert replace_table(text) == text, "run: python -m tests.bridge.arrivals docs/bridge.md"
