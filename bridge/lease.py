"""Whether an ingester listens upstream that understands our envelopes, as its announcements on the lease's topic say.

- One that came live (retain flag clear) counts for as long as it says it is valid, from when it came: no clock is needed.
- A retained one was published some time ago: it counts until what is left of its message expiry is over (MQTT 5), or,
  where the upstream says nothing of that, until it `expires` by our clock. Never for longer than it was valid at first.
- An empty one withdraws. What cannot be read changes nothing and is counted.
- An ingester that does not take our version of envelopes, or has not the dictionary that ours need, is none.

Each new connection begins without one: who listens at this upstream is for its own announcement to say. Pure: times come
in.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from bridge.envelope import VERSION
from bridge.ingest.lease import Lease as Announcement

_LONGEST_SECONDS: Final = 86_400
_LONGEST_BYTES: Final = 64 << 10

LeaseState = Literal["none", "held", "expired", "withdrawn", "unfit", "refused"]


class Lease:
    """`dictionary_id`: of the dictionary that our envelopes need, 0 for none. `ingester`: who announced itself last.

    `malformed`: announcements that could not be read. `is_decided`: whether any was heard on this connection.
    """

    def __init__(self, dictionary_id: int = 0) -> None:
        self._dictionary_id = dictionary_id
        self._until = 0.0
        self._state: LeaseState = "none"
        self.ingester = ""
        self.malformed = 0

    def forget(self) -> None:
        """A new connection: nothing was heard on it yet."""
        self._until = 0.0
        self._state = "none"

    def give_up(self) -> None:
        """The upstream does not let us hear of it."""
        self._until, self._state = 0.0, "refused"

    @property
    def is_decided(self) -> bool:
        """Whether something was heard since `forget`."""
        return self._state != "none"

    def holds(self, now: float) -> bool:
        """Whether envelopes may be sent."""
        if self._state != "held":
            return False
        if now < self._until:
            return True
        self._state = "expired"
        return False

    def state(self, now: float) -> LeaseState:
        """What is known, in a word. `unfit`: an ingester that does not understand our envelopes."""
        self.holds(now)
        return self._state

    def seconds_left(self, now: float) -> float:
        """For how long it still holds; 0 where it does not."""
        return self._until - now if self.holds(now) else 0.0

    def on_announcement(
        self, payload: bytes, retained: bool, expiry_seconds: int | None, now: float, wall: float
    ) -> bool:
        """An announcement came; False where it could not be read.

        `retained`: its retain flag; `expiry_seconds`: what is left of its message expiry, None without one. `now`: the
        clock that `holds` is asked by; `wall`: Unix time.
        """
        if not payload:
            self._until, self._state = 0.0, "withdrawn"
            return True
        said = _read(payload)
        if said is None:
            self.malformed += 1
            return False
        self.ingester = said.ingester
        if not self._is_fit(said):
            self._until, self._state = 0.0, "unfit"
            return True
        left: float = min(said.valid_seconds, _LONGEST_SECONDS)
        if expiry_seconds is not None:
            left = min(left, expiry_seconds)
        elif retained:
            left = min(left, said.expires - wall)
        self._until = now + left
        self._state = "held" if left > 0 else "expired"
        return True

    def _is_fit(self, said: Announcement) -> bool:
        return VERSION in said.envelope_versions and (
            not self._dictionary_id or self._dictionary_id in said.dictionaries
        )


def _read(payload: bytes) -> Announcement | None:
    if len(payload) > _LONGEST_BYTES:
        return None
    try:
        said = msgspec.json.decode(payload, type=Announcement)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return said if said.valid_seconds > 0 else None
