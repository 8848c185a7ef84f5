"""Ending the connections of those whose password was taken away or changed, or whose token's key was.

Who came in by certificate or token did not come by password, even under the same name, and stays when that changes.
"""

from __future__ import annotations

from collections.abc import Container

from edge_broker.core.router import Router
from edge_broker.wire import const


def end_connections(router: Router, names: Container[str]) -> int:
    """End the connections of the identities in `names` that neither a certificate nor a token vouches for; how many.

    That includes those whose CONNACK still waits for the store. Their sessions stay, as after any other end. Have the
    output flushed afterwards.
    """
    ended = 0
    for session in list(router.sessions.values()):
        connection = session.claimed_by
        if connection is None or connection.certificate_names or connection.proof:
            continue
        if session.identity not in names:
            continue
        connection.fail(const.NOT_AUTHORIZED, "its password was changed or taken away")
        ended += 1
    return ended


def end_unproved(router: Router, proofs: Container[str]) -> int:
    """End the connections whose admission rests on one of `proofs`; how many there were. Otherwise as `end_connections`."""
    ended = 0
    for session in list(router.sessions.values()):
        connection = session.claimed_by
        if connection is None or not connection.proof or connection.proof not in proofs:
            continue
        connection.fail(const.NOT_AUTHORIZED, "the key of its token was taken away")
        ended += 1
    return ended
