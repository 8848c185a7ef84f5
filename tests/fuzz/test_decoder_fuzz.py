"""The decoder's target driven by Hypothesis: mutated vectors, and bytes from nowhere; quick, and the same everywhere."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.fuzz.fuzz_decoder import Form, check_every_form, decode, fuzz_decoder
from tests.fuzz.mutations import MUTATIONS, SEEDS, streams
from tests.golden.properties import PACKETS

brief = settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@brief
@given(stream=streams)
def test_damaged_vectors(stream: bytes) -> None:
    check_every_form(stream)


@brief
@given(stream=st.binary(max_size=300))
def test_bytes_from_nowhere(stream: bytes) -> None:
    check_every_form(stream)


def test_every_byte_of_a_few_vectors_replaced() -> None:
    """Exhaustive where it is cheap: each mutation at each place of every fifth vector."""
    for seed in SEEDS[::5]:
        for at in range(len(seed)):
            for mutate in MUTATIONS:
                check_every_form(mutate(seed, at, 0x80 | at % 8))


def test_the_mutations_reach_both_outcomes() -> None:
    """A fuzzer that only ever sees its input refused at the door tests the door: this one also gets in."""
    outcomes: Counter[str] = Counter()

    @settings(max_examples=300, deadline=None, derandomize=True, phases=[Phase.generate])
    @given(stream=streams)
    def look(stream: bytes) -> None:
        for version in (4, 5):
            packets, refused = decode(Form(version, True, 100_000), [stream])
            outcomes.update(f"{name} at {version}" for name, _ in packets)
            outcomes["not refused" if refused is None else f"refused 0x{refused:02x}"] += 1

    look()
    of_every_type = {f"{name} at {version}" for name in PACKETS for version in (4, 5)} - {"AUTH at 4"}
    assert {"PUBLISH at 4", "PUBLISH at 5", "refused 0x81", "refused 0x82", "not refused"} <= set(outcomes)
    assert len(of_every_type & set(outcomes)) >= 24  # of 29


def test_a_bug_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception that is no MqttError comes out of the entry point as it is."""

    def broken(*_arguments: object) -> None:
        raise IndexError("a bug")

    monkeypatch.setattr("edge_broker.wire.decoder.decode_body", broken)
    with pytest.raises(IndexError, match="a bug"):
        fuzz_decoder(b"\x00\x00\xc0\x00")
