"""What is remembered of passwords that were right: for whom, how long, how much of it."""

from __future__ import annotations

from edge_broker.security.verified import Verified
from tests.security.serving import argon2_of

SECRET = b"s" * 32
KEPT, OTHER = argon2_of("1"), argon2_of("2")


def test_a_password_counts_for_the_hash_it_was_checked_against() -> None:
    ours = Verified(SECRET)
    digest = ours.digest("anna", b"1")
    assert not ours.has(digest, KEPT, 0.0)
    ours.add(digest, KEPT, 0.0)
    assert ours.has(digest, KEPT, 1.0)
    assert not ours.has(digest, OTHER, 1.0), "the password file has another one now"
    assert ours.hits == 1


def test_names_and_passwords_are_told_apart() -> None:
    ours = Verified(SECRET)
    digests = {
        ours.digest(*pair) for pair in (("ab", b"c"), ("a", b"bc"), ("", b"abc"), ("abc", b""), ("ab", b"C"))
    }
    assert len(digests) == 5
    assert Verified(b"t" * 32).digest("ab", b"c") not in digests


def test_what_is_not_used_is_forgotten() -> None:
    ours = Verified(SECRET, lifetime_seconds=300)
    ours.add(b"a", KEPT, 0.0)
    ours.add(b"b", KEPT, 0.0)
    assert ours.has(b"a", KEPT, 200.0)
    ours.sweep(299.0)
    assert len(ours) == 2
    ours.sweep(300.0)
    assert len(ours) == 1
    assert ours.has(b"a", KEPT, 499.0)
    assert not ours.has(b"a", KEPT, 800.0), "also before anybody sweeps"
    assert not ours.has(b"b", KEPT, 300.0)


def test_memory_is_bounded() -> None:
    ours = Verified(SECRET, max_entries=3)
    for digest in (b"a", b"b", b"c"):
        ours.add(digest, KEPT, 0.0)
    assert ours.has(b"a", KEPT, 1.0)
    ours.add(b"d", KEPT, 2.0)
    assert len(ours) == 3
    assert not ours.has(b"b", KEPT, 2.0), "the least recently used"
    assert ours.has(b"a", KEPT, 2.0)
