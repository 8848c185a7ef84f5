"""Topic aliases towards one client."""

from __future__ import annotations

from edge_broker.core.aliases import TopicAliases


def test_a_topic_gets_one_when_it_comes_again() -> None:
    aliases = TopicAliases(2)
    assert aliases.take("rooms/1") is None
    assert aliases.take("rooms/1") == (1, False)
    assert aliases.take("rooms/1") == (1, True)
    assert aliases.take("rooms/2") is None
    assert aliases.take("rooms/2") == (2, False)
    assert aliases.take("rooms/1") == (1, True)


def test_one_that_comes_again_takes_that_of_the_topic_longest_unused() -> None:
    aliases = TopicAliases(2)
    for topic in ("rooms/1", "rooms/2"):
        aliases.take(topic)
        aliases.take(topic)
    aliases.take("rooms/1")
    assert aliases.take("rooms/3") is None
    assert aliases.take("rooms/3") == (2, False)
    assert aliases.take("rooms/1") == (1, True)
    assert aliases.take("rooms/2") is None, "it was only seen once since"


def test_topics_that_never_come_again_take_none_away_and_are_forgotten() -> None:
    aliases = TopicAliases(2)
    aliases.take("rooms/1")
    aliases.take("rooms/1")
    for number in range(1000):
        assert aliases.take(f"once/{number}") is None
    assert aliases.take("rooms/1") == (1, True)
    assert aliases.take("once/0") is None


def test_a_short_topic_is_no_longer_than_an_alias() -> None:
    aliases = TopicAliases(2)
    for _ in range(3):
        assert aliases.take("a/b") is None


def test_one_that_could_not_be_told_is_free_again() -> None:
    aliases = TopicAliases(1)
    aliases.take("rooms/1")
    assert aliases.take("rooms/1") == (1, False)
    aliases.give_back("rooms/1")
    assert aliases.take("rooms/2") is None
    assert aliases.take("rooms/2") == (1, False)
    assert aliases.take("rooms/2") == (1, True)
