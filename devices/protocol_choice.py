"""Which MQTT version the next connection speaks: 5.0 where the broker can, 3.1.1 where it cannot.

A broker that does not know MQTT 5.0 may say so in a CONNACK, which settles it. It may also close the connection or stay
silent, but so does one that is starting or stopping, and so does a proxy in front of one that is gone. Silence therefore
settles nothing by itself: 3.1.1 is tried; if that is answered, the broker is alive, and 5.0 is tried once more right
away; only if that is met with silence again, it is the version. And where 5.0 ever worked, it is never the version.
"""

from typing import Literal

MqttVersion = Literal["5", "3.1.1"]


class ProtocolChoice:
    """Remembers what the broker showed of itself; `version` is what to try next."""

    def __init__(self, pinned: MqttVersion | None = None) -> None:
        self.version: MqttVersion = pinned or "5"
        self._pinned = pinned is not None
        self._version_5_worked = False
        self._settled = False
        self._alive = False  # it just answered to 3.1.1

    def connected(self) -> bool:
        """The broker accepted this version. False: close again and try the other one at once, to be sure."""
        if self.version == "5":
            self._version_5_worked = True
        elif not self._pinned and not self._settled:
            self.version = "5"
            self._alive = True
            return False
        return True

    def refused_version(self) -> bool:
        """The broker refused this version by name. True: try the other one at once."""
        if self._pinned or self.version == "3.1.1":
            return False
        self.version = "3.1.1"
        self._settled = True
        return True

    def unanswered(self) -> bool:
        """The broker took the connection and gave no CONNACK. True: try the other version at once."""
        if self._pinned or self._version_5_worked:
            return False
        if self.version == "3.1.1":  # not even that: it is not the version, begin anew
            self.version = "5"
            self._settled = self._alive = False
            return False
        self.version = "3.1.1"
        self._settled = self._alive
        return True
