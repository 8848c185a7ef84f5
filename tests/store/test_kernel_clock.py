"""What the kernel says of the wall clock, with a kernel of the test's own and with the real one."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest

from edge_broker.store.kernel_clock import kernel_says_synced


class Kernel:
    def __init__(self, state: int, status: int) -> None:
        self._state, self._status = state, status

    def adjtimex(self, reference: Any) -> int:
        reference._obj.status = self._status
        return self._state


@pytest.mark.parametrize(
    ("state", "status", "synced"),
    [(0, 0x2001, True), (1, 0, True), (5, 0x40, False), (5, 0, False), (0, 0x40, False), (-1, 0, False)],
)
def test_the_answer(monkeypatch: pytest.MonkeyPatch, state: int, status: int, synced: bool) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: Kernel(state, status))
    assert kernel_says_synced() is synced


@pytest.mark.parametrize("error", [OSError("no libc"), AttributeError("adjtimex")])
def test_without_the_call_nobody_says_so(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(_: object) -> None:
        raise error

    monkeypatch.setattr(ctypes, "CDLL", fail)
    assert kernel_says_synced() is False


def test_the_real_kernel_answers() -> None:
    assert kernel_says_synced() in (True, False)
    assert kernel_says_synced() is kernel_says_synced()
