"""Routes: who gets a topic's messages, remembered until a subscription could change it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from edge_broker.core.message import Message
from edge_broker.core.ports import Permissions
from edge_broker.core.routing import Route, RoutingTable, ShareGroup
from edge_broker.core.session import Subscription


class Someone:
    """A recipient whose state the test sets."""

    permissions: Permissions | None = None

    def __init__(self, name: str, *, online: bool = True, ready: bool = True, durable: bool = False) -> None:
        self.name, self.online, self.ready, self.durable = name, online, ready, durable

    def deliver(self, message: Message) -> None:
        raise AssertionError("nothing is delivered here")


@pytest.fixture
def table() -> RoutingTable:
    return RoutingTable()


def names(route: Route) -> list[str]:
    return sorted(subscription.recipient.name for subscription in route.subscriptions)  # type: ignore[attr-defined]


def route(table: RoutingTable, topic: str) -> Route:
    """As the router asks."""
    return table.routes.get(topic) or table.find(topic)


def test_a_route_is_remembered(table: RoutingTable) -> None:
    table.add(Subscription(Someone("a"), "t/+", 1))
    assert route(table, "t/1") is route(table, "t/1")


@pytest.mark.parametrize("topic_filter", ["t/1", "t/+", "#"])
def test_a_subscription_is_noticed_and_so_is_its_end(table: RoutingTable, topic_filter: str) -> None:
    first, second = Someone("a"), Someone("b")
    table.add(Subscription(first, "t/1", 0))
    assert names(route(table, "t/1")) == ["a"]
    added = Subscription(second, topic_filter, 0)
    table.add(added)
    assert names(route(table, "t/1")) == ["a", "b"]
    table.remove(added)
    assert names(route(table, "t/1")) == ["a"]
    assert len(table) == 1


def test_another_exact_topic_keeps_its_route(table: RoutingTable) -> None:
    kept = route(table, "t/2")
    table.add(Subscription(Someone("a"), "t/1", 0))
    assert route(table, "t/2") is kept


def test_overlapping_subscriptions_are_one(table: RoutingTable) -> None:
    someone = Someone("a")
    table.add(Subscription(someone, "t/#", 0, no_local=True, subscription_ids=(1,)))
    table.add(Subscription(someone, "t/+", 2, retain_as_published=True, subscription_ids=(2,)))
    (merged,) = route(table, "t/1").subscriptions
    assert (merged.qos, merged.retain_as_published) == (2, True)
    mine = merged.for_own_messages()
    assert mine is not None
    assert (mine.qos, mine.subscription_ids) == (2, (2,)), "no local leaves its own subscription out alone"
    assert sorted(merged.subscription_ids) == [1, 2]
    assert not merged.simple


@pytest.mark.parametrize(
    ("make", "is_plain"),
    [
        (lambda who: Subscription(who, "t", 1), True),
        (lambda who: Subscription(who, "t", 1, no_local=True), False),
        (lambda who: Subscription(who, "t", 1, retain_as_published=True), False),
        (lambda who: Subscription(who, "t", 1, subscription_ids=(1,)), False),
        (lambda who: Subscription(who, "$share/g/t", 1), False),
    ],
)
def test_the_short_way_is_for_plain_subscriptions(
    table: RoutingTable, make: Callable[[Someone], Subscription], is_plain: bool
) -> None:
    table.add(Subscription(Someone("plain"), "t", 0))
    table.add(make(Someone("other")))
    assert (route(table, "t").plain is not None) == is_plain


def test_the_same_filter_in_two_groups_and_alone(table: RoutingTable) -> None:
    someone = Someone("a")
    subscriptions = [Subscription(someone, f, 0) for f in ("t", "$share/g/t", "$share/h/t")]
    for subscription in subscriptions:
        table.add(subscription)
    found = route(table, "t")
    assert (len(found.subscriptions), len(found.groups)) == (1, 2)
    for subscription in subscriptions:
        table.remove(subscription)
        table.remove(subscription)
    assert len(table) == 0


def test_joining_a_group_again_replaces(table: RoutingTable) -> None:
    someone = Someone("a")
    table.add(Subscription(someone, "$share/g/t", 0))
    table.add(Subscription(someone, "$share/g/t", 2))
    (group,) = route(table, "t").groups
    assert [member.qos for member in group.members] == [2]


# ---- whose turn it is


def group(*members: Someone) -> ShareGroup:
    made = ShareGroup()
    made.members = [Subscription(member, "$share/g/t", 1) for member in members]
    return made


def turns(of: ShareGroup, count: int) -> str:
    return "".join(of.choose().recipient.name for _ in range(count))  # type: ignore[attr-defined]


def test_everybody_ready_takes_turns() -> None:
    assert turns(group(Someone("a"), Someone("b"), Someone("c")), 7) == "abcabca"


def test_the_busy_are_passed_over() -> None:
    assert turns(group(Someone("a"), Someone("b", ready=False), Someone("c")), 4) == "acac"


def test_the_busy_share_what_nobody_can_take_at_once() -> None:
    assert turns(group(Someone("a", ready=False), Someone("b", ready=False)), 4) == "abab"


def test_who_is_there_comes_before_who_is_away() -> None:
    away = Someone("a", online=False, ready=False, durable=True)
    assert turns(group(away, Someone("b", ready=False)), 3) == "bbb"


def test_who_keeps_messages_comes_before_who_does_not() -> None:
    gone = Someone("a", online=False, ready=False)
    away = Someone("b", online=False, ready=False, durable=True)
    assert turns(group(gone, away), 3) == "bbb"
