"""The network thread: calls, blocking calls in threads of their own, and its end."""

import asyncio
import threading
import time
from concurrent.futures import CancelledError

import pytest

from devices.network import NetworkThread


@pytest.fixture
def network() -> NetworkThread:
    network = NetworkThread()
    network.start()
    return network


def test_calls_run_on_the_one_thread(network: NetworkThread) -> None:
    seen: list[str] = []
    done = threading.Event()
    network.call(lambda: seen.append(threading.current_thread().name))
    network.call(done.set)
    assert done.wait(10)
    assert seen == ["devices-network"]
    network.stop()
    network.call(seen.append, "after the end")
    assert seen == ["devices-network"]
    network.stop()


def test_a_blocking_call_holds_nobody_up(network: NetworkThread) -> None:
    release, called = threading.Event(), threading.Event()
    result = network.run(network.run_blocking(lambda: release.wait(10)))
    network.call(called.set)
    assert called.wait(10)
    assert not result.done()
    release.set()
    assert result.result(10) is True
    network.stop()


def test_what_a_blocking_call_raises_comes_to_who_waits(network: NetworkThread) -> None:
    def fail() -> None:
        raise OSError("unreachable")

    with pytest.raises(OSError, match="unreachable"):
        network.run(network.run_blocking(fail)).result(10)
    network.stop()


def test_a_cancelled_blocking_call_is_undone_when_it_ends(network: NetworkThread) -> None:
    started, release, undone = threading.Event(), threading.Event(), threading.Event()

    def connect() -> None:
        started.set()
        release.wait(10)

    result = network.run(network.run_blocking(connect, undone.set))
    assert started.wait(10)
    result.cancel()
    with pytest.raises(CancelledError):
        result.result(10)
    assert not undone.is_set()
    release.set()
    assert undone.wait(10)
    network.stop()


def test_blocking_calls_are_limited(network: NetworkThread) -> None:
    running, most = 0, 0
    lock = threading.Lock()

    def work() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.01)
        with lock:
            running -= 1

    async def many() -> None:
        await asyncio.gather(*(network.run_blocking(work) for _ in range(64)))

    network.run(many()).result(10)
    assert 1 < most <= 16
    network.stop()


def test_one_that_never_started_can_be_stopped() -> None:
    network = NetworkThread()
    network.stop()
    assert network.loop.is_closed()
