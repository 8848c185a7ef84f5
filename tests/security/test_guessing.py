"""What guessing costs, under a clock and chance of the test's own."""

from __future__ import annotations

import logging

import pytest

from edge_broker.security import guessing
from edge_broker.security.guessing import Guessing, GuessLimits, is_this_machine, origin_of

HERE, THERE = "192.0.2.1:5000", "192.0.2.2:5000"


def make(chance: float = 0.5, **limits: float) -> Guessing:
    return Guessing(GuessLimits(**limits), {"anna", "bob"}.__contains__, lambda: chance)  # type: ignore[arg-type]


def guess(
    guessing: Guessing, count: int, name: str = "anna", address: str = HERE, now: float = 0.0, first: int = 0
) -> None:
    """`count` different wrong passwords."""
    for number in range(first, first + count):
        guessing.fail(address, name, b"%d" % number, now)


# ---- bans


def test_the_last_guess_that_is_one_too_many() -> None:
    ours = make(per_name=3)
    guess(ours, 2)
    assert not ours.refuses(HERE, "anna", 0.0)
    guess(ours, 1, first=2)
    assert ours.refuses(HERE, "anna", 0.0)
    assert ours.refuses("192.0.2.1:9999", "anna", 0.0), "another port is the same address"
    assert not ours.refuses(THERE, "anna", 0.0), "the name is free from everywhere else"
    assert not ours.refuses(HERE, "bob", 0.0), "and the address for other names"
    assert (ours.counters.failures, ours.counters.refused) == (3, 2)
    assert ours.counters.bans == {"name": 1, "address": 0}
    assert ours.banned() == {"name": 1, "address": 0}


def test_the_same_wrong_password_again_and_again_is_one_guess() -> None:
    """A device, or a fleet behind one NAT, that has an old password."""
    ours = make(per_name=3, per_address=3)
    for _ in range(1_000):
        ours.fail(HERE, "anna", b"old", 0.0)
    assert not ours.refuses(HERE, "anna", 0.0)
    assert ours.counters.failures == 1_000
    assert ours.knows(HERE, "anna", b"old", 1.0)
    assert not ours.knows(THERE, "anna", b"old", 1.0)
    assert not ours.knows(HERE, "bob", b"old", 1.0)
    assert not ours.knows(HERE, "anna", b"new", 1.0)
    assert not ours.knows(HERE, "anna", b"old", 300.0), "after the window"


def test_failures_of_which_nobody_knows_whether_they_are_new_all_count() -> None:
    ours = make(per_name=3)
    for _ in range(3):
        ours.fail(HERE, "anna", None, 0.0)
    assert ours.refuses(HERE, "anna", 0.0)


def test_an_address_with_many_names() -> None:
    ours = make(per_name=10, per_address=5)
    for number in range(5):
        assert not ours.refuses(HERE, "bob", 0.0)
        guess(ours, 1, name=f"user-{number}")
    assert ours.refuses(HERE, "bob", 0.0)
    assert not ours.refuses(THERE, "bob", 0.0)
    assert ours.banned() == {"name": 0, "address": 1}


@pytest.mark.parametrize("address", ["127.0.0.1:5", "127.9.9.9:5", "::1:5", "unix:uid=1000"])
def test_this_machine_is_never_refused_as_a_whole(address: str) -> None:
    ours = make(per_name=3, per_address=3)
    for number in range(10):
        guess(ours, 1, name=f"user-{number}", address=address)
    assert not ours.refuses(address, "bob", 0.0)
    guess(ours, 3, name="anna", address=address)
    assert ours.refuses(address, "anna", 0.0)


def test_a_ban_and_a_window_end() -> None:
    ours = make(per_name=3, window_seconds=60, ban_seconds=100)
    guess(ours, 2)
    guess(ours, 2, now=60.0, first=2)
    assert not ours.refuses(HERE, "anna", 60.0), "the first two are out of the window"
    guess(ours, 1, now=61.0, first=4)
    assert ours.refuses(HERE, "anna", 160.9)
    assert not ours.refuses(HERE, "anna", 161.0)
    guess(ours, 2, now=161.0)
    assert not ours.refuses(HERE, "anna", 161.0), "it begins anew"


def test_a_ban_is_not_made_longer_by_knocking() -> None:
    ours = make(per_name=1, ban_seconds=10)
    guess(ours, 1)
    for now in range(10):
        assert ours.refuses(HERE, "anna", now)
    assert not ours.refuses(HERE, "anna", 10.0)


