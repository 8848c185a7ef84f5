"""From the cluster to the worker, batch by batch: subscribes, gathers what comes, and acknowledges what is safe.

What it keeps true:

- A message is acknowledged to the cluster only when the worker has committed its batch, in the order in which they came.
- Of what is not committed there are never more than two batches in memory: one that the worker has, one that gathers; then
  the cluster's socket is left alone.
- A batch that could not be kept is tried again until it can be. Nothing is acknowledged meanwhile.
- The lease stands only while the cluster has granted the subscriptions and the output works.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import islice
from typing import Final, Protocol

from bridge import failures
from bridge.identity import Credentials
from bridge.ingest.config import IngestConfig
from bridge.ingest.lease import PACKET_ID as LEASE_PACKET_ID
from bridge.ingest.lease import LeaseWriter
from bridge.ingest.talk import Talk
from bridge.ingest.worker import Report
from edge_broker.core.client import Client
from edge_broker.core.message import Message
from edge_broker.errors import EdgeBrokerError, UpstreamError
from edge_broker.wire import const
from edge_broker.wire.packets import Connect, SubscriptionRequest

log: Final = logging.getLogger("bridge.ingest")

_SUBSCRIBE_ID: Final = 1
_FILTERS_PER_PACKET: Final = 8
_LONGEST_PAUSE_SECONDS: Final = 30.0
_WITHDRAWAL_SECONDS: Final = 2.0
_FULL_PAUSE_SECONDS: Final = 0.05
FAILURES: Final = (OSError, sqlite3.Error, EdgeBrokerError, UnicodeDecodeError)
"""What a disk, a full one or a broken one, makes the worker raise."""


class Keeper(Protocol):
    """Who keeps batches: the worker, reached in its thread."""

    def process(self, messages: Sequence[Message]) -> Awaitable[Report]:
        """Keep a batch; whatever it raises, `recover` is due."""

    def recover(self) -> Awaitable[Report]:
        """Go back to what was kept last."""

    def is_full(self) -> bool:
        """Whether there is no room for another batch now."""


class Intake:
    """The user of the cluster's line. `run` it beside that.

    `problem`: why nothing can be kept now, empty while all is well. `refused`: filters that the cluster did not grant.
    `subscribed`: whether all were granted on this connection.
    """

    def __init__(
        self,
        config: IngestConfig,
        keeper: Keeper,
        lease: LeaseWriter | None,
        on_report: Callable[[Report], None],
        was_here_before: bool,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._config = config
        self._keeper = keeper
        self._lease = lease
        self._on_report = on_report
        self._clock = clock
        self._was_here_before = was_here_before
        self._talk: Talk | None = None
        self._client: Client | None = None
        self._waiting: list[Message] = []
        self._waiting_bytes = 0
        self._arrived = asyncio.Event()
        self._filled = asyncio.Event()
        self._to_ask: list[str] = []
        self._asked: list[str] = []
        self._renewal: asyncio.TimerHandle | None = None
        self._answered = asyncio.Event()
        self._stopping = False
        self.subscribed = False
        self.refused: list[str] = []
        self.problem = ""

    # ---- batches

    async def run(self) -> None:
        """Keep one batch after the other, until `stop`."""
        while True:
            await self._arrived.wait()
            if self._stopping:
                return
            if self._config.batch.delay_ms and not self._filled.is_set():
                try:
                    async with asyncio.timeout(self._config.batch.delay_ms / 1000):
                        await self._filled.wait()
                except TimeoutError:
                    pass
            while self._keeper.is_full():  # noqa: ASYNC110 - rare, and nobody is in a hurry then
                await asyncio.sleep(_FULL_PAUSE_SECONDS)
            messages, client = self._take_batch(), self._client
            if messages:
                report = await self._keep(messages)
                if client is not None and client is self._client:
                    _acknowledge(client, messages)
                self._on_report(report)

    def _take_batch(self) -> list[Message]:
        messages, self._waiting = self._waiting, []
        self._waiting_bytes = 0
        self._arrived.clear()
        self._filled.clear()
        if self._stopping:
            self._arrived.set()
        if self._talk is not None:
            self._talk.go_on()
        return messages

    async def _keep(self, messages: Sequence[Message]) -> Report:
        """Have the worker keep them, however often that takes."""
        pauses = _pauses()
        while True:
            try:
                report = await self._keeper.process(messages)
            except Exception as error:  # noqa: BLE001 - told by _on_failure; the batch is tried again, whatever it was
                self._on_failure(error)
            else:
                if self.problem:
                    log.info("what comes is kept again")
                    self.problem = ""
                    self._announce()
                return report
            await self._recover(pauses)
            await asyncio.sleep(next(pauses))

    async def _recover(self, pauses: Iterator[float]) -> None:
        """At once, so that what was written in vain takes no room."""
        while True:
            try:
                self._on_report(await self._keeper.recover())
            except Exception as error:  # noqa: BLE001 - told by _on_failure; the batch is tried again, whatever it was
                self._on_failure(error)
            else:
                return
            await asyncio.sleep(next(pauses))

    def _on_failure(self, error: Exception) -> None:
        problem = str(error) if isinstance(error, FAILURES) else f"internal error: {error!r}"
        if problem != self.problem:
            log.error(
                "what came cannot be kept: %s (nothing is acknowledged, it is tried again)",
                problem,
                exc_info=None if isinstance(error, FAILURES) else error,
            )
        if not self.problem:
            self._stop_renewing()
        self.problem = problem

    # ---- the line's user

    def request(self, version: int, credentials: Credentials) -> Connect:
        """The CONNECT: one session for as long as the cluster keeps it."""
        cluster = self._config.cluster
        return Connect(
            version,
            cluster.client_id,
            clean_start=False,
            keep_alive=cluster.keep_alive_seconds,
            username=credentials.username,
            password=credentials.password,
            properties={
                const.RECEIVE_MAXIMUM: self._config.batch.messages,
                const.MAXIMUM_PACKET_SIZE: self._config.limits.max_packet_bytes,
                const.SESSION_EXPIRY_INTERVAL: cluster.session_expiry_seconds,
                const.TOPIC_ALIAS_MAXIMUM: 100,
            },
        )

    def on_online(self, talk: Talk, client: Client) -> UpstreamError | None:
        """Subscribe, also where the cluster remembers: the configuration may have more filters since."""
        self._talk, self._client = talk, client
        self.subscribed = False
        self.refused = []
        if self._was_here_before and not client.session_present:
            log.warning(
                "the cluster has no session of ours any more: what was published while we were away did not come "
                "(look at its persistence, and at session_expiry_seconds)"
            )
        self._was_here_before = True
        self._to_ask = list(self._config.topics.filters)
        self._subscribe_to_next()
        if self._is_enough():
            talk.pause()
        return None

    def on_offline(self) -> None:
        """What was not acknowledged comes again; of QoS 0 it does not."""
        self._talk = self._client = None
        self.subscribed = False
        self._stop_renewing()
        self._answered.set()
        self._waiting = [message for message in self._waiting if not message.qos]
        self._waiting_bytes = sum(len(message.frame) for message in self._waiting)

    def on_message(self, message: Message) -> None:
        """One for the next batch; on the way out it is left to the next run, for which the cluster has it still."""
        if self._stopping:
            return
        self._waiting.append(message)
        self._waiting_bytes += len(message.frame)
        self._arrived.set()
        if self._is_enough():
            self._filled.set()
            if self._talk is not None:
                self._talk.pause()

    def _is_enough(self) -> bool:
        batch = self._config.batch
        return len(self._waiting) >= batch.messages or self._waiting_bytes >= batch.max_bytes

    def on_ack(self, packet_type: int, packet_id: int, reason_code: int) -> None:
        """The answer to our announcement."""
        if packet_id == LEASE_PACKET_ID and packet_type == const.PUBACK:
            self._answered.set()
            if reason_code >= 0x80:
                log.error(
                    "the cluster refused the announcement on %s: %s (gateways send no envelopes)",
                    self._config.lease.topic,
                    failures.describe(reason_code, ""),
                )

    def send_due(self) -> None:
        """Nothing: acknowledgements are written when they are due."""

    # ---- subscriptions

    def _subscribe_to_next(self) -> None:
        client = self._client
        assert client is not None
        self._asked = list(islice(self._to_ask, _FILTERS_PER_PACKET))
        del self._to_ask[: len(self._asked)]
        if self._asked:
            requests = [
                SubscriptionRequest(one, 1, retain_as_published=True, retain_handling=1)
                for one in self._asked
            ]
            client.subscribe(_SUBSCRIBE_ID, requests, time.monotonic())
            return
        self.subscribed = not self.refused
        if self.subscribed:
            log.info("the cluster granted the subscriptions: it keeps for us what is published from now on")
        self._announce()

    def on_suback(self, packet_id: int, reason_codes: list[int]) -> None:
        """What the cluster granted; the next filters follow."""
        if self._client is None or packet_id != _SUBSCRIBE_ID:
            return
        for topic_filter, reason_code in zip(self._asked, reason_codes, strict=False):
            if reason_code >= 0x80:
                self.refused.append(topic_filter)
                log.error(
                    "the cluster refused the subscription to %s: %s (nothing of it comes; look at its access rules)",
                    topic_filter,
                    failures.describe(reason_code, ""),
                )
        self._subscribe_to_next()

    # ---- the lease

    def _announce(self) -> None:
        """Say that envelopes are understood here, and again before that is over."""
        lease, client = self._lease, self._client
        if lease is None or client is None or not self.subscribed or self.problem or self._stopping:
            return
        client.send_publish(
            lease.topic, lease.announcement(client.version, self._clock()), 1, True, False, LEASE_PACKET_ID
        )
        self._stop_renewing()
        self._renewal = asyncio.get_running_loop().call_later(
            self._config.lease.renew_seconds, self._announce
        )

    def _stop_renewing(self) -> None:
        if self._renewal is not None:
            self._renewal.cancel()
            self._renewal = None

    # ---- the end

    async def stop(self) -> None:
        """Withdraw the announcement; what is not kept yet comes again at the next start."""
        self._stopping = True
        self._arrived.set()
        self._stop_renewing()
        lease, client = self._lease, self._client
        if lease is None or client is None or not self.subscribed:
            return
        self._answered.clear()
        if self._talk is not None:
            self._talk.go_on()  # the answer stands behind what was not read yet
        client.send_publish(lease.topic, lease.withdrawal(client.version), 1, True, False, LEASE_PACKET_ID)
        try:
            async with asyncio.timeout(_WITHDRAWAL_SECONDS):
                await self._answered.wait()
        except TimeoutError:
            log.warning(
                "the cluster did not acknowledge that the announcement is withdrawn: it ends by itself"
            )


def _pauses() -> Iterator[float]:
    """Seconds between tries."""
    pause_seconds = 1.0
    while True:
        yield pause_seconds
        pause_seconds = min(pause_seconds * 2, _LONGEST_PAUSE_SECONDS)


def _acknowledge(client: Client, messages: Sequence[Message]) -> None:
    """PUBACK for each, or PUBREC where an older subscription of the session brought it at QoS 2."""
    for message in messages:
        if message.qos:
            client.send_ack(const.PUBACK if message.qos == 1 else const.PUBREC, message.packet_id)
