"""What sensors sent: the room log that comes with the device SDK, as payloads."""

import json

from devices.recorded import packaged_recording, read_recorded


def recorded_payloads() -> list[bytes]:
    """The room log that comes with the device SDK, as JSON, in its order."""
    return [
        json.dumps(reading.as_dict(), separators=(",", ":")).encode()
        for reading in read_recorded(packaged_recording())
    ]


def dealt(payloads: list[bytes], count: int) -> list[bytes]:
    """The first `count` of them, from the front again when they are over."""
    return [payloads[at % len(payloads)] for at in range(count)]
