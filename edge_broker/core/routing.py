"""Who gets a topic's messages: the subscriptions in a trie, and each topic's answer remembered.

A route is forgotten when a subscription that could change it comes or goes, and the memory of routes is bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from edge_broker.core.counters import Counters
from edge_broker.core.message import Message
from edge_broker.core.permitting import permitted
from edge_broker.core.session import Subscription
from edge_broker.core.trie import FilterTrie
from edge_broker.wire.topics import TopicCache, is_own, match

if TYPE_CHECKING:
    from edge_broker.core.tracing import Tracer

_MAX_ROUTES: Final = 10_000


class ShareGroup:
    """The members of one shared subscription: each message goes to one of them [4.8.2]."""

    __slots__ = ("_turn", "members")

    def __init__(self) -> None:
        self.members: list[Subscription] = []
        self._turn = 0

    @property
    def is_empty(self) -> bool:
        """Whether there is nobody."""
        return not self.members

    def choose(self) -> Subscription | None:
        """The next in turn that can take a message at once; else one that is connected; else one that keeps it.

        None where there is nobody.
        """
        members = self.members
        count = len(members)
        if not count:
            return None
        connected = keeping = -1
        for step in range(count):
            at = (self._turn + step) % count
            recipient = members[at].recipient
            if recipient.ready:
                self._turn = at + 1
                return members[at]
            if connected < 0 and recipient.online:
                connected = at
            elif keeping < 0 and recipient.durable:
                keeping = at
        at = max(connected, keeping if connected < 0 else -1, 0)
        self._turn = at + 1
        return members[at]


class PermittedShare(ShareGroup):
    """Those of a group who may have one topic's messages, as long as not all of them may."""

    __slots__ = ("_counters", "_group", "_seen", "_topic")

    def __init__(self, group: ShareGroup, topic: str, counters: Counters) -> None:
        super().__init__()
        self._group = group
        self._topic = topic
        self._counters = counters
        self._turn = group._turn
        self._look()

    def _look(self) -> None:
        """Whose permissions are asked: those who are in the group now."""
        self._seen = self._group.members
        found = [permitted(member, self._topic, self._counters) for member in self._seen]
        self.members = [member for member in found if member is not None]

    @property
    def is_whole(self) -> bool:
        """Whether everybody may have them as they subscribed."""
        return self.members == self._seen

    @property
    def is_empty(self) -> bool:
        """Whether nobody may: a message may wait while members and their permissions change."""
        self._look_again()
        return not self.members

    def choose(self) -> Subscription | None:
        """As the whole group, of those who may."""
        self._look_again()
        return super().choose()

    def _look_again(self) -> None:
        if self._group.members is not self._seen:
            self._look()


class Route:
    """The recipients of one topic: at most one subscription each, and one group per share.

    `plain`: where no option of any of them needs a look, (deliver, qos) for each; None otherwise.
    `volatile`: its messages are kept in memory only.
    """

    __slots__ = ("groups", "plain", "subscriptions", "volatile")

    def __init__(
        self, subscriptions: list[Subscription], groups: list[ShareGroup], volatile: bool = False
    ) -> None:
        self.subscriptions = subscriptions
        self.groups = groups
        self.volatile = volatile
        self.plain: list[tuple[Callable[[Message], None], int]] | None = None
        if not groups and not volatile and all(subscription.simple for subscription in subscriptions):
            self.plain = [
                (subscription.recipient.deliver, subscription.qos) for subscription in subscriptions
            ]


