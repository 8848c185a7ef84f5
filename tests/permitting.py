"""An authorizer for tests: a subclass says in two functions who may do what; everything else follows from them."""

from __future__ import annotations

from edge_broker.core.ports import NEVER, Permissions, Principal


class SimpleRules:
    """Everybody may do everything, unless a subclass says otherwise. `removed`: what was taken, from whom."""

    def __init__(self) -> None:
        self.removed: list[tuple[str, list[str]]] = []

    def may_publish(self, principal: Principal, topic: str) -> bool:
        return True

    def may_subscribe(self, principal: Principal, topic_filter: str) -> bool:
        return True

    def permissions_of(self, principal: Principal) -> Permissions | None:
        return _Asking(self, principal)

    def on_removed(self, principal: Principal, topic_filters: list[str]) -> None:
        self.removed.append((principal.client_id, topic_filters))


class _Asking:
    """Asks its rules each time."""

    def __init__(self, rules: SimpleRules, principal: Principal) -> None:
        self._rules, self._principal = rules, principal

    def publish_right(self, topic: str) -> tuple[int, bool]:
        is_allowed = self._rules.may_publish(self._principal, topic)
        return (2, True) if is_allowed else (NEVER, False)

    def granted_qos(self, topic_filter: str, shared: bool) -> int:
        return 2 if self._rules.may_subscribe(self._principal, topic_filter) else NEVER

    def delivered_qos(self, topic: str, shared: bool) -> int:
        return 2
