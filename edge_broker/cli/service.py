"""The running broker between its signals: start, say so, serve, reload when asked, stop.

A signal only leaves a wish; one place acts on it, one wish after another, so a reload never meets a stop. Whatever goes
wrong with a reload, the broker goes on as it was. After the first signal to stop, the next one ends the process at once.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, Protocol

import msgspec

from edge_broker import __version__
from edge_broker.config.loading import ConfigMistakes
from edge_broker.config.model import Config
from edge_broker.errors import EdgeBrokerError
from edge_broker.ops.collecting import collected
from edge_broker.ops.logging import configure_logging
from edge_broker.ops.systemd import Systemd

_LOG: Final = logging.getLogger("edge_broker")
_STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_CHANGED_AT_ONCE: Final = ("log.level", "log.format")
"""Beside what is in the files that the configuration names: certificates are read anew even if no key changed."""


class Served(Protocol):
    """What is served: the broker."""

    @property
    def listening(self) -> Sequence[str]:
        """Where clients may connect, as URLs."""

    def start(self) -> Awaitable[None]:
        """Recover, listen; raises what kept it from that."""

    def stop(self) -> Awaitable[None]:
        """Say goodbye to the clients, commit, close."""

    def reload(self, config: Config) -> Awaitable[None]:
        """Take over what can be changed while running."""

    def record_action(self, action: str, by: str) -> None:
        """Put into the audit log what an administrator did."""

    def note_reload_refused(self, problem: str) -> None:
        """The configuration was to be read again and stays as it was, for `problem`."""


class Service:
    """One run of the broker. `read_config` reads the configuration again, in a thread; `systemd` may be nobody."""

    def __init__(
        self, broker: Served, config: Config, read_config: Callable[[], Config], systemd: Systemd
    ) -> None:
        self._broker = broker
        self._config = config
        self._read_config = read_config
        self._systemd = systemd
        self._stop_wanted = False
        self._reload_wanted = False
        self._reload_askers: list[asyncio.Future[dict[str, Any]]] = []
        self._wish = asyncio.Event()

    async def start(self) -> None:
        """Start the broker; raises what its start raises. Signals count from the beginning."""
        loop = asyncio.get_running_loop()
        for number in _STOP_SIGNALS:
            loop.add_signal_handler(number, self._on_stop, number)
        loop.add_signal_handler(signal.SIGHUP, self._on_reload)
        await self._broker.start()
        gc.freeze()  # what is there now stays: no collection needs to look through it again

    async def serve(self) -> bool:
        """From the start on until told to stop; whether it stopped properly."""
        self._warn_of_exposure()
        self._send_ready()
        self._keep_alive(asyncio.get_running_loop())
        while not self._stop_wanted:
            await self._wish.wait()
            self._wish.clear()
            if self._reload_wanted and not self._stop_wanted:
                self._reload_wanted = False
                await self._reload_for_askers()
        return await self._stop()

    def _on_stop(self, number: signal.Signals) -> None:
        _LOG.info("stopping on %s", number.name)
        self._stop_wanted = True
        self._wish.set()
        for stop_signal in _STOP_SIGNALS:
            asyncio.get_running_loop().remove_signal_handler(stop_signal)
            signal.signal(stop_signal, signal.SIG_DFL)

    def _on_reload(self) -> None:
        self._reload_wanted = True
        self._wish.set()

    async def answer_reload(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The command `reload` of the control socket: as SIGHUP, and then what was logged about it."""
        self._broker.record_action("reload", request["by"])
        asker = asyncio.get_running_loop().create_future()
        self._reload_askers.append(asker)
        self._on_reload()
        answer: dict[str, Any] = await asker
        return answer

    async def _reload_for_askers(self) -> None:
        """Reload, and tell those who asked for it on the control socket what was logged."""
        askers, self._reload_askers = self._reload_askers, []
        with collected() as lines:
            is_taken_over = await self._reload()
        for asker in askers:
            if not asker.done():
                asker.set_result({"reloaded": is_taken_over, "log": lines})

    def _send_ready(self) -> None:
        self._systemd.send_ready(
            f"edge-broker {__version__}, listening on {', '.join(self._broker.listening) or 'nothing yet'}"
        )

    def _keep_alive(self, loop: asyncio.AbstractEventLoop) -> None:
        """Tell the watchdog, from the event loop, so that a stuck loop is noticed: twice as often as it asks."""
        if self._systemd.watchdog_seconds is not None:
            self._systemd.send_alive()
            loop.call_later(self._systemd.watchdog_seconds / 2, self._keep_alive, loop)

    async def _reload(self) -> bool:
        """Read the configuration again and take it over; whether that was done."""
        is_taken_over = False
        self._systemd.send_reloading(asyncio.get_running_loop().time())
        try:
            config = await asyncio.to_thread(self._read_config)
            await self._broker.reload(config)
        except ConfigMistakes as mistakes:
            self._broker.note_reload_refused(mistakes.problem)  # not which: they repeat what the file says
            _LOG.error("%s: %s, so the configuration stays as it was", mistakes.source, mistakes.problem)
            for mistake in mistakes.mistakes:
                _LOG.error("%s", mistake)
        except (EdgeBrokerError, OSError) as error:
            self._broker.note_reload_refused(str(error))
            _LOG.error("the new configuration cannot be taken over: %s", error)
        else:
            self._take_over(config)
            is_taken_over = True
        self._send_ready()
        return is_taken_over

    def _take_over(self, config: Config) -> None:
        changed = changed_keys(self._config, config)
        self._config = config
        configure_logging(config.log.level, config.log.format)
        later = [key for key in changed if key not in _CHANGED_AT_ONCE]
        if later:
            _LOG.warning("changed, but only from the next start on: %s", ", ".join(later))
        self._warn_of_exposure()

    async def _stop(self) -> bool:
        self._systemd.send_stopping()
        try:
            await self._broker.stop()
        except (EdgeBrokerError, OSError) as error:
            _LOG.error("not stopped properly: %s", error)
            return False
        return True

    def _warn_of_exposure(self) -> None:
        """Say what the configuration allows and a network's owner may not know of."""
        for bridge in self._config.bridges:
            if bridge.exposes_password:
                _LOG.warning(
                    "bridge %s: its password crosses the network unencrypted; use mqtts://", bridge.name
                )


def changed_keys(old: Config, new: Config) -> list[str]:
    """The keys that differ, as paths; a list of tables counts as one."""
    changed = []
    for section in msgspec.structs.fields(Config):
        before, after = getattr(old, section.name), getattr(new, section.name)
        if not isinstance(before, msgspec.Struct):
            changed += [section.encode_name] if before != after else []
        else:
            changed += [
                f"{section.encode_name}.{field.encode_name}"
                for field in msgspec.structs.fields(before)
                if getattr(before, field.name) != getattr(after, field.name)
            ]
    return changed
