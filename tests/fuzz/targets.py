"""The fuzz targets by name: each is a function of bytes in a module of its own."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Final

TARGETS: Final = ("decoder", "client", "connection", "segment", "front", "ingest")

Target = Callable[[bytes], None]


def load_target(name: str) -> Target:
    """The function; imported only now, so that whoever instruments imports has begun to."""
    target: Target = getattr(import_module(f"tests.fuzz.fuzz_{name}"), f"fuzz_{name}")
    return target
