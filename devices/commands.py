"""Commands to a device: taken from the network thread, given to the user's callback on a thread of their own.

So a callback may take its time, publish readings or flush without holding up the connection. A command is acknowledged
after the callback returned: one that was cut short by a kill -9 comes again if the broker kept it (at least once). A
callback that raises is logged and its command acknowledged all the same, or it would come again for ever.

At most a hundred commands wait. The next are not taken: counted in `dropped`, and not acknowledged.
"""

import json
import logging
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

_log = logging.getLogger("devices")

_COMMANDS_WAITING: Final = 100


@dataclass(frozen=True, slots=True)
class Command:
    """A command as it came. `name` is what stands behind `commands/` in its topic, like `led` or `fan/speed`."""

    name: str
    payload: bytes
    topic: str

    def json(self) -> object:
        """The payload read as JSON; ValueError where it is something else."""
        return json.loads(self.payload)


CommandCallback = Callable[[Command], object]


class CommandInbox:
    """The commands that wait for the callback, and the thread that calls it."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._callback: CommandCallback | None = None
        self._waiting: queue.Queue[tuple[Command, Callable[[], None]] | None] = queue.Queue(_COMMANDS_WAITING)
        self._thread: threading.Thread | None = None
        self._closed = False
        self.received = 0
        self.dropped = 0

    def on_command(self, callback: CommandCallback) -> None:
        """Have every command given to this callback, also those that wait already."""
        self._callback = callback
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=f"commands-{self._device}", daemon=True)
            self._thread.start()

    def put(self, command: Command, acknowledge: Callable[[], None]) -> None:
        """Never blocks. `acknowledge` is called on the callback's thread, after the callback."""
        if self._closed:
            return
        try:
            self._waiting.put_nowait((command, acknowledge))
        except queue.Full:
            self.dropped += 1
            _log.warning("%s: a command was not taken: %d wait already", self._device, _COMMANDS_WAITING)
        else:
            self.received += 1

    def close(self, timeout_seconds: float) -> None:
        """Call back no more, and give the callback that runs so much time to return."""
        self._closed = True
        if self._thread is None:
            return
        self._drain()
        self._waiting.put(None)
        if self._thread is not threading.current_thread():
            self._thread.join(timeout_seconds)

    def _drain(self) -> None:
        try:
            while True:
                self._waiting.get_nowait()
        except queue.Empty:
            return

    def _run(self) -> None:
        while (item := self._waiting.get()) is not None and not self._closed:
            command, acknowledge = item
            callback = self._callback
            assert callback is not None  # the thread starts with the first one
            try:
                callback(command)
            except Exception:  # noqa: BLE001  it is the user's code, and the next command is not to blame
                _log.exception("%s: the callback failed on the command %s", self._device, command.name)
            acknowledge()
