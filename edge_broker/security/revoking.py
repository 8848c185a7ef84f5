"""Ending the connections of those whose password was taken away or changed.

Who came in by certificate did not come by password, even under the same name, and stays.
"""

from __future__ import annotations

from collections.abc import Container

from edge_broker.core.router import Router
from edge_broker.wire import const


def end_connections(router: Router, names: Container[str]) -> int:
    """End the connections of the identities in `names` that no certificate vouches for; how many there were.

    That includes those whose CONNACK still waits for the store. Their sessions stay, as after any other end. Have the
    output flushed afterwards.
    """
    ended = 0
    for session in list(router.sessions.values()):
        connection = session.claimed_by
        if connection is None or connection.certificate_names or session.identity not in names:
            continue
        connection.fail(const.NOT_AUTHORIZED, "its password was changed or taken away")
        ended += 1
    return ended
