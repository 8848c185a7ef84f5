"""A batch from the cluster to the disk: taken apart, rid of what was seen, written, committed in one transaction.

Runs in the database's thread, which alone has what is here. The order is what the promise rests on: the output is synced,
then one transaction notes what was seen and how far the output is, and only then may the cluster be told. Whatever fails
before the commit did not happen: `recover` goes back to the last one, and the cluster sends the messages again.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

import msgspec

from bridge.envelope import Enclosed, Envelope, EnvelopeReader, Limits
from bridge.failures import printable
from bridge.ingest.config import IngestConfig
from bridge.ingest.counters import Counters
from bridge.ingest.database import (
    LANES,
    SPOOLS,
    Rejected,
    forget_silent,
    read_fact,
    read_seen,
    settle_seen,
    transaction,
    write_fact,
    write_rejected,
    write_seen,
)
from bridge.ingest.sink import Sink
from bridge.ingest.unpacking import (
    NO_EPOCH,
    DeviceNames,
    DeviceReader,
    GatewayTopic,
    new_messages,
    read_plain,
    read_skipped,
)
from bridge.windows import LaneKey, Stretch, Windows
from edge_broker.core.message import Message
from edge_broker.errors import EdgeBrokerError

log: Final = logging.getLogger("bridge.ingest")

_DAY_SECONDS: Final = 86_400
_SHOWN_GAPS: Final = 10
_LOGGED_REJECTIONS: Final = 100
"""Of so many topics one each is logged, since the start: whoever makes up topics does not fill the log."""


class LaneGaps(NamedTuple):
    """What is missing of a lane: how many numbers, and the first few stretches of them."""

    missing: int
    stretches: Sequence[Stretch]


class Report(NamedTuple):
    """What a batch did. `gaps`: of the lanes that it changed. `counters`: of this moment, a copy."""

    gaps: dict[LaneKey, LaneGaps]
    counters: Counters
    gateways: int
    lanes: int


class Worker:
    """Everything behind the cluster's connection. `clock`: Unix time. `dictionaries`: those that envelopes may need."""

    def __init__(
        self, config: IngestConfig, sink: Sink, dictionaries: Sequence[bytes], clock: Callable[[], float]
    ) -> None:
        limits, devices = config.limits, config.devices
        self._config = config
        self._sink = sink
        self._clock = clock
        self._envelopes = GatewayTopic(config.topics.envelopes)
        self._skipped = GatewayTopic(config.topics.skipped)
        self._reader = EnvelopeReader(
            Limits(
                limits.envelope_bytes,
                limits.envelope_unpacked_bytes,
                limits.envelope_spread_bytes,
                limits.envelope_messages,
                limits.envelope_entries,
            ),
            dictionaries,
        )
        self._devices: DeviceReader | None = None
        if devices.deduplicate:
            names = DeviceNames(devices.device_property, devices.spool_property, devices.sequence_property)
            self._devices = DeviceReader(names)
        self._logged: set[str] = set()
        self._now = 0.0
        self._connection: sqlite3.Connection
        self._rejected: list[Rejected] = []
        self._run: tuple[str, str, int] = ("", "", NO_EPOCH)
        self._run_messages: list[Enclosed] = []
        self._begin()

    def _begin(self) -> None:
        limits = self._config.limits
        self._lanes = Windows(limits.gateways, limits.lanes_per_gateway)
        self._spools = Windows(limits.devices, limits.spools_per_device)
        self._counters = Counters()
        self._rejected.clear()
        self._run_messages = []

    # ---- start, and after a failure

    def recover(self, connection: sqlite3.Connection) -> Report:
        """Everything as it was committed last; the report is of all lanes."""
        self._begin()
        self._connection = connection
        with transaction(connection):
            forgotten = forget_silent(
                connection, self._clock() - self._config.limits.forget_days * _DAY_SECONDS
            )
        if forgotten:
            log.info("%d lanes and spools were silent for too long and are forgotten", forgotten)
        self._counters = read_fact(connection, "counters", Counters) or Counters()
        read_seen(connection, LANES, self._lanes)
        read_seen(connection, SPOOLS, self._spools)
        self._sink.recover(connection)
        return self._report(self._lanes.lanes)

    # ---- a batch

    def process(self, messages: Sequence[Message], connection: sqlite3.Connection) -> Report:
        """Have everything that is new in `messages` in the output, for good. Whatever it raises, `recover` is due."""
        self._now = self._lanes.now = self._spools.now = self._clock()
        self._connection = connection
        with transaction(connection):
            for message in messages:
                self._take(message)
            self._write_run()
            self._sink.sync()
            counters = self._settled_counters(len(messages))
            write_seen(connection, LANES, self._lanes)
            write_seen(connection, SPOOLS, self._spools)
            self._sink.commit(connection)
            if self._rejected:
                limits = self._config.limits
                write_rejected(connection, self._rejected, limits.rejected, limits.rejected_bytes)
            write_fact(connection, "counters", counters)
        self._rejected.clear()
        settle_seen(self._spools)
        return self._report(settle_seen(self._lanes))

    def _settled_counters(self, taken: int) -> Counters:
        """The counters with what the windows and the sink have counted since the last batch."""
        counters, lanes, spools, sink = self._counters, self._lanes, self._spools, self._sink
        counters.taken += taken
        counters.commits += 1
        counters.duplicates += lanes.duplicates
        counters.device_duplicates += spools.duplicates
        counters.untracked += lanes.untracked
        counters.forgotten_lanes += lanes.forgotten + spools.forgotten
        counters.already_there += sink.already_there
        for windows in (lanes, spools):
            windows.taken = windows.duplicates = windows.untracked = windows.forgotten = 0
        sink.already_there = 0
        return counters

    def _report(self, keys: Iterable[LaneKey]) -> Report:
        gaps = {}
        for key in keys:
            lane = self._lanes.lanes.get(key)
            stretches = [] if lane is None else lane.gaps()
            missing = sum(end - start for start, end in stretches)
            gaps[key] = LaneGaps(missing, stretches[:_SHOWN_GAPS])
        counters = msgspec.structs.replace(self._counters, rejected=dict(self._counters.rejected))
        return Report(gaps, counters, self._lanes.gateways, len(self._lanes.lanes))

    # ---- one message

    def _take(self, message: Message) -> None:
        topic = message.topic
        try:
            gateway = self._envelopes.gateway_of(topic)
            if gateway is not None:
                self._take_envelope(gateway, message)
                return
            gateway = self._skipped.gateway_of(topic)
            if gateway is not None:
                self._take_skipped(gateway, message)
                return
            self._take_plain(message)
        except EdgeBrokerError as error:
            self._reject(message.topic, message.payload, "unreadable", str(error))
        except (OSError, sqlite3.Error):
            raise  # the output's trouble, not the message's
        except Exception as error:
            # A fault of ours must not have the cluster send the same message for ever: it is kept, and said.
            log.exception("a message to %s could not be unpacked", printable(topic))
            self._reject(message.topic, message.payload, "internal_error", repr(error))

    def _take_envelope(self, gateway: str, message: Message) -> None:
        self._counters.envelopes += 1
        envelope = self._reader.open(message.payload)
        if envelope.gateway != gateway:
            self._reject(
                message.topic,
                message.payload,
                "wrong_gateway",
                f"it says that it is of {printable(envelope.gateway)}",
            )
            return
        new = new_messages(self._lanes, envelope)
        if self._devices is not None:
            new = self._new_of_devices(self._devices, new)
        if new:
            self._write_run()
            self._write(envelope if new is envelope.messages else envelope._replace(messages=new))

    def _take_skipped(self, gateway: str, message: Message) -> None:
        skipped = read_skipped(message.payload)
        if skipped is None or len(gateway) > 250 or not gateway:
            self._reject(
                message.topic, message.payload, "unreadable", "it does not tell which numbers are skipped"
            )
            return
        self._counters.skipped += 1
        key = LaneKey(gateway, skipped.lane)
        for first, last in skipped.ranges:
            self._lanes.skip(key, first, last + 1)

    def _take_plain(self, message: Message) -> None:
        origin, enclosed = read_plain(message)
        run = ("", "", NO_EPOCH)
        if origin is None:
            self._counters.without_origin += 1
        elif not self._lanes.take(LaneKey(origin.gateway, origin.lane), origin.epoch, origin.sequence):
            return
        else:
            run = (origin.gateway, origin.lane, origin.epoch)
        if self._devices is not None and not self._new_of_devices(self._devices, [enclosed]):
            return
        if run != self._run:
            self._write_run()
            self._run = run
        self._run_messages.append(enclosed)

    def _new_of_devices(self, devices: DeviceReader, messages: Sequence[Enclosed]) -> Sequence[Enclosed]:
        new = []
        for message in messages:
            number = devices.read(message.property_block)
            if number is None or self._spools.take(number[0], 0, number[1]):
                new.append(message)
        return messages if len(new) == len(messages) else new

    def _write_run(self) -> None:
        """Give the sink the plain messages that came one behind the other."""
        if self._run_messages:
            messages, self._run_messages = self._run_messages, []
            self._write(Envelope(*self._run, messages))

    def _write(self, run: Envelope) -> None:
        try:
            self._sink.write(self._connection, run, self._now)
        except (OSError, sqlite3.Error):
            raise  # the output's trouble, not the messages'
        except Exception as error:  # noqa: BLE001 - as in `_take`
            for message in run.messages:
                self._reject(message.topic, message.payload, "internal_error", repr(error))
        else:
            self._counters.written += len(run.messages)

    def _reject(self, topic: str, payload: bytes, reason: str, detail: str) -> None:
        self._counters.reject(reason)
        self._rejected.append(Rejected(self._now, topic, f"{reason}: {detail}", payload))
        said = f"{reason} {topic}"
        if said not in self._logged and len(self._logged) < _LOGGED_REJECTIONS:
            self._logged.add(said)
            log.error(
                "a message to %s is set aside, %s: %s (further ones are counted)",
                printable(topic),
                reason.replace("_", " "),
                printable(detail),
            )
