"""Retained messages that are on disk only, read back for one connection: a short page at a time, when it wants them.

What was replaced or removed while a page was under way is not handed out: its new message came as a live one. A page is
small, since each connection that is given retained messages may hold one.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import TYPE_CHECKING, Final

from edge_broker.core.message import Message
from edge_broker.core.retained import Entry, Stub

if TYPE_CHECKING:
    from edge_broker.core.connection import Connection

_PAGE_BYTES: Final = 128 << 10
"""In one page, unless one message alone is larger."""
_PAGE_ENTRIES: Final = 200
"""Looked at for one page; those in memory are passed over."""


class RetainedPages:
    """What `connection` reads back. The broker answers each one in `pending.retained_reads` with `take`."""

    __slots__ = ("_asked", "_connection", "_page")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._asked: list[Stub] = []
        self._page: dict[Stub, Message] = {}

    @property
    def is_waiting(self) -> bool:
        """Whether a page is under way."""
        return bool(self._asked)

    @property
    def wanted(self) -> list[str]:
        """The topics that were asked for; none where the connection has ended."""
        return [stub.topic for stub in self._asked] if self._connection.end is None else []

    def find(self, entry: Entry) -> Message | None:
        """The message of `entry`; None where it is to be asked for. What was read back is handed out once."""
        return self._page.pop(entry, None) if isinstance(entry, Stub) else entry

    def ask(self, entries: list[Entry]) -> None:
        """Ask for a page: of the last one in `entries`, and of as many before it as there is room for."""
        retained = self._connection.router.retained
        size_bytes = 0
        for entry in islice(reversed(entries), _PAGE_ENTRIES):
            if isinstance(entry, Stub) and retained.is_current(entry):
                size_bytes += entry.size_bytes
                if self._asked and size_bytes > _PAGE_BYTES:
                    break
                self._asked.append(entry)
        self._connection.router.pending.retained_reads.append(self)

    def take(self, messages: Mapping[str, Message] | None) -> None:
        """The answer to `ask`, by topic; None where the read failed: then the delivery asks again.

        What should be there and is not is lost, and counted so.
        """
        asked, self._asked = self._asked, []
        connection = self._connection
        if messages is not None:
            retained = connection.router.retained
            current = [stub for stub in asked if retained.is_current(stub)]
            self._page = {stub: messages[stub.topic] for stub in current if stub.topic in messages}
            for stub in current:
                if stub.topic not in messages:
                    retained.lose(stub)
        if connection.end is None:
            connection._outlet.wake()
