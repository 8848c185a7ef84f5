"""Why the broker did not start, in a sentence that says what to do."""

from __future__ import annotations

import errno
import re
from typing import Final

from edge_broker.config.bind import Bind
from edge_broker.config.model import Config
from edge_broker.errors import EdgeBrokerError

_LOWEST_FREE_PORT: Final = 1024
_ASYNCIO_BIND: Final = re.compile(r"on address \('(?P<host>[^']*)', (?P<port>\d+)")
"""Where asyncio's own message has the address that it could not have."""


def explain_start_failure(error: EdgeBrokerError | OSError, config: Config) -> str:
    """What `Broker.start` raised, for a person.

    An `OSError` about a bind has no file name, or the listener's URL in its place; any other name is a file's.
    """
    if isinstance(error, EdgeBrokerError):
        return str(error)
    why = error.strerror or str(error)
    name = str(error.filename or "")
    if name and "://" not in name:
        return f"{name}: {why} (the user that runs the broker must be able to use it)"
    where = name or _where(why, config)
    if error.errno == errno.EADDRINUSE:
        return f"{where} is in use (stop the program that listens there, another broker perhaps, or change its bind)"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{where} is no address of this machine (change its bind; 0.0.0.0 is every IPv4 interface)"
    if error.errno in (errno.EACCES, errno.EPERM) and where.startswith("unix:"):
        return (
            f"{where} may not be made (the user that runs the broker must be able to write into its folder)"
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"{where} may not be used (ports below {_LOWEST_FREE_PORT} need a privilege; 1883 and 8883 do not)"
    return f"{why} (listening on {where})"


def _where(why: str, config: Config) -> str:
    """Which bind it was about, as far as that can be told."""
    named = _ASYNCIO_BIND.search(why)
    if named:
        return str(Bind(named["host"], int(named["port"])))
    binds = [listener.bind for listener in config.listeners]
    if config.http.bind:
        binds.append(config.http.bind)
    return f"one of {', '.join(binds)}" if len(binds) > 1 else binds[0]
