"""Which topics are a canary's: by a hash that others can compute, and more of them at a higher percentage."""

from __future__ import annotations

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.config import BridgeConfig
from bridge.share import Share

TOPICS = [f"site/{number}/temperature" for number in range(2000)]


def taken(percent: float, name: str = "cloud") -> set[str]:
    share = Share(name, percent)
    return {topic for topic in TOPICS if share.takes(topic)}


@pytest.mark.parametrize("percent", [0, 0.5, 5, 37.5, 99, 100])
def test_it_is_so_many_of_the_topics(percent: float) -> None:
    assert len(taken(percent)) == pytest.approx(20 * percent, abs=45 if 0 < percent < 100 else 0)


def test_another_bridge_has_another_share() -> None:
    assert taken(10) != taken(10, "other")


def test_others_can_compute_it() -> None:
    for topic in (*TOPICS[:5], "sensors/küche"):
        hashed = subprocess.run(
            ["b2sum", "--length=64"], input=f"cloud/{topic}".encode(), capture_output=True, check=True
        )
        place = int(hashed.stdout.split()[0], 16) / 2**64 * 100
        assert Share("cloud", place + 0.001).takes(topic)
        assert not Share("cloud", place - 0.001).takes(topic)


@given(st.text(), st.floats(0, 100), st.floats(0, 100))
def test_what_is_a_canarys_stays_it_when_the_share_grows(topic: str, one: float, other: float) -> None:
    less, more = sorted((one, other))
    topic = topic.encode("utf-8", "ignore").decode()
    assert Share("cloud", more).takes(topic) or not Share("cloud", less).takes(topic)
    assert Share("cloud", 100).takes(topic)
    assert not Share("cloud", 0).takes(topic)


def test_a_canary_is_as_its_bridge_but_for_what_it_says() -> None:
    from pathlib import Path

    from bridge.canary_config import CanaryConfig

    config = BridgeConfig(
        name="cloud",
        urls=("mqtts://main",),
        username="me",
        ca=Path("ca"),
        window=7,
        canary=CanaryConfig(urls=("mqtts://next",), percent=5, ca=Path("other")),
    )
    itself, canary = config.lines
    assert itself is config
    assert (canary.name, canary.urls, canary.window, canary.username) == (
        "cloud!canary",
        ("mqtts://next",),
        7,
        "me",
    )
    assert (canary.ca, canary.client_id) == (Path("other"), f"{config.client_id}-canary")
    assert (canary.gateway, canary.in_, canary.canary) == (config.gateway, (), None)
