"""Calls that may hang (a resolver, files on a tired card) in daemon threads of their own.

A pool would fill up with calls that hang, and the interpreter waits for a pool's threads when it ends; these it does not
wait for.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


def call_in_background(function: Callable[[], Result], name: str) -> asyncio.Future[Result]:
    """Call `function` in a thread named `name`; the future has its result, or the exception it raised."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Result] = loop.create_future()

    def finish(result: Result) -> None:
        if not future.done():  # else nobody waits any more
            future.set_result(result)

    def fail(error: Exception) -> None:
        if not future.done():
            future.set_exception(error)

    def run() -> None:
        try:
            try:
                result = function()
            except Exception as error:  # noqa: BLE001 - raised again where it is awaited
                loop.call_soon_threadsafe(fail, error)
            else:
                loop.call_soon_threadsafe(finish, result)
        except RuntimeError:
            pass  # the event loop has ended meanwhile

    threading.Thread(target=run, name=name, daemon=True).start()
    return future
