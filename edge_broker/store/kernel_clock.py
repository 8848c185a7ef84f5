"""Whether the kernel holds the wall clock to be right: somebody (timesyncd, chrony, ntpd) synchronises it.

A hint, asked in doubt only: a machine whose clock is right and set by nobody says no. Setting the clock by hand makes the
kernel say no, until it is synchronised again. Where the call is not allowed or not there, the answer is no.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import ctypes

_STA_UNSYNC: Final = 0x40
_TIME_ERROR: Final = 5


def kernel_says_synced() -> bool:
    """adjtimex(2) without changing anything: neither STA_UNSYNC nor an error."""
    import ctypes  # for the few machines and moments that need it

    timex = _timex()()
    try:
        state = ctypes.CDLL(None).adjtimex(ctypes.byref(timex))
    except (OSError, AttributeError):
        return False
    return 0 <= state != _TIME_ERROR and not timex.status & _STA_UNSYNC


@cache
def _timex() -> type[ctypes.Structure]:
    """`struct timex` as far as it is looked at; `long` is as long as the machine's."""
    import ctypes

    class Timex(ctypes.Structure):
        _fields_ = (
            ("modes", ctypes.c_uint),
            ("offset", ctypes.c_long),
            ("freq", ctypes.c_long),
            ("maxerror", ctypes.c_long),
            ("esterror", ctypes.c_long),
            ("status", ctypes.c_int),
            ("rest", ctypes.c_byte * 256),  # more than any architecture has behind it
        )

    return Timex
