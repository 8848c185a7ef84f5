"""Whatever carries messages up on a connection, as the connection sees it: one forwarder, or several lanes of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from edge_broker.core.client import Client


class Uplink(Protocol):
    """`attach` at each connection, `detach` at its end; `bridge.forwarder` says what each of these means."""

    @property
    def acknowledged(self) -> int:
        """Messages that the upstream acknowledged, since the start."""

    @property
    def pause_seconds(self) -> float:
        """Until there may be something to send although nothing happens; 0 where that is not known."""

    @property
    def depth(self) -> int:
        """Messages that wait for the upstream's acknowledgement."""

    @property
    def in_flight(self) -> int:
        """Those of them that were sent on this connection."""

    @property
    def needs_acknowledgements(self) -> bool:
        """Whether anything has to be acknowledged by the upstream."""

    @property
    def free_packet_id(self) -> int:
        """A packet identifier that no message in flight has, nor will have soon."""

    @property
    def spare_packet_id(self) -> int:
        """Another one."""

    def attach(self, client: Client, wake: Callable[[], None], retreat: Callable[[int], None]) -> None:
        """`client` is connected."""

    def detach(self) -> None:
        """The connection is gone."""

    def close_window(self) -> None:
        """Send nothing new but what gathers; what is on its way may still be acknowledged."""

    def send_due(self) -> bool:
        """Send what is due and fits; True if there is more for the next turn."""

    def on_puback(self, packet_id: int, reason_code: int) -> None:
        """QoS 1: done, or refused."""

    def on_pubrec(self, packet_id: int, reason_code: int) -> None:
        """QoS 2: the upstream has it, or refuses it."""

    def on_pubcomp(self, packet_id: int) -> None:
        """QoS 2: done."""

    def is_overdue(self, now: float, sending: bool) -> bool:
        """Whether an acknowledgement has been missing for too long; asked about once a second."""
