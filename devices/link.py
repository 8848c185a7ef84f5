"""A device's link to the broker: connect, send what the spool holds, settle what is acknowledged, and begin again.

Invariants: readings leave in the spool's order, at most `window` unacknowledged at a time; after a lost connection
everything unsettled goes out again from the oldest on, before anything newer. So the broker sees each device's readings
in order, up to duplicates. One exception is the broker's to make: when it refuses a reading for now (a quota, a full
disk) those sent behind it may have been taken already; the refused one comes again, later than they did.

Everything here runs on the network thread. Time without progress is bounded: for the CONNACK, for the PUBACKs, and by
MQTT's keep-alive. A connection that was of no use (nothing acknowledged, not stable for long) does not reset the
backoff, so that a broker that accepts and closes is not hammered.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import paho.mqtt.client as paho

from devices.backoff import Backoff
from devices.errors import SpoolError
from devices.network import NetworkThread
from devices.paho_client import SessionSettings
from devices.protocol_choice import MqttVersion, ProtocolChoice
from devices.session import ConnectFailed, ServerLimits, Session
from devices.spool import Spool
from devices.spool_rows import SpooledReading

_log = logging.getLogger("devices")

_TICK_SECONDS: Final = 1.0
_STABLE_SECONDS: Final = 30.0
_SENT_IN_ONE_GO: Final = 200
# Settled readings leave the file with the next reading's commit. Only where none comes do they get one of their own.
_SETTLE_AFTER_SECONDS: Final = 10.0
_SETTLE_AFTER_READINGS: Final = 500
# What a broker may answer and not mean for ever: unspecified error, implementation specific error, quota exceeded.
_REFUSED_FOR_NOW: Final = (0x80, 0x83, 0x97)
_FAILURE: Final = 0x80  # reason codes from here on


@dataclass(frozen=True)
class LinkSettings:
    """How a link behaves. `user_properties` go with every reading, before its sequence."""

    session: SessionSettings
    window: int
    acknowledge_timeout_seconds: float
    command_filter: str
    user_properties: list[tuple[str, str]]


class Link:
    """Keeps a device connected, from `start` to `stop`."""

    def __init__(
        self,
        network: NetworkThread,
        settings: LinkSettings,
        spool: Spool,
        backoff: Backoff,
        protocol: ProtocolChoice,
        on_command: Callable[[Session, paho.MQTTMessage], None],
    ) -> None:
        self._network = network
        self._settings = settings
        self._spool = spool
        self._backoff = backoff
        self._protocol = protocol
        self._give_command = on_command
        self._running: asyncio.Task[None] | None = None
        self._session: Session | None = None
        self._limits = ServerLimits()
        self._sequences: dict[int, int] = {}  # packet identifier to sequence number
        self._progress_at = 0.0
        self._pump_is_due = False
        self._wants_commands = False
        self._settle_timer: asyncio.TimerHandle | None = None
        self._settling: asyncio.Task[None] | None = None
        self._rejections_logged: set[int] = set()
        self.acknowledged = 0
        self.connections = 0
        self.version: MqttVersion | None = None
        self.problem: str | None = None

    # ------------------------------------------------------------------ from connection to connection

    def start(self) -> None:
        """Begin to connect, and keep at it."""
        self._running = self._network.loop.create_task(self._run())
        self._running.add_done_callback(_log_unexpected_end)

    async def stop(self) -> None:
        """Disconnect. What is unsettled stays in the spool."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait({self._running})
        if self._settling is not None:
            await asyncio.wait({self._settling})
        if self._settle_timer is not None:
            self._settle_timer.cancel()

    async def _run(self) -> None:
        settings = self._settings
        while True:
            session = Session(
                self._network,
                settings.session,
                self._protocol.version,
                settings.user_properties,
                self._wants_commands,
                self,
            )
            try:
                self._limits = await session.open()
                if not self._protocol.connected():
                    continue
                await self._serve(session)
            except ConnectFailed as failure:
                if self._has_another_version_to_try(failure):
                    continue
                self._note_problem(str(failure))
            finally:
                session.close()
            await asyncio.sleep(self._backoff.next_delay_seconds())

    def _has_another_version_to_try(self, failure: ConnectFailed) -> bool:
        tried = self._protocol.version
        if failure.kind == "unsupported_version":
            another = self._protocol.refused_version()
        elif failure.kind == "unanswered":
            another = self._protocol.unanswered()
        else:
            return False
        if another:
            _log.info(
                "%s: %s: %s; not MQTT %s but %s is tried",
                *self._who_and_where(),
                failure,
                tried,
                self._protocol.version,
            )
        return another

    async def _serve(self, session: Session) -> None:
        now = self._network.loop.time
        connected_at = self._progress_at = now()
        self._session = session
        self.version = session.version
        self.connections += 1
        self.problem = None
        self._rejections_logged.clear()
        _log.info("%s: connected to %s, MQTT %s", *self._who_and_where(), session.version)
        try:
            if self._wants_commands:
                session.subscribe(self._settings.command_filter)
            self._pump()
            while not session.closed.done():
                await asyncio.wait({session.closed}, timeout=_TICK_SECONDS)
                session.tick()
                self._check_acknowledgements(session)
            self._note_problem(session.closed.result())
        finally:
            self._session = None
            self.version = None
            self._sequences.clear()
            self._spool.rewind()
            if now() - connected_at > _STABLE_SECONDS:
                self._backoff.reset()

    def _check_acknowledgements(self, session: Session) -> None:
        timeout = self._settings.acknowledge_timeout_seconds
        if self._sequences and self._network.loop.time() - self._progress_at > timeout:
            session.abort(f"no PUBACK within {timeout:g} s")

    def _note_problem(self, problem: str) -> None:
        """Say it once, not at every attempt; `problem` shows it as long as it lasts."""
        level = logging.DEBUG if problem == self.problem else logging.WARNING
        self.problem = problem
        _log.log(level, "%s: not connected to %s: %s", *self._who_and_where(), problem)

    def _who_and_where(self) -> tuple[str, str]:
        return self._settings.session.client_id, str(self._settings.session.address)

    # ------------------------------------------------------------------ readings out, acknowledgements in

    def pump_soon(self) -> None:
        """There may be something to send."""
        if not self._pump_is_due:
            self._pump_is_due = True
            self._network.loop.call_soon(self._pump)

    on_writable = pump_soon

    def _pump(self) -> None:
        self._pump_is_due = False
        session = self._session
        window = min(self._settings.window, self._limits.receive_maximum or self._settings.window)
        for _ in range(_SENT_IN_ONE_GO):
            if (
                session is None
                or session.closed.done()
                or session.congested
                or len(self._sequences) >= window
            ):
                return
            try:
                spooled = self._spool.take()
            except SpoolError as error:
                session.close(str(error))  # and try again after the backoff
                return
            if spooled is None:
                return
            self._send(session, spooled)
        self.pump_soon()

    def _send(self, session: Session, spooled: SpooledReading) -> None:
        limit = self._limits.maximum_packet_size
        if limit is not None and session.packet_bytes(spooled) > limit:
            self._reject(spooled.sequence, 0x95, f"larger than the {limit} bytes that the broker takes")
            return
        if not self._sequences:
            self._progress_at = self._network.loop.time()
        packet_id = session.publish(spooled)
        if spooled.reading.qos > 0:
            self._sequences[packet_id] = spooled.sequence
        elif not session.closed.done():
            self._settle(spooled.sequence)  # nobody acknowledges QoS 0: it is done once the connection has it

    def on_acknowledged(self, packet_id: int, reason_code: int, reason: str) -> None:
        sequence = self._sequences.pop(packet_id, None)
        if sequence is None:
            return  # acknowledged twice
        self._progress_at = self._network.loop.time()
        if reason_code < _FAILURE:
            self._settle(sequence)
            self._backoff.reset()
        elif reason_code in _REFUSED_FOR_NOW:
            self._pause(f"the broker refuses readings for now: {reason}")
        else:
            self._reject(sequence, reason_code, reason)
        self.pump_soon()

    def _pause(self, why: str) -> None:
        """Back off as if the broker were away. Not here and now: paho is in the middle of a callback."""
        if self._session is not None:
            self._network.loop.call_soon(self._session.close, why)

    def _settle(self, sequence: int) -> None:
        if self._spool.acknowledge(sequence):
            self.acknowledged += 1
            self._settle_in_file_soon()

    def _reject(self, sequence: int, reason_code: int, reason: str) -> None:
        if self._spool.reject(sequence, f"0x{reason_code:02x} {reason}"):
            self._settle_in_file_soon()
        if reason_code not in self._rejections_logged:
            self._rejections_logged.add(reason_code)
            _log.error(
                "%s: %s rejected reading %d (%s); it is set aside. Others may follow without a word here",
                *self._who_and_where(),
                sequence,
                reason,
            )

    # ------------------------------------------------------------------ the file, when no new reading's commit helps

    def _settle_in_file_soon(self) -> None:
        if self._settling is None and self._spool.settled_in_file >= _SETTLE_AFTER_READINGS:
            self._settling = self._network.loop.create_task(self._settle_in_file())
        elif self._settling is None:
            self._set_settle_timer()

    def _set_settle_timer(self) -> None:
        if self._settle_timer is None and self._spool.settled_in_file:
            self._settle_timer = self._network.loop.call_later(
                _SETTLE_AFTER_SECONDS, self._on_settle_timer, self._spool.last_sequence
            )

    def _on_settle_timer(self, last_sequence: int) -> None:
        self._settle_timer = None
        if self._settling is not None:
            return
        if self._spool.last_sequence == last_sequence and self._spool.settled_in_file:
            self._settling = self._network.loop.create_task(self._settle_in_file())
        else:
            self._set_settle_timer()  # readings come, and so will the next one's commit

    async def _settle_in_file(self) -> None:
        try:
            await self._network.run_blocking(self._spool.commit_settled)
        except SpoolError as error:
            _log.warning("%s: %s", self._settings.session.client_id, error)
        finally:
            self._settling = None
            self._set_settle_timer()  # for those that were settled meanwhile, or could not be written

    # ------------------------------------------------------------------ commands

    def want_commands(self) -> None:
        """Subscribe to commands, now and on every connection to come."""
        if not self._wants_commands:
            self._wants_commands = True
            if self._session is not None:
                self._session.subscribe(self._settings.command_filter)

    def on_command(self, session: Session, message: paho.MQTTMessage) -> None:
        self._give_command(session, message)


def _log_unexpected_end(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.critical(
            "a device's link ended; nothing more is sent until the program restarts", exc_info=error
        )
