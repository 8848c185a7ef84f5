"""A backlog of millions: the broker's memory while it grows, how long a start with it takes, and the first message after.

Messages of 200 bytes go at QoS 1 into an offline persistent session until all are acknowledged. The broker stops and starts
anew on the same store; a start counts from the process's beginning to the first CONNACK that anybody gets. Then the
subscriber comes back: the time from its CONNECT to its first message, then everything, once and in order.
"""

import gc
import time

from benchmarks import offline, process
from benchmarks.brokers import RunningBroker
from benchmarks.figures import Figures
from benchmarks.links import Link, Loop
from benchmarks.wire import BrokerMisbehaved


def fill(broker: RunningBroker, version: int, messages: int) -> Figures:
    """The backlog, and the memory of the broker that took it."""
    offline.make_session(broker.address, offline.SUBSCRIBER, offline.TOPIC, version)
    gc.disable()
    try:
        figures = offline.enqueue(broker, version, messages)
    finally:
        gc.enable()
    return {
        "messages": messages,
        "messages_per_second": figures["enqueue_messages_per_second"],
        "filling_peak_mb": process.memory(broker.pid).peak_mb,
    }


def come_back(broker: RunningBroker, version: int, messages: int) -> Figures:
    """A broker that has started on the backlog: the first message, all others, and its memory."""
    first_seconds = _seconds_to_first_message(broker, version)
    ledger = offline.Ledger(messages)
    gc.disable()
    try:
        began = time.monotonic()
        session = (broker.address, offline.SUBSCRIBER, offline.TOPIC, offline.PAYLOAD_BYTES, version, ledger)
        offline.drain_session(*session)
        drained_seconds = time.monotonic() - began
    finally:
        gc.enable()
    ledger.require_exact()
    memory = process.memory(broker.pid)
    return {
        "start_seconds": broker.start_seconds,
        "first_message_seconds": first_seconds,
        "drain_messages_per_second": messages / drained_seconds,
        "draining_peak_mb": memory.peak_mb,
    }


def _seconds_to_first_message(broker: RunningBroker, version: int) -> float:
    """From CONNECT to the first message; nothing is acknowledged, so all of them come again to whoever connects next."""
    began = time.monotonic()
    link = Link(broker.address, offline.SUBSCRIBER, version, clean=False)
    if not link.connack.session_present:
        raise BrokerMisbehaved("the persistent session is gone")
    arrived: list[float] = []
    loop = Loop()
    try:
        loop.add(link, lambda data: arrived.append(time.monotonic()))
        loop.turn_until(lambda: bool(arrived), "the first message")
    finally:
        loop.close()
    return arrived[0] - began
