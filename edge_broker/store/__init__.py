"""What the broker keeps through power cuts: `Store` holds it, `Journal` decides when it is written.

Others use these names only. A store in an empty directory opens in milliseconds, so tests take a real one.
"""

from __future__ import annotations

from edge_broker.store.budget import WriteBudget
from edge_broker.store.clock import StoreClock
from edge_broker.store.journal import Journal, PendingOperations, SealedBatch
from edge_broker.store.recovery import RecoveryReport
from edge_broker.store.schema import DATABASE_NAME
from edge_broker.store.store import Store
from edge_broker.store.vault import Vault

__all__ = [
    "DATABASE_NAME",
    "Journal",
    "PendingOperations",
    "RecoveryReport",
    "SealedBatch",
    "Store",
    "StoreClock",
    "Vault",
    "WriteBudget",
]
