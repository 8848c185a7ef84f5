"""What every section of the configuration has in common, and the units they count in."""

from __future__ import annotations

from typing import Final

import msgspec

DAY_SECONDS: Final = 86_400
GIBIBYTE: Final = 1 << 30


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What every section has in common: immutable, no keys but its own."""
