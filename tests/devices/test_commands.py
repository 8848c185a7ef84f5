"""Commands between the network thread and the callback, without a network."""

import threading

import pytest

from devices.commands import Command, CommandInbox
from tests.devices.mosquitto import wait_until


def command(name: str) -> Command:
    return Command(name, b"{}", f"devices/porch/commands/{name}")


def test_commands_before_the_callback_wait_for_it() -> None:
    inbox = CommandInbox("porch")
    acknowledged: list[str] = []
    for name in ("a", "b"):
        inbox.put(command(name), lambda name=name: acknowledged.append(name))  # type: ignore[misc]
    assert acknowledged == []
    called: list[str] = []
    inbox.on_command(lambda one: called.append(one.name))
    wait_until(lambda: acknowledged == ["a", "b"], "not acknowledged")
    assert called == ["a", "b"]
    assert (inbox.received, inbox.dropped) == (2, 0)
    inbox.close(1)


def test_a_failing_callback_is_logged_and_the_command_acknowledged(caplog: pytest.LogCaptureFixture) -> None:
    inbox = CommandInbox("porch")
    acknowledged = threading.Event()

    def fail(_: Command) -> None:
        raise RuntimeError("the user's own mistake")

    inbox.on_command(fail)
    inbox.put(command("led"), acknowledged.set)
    assert acknowledged.wait(10)
    assert "the user's own mistake" in caplog.text
    assert "led" in caplog.text
    inbox.close(1)


def test_what_waits_is_bounded_counted_and_not_acknowledged() -> None:
    inbox = CommandInbox("porch")
    acknowledged: list[int] = []
    for number in range(130):
        inbox.put(command("a"), lambda number=number: acknowledged.append(number))  # type: ignore[misc]
    assert (inbox.received, inbox.dropped) == (100, 30)
    inbox.on_command(lambda _: None)
    wait_until(lambda: len(acknowledged) == 100, "not acknowledged")
    assert acknowledged == list(range(100))
    inbox.close(1)


def test_closing_lets_the_running_callback_finish_and_calls_no_other() -> None:
    inbox = CommandInbox("porch")
    running, release = threading.Event(), threading.Event()
    done: list[str] = []

    def slow(one: Command) -> None:
        running.set()
        release.wait(10)
        done.append(one.name)

    inbox.on_command(slow)
    for name in ("a", "b"):
        inbox.put(command(name), lambda: None)
    assert running.wait(10)
    inbox.close(0.01)  # does not wait longer than told
    assert done == []
    closer = threading.Thread(target=inbox.close, args=(10,))
    closer.start()
    release.set()
    closer.join(10)
    assert done == ["a"]
    inbox.put(command("c"), lambda: done.append("acknowledged"))
    assert done == ["a"]


def test_closing_from_the_callback() -> None:
    inbox = CommandInbox("porch")
    closed = threading.Event()

    def close(_: Command) -> None:
        inbox.close(10)
        closed.set()

    inbox.on_command(close)
    inbox.put(command("stop"), lambda: None)
    assert closed.wait(5)


def test_the_payload_as_json() -> None:
    assert Command("a", b'{"percent": 40}', "t").json() == {"percent": 40}
    with pytest.raises(ValueError, match="Expecting"):
        Command("a", b"on", "t").json()
