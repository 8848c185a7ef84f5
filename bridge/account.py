"""What a bridge's line has carried this month, kept over restarts in a small file in the data directory.

The file is written in a thread of its own, by rename, and synced. Where that fails the bridge goes on, says so once, and
tries again with the next piece of the month. It is not in the store: its writes would come at the store's expense, and
losing it costs no message.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final, Literal

from bridge.allowance import Allowance, Kept
from bridge.background import call_in_background
from bridge.policy_config import PacingConfig

log: Final = logging.getLogger("bridge")


Withheld = Literal["", "all", "not urgent", "line"]
"""What may not be used for want of bytes: nothing, messages, those of rules that are not urgent, the line itself."""

_WITHHELD: Final[dict[str, Withheld]] = {"stop": "line", "drop": "all", "only_priority": "not urgent"}


class Account:
    """Of the bridge `name`. `path` None: it begins anew with each start."""

    def __init__(
        self, name: str, path: Path | None, config: PacingConfig, wall: Callable[[], float] = time.time
    ) -> None:
        self.allowance = Allowance(config.monthly_bytes, config.month_starts_on, _read(name, path))
        self._name = name
        self._when_spent = config.when_month_is_spent
        self._was_spent = False
        self._path = path
        self._wall = wall
        self._noted = 0
        self._lock = threading.Lock()
        self._writing = self._closed = self._complained = False

    def look(self, carried_bytes: int) -> Withheld:
        """As `note`; tells what is to be withheld now, and the log when that begins and ends."""
        self.note(carried_bytes)
        is_spent = self.allowance.is_spent
        if is_spent != self._was_spent:
            self._was_spent = is_spent
            text = (
                "bridge %s: the month's %d bytes are spent (when_month_is_spent = %s)"
                if is_spent
                else "bridge %s: a new month of %d bytes begins (when the last one was spent: %s)"
            )
            log.warning(text, self._name, self.allowance.limit_bytes, self._when_spent)
        return _WITHHELD[self._when_spent] if is_spent else ""

    def note(self, carried_bytes: int) -> None:
        """The line has carried so much since the start; to be told about once a second."""
        self.allowance.add(carried_bytes - self._noted, self._wall())
        self._noted = carried_bytes
        kept = self.allowance.to_keep()
        if kept is not None and self._path is not None and not self._writing:
            self._writing = True
            written = call_in_background(
                partial(self._write, self._path, kept), f"bridge {self._name} account"
            )
            written.add_done_callback(lambda done: self._on_written(kept, done.exception()))

    def close(self) -> None:
        """Write the exact figure; blocks for one small file."""
        if self._path is None:
            return
        with self._lock:
            self._closed = True
            try:
                _write(self._path, self.allowance.exactly())
            except OSError as error:
                self._complain(error)

    def _write(self, path: Path, kept: Kept) -> None:
        """In a thread: `close` may be writing, and has the last word."""
        with self._lock:
            if not self._closed:
                _write(path, kept)

    def _on_written(self, kept: Kept, error: BaseException | None) -> None:
        self._writing = False
        if error is None:
            self._complained = False
        else:
            self._complain(error)
        self.allowance.on_kept(kept)  # even where it failed: the next piece of the month is soon enough

    def _complain(self, error: BaseException) -> None:
        if not self._complained:
            self._complained = True
            log.warning(
                "bridge %s: %s cannot be written: %s (a restart forgets what the month has used)",
                self._name,
                self._path,
                error,
            )


def _write(path: Path, kept: Kept) -> None:
    new = path.with_name(path.name + ".new")
    with new.open("w", encoding="utf-8") as file:
        json.dump(kept._asdict(), file)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def _read(name: str, path: Path | None) -> Kept | None:
    if path is None:
        return None
    try:
        found = json.loads(path.read_text("utf-8"))
        return Kept(str(found["month"]), int(found["used_bytes"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning(
            "bridge %s: %s cannot be read: %s (the month's bytes are counted from none)", name, path, error
        )
        return None
