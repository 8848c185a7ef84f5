"""Retained messages read back by topic, from committed rows only.

A row whose checksum is wrong is left out and named. Damage in the structure of the database is raised: recovery saves
more than a reader can.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from edge_broker.core.message import Message
from edge_broker.store import rows
from edge_broker.store.faults import Damaged
from edge_broker.store.segment import TopicNames
from edge_broker.store.times import Times
from edge_broker.store.vault import Vault


def read_retained(
    connection: sqlite3.Connection,
    topics: Sequence[str],
    names: TopicNames,
    times: Times,
    vault: Vault | None = None,
) -> tuple[dict[str, Message], list[str]]:
    """The retained messages of `topics` by topic, and the topics whose rows are damaged; without those not there."""
    vault = vault or Vault()
    keys = {key: topic for topic in topics for key in vault.retained_keys(topic)}
    marks = ",".join("?" * len(keys))
    select = f"SELECT topic, crc, body FROM retained WHERE topic IN ({marks})"
    messages: dict[str, Message] = {}
    damaged = []
    for row in connection.execute(select, list(keys)).fetchall():
        topic = keys[row[0]]
        try:
            messages[topic] = rows.retained_message(vault.open_retained(row), names, times)
        except Damaged:
            damaged.append(topic)
    return messages, damaged
