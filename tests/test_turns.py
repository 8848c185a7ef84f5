"""From one turn of the event loop to the next: who is flushed when, and that one broken connection holds up no other."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from edge_broker.core.counters import Counters
from edge_broker.core.pending import Pending
from edge_broker.turns import Turns


class Loop:
    """As much of an event loop as turns need: what `call_soon` was given is called in the next turn."""

    def __init__(self) -> None:
        self.soon: deque[Callable[[], None]] = deque()

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.soon.append(callback)

    def turn(self) -> None:
        for _ in range(len(self.soon)):
            self.soon.popleft()()


class Client:
    """A connection with output. `flushed` is told of it."""

    def __init__(self, name: str, flushed: list[str], broken: bool = False) -> None:
        self.client_id = name
        self.address = "test"
        self.closing = False
        self.end: tuple[int, str] | None = None
        self._flushed = flushed
        self._broken = broken

    def flush(self) -> None:
        if self._broken:
            raise RuntimeError("broken")
        self._flushed.append(self.client_id)

    def on_lost(self, detail: str) -> None:
        self._flushed.append(f"{self.client_id}: {detail}")


class Broker(Turns):
    """The first floor alone, with nothing to commit."""

    def __init__(self) -> None:
        super().__init__(max_connections=1)
        self.loop = Loop()
        self._loop = cast(Any, self.loop)
        self.flushed: list[str] = []
        self.router = cast(
            Any,
            SimpleNamespace(
                now=0.0,
                dirty=[],
                pending=Pending(1, 1000),
                counters=Counters(),
                on_settled=lambda: self.write("stalled before"),
            ),
        )

    def write(self, *names: str, broken: bool = False) -> None:
        """These clients have output."""
        for name in names:
            self.router.dirty.append(cast(Any, Client(name, self.flushed, broken)))

    def settle(self, *names: str) -> None:
        """A commit releases output for these."""
        self._before_settle()
        self.write(*names)
        self._after_settle()

    def take_flushed(self) -> list[str]:
        flushed = self.flushed[:]
        self.flushed.clear()
        return flushed


@pytest.fixture
def broker() -> Broker:
    return Broker()


def test_output_is_flushed_at_the_end_of_the_turn(broker: Broker) -> None:
    broker.request_tick()
    broker.write("a", "b")
    broker.request_tick()

    broker.loop.turn()

    assert broker.take_flushed() == ["a", "b"]
    assert not broker.loop.soon


def test_what_a_commit_releases_goes_out_over_the_next_few_turns(broker: Broker) -> None:
    broker.settle(*(f"{number}" for number in range(5)))

    assert broker.take_flushed() == ["stalled before"]
    broker.loop.turn()
    assert broker.take_flushed() == ["0", "1"]
    broker.loop.turn()
    assert broker.take_flushed() == ["2", "3"]
    broker.loop.turn()
    assert broker.take_flushed() == ["4"]
    assert not broker.loop.soon


def test_all_whom_a_commit_releases_have_it_within_ten_turns(broker: Broker) -> None:
    broker.settle(*(f"{number}" for number in range(63)))

    broker.take_flushed()
    turns = 0
    while broker.loop.soon:
        broker.loop.turn()
        turns += 1
    assert turns == 9
    assert len(broker.take_flushed()) == 63


def test_where_a_commit_releases_many_they_have_it_at_once(broker: Broker) -> None:
    broker.write("live")

    broker.settle(*(f"{number}" for number in range(65)))

    assert broker.take_flushed() == ["live", *(f"{number}" for number in range(65)), "stalled before"]
    assert not broker.loop.soon


def test_who_has_a_message_meanwhile_waits_for_one_share(broker: Broker) -> None:
    broker.settle(*(f"{number}" for number in range(20)))
    broker.loop.turn()
    broker.take_flushed()
    broker.request_tick()
    broker.write("live")

    broker.loop.turn()

    assert broker.take_flushed() == ["2", "3", "live"]


def test_what_was_written_before_the_commit_was_settled_is_not_held_up_by_it(broker: Broker) -> None:
    broker.write("live")

    broker.settle(*(f"{number}" for number in range(20)))

    assert broker.take_flushed() == ["live", "stalled before"]


def test_a_commit_while_another_ones_output_goes_out_keeps_the_order(broker: Broker) -> None:
    broker.settle(*(f"{number}" for number in range(5)))
    broker.loop.turn()
    broker.settle("next")
    broker.take_flushed()

    while broker.loop.soon:
        broker.loop.turn()
    assert broker.take_flushed() == ["2", "3", "4", "next"]

    broker.settle("much later")
    broker.loop.turn()
    assert broker.take_flushed() == ["stalled before", "much later"]


def test_a_fault_with_one_of_those_released_keeps_nothing_from_the_others(broker: Broker) -> None:
    """Not even one that the end of its connection has."""
    broker.settle(*(f"{number}" for number in range(4)))
    broker.take_flushed()
    broken = broker._released[1]
    broken.flush = broken.on_lost = lambda *_: 1 / 0  # type: ignore[method-assign]

    with pytest.raises(ZeroDivisionError):
        broker.loop.turn()
    broker.loop.turn()
    broker.settle("next")
    broker.loop.turn()

    assert broker.take_flushed() == ["0", "2", "3", "stalled before", "next"]


def test_a_fault_with_those_who_were_stalled_loses_no_output(broker: Broker) -> None:
    broker.router.on_settled = lambda: 1 / 0  # type: ignore[method-assign, assignment]
    broker.write("live")

    with pytest.raises(ZeroDivisionError):
        broker.settle("a")
    broker.request_tick()
    broker.loop.turn()

    assert broker.take_flushed() == ["a", "live"]


def test_a_connection_that_breaks_holds_up_no_other(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    broker.request_tick()
    broker.write("a")
    broker.write("b", broken=True)
    broker.write("c")

    broker.loop.turn()

    assert broker.take_flushed() == ["a", "b: internal error", "c"]
    assert "internal error on the connection of b" in caplog.text
    assert broker.router.counters.refused["internal_error"] == 1
