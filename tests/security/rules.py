"""Permissions for tests that are not about the rules' own language: who may do what, as two functions."""

from __future__ import annotations

from collections.abc import Callable

from edge_broker.core.ports import Principal
from tests.permitting import SimpleRules
from tests.pump.pump import Pump

Rule = Callable[[str, str], bool]
"""Of identity and topic or topic filter."""


class Rules(SimpleRules):
    """An `Authorizer`."""

    def __init__(self, publish: Rule, subscribe: Rule) -> None:
        super().__init__()
        self._publish, self._subscribe = publish, subscribe

    def may_publish(self, principal: Principal, topic: str) -> bool:
        return self._publish(principal.identity, topic)

    def may_subscribe(self, principal: Principal, topic_filter: str) -> bool:
        return self._subscribe(principal.identity, topic_filter)


def impose(pump: Pump, rules: Rules) -> None:
    """From now on `rules` hold."""
    pump.router.replace_authorizer(rules)


NOTHING = Rules(lambda *_: False, lambda *_: False)
ONLY_PUBLIC = Rules(
    lambda _, topic: topic.startswith("public/"), lambda _, wanted: wanted.startswith("public/")
)
OWN_TOPICS = Rules(lambda identity, topic: topic.startswith(f"{identity}/"), lambda *_: True)
"""Everybody publishes under a name of their own only, and reads everything."""