def test_no_limit() -> None:
    ours = make(per_name=0, per_address=0)
    guess(ours, 5_000)
    assert not ours.refuses(HERE, "anna", 0.0)
    (record,) = ours._names.values()
    assert len(record.digests) <= 100


# ---- delays


def test_each_answer_comes_later_than_the_one_before() -> None:
    ours = make(delay_seconds=3.0)
    delays = [ours.fail(HERE, "anna", b"old", 0.0) for _ in range(7)]
    assert delays == [0.2, 0.4, 0.8, 1.6, 3.0, 3.0, 3.0]
    assert ours.fail(HERE, "bob", b"old", 0.0) == 0.2
    assert ours.fail(HERE, "anna", b"old", 300.0) == 0.2, "after the window"


def test_chance_spreads_them() -> None:
    assert make(chance=0.0).fail(HERE, "anna", b"", 0.0) == pytest.approx(0.15)
    assert make(chance=1.0).fail(HERE, "anna", b"", 0.0) == pytest.approx(0.25)


def test_no_delays() -> None:
    assert make(delay_seconds=0).fail(HERE, "anna", b"", 0.0) == 0


# ---- memory


def test_what_is_over_is_forgotten() -> None:
    ours = make(per_name=2, per_address=3, window_seconds=60, ban_seconds=100)
    guess(ours, 2)
    guess(ours, 1, name="bob", now=10.0)
    ours.sweep(69.0)
    assert len(ours._names) == 2
    ours.sweep(70.0)
    assert len(ours._names) == 1, "bob is out of the window, anna banned"
    ours.sweep(100.0)
    assert not ours._names
    assert ours.banned() == {"name": 0, "address": 1}
    ours.sweep(110.0)
    assert not ours._addresses


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guessing, "_MAX_RECORDS", 100)
    ours = make()
    for number in range(150):
        ours.fail(f"192.0.2.{number}:1", "anna", b"x", 0.0)
    assert (len(ours._names), len(ours._addresses)) == (100, 100)
    assert ours.counters.forgotten == 100
    assert ours.knows("192.0.2.149:1", "anna", b"x", 0.0)
    assert not ours.knows("192.0.2.49:1", "anna", b"x", 0.0)


# ---- the log


def test_one_line_for_each_change(caplog: pytest.LogCaptureFixture) -> None:
    ours = make(per_name=3, per_address=6)
    with caplog.at_level(logging.DEBUG):
        guess(ours, 9)
        for _ in range(10):
            assert ours.refuses(HERE, "anna", 1.0)
        guess(ours, 3, name="a secret typed in the wrong place", address=THERE)
        ours.sweep(299.0)
        ours.sweep(300.0)
    assert caplog.messages == [
        "'anna' from 192.0.2.1 is refused for 300 s: 3 wrong passwords",
        "every name from 192.0.2.1 is refused for 300 s: 6 wrong passwords",
        "an unknown name from 192.0.2.2 is refused for 300 s: 3 wrong passwords",
        "'anna' from 192.0.2.1 may try again",
        "an unknown name from 192.0.2.2 may try again",
        "every name from 192.0.2.1 may try again",
    ]


def test_the_end_of_a_ban_is_told_even_if_somebody_comes_before_the_sweep(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ours = make(per_name=1)
    with caplog.at_level(logging.INFO):
        guess(ours, 1)
        guess(ours, 1, now=300.0)
    assert [message.partition(" is")[0] for message in caplog.messages] == [
        "'anna' from 192.0.2.1",
        "'anna' from 192.0.2.1 may try again",
        "'anna' from 192.0.2.1",
    ]


# ---- addresses


@pytest.mark.parametrize(
    ("address", "origin", "ours"),
    [
        ("192.0.2.7:51234", "192.0.2.7", False),
        ("2001:db8:1:2:3:4:5:6:51234", "2001:db8:1:2::/64", False),
        ("2001:db8:1:2::9:1", "2001:db8:1:2::/64", False),
        ("fe80::1%eth0:51234", "fe80::/64", False),
        ("127.0.0.1:51234", "127.0.0.1", True),
        ("::1:51234", "::1", True),
        ("unix:uid=1000", "unix:uid=1000", True),
        ("unknown:0", "unknown", False),
        ("", "", False),
    ],
)
def test_who_counts_as_one(address: str, origin: str, ours: bool) -> None:
    assert origin_of(address) == origin
    assert is_this_machine(origin) is ours
