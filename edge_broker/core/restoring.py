"""What the store kept becomes the router's again: sessions, subscriptions, retained and delayed messages, dead letters.

It happens once, before anybody is let in. A session that was connected when the broker ended counts as disconnected from
now on, and one that left in what seems the future, as on a board without a clock, has left now. The rules may have changed
meanwhile: permissions are asked anew at the end. Queues come back as numbers alone; their messages stay on disk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_broker.core.session import Session, Subscription

if TYPE_CHECKING:
    from edge_broker.core.ops import SessionRecord, Snapshot
    from edge_broker.core.router import Router


def restore(router: Router, snapshot: Snapshot) -> None:
    """Give `router`, which is new, what is in `snapshot`."""
    if router.dead_letters is not None:
        router.dead_letters.restore(snapshot)
    by_id = {record.session_id: _restore_session(router, snapshot, record) for record in snapshot.sessions}
    _restore_subscriptions(router, snapshot, by_id)
    for session_id, packet_id in snapshot.inbound:
        if session_id in by_id:  # else it is a bridge's
            session = by_id[session_id]
            session.inbound = (session.inbound or set()) | {packet_id}
    router.retained.restore(snapshot.retained)
    router.delayed.restore(snapshot)
    if router.authorizer is not None:
        router.replace_authorizer(router.authorizer)  # the rules may have changed meanwhile


def _restore_session(router: Router, snapshot: Snapshot, record: SessionRecord) -> Session:
    queue = router.restore_queue(snapshot, record.session_id)
    session = Session(router, record.client_id, record.identity, record.expiry_interval, queue)
    left_at = router.now if record.disconnected_at is None else record.disconnected_at
    session.disconnected_at = min(left_at, router.now)  # a board without a clock may boot in the past
    session.will, session.will_delay = record.will, record.will_delay
    session.username, session.groups = record.username, record.groups
    router.enter(session)
    if session.may_reject:
        router.full[session] = None
    if session.will is not None:
        router.delay_will(session, session.disconnected_at + session.will_delay)
    return session


def _restore_subscriptions(router: Router, snapshot: Snapshot, by_id: dict[int, Session]) -> None:
    for saved in snapshot.subscriptions:
        ids = (saved.subscription_id,) if saved.subscription_id else ()
        session = by_id[saved.session_id]
        subscription = Subscription(
            session, saved.topic_filter, saved.qos, saved.no_local, saved.retain_as_published, ids
        )
        session.subscriptions[saved.topic_filter] = subscription
        router.table.add(subscription)
