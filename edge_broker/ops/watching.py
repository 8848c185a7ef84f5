"""Files that the running broker takes anew when they change: certificates, revocation lists, passwords and the like.

`add` says what belongs together and who takes it: one line for each. What it keeps true:

- Half-written files are not taken: what changed is looked at only when it has stayed the same from one look to the next,
  and whoever takes it checks it whole. A certificate and its key that do not fit yet are refused, and taken when they do.
- A change is a change of contents: a file that was only touched, or put back as it was, is not taken again.
- What cannot be used is refused, logged once, and kept in `refused` until it is mended. What was taken before stays.

Looking is one `stat` per file and second, on the event loop; a file is read, in a thread, only when that has changed.
Whether it was replaced by rename or written in place makes no difference.
"""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import logging
import os
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

from edge_broker.errors import EdgeBrokerError

log: Final = logging.getLogger("edge_broker.ops")

Reload = Callable[[], Awaitable[object] | object]
_Signature = tuple[tuple[int, ...] | None, ...]
_Contents = tuple[bytes | None, ...]

INTERVAL_SECONDS: Final = 1.0
_CHUNK_BYTES: Final = 1 << 20


class Watch:
    """Files that are taken together. `refusal`: why what is in them now is not used; empty where it is."""

    def __init__(self, what: str, paths: Sequence[Path], reload: Reload) -> None:
        self.what = what
        self.paths = paths
        self.reload = reload
        self.refusal = ""
        self.taken = 0
        self.refused = 0
        self.seen = self.judged = _signature(paths)
        self.contents = self.refused_contents = _contents(paths)


class Watching:
    """All of them, looked at every `interval_seconds` from `start` to `stop`; `reload_all` takes them whatever they are.

    `on_taken(what, refusal)` is called for each that was taken, or refused for a reason.
    """

    def __init__(
        self,
        interval_seconds: float = INTERVAL_SECONDS,
        on_taken: Callable[[str, str], None] = lambda what, refusal: None,
    ) -> None:
        self.watches: dict[str, Watch] = {}
        self._on_taken = on_taken
        self._interval_seconds = interval_seconds
        self._taking = asyncio.Lock()
        self._looking: asyncio.Task[None] | None = None
        self._started = False

    def add(self, what: str, paths: Iterable[Path | None], reload: Reload) -> None:
        """Have `reload` called when one of `paths` has changed; None among them is no file. Add before the first reading.

        `what` names it in log, health and metrics. `reload`, a function or a coroutine function, takes the new contents or
        raises `EdgeBrokerError`, `OSError` or `ValueError` that says why not, with everything as it was before.
        """
        name, number = what, 2
        while name in self.watches:
            name, number = f"{what} ({number})", number + 1
        files = [path for path in paths if path is not None]
        if files:
            self.watches[name] = Watch(name, files, reload)
            if self._started:
                self.start()

    @property
    def refused(self) -> dict[str, str]:
        """What is not used as it stands in its files now, and why."""
        return {name: watch.refusal for name, watch in self.watches.items() if watch.refusal}

    def start(self) -> None:
        """Look from now on, or from the first `add` on."""
        self._started = True
        if self.watches and self._looking is None:
            self._looking = asyncio.get_running_loop().create_task(self._keep_looking())

    async def stop(self) -> None:
        """Look no more; what is being taken is taken."""
        self._started = False
        looking, self._looking = self._looking, None
        async with self._taking:
            if looking is not None:
                looking.cancel()

    async def reload_all(self) -> None:
        """Take all of them now, without waiting for anything to settle: somebody says that they are whole."""
        async with self._taking:
            for watch in self.watches.values():
                watch.seen = watch.judged = _signature(watch.paths)
                await self._take(watch, await asyncio.to_thread(_contents, watch.paths))

    async def look(self) -> None:
        """One look at each."""
        for watch in self.watches.values():
            signature = _signature(watch.paths)
            if signature != watch.seen:
                watch.seen = signature  # it may still be written to: the next look tells
            elif signature != watch.judged:
                async with self._taking:
                    await self._judge(watch, signature)

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(self._interval_seconds)
            await self.look()

    async def _judge(self, watch: Watch, signature: _Signature) -> None:
        """It has changed and stayed the same since the last look."""
        contents = await asyncio.to_thread(_contents, watch.paths)
        if _signature(watch.paths) != signature:
            return  # it changes again
        watch.judged = signature
        if contents == watch.contents:
            if watch.refusal:
                log.info("%s: the files are again as they were taken", watch.what)
            watch.refusal = ""
        elif not watch.refusal or contents != watch.refused_contents:
            await self._take(watch, contents)

    async def _take(self, watch: Watch, contents: _Contents) -> None:
        try:
            result = watch.reload()
            if inspect.isawaitable(result):
                await result
        except (EdgeBrokerError, OSError, ValueError) as error:
            self._refuse(watch, contents, _words(error))
        except Exception as error:
            log.exception("internal error while taking the %s anew", watch.what)
            self._refuse(watch, contents, f"internal error: {type(error).__name__}")
        else:
            watch.taken += 1
            watch.refusal = ""
            watch.contents = contents
            self._on_taken(watch.what, "")

    def _refuse(self, watch: Watch, contents: _Contents, why: str) -> None:
        watch.refused += 1
        watch.refusal = why
        watch.refused_contents = contents
        log.error("%s: the new file is refused, the old one stays in force: %s", watch.what, why)
        self._on_taken(watch.what, why)


def _signature(paths: Sequence[Path]) -> _Signature:
    """What changes when a file is written or replaced."""
    return tuple(_stat(path) for path in paths)


def _stat(path: Path) -> tuple[int, ...] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _contents(paths: Sequence[Path]) -> _Contents:
    """A digest of each file; None for one that cannot be read."""
    return tuple(_digest(path) for path in paths)


def _digest(path: Path) -> bytes | None:
    digest = hashlib.blake2b(digest_size=16)
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
    except OSError:
        return None
    return digest.digest()


def _words(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return str(error) or type(error).__name__
