"""What a message must pass beyond its form."""

from __future__ import annotations

import pytest

from edge_broker.core.guarding import Allowance, is_as_its_format_says
from edge_broker.core.message import build_message
from edge_broker.core.settings import Settings
from edge_broker.wire import const
from edge_broker.wire.properties import encode_properties


def test_messages_are_counted_by_the_second() -> None:
    allowance = Allowance(Settings(max_publishes_per_second=2))
    assert not allowance.spend(10**9)
    assert allowance.spend(1)
    assert allowance.is_spent
    assert allowance.renew()
    assert not allowance.renew(), "it was not spent"
    assert not allowance.spend(1)


def test_a_message_larger_than_the_allowance_is_a_debt() -> None:
    allowance = Allowance(Settings(max_publish_bytes_per_second=100))
    assert allowance.spend(350)
    assert [allowance.renew() for _ in range(4)] == [False, False, True, False]


@pytest.mark.parametrize(
    ("properties", "payload", "is_fine"),
    [
        ({}, b"\xff", True),
        ({const.PAYLOAD_FORMAT_INDICATOR: 0}, b"\xff", True),
        ({const.PAYLOAD_FORMAT_INDICATOR: 1}, "Grüße".encode(), True),
        ({const.PAYLOAD_FORMAT_INDICATOR: 1}, b"\xff", False),
    ],
)
def test_a_payload_is_what_its_format_indicator_says(
    properties: dict[int, int], payload: bytes, is_fine: bool
) -> None:
    message = build_message("t", payload, property_block=encode_properties(properties))
    assert is_as_its_format_says(message) is is_fine
