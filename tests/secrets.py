"""Secrets that tests use, so that no log may have them: see `tests.log_secrets`, which looks."""

from __future__ import annotations

import base64
from functools import cache
from urllib.parse import quote

LEAST_LENGTH = 6
"""Shorter ones would be found in any text by chance."""

_registered: dict[str, None] = {}


def secret(text: str) -> str:
    """`text`, which from now on no log of this run may have, in whatever form. Make it like no other text."""
    assert len(text) >= LEAST_LENGTH, "a secret this short is found by chance"
    _registered[text] = None
    return text


def found_in(text: str) -> list[str]:
    """The secrets that `text` has."""
    if not text:
        return []
    return [one for one in _registered if any(form in text for form in _forms(one))]


@cache
def _forms(text: str) -> tuple[str, ...]:
    """As it is, and as it comes out of repr, base64, hex and URLs."""
    data = text.encode()
    plain = base64.b64encode(data).decode().rstrip("=")
    return tuple(
        dict.fromkeys(
            (text, repr(text)[1:-1], repr(data)[2:-1], plain[: len(plain) // 4 * 4], data.hex(), quote(text))
        )
    )
