"""Between start and stop: signals, reloads that are taken over or refused, what systemd hears.

The broker here only notes what it is asked for; the real one is run as a process in `test_run`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from edge_broker.cli.service import Service, changed_keys
from edge_broker.config.limits import LimitsConfig
from edge_broker.config.listeners import ListenerConfig
from edge_broker.config.loading import ConfigMistakes
from edge_broker.config.model import Config, LogConfig
from edge_broker.config.sessions import SessionsConfig
from edge_broker.errors import ConfigError, StoreError
from edge_broker.ops.systemd import Systemd

CONFIG = Config(data_dir=Path("/nowhere"))


class NotingBroker:
    """Notes what it is asked for; `fails` says at what."""

    listening = ("mqtt://127.0.0.1:1883",)

    def __init__(self, fails: str = "") -> None:
        self.asked: list[str] = []
        self.config = CONFIG
        self._fails = fails

    async def _note(self, what: str) -> None:
        self.asked.append(what)
        if what == self._fails:
            raise StoreError(what, "the disk said no")

    async def start(self) -> None:
        await self._note("start")

    async def stop(self) -> None:
        await self._note("stop")

    async def reload(self, config: Config) -> None:
        await self._note("reload")
        self.config = config

    def record_action(self, action: str, by: str) -> None:
        self.asked.append(f"{action} by {by}")

    def note_reload_refused(self, problem: str) -> None:
        self.asked.append(f"refused: {problem}")


class Heard:
    """systemd's end of the notification socket."""

    def __init__(self) -> None:
        name = f"edge-broker-test-{secrets.token_hex(8)}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + name)
        self._socket.setblocking(False)
        self.environ = {"NOTIFY_SOCKET": "@" + name, "WATCHDOG_USEC": "20000"}

    async def next(self, wanted: str) -> str:
        """The next datagram that begins with `wanted`; pings in between are not waited for."""
        while True:
            text = (await asyncio.get_running_loop().sock_recv(self._socket, 4096)).decode()
            if text.startswith(wanted):
                return text

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def heard() -> Iterator[Heard]:
    heard = Heard()
    yield heard
    heard.close()


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """Signal handlers and logging as they were."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    handlers = [signal.getsignal(number) for number in numbers]
    root = logging.getLogger()
    log_handlers, level = root.handlers[:], root.level
    ours = [logging.getLogger(name) for name in ("edge_broker", "bridge")]
    levels = [logger.level for logger in ours]
    yield
    for number, handler in zip(numbers, handlers, strict=True):
        signal.signal(number, handler)
    root.handlers[:] = log_handlers
    root.setLevel(level)
    for logger, before in zip(ours, levels, strict=True):
        logger.setLevel(before)


def serve(
    broker: NotingBroker, heard: Heard, read_config: Callable[[], Config] = lambda: CONFIG
) -> asyncio.Task[bool]:
    async def start_and_serve() -> bool:
        service = Service(broker, CONFIG, read_config, Systemd(heard.environ))
        await service.start()
        return await service.serve()

    return asyncio.create_task(start_and_serve())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_stops_it(heard: Heard, number: signal.Signals) -> None:
    broker = NotingBroker()
    task = serve(broker, heard)
    ready = await heard.next("READY=1")
    assert ready.endswith("listening on mqtt://127.0.0.1:1883")
    await heard.next("WATCHDOG=1")
    await heard.next("WATCHDOG=1")
    os.kill(os.getpid(), number)
    await heard.next("STOPPING=1")
    assert await task is True
    assert broker.asked == ["start", "stop"]
    for again in (signal.SIGTERM, signal.SIGINT):  # a second one ends the process at once
        assert signal.getsignal(again) == signal.SIG_DFL


async def test_a_stop_that_failed_is_said(heard: Heard, caplog: pytest.LogCaptureFixture) -> None:
    task = serve(NotingBroker(fails="stop"), heard)
    await heard.next("READY=1")
    os.kill(os.getpid(), signal.SIGTERM)
    assert await task is False
    assert "not stopped properly: stop: the disk said no" in caplog.text


async def test_a_start_that_failed_is_the_callers_to_explain(heard: Heard) -> None:
    with pytest.raises(StoreError):
        await serve(NotingBroker(fails="start"), heard)


async def test_a_good_new_configuration_is_taken_over(
    heard: Heard, capsys: pytest.CaptureFixture[str]
) -> None:
    new = msgspec.structs.replace(
        CONFIG, sessions=SessionsConfig(receive_maximum=5), log=LogConfig(level="warning", format="json")
    )
    broker = NotingBroker()
    task = serve(broker, heard, lambda: new)
    await heard.next("READY=1")
    os.kill(os.getpid(), signal.SIGHUP)
    assert "MONOTONIC_USEC=" in await heard.next("RELOADING=1")
    await heard.next("READY=1")
    assert broker.config is new
    assert logging.getLogger("edge_broker").level == logging.WARNING
    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line)["message"] == "changed, but only from the next start on: sessions.receive_maximum"
    os.kill(os.getpid(), signal.SIGTERM)
    assert await task is True
    assert broker.asked == ["start", "reload", "stop"]


async def test_a_wrong_new_configuration_is_refused(heard: Heard, caplog: pytest.LogCaptureFixture) -> None:
    def read_config() -> Config:
        raise ConfigMistakes("x.toml", [ConfigError("a.b", "is wrong", "write c"), ConfigError("d", "too")])

    broker = NotingBroker()
    task = serve(broker, heard, read_config)
    await heard.next("READY=1")
    os.kill(os.getpid(), signal.SIGHUP)
    await heard.next("RELOADING=1")
    await heard.next("READY=1")
    assert [record.getMessage() for record in caplog.records] == [
        "x.toml: 2 mistakes, so the configuration stays as it was",
        "a.b: is wrong (write c)",
        "d: too",
    ]
    assert broker.config is CONFIG
    os.kill(os.getpid(), signal.SIGTERM)
    assert await task is True
    assert broker.asked == ["start", "refused: 2 mistakes", "stop"]


async def test_a_reload_that_failed_leaves_it_running(heard: Heard, caplog: pytest.LogCaptureFixture) -> None:
    broker = NotingBroker(fails="reload")
    task = serve(broker, heard)
    await heard.next("READY=1")
    os.kill(os.getpid(), signal.SIGHUP)
    await heard.next("READY=1")
    assert "the new configuration cannot be taken over: reload: the disk said no" in caplog.text
    os.kill(os.getpid(), signal.SIGTERM)
    assert await task is True


async def test_who_asks_for_a_reload_is_told_what_was_logged(heard: Heard) -> None:
    broker = NotingBroker()
    answers: list[Config | ConfigMistakes] = [
        msgspec.structs.replace(CONFIG, sessions=SessionsConfig(receive_maximum=5)),
        ConfigMistakes("x.toml", [ConfigError("a.b", "is wrong", "write c")]),
    ]

    def read_config() -> Config:
        answer = answers.pop(0)
        if isinstance(answer, ConfigMistakes):
            raise answer
        return answer

    service = Service(broker, CONFIG, read_config, Systemd(heard.environ))
    await service.start()
    task = asyncio.create_task(service.serve())
    first, second = await asyncio.gather(*(service.answer_reload({"by": "uid=0"}) for _ in range(2)))
    assert first == second, "one reload answers both"
    assert first == {
        "reloaded": True,
        "log": [
            {
                "level": "warning",
                "message": "changed, but only from the next start on: sessions.receive_maximum",
            }
        ],
    }
    assert broker.asked.count("reload by uid=0") == 2
    refused = await service.answer_reload({"by": "uid=0"})
    assert refused["reloaded"] is False
    assert [line["message"] for line in refused["log"]] == [
        "x.toml: 1 mistake, so the configuration stays as it was",
        "a.b: is wrong (write c)",
    ]
    os.kill(os.getpid(), signal.SIGTERM)
    assert await task is True


async def test_the_event_loop_goes_on_while_the_file_is_read(heard: Heard) -> None:
    reading, go_on = threading.Event(), threading.Event()

    def read_config() -> Config:
        reading.set()
        assert go_on.wait(10)
        return CONFIG

    task = serve(NotingBroker(), heard, read_config)
    await heard.next("READY=1")
    os.kill(os.getpid(), signal.SIGHUP)
    await heard.next("RELOADING=1")
    await asyncio.to_thread(reading.wait, 10)
    await heard.next("WATCHDOG=1")
    await heard.next("WATCHDOG=1")
    go_on.set()
    await heard.next("READY=1")
    os.kill(os.getpid(), signal.SIGTERM)
    assert await task is True


def test_changed_keys_are_named() -> None:
    new = msgspec.structs.replace(
        CONFIG,
        data_dir=Path("/elsewhere"),
        listeners=(ListenerConfig(bind="127.0.0.1:1"),),
        limits=LimitsConfig(max_connections=5, max_topic_levels=6),
    )
    assert changed_keys(CONFIG, new) == [
        "data_dir",
        "listeners",
        "limits.max_connections",
        "limits.max_topic_levels",
    ]
    assert changed_keys(CONFIG, CONFIG) == []
