"""What an ACL allows, kept with those whom it concerns: asked when a session is opened, never on the way of a message.

A session asks when it begins, when it is resumed by somebody of another name or in other groups, after a restart, and
when the rules were replaced; subscriptions that it may not have any more are taken from it then. What may be delivered is
settled when a topic's route is built (`permitted`), what may be published is remembered by the connection.

The rules themselves are the authorizer's (``ports``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_broker.core.delayed import target_of
from edge_broker.core.ports import NEVER, Permissions, Principal

if TYPE_CHECKING:
    from edge_broker.core.counters import Counters
    from edge_broker.core.router import Router
    from edge_broker.core.session import Session, Subscription


def what_is_refused(right: tuple[int, bool], qos: int, retain: bool) -> str:
    """What about a message is not allowed by `right` (see `Permissions.publish_right`); empty where all of it is."""
    highest_qos, may_retain = right
    if highest_qos == NEVER:
        return "publish"
    if qos > highest_qos:
        return "qos"
    return "retain" if retain and not may_retain else ""


def may_publish(permissions: Permissions | None, topic: str, qos: int, retain: bool) -> bool:
    """Whether all of it is allowed; asked anew each time."""
    return permissions is None or not what_is_refused(
        permissions.publish_right(target_of(topic)), qos, retain
    )


def permitted(subscription: Subscription, topic: str, counters: Counters) -> Subscription | None:
    """How `subscription` gets messages of `topic`: as it is, at a lower QoS, or not at all, which is counted."""
    permissions = subscription.recipient.permissions
    if permissions is None:
        return subscription
    qos = permissions.delivered_qos(topic, bool(subscription.share_name))
    if qos == NEVER:
        counters.deny("receive")
        return None
    return subscription if qos >= subscription.qos else subscription.at_qos(qos)


def recognise(router: Router, session: Session, principal: Principal) -> None:
    """`session` is opened by `principal`, whose identity is its own, or authenticated anew: what it may do now."""
    is_same = (session.username, session.groups) == (principal.username, principal.groups)
    session.username, session.groups = principal.username, principal.groups
    if router.authorizer is not None and not (is_same and session.permissions is not None):
        permit(router, session)
        if session.subscriptions:
            router.table.forget_permissions()


def permit(router: Router, session: Session) -> int:
    """Ask what `session` may do from now on; how many of its subscriptions were taken from it.

    The routes that its permissions are in must be forgotten afterwards.
    """
    authorizer = router.authorizer
    principal = session.principal
    session.permissions = None if authorizer is None else authorizer.permissions_of(principal)
    if session.connection is not None:
        session.connection.permit(session.permissions)
    removed = [] if session.permissions is None else _not_allowed(router, session, session.permissions)
    for topic_filter in removed:
        router.unsubscribe(session, topic_filter)
    if removed and authorizer is not None:
        router.counters.deny("removed", len(removed))
        authorizer.on_removed(principal, removed)
        if router.observer is not None:
            router.observer.on_removed(principal, removed)
    return len(removed)


def _not_allowed(router: Router, session: Session, permissions: Permissions) -> list[str]:
    """Its subscriptions that are refused now; those that may only have a lower QoS are given it."""
    refused = []
    for subscription in list(session.subscriptions.values()):
        qos = permissions.granted_qos(subscription.matched_filter, bool(subscription.share_name))
        if qos == NEVER:
            refused.append(subscription.topic_filter)
        elif qos < subscription.qos:
            router.subscribe(session, subscription.at_qos(qos))
    return refused
