"""The network thread: one asyncio event loop on which any number of devices live.

Why one thread for all and not one each: a fleet of 200 devices needs no 200 stacks and no fight for the interpreter
lock, and everything that belongs to a connection is touched by one thread only, so none of it needs a lock. What
blocks (name resolution, connecting, the TLS handshake: paho does all three inside `connect()`) is done by a short-lived
thread per attempt, a limited number at a time, so that one unreachable broker holds up nobody.

All threads are daemons: a script that ends without closing its devices does end. What it published is in the spool.
"""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Final, ParamSpec, TypeVar

T = TypeVar("T")
P = ParamSpec("P")

_BLOCKING_CALLS_AT_ONCE: Final = 16


class NetworkThread:
    """An event loop in a thread of its own. Start it once; `stop` ends it for good."""

    def __init__(self, name: str = "devices-network") -> None:
        self.loop = asyncio.new_event_loop()
        self._blocking_calls = asyncio.Semaphore(_BLOCKING_CALLS_AT_ONCE)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        try:
            self.loop.run_forever()
        finally:
            self.loop.close()

    def call(self, function: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
        """Have the function called on the network thread, soon. After `stop` nothing happens."""
        try:
            self.loop.call_soon_threadsafe(lambda: function(*args, **kwargs))
        except RuntimeError:
            if not self.loop.is_closed():
                raise

    def run(self, coroutine: Coroutine[object, object, T]) -> Future[T]:
        """Run the coroutine on the network thread; the future is the caller's to wait for."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    async def run_blocking(self, function: Callable[[], T], undo: Callable[[], None] | None = None) -> T:
        """Await a blocking function in a thread of its own.

        When the caller is cancelled meanwhile that thread runs on; `undo` is called when it is done.
        """
        async with self._blocking_calls:
            outcome: asyncio.Future[T] = self.loop.create_future()

            def work() -> None:
                try:
                    result = function()
                except Exception as error:  # noqa: BLE001  handed over to the one who waits
                    self.call(_fail, outcome, error)
                else:
                    self.call(_succeed, outcome, result, undo)

            threading.Thread(target=work, name="devices-blocking", daemon=True).start()
            return await outcome

    def stop(self) -> None:
        """End the loop and wait for its thread."""
        if self._thread.ident is None:
            self.loop.close()  # never started
        elif self._thread.is_alive():
            self.call(self.loop.stop)
            self._thread.join()


def _succeed(outcome: asyncio.Future[T], result: T, undo: Callable[[], None] | None) -> None:
    if not outcome.done():
        outcome.set_result(result)
    elif undo is not None:
        undo()


def _fail(outcome: asyncio.Future[T], error: Exception) -> None:
    if not outcome.done():
        outcome.set_exception(error)
