"""Topic names and filters: the specification's own examples, and where its rules have edges [MQTT 5 section 4.7, 4.8]."""

from __future__ import annotations

import pytest

from edge_broker.errors import MqttError
from edge_broker.wire.topics import check_topic_filter, check_topic_name, match, split_share

GOOD_FILTERS = (
    "#", "+", "/", "//", "a", "a/", "/a", "/#", "/+", "+/+", "a/+/b", "a/#", "+/#", "a b", "é/\U0001f321", "$SYS/#",
    "$share", "$shared/g/t", "$share/g/#", "$share/g/+", "$share/g//", "$share/g/$share/g/t", "a/$share/g",
)  # fmt: skip
BAD_FILTERS = (
    "", "a#", "#a", "a/#/b", "##", "#/", "a+", "+a", "a/b+/c", "++", "+#", "a/+#", "a\0",
    "$share/", "$share/g", "$share/g/", "$share//t", "$share/+/t", "$share/#/t", "$share/g+/t", "$share/g/a#",
)  # fmt: skip


@pytest.mark.parametrize("topic_filter", GOOD_FILTERS)
def test_good_filters(topic_filter: str) -> None:
    check_topic_filter(topic_filter)


@pytest.mark.parametrize("topic_filter", BAD_FILTERS)
def test_bad_filters(topic_filter: str) -> None:
    with pytest.raises(MqttError) as refused:
        check_topic_filter(topic_filter)
    assert refused.value.reason_code == 0x8F


@pytest.mark.parametrize("topic", ["/", " ", "a/b", "//", "$SYS/x", "$share/g/t", "é"])
def test_good_names(topic: str) -> None:
    check_topic_name(topic)


@pytest.mark.parametrize("topic", ["", "+", "#", "a/+", "a+b", "a/#", "a\0b"])
def test_bad_names(topic: str) -> None:
    with pytest.raises(MqttError) as refused:
        check_topic_name(topic)
    assert refused.value.reason_code == 0x90


@pytest.mark.parametrize(
    ("topic_filter", "matching", "other"),
    [
        (
            "sport/tennis/player1/#",
            ["sport/tennis/player1", "sport/tennis/player1/ranking", "sport/tennis/player1/score/wimbledon"],
            ["sport/tennis", "sport/tennis/player2", "sport/tennis/player11"],
        ),
        ("sport/#", ["sport", "sport/", "sport/tennis"], ["sports", "/sport"]),
        ("#", ["a", "/", "a/b", "/a"], ["$SYS", "$SYS/x", "$"]),
        ("sport/tennis/+", ["sport/tennis/player1", "sport/tennis/"], ["sport/tennis", "sport/tennis/a/b"]),
        ("sport/+", ["sport/"], ["sport"]),
        ("+/+", ["/finance", "/", "a/b"], ["a", "$a/b", "a/b/c"]),
        ("/+", ["/finance", "/"], ["finance", "//"]),
        ("+", ["finance", " "], ["/finance", "$SYS"]),
        ("+/monitor/Clients", ["x/monitor/Clients"], ["$SYS/monitor/Clients"]),
        ("$SYS/#", ["$SYS", "$SYS/a"], ["SYS", "$sys"]),
        ("$SYS/monitor/+", ["$SYS/monitor/Clients", "$SYS/monitor/"], ["$SYS/monitor"]),
        ("a/+/$c", ["a/$b/$c"], ["a/b/c"]),
        ("ACCOUNTS", ["ACCOUNTS"], ["Accounts", "ACCOUNTS/", "/ACCOUNTS"]),
        ("\ufeffa", ["\ufeffa"], ["a"]),
    ],
)
def test_match(topic_filter: str, matching: list[str], other: list[str]) -> None:
    assert [topic for topic in matching + other if match(topic_filter, topic)] == matching


def test_split_share() -> None:
    assert split_share("$share/g/a/#") == ("g", "a/#")
    assert split_share("$share/g//") == ("g", "/")
    assert split_share("$share") == ("", "$share")
    assert split_share("a/$share/g") == ("", "a/$share/g")