class RoutingTable:
    """All subscriptions, and the routes that follow from them. `routes` is read by the router directly.

    A route has only those in it who may have its topic's messages, so permissions cost a message nothing. `tracer`: of the
    trace that runs; nothing here looks at it.
    """

    __slots__ = ("_counters", "_durabilities", "_groups", "_trie", "routes", "tracer")

    def __init__(
        self, durabilities: Sequence[tuple[str, bool]] = (), counters: Counters | None = None
    ) -> None:
        self._durabilities = durabilities
        self._counters = counters or Counters()
        self._trie: FilterTrie[Subscription | ShareGroup] = FilterTrie()
        self._groups: dict[str, ShareGroup] = {}
        self.routes: dict[str, Route] = {}
        self.tracer: Tracer | None = None

    def __len__(self) -> int:
        return len(self._trie)

    def add(self, subscription: Subscription) -> None:
        """Add `subscription`; the same recipient's earlier one of the same filter is replaced."""
        if subscription.share_name:
            self._add_to_group(subscription)
        else:
            self._trie.add(subscription.matched_filter, id(subscription.recipient), subscription)
        self._forget_routes(subscription.matched_filter)

    def remove(self, subscription: Subscription) -> None:
        """Take `subscription` out."""
        if subscription.share_name:
            self._remove_from_group(subscription)
        else:
            self._trie.remove(subscription.matched_filter, id(subscription.recipient))
        self._forget_routes(subscription.matched_filter)

    def _add_to_group(self, subscription: Subscription) -> None:
        group = self._groups.get(subscription.topic_filter)
        if group is None:
            group = self._groups[subscription.topic_filter] = ShareGroup()
            self._trie.add(subscription.matched_filter, subscription.topic_filter, group)
        group.members = [m for m in group.members if m.recipient is not subscription.recipient]
        group.members.append(subscription)

    def _remove_from_group(self, subscription: Subscription) -> None:
        group = self._groups.get(subscription.topic_filter)
        if group is None:
            return
        group.members = [m for m in group.members if m.recipient is not subscription.recipient]
        if not group.members:
            del self._groups[subscription.topic_filter]
            self._trie.remove(subscription.matched_filter, subscription.topic_filter)

    def _forget_routes(self, topic_filter: str) -> None:
        if "+" in topic_filter or "#" in topic_filter:
            self.routes.clear()
        else:
            self.routes.pop(topic_filter, None)

    def forget_permissions(self) -> None:
        """What somebody may have has changed."""
        self.routes.clear()
        for group in self._groups.values():
            group.members = list(group.members)

    def find(self, topic: str) -> Route:
        """The route of `topic`, worked out anew and remembered."""
        by_recipient: dict[int, Subscription] = {}
        groups = []
        for value in self._trie.match(topic):
            if isinstance(value, ShareGroup):
                share = PermittedShare(value, topic, self._counters)
                if share.members:
                    groups.append(value if share.is_whole else share)
                continue
            subscription = permitted(value, topic, self._counters)
            if subscription is None:
                continue
            key = id(subscription.recipient)
            other = by_recipient.get(key)
            by_recipient[key] = subscription if other is None else _merge(other, subscription)
        route = Route(list(by_recipient.values()), groups, self.is_volatile(topic))
        # 10,000 routes of 64 KB would fill the memory; and a PUBLISH to the broker's own topics is always looked at
        if len(topic) <= TopicCache.LONGEST_BYTES and not is_own(topic):
            if len(self.routes) >= _MAX_ROUTES:
                self.routes.clear()
            self.routes[topic] = route
        return route

    def is_volatile(self, topic: str) -> bool:
        """Whether messages of `topic` are kept in memory only.

        What the first of `durabilities` whose filter matches says: (topic filter, whether in memory only).
        """
        for topic_filter, is_volatile in self._durabilities:
            if match(topic_filter, topic):
                return is_volatile
        return False


def _merge(one: Subscription, other: Subscription) -> Subscription:
    """Overlapping subscriptions of one recipient as a single delivery [3.3.4]: the higher QoS, all identifiers."""
    merged = Subscription(
        one.recipient,
        one.topic_filter,
        max(one.qos, other.qos),
        one.no_local or other.no_local,
        one.retain_as_published or other.retain_as_published,
        one.subscription_ids + other.subscription_ids,
    )
    if merged.no_local:
        mine, others = one.for_own_messages(), other.for_own_messages()
        merged.instead = _merge(mine, others) if mine and others else mine or others
    return merged
