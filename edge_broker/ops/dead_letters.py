"""What an operator does with dead letters of a running broker: give them to their recipients again, or throw them away.

Numbers are those that `edge-broker dead-letters list` shows. What is done with one is done in the commit that takes it out
of the dead letters, so none is lost or delivered from here twice, unless its recipient asks for it again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, Protocol

from edge_broker.core.dead_letters import DeadLetters
from edge_broker.core.message import Message
from edge_broker.core.queue import Queue
from edge_broker.core.router import Router
from edge_broker.errors import CommandError, StoreError
from edge_broker.ops.audit import Value
from edge_broker.ops.control import Answer, Handler, Request
from edge_broker.ops.observed import ObservedStore

_PAGE_MESSAGES: Final = 500
_PAGE_BYTES: Final = 256 << 10
_ROOM_SECONDS: Final = 0.05
_MOST_RECORDED: Final = 50
_GONE: Final = "it is not there"
_OFF: Final = "no dead letters are kept ([dead_letters] enabled is false)"


class Keeper(Protocol):
    """The broker."""

    router: Router

    @property
    def store(self) -> ObservedStore:
        """Its store."""

    def request_tick(self) -> None:
        """Have what was done delivered and committed."""

    def record_action(self, action: str, by: str, **fields: Value) -> None:
        """Put into the audit log what an administrator did."""


@dataclass(slots=True)
class Outcome:
    """How many dead letters it was done with, and of the others why not, by number."""

    done: int = 0
    failed: dict[int, str] = field(default_factory=dict)


def commands(keeper: Keeper) -> dict[str, Handler]:
    """What the control socket offers of these, by name: `numbers` in the request, or all without."""

    def command(name: str, act: Callable[[Keeper, Iterable[int] | None], Awaitable[Outcome]]) -> Handler:
        async def answer(request: Request) -> Answer:
            numbers = request.get("numbers")
            if numbers is not None and not (
                isinstance(numbers, list) and all(type(number) is int for number in numbers)
            ):
                raise CommandError("numbers is no list of whole numbers")
            try:
                outcome = await act(keeper, numbers)
            except StoreError as error:
                raise CommandError(f"the store cannot be read: {error}") from None
            which = "all" if numbers is None else " ".join(map(str, numbers[:_MOST_RECORDED]))
            keeper.record_action(f"dead letters: {name}", request["by"], which=which, done=outcome.done)
            failed = [{"number": number, "problem": why} for number, why in outcome.failed.items()]
            return {"done": outcome.done, "failed": failed}

        return answer

    return {"dead-letters retry": command("retry", retry), "dead-letters drop": command("drop", drop)}


async def retry(keeper: Keeper, numbers: Iterable[int] | None) -> Outcome:
    """Deliver the dead letters `numbers` (None: all) to whom they were for; one that cannot be stays. `StoreError`."""
    outcome = Outcome()
    dead_letters, queue = _opened(keeper, numbers, outcome)
    if dead_letters is None or queue is None:
        return outcome
    page: dict[int, Message] = {}
    for number in _waiting(queue, numbers, outcome):
        letter = queue.messages.get(number) or page.get(number)
        if letter is None:
            keeper.request_tick()
            await _room(keeper)
            found = await keeper.store.read_page(queue.queue_id, number, _PAGE_MESSAGES, _PAGE_BYTES)
            keeper.request_tick()  # the clock of this turn
            page = dict(found.messages)
            letter = page.get(number)
        problem = _GONE if letter is None else dead_letters.deliver_again(number, letter)
        if problem:
            outcome.failed[number] = problem
        else:
            outcome.done += 1
    keeper.request_tick()
    return outcome


async def drop(keeper: Keeper, numbers: Iterable[int] | None) -> Outcome:
    """Throw the dead letters `numbers` (None: all) away."""
    outcome = Outcome()
    dead_letters, queue = _opened(keeper, numbers, outcome)
    if dead_letters is None or queue is None:
        return outcome
    for number in _waiting(queue, numbers, outcome):
        if dead_letters.forget(number):
            outcome.done += 1
        else:
            outcome.failed[number] = _GONE
    keeper.request_tick()
    return outcome


def _opened(
    keeper: Keeper, numbers: Iterable[int] | None, outcome: Outcome
) -> tuple[DeadLetters | None, Queue | None]:
    """The dead letters and their queue; where there are none, why, for each of `numbers`."""
    dead_letters = keeper.router.dead_letters
    queue = None if dead_letters is None else dead_letters.queue
    if queue is None:
        outcome.failed = dict.fromkeys(numbers or (), _OFF if dead_letters is None else _GONE)
    return dead_letters, queue


def _waiting(queue: Queue, numbers: Iterable[int] | None, outcome: Outcome) -> Iterator[int]:
    """Those of `numbers` that are there, in order; None is all that are there now."""
    for number in range(queue.head, queue.next_number) if numbers is None else sorted(set(numbers)):
        if queue.may_drop(number):
            yield number
        elif numbers is not None:
            outcome.failed[number] = _GONE


async def _room(keeper: Keeper) -> None:
    """Wait until the store has caught up."""
    router = keeper.router
    while router.pending.uncommitted_bytes > router.max_uncommitted_bytes:  # noqa: ASYNC110 - rare and short
        await asyncio.sleep(_ROOM_SECONDS)
