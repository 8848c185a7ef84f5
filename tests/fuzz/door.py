"""An authenticator for fuzzing: as the pump's, and with an enhanced method that a script can get through, or not."""

from __future__ import annotations

from typing import Final

from edge_broker.core.ports import Admission, AuthenticationExchange, Challenge, Credentials
from edge_broker.wire import const
from tests.pump.pump import OpenDoor, Pump

METHOD: Final = "F"


class Exchange:
    """Admits on "in", refuses on "no", asks again on anything else."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials

    def step(self, data: bytes) -> Challenge | Admission:
        if data == b"in":
            return Admission(const.SUCCESS, self._credentials.username or "anonymous", data=b"welcome")
        if data == b"no":
            return Admission(const.NOT_AUTHORIZED, detail="it said no")
        return Challenge(b"who? " + data[:20])


class FuzzDoor(OpenDoor):
    """`OpenDoor` that also knows the method "F"."""

    def begin(self, credentials: Credentials, method: str) -> AuthenticationExchange | None:
        return Exchange(credentials) if method == METHOD else None

    @classmethod
    def put_in(cls, pump: Pump) -> None:
        """From now on the door of `pump`, through crashes too."""
        pump.door = pump.router.authenticator = cls()
