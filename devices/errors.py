"""What can go wrong in a device's program.

    DeviceError
    ├── BrokerUrlError       the broker's address or its TLS files cannot be used (also a ValueError)
    ├── ReadingError         a reading cannot be encoded, or its topic, QoS or size is not allowed (also a ValueError)
    ├── SpoolError           the spool cannot be opened, read or written
    │   ├── SpoolInUseError  another process, or another Device of this one, has the spool open
    │   └── SpoolFullError   the spool is full and its owner chose to refuse new readings
    ├── SensorError          a sensor gave no reading
    └── RecordedDataError    a file of recorded readings is not what the reader expects

Every message says what is wrong and what to do. A broker that is away is not an error: readings wait in the spool.
"""


class DeviceError(Exception):
    """The root of everything this package raises on purpose."""


class BrokerUrlError(DeviceError, ValueError):
    """The broker's URL, or a TLS file that goes with it, cannot be used."""


class ReadingError(DeviceError, ValueError):
    """A reading cannot be encoded, or its topic, QoS or size is not allowed."""


class SpoolError(DeviceError):
    """The spool cannot be opened, read or written. A reading that met this was not accepted."""


class SpoolInUseError(SpoolError):
    """The spool is open elsewhere: two writers would give two readings the same sequence number."""


class SpoolFullError(SpoolError):
    """The spool is full and `when_full="refuse"` was chosen."""


class SensorError(DeviceError):
    """A sensor gave no reading."""


class RecordedDataError(DeviceError):
    """A file of recorded readings is not what the reader expects.

    `path`, `line` (from 1, None for the file as a whole) and `problem` say where and what.
    """

    def __init__(self, path: str, line: int | None, problem: str) -> None:
        self.path = path
        self.line = line
        self.problem = problem
        place = path if line is None else f"{path}, line {line}"
        super().__init__(f"{place}: {problem}")
