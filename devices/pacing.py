"""When a recorded reading is due, at a chosen speed. Pure: no clock is read and nothing waits."""

from datetime import datetime


class Pace:
    """Turns the times of a recording into seconds since the replay began.

    At speed 1 the gaps are as recorded, at 60 a minute passes in a second. Due times never go back: where the
    recording jumps into the past (it begins anew, or its clock was set) the next reading is due at once.
    """

    def __init__(self, speed: float) -> None:
        if not speed > 0:
            raise ValueError("the speed is above 0: 1 is as recorded, 60 a minute in a second")
        self._speed = speed
        self._previous: datetime | None = None
        self._due_seconds = 0.0

    def due_seconds(self, recorded_at: datetime) -> float:
        """Seconds after the beginning at which the next reading is due."""
        if self._previous is not None and recorded_at > self._previous:
            self._due_seconds += (recorded_at - self._previous).total_seconds() / self._speed
        self._previous = recorded_at
        return self._due_seconds
