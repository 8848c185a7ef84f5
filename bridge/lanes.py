"""Several queues on one connection, by priority: what is urgent overtakes what waits, and each topic keeps its order.

What it keeps true:

- A topic's messages are in one lane, and a lane sends in its order: priority never turns two messages of a topic round.
- Unacknowledged are never more packets, of all lanes together, than the upstream takes. A part of that is kept free for
  the lane `high`, so that a slow upstream that has its hands full is still given what is urgent.
- No lane waits for ever: of 37 packets that could all go, 32 are high, 4 normal, 1 low (`bridge.turns`). An envelope is
  one packet.
- A packet identifier belongs to one lane, and stays with its message over connections and restarts (`bridge.packet_ids`).
- What gathers for an envelope takes nobody's turn and no place in the window, until it goes.

A bridge that has had one queue alone may have messages upstream at QoS 2 under identifiers of their own. As long as there
may be any, its lanes wait: what was queued before goes first, once. Then that identifiers are shared is written into the
store (`bridge.lane_record`), and holds for good.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from bridge.lane import Lane
from bridge.mapping import RemoteTopic
from bridge.packet_ids import place_of
from bridge.priorities import FAVOURED, HIGH, LOW, NORMAL
from bridge.turns import Turns
from edge_broker.core.client import Client
from edge_broker.core.message import Message

_TURN_PACKETS: Final = 500
_TURN_MESSAGES: Final = 2_000
_TURN_BYTES: Final = 256 << 10
"""A turn's budget: whichever is spent first. More messages than packets, where they go in envelopes."""

WEIGHTS: Final = {HIGH: 32, NORMAL: 4, LOW: 1}
"""Of so many packets together, the shares of the lanes while all of them have something to send."""

_AT_ONCE: Final = {HIGH: WEIGHTS[HIGH] // WEIGHTS[NORMAL], NORMAL: 1, LOW: 1}
"""How many go in one turn while others wait: as many as would come one behind the other anyway."""

_RESERVED_SHARE: Final = 10
"""One in so many places of the window, and one at least, is for what is urgent."""


class Lanes:
    """The lanes of one bridge, `normal` among them. `keep_word(done)`: have it in the store that they share identifiers,
    then call `done`; None where the store says so already.
    """

    def __init__(
        self,
        lanes: Sequence[Lane],
        window: int,
        keep_word: Callable[[Callable[[], None]], None] | None,
    ) -> None:
        self.lanes = {
            lane.priority: lane for lane in sorted(lanes, key=lambda one: FAVOURED.index(one.priority))
        }
        self.pause_seconds = 0.0
        self._normal = self.lanes[NORMAL]
        self._most = window
        self._keep_word = keep_word
        self._is_asking = self._is_kept = False
        self._turns = Turns({priority: WEIGHTS[priority] for priority in self.lanes})
        self._client: Client | None = None
        self._window = self._reserved = 0
        for lane in lanes:
            lane.share_pace_with(self._normal)
            if keep_word is None:
                lane.share_identifiers()

    # ---- coming and going of the connection

    def attach(self, client: Client, wake: Callable[[], None], retreat: Callable[[int], None]) -> None:
        """`client` is connected: everything not acknowledged goes out on it."""
        self._client = client
        self._window = min(self._most, client.receive_maximum)
        self._reserved = 0
        if HIGH in self.lanes and self._window > 1:
            self._reserved = max(1, self._window // _RESERVED_SHARE)
        for lane in self.lanes.values():
            lane.attach(client, wake, retreat)

    def detach(self) -> None:
        """The connection is gone."""
        self._client = None
        self._window = 0
        for lane in self.lanes.values():
            lane.detach()

    def close_window(self) -> None:
        """Send nothing new but what gathers; what is on its way may still be acknowledged."""
        for lane in self.lanes.values():
            lane.close_window_after(self._room(lane, self._used()))
        self._window = 0

    @property
    def shares_identifiers(self) -> bool:
        """Whether all lanes may send."""
        return self._keep_word is None

    def _may_send(self, client: Client) -> set[int]:
        """The lanes that may; while identifiers are not shared yet, see to it as soon as that may be."""
        queue = self._normal.queue
        if (
            self._is_kept and not client.awaits_suback
        ):  # else under an identifier that may be another lane's then
            self._share()
        if self._keep_word is None:
            return set(self.lanes)
        if self._is_asking:
            return set()
        if client.session_present and queue.head < queue.sent_before:
            return {
                NORMAL
            }  # what may be upstream at QoS 2 is finished under the identifiers that it has there
        if queue.in_flight:
            self._normal.send_taken(self._room(self._normal, self._used()))
            return set()
        self._is_asking = True
        self._keep_word(self._on_kept)
        return set()

    def _on_kept(self) -> None:
        """It is in the store."""
        self._is_kept = True
        if self._client is None:
            self._share()
        self._normal.pump()

    def _share(self) -> None:
        self._keep_word = None
        for lane in self.lanes.values():
            lane.share_identifiers()

    # ---- sending

    def send_due(self) -> bool:
        """Send what is due and fits, up to the budget of one turn; True if there is more for the next."""
        client = self._client
        if client is None or not client.writable:
            return False
        self.pause_seconds = 0.0
        waiting = set(self.lanes) if self._keep_word is None else self._may_send(client)
        packets, messages, size_bytes = _TURN_PACKETS, _TURN_MESSAGES, _TURN_BYTES
        used = self._used()
        while waiting := self._with_something(waiting):
            if packets <= 0 or messages <= 0 or size_bytes <= 0:
                return True
            lane = self.lanes[self._turns.next_of(waiting)]
            most = min(packets, self._room(lane, used))
            if len(waiting) > 1:
                most = min(most, _AT_ONCE[lane.priority])
            if not most:
                waiting.remove(lane.priority)
                continue
            before, written = lane.queue.cursor, len(client.output)
            has_more, sent = lane.send_some(most)
            packets -= sent
            used[lane.priority] += sent
            messages -= lane.queue.cursor - before
            size_bytes -= sum(map(len, client.output[written:]))
            if sent > 0:
                self._turns.note(lane.priority, sent if len(waiting) > 1 else 0)
            if has_more:
                return True
            if sent < most:
                waiting.remove(lane.priority)
                self._note_pause(lane)
        return False

    def _with_something(self, priorities: set[int]) -> set[int]:
        """Those whose lanes have something to send."""
        waiting = {priority for priority in priorities if self.lanes[priority].waits}
        for priority in priorities - waiting:
            self._turns.rest(priority)
        return waiting

    def _used(self) -> dict[int, int]:
        """Packets of each lane that are in the window."""
        return {priority: lane.packets_in_flight for priority, lane in self.lanes.items()}

    def _room(self, lane: Lane, used: dict[int, int]) -> int:
        """How many packets of `lane` the window has room for."""
        room = self._window - sum(used.values())
        if lane.priority != HIGH:
            room = min(room, self._window - self._reserved - sum(used.values()) + used.get(HIGH, 0))
        return max(0, room)

    def _note_pause(self, lane: Lane) -> None:
        """`lane` can send no more in this turn, perhaps because its pace says so, or because it gathers."""
        seconds = lane.pause_seconds
        if seconds and (not self.pause_seconds or seconds < self.pause_seconds):
            self.pause_seconds = seconds

    def send_live(self, message: Message, remote: RemoteTopic) -> str:
        """Send `message` at QoS 0 now; the reason where that cannot be, empty if it is done."""
        return self.lanes.get(remote.priority, self._normal).send_live(message, remote)

    def pump(self) -> None:
        """More may be due now."""
        self._normal.pump()

    # ---- what the upstream answers

    def _lane_of(self, packet_id: int) -> Lane:
        """Whose identifier it is; `normal` answers for what is nobody's."""
        return self.lanes.get(place_of(packet_id), self._normal) if self._keep_word is None else self._normal

    def on_puback(self, packet_id: int, reason_code: int) -> None:
        """QoS 1: done, or refused."""
        self._lane_of(packet_id).on_puback(packet_id, reason_code)

    def on_pubrec(self, packet_id: int, reason_code: int) -> None:
        """QoS 2: the upstream has it, or refuses it."""
        self._lane_of(packet_id).on_pubrec(packet_id, reason_code)

    def on_pubcomp(self, packet_id: int) -> None:
        """QoS 2: done."""
        self._lane_of(packet_id).on_pubcomp(packet_id)

    def is_overdue(self, now: float, sending: bool) -> bool:
        """Whether the oldest unacknowledged message of a lane has been that for too long."""
        overdue = [lane.is_overdue(now, sending) for lane in self.lanes.values()]  # each has to be asked
        return any(overdue)

    # ---- how it stands

    @property
    def online(self) -> bool:
        """Whether the upstream is there."""
        return self._client is not None

    @property
    def has_room(self) -> bool:
        """Whether a message would leave at once, whichever lane it is for."""
        lanes = self.lanes.values()
        return (
            self.shares_identifiers
            and self._room(self._normal, self._used()) > 0
            and all(lane.has_room for lane in lanes)
        )

    @property
    def needs_acknowledgements(self) -> bool:
        """Whether anything has to be acknowledged by the upstream."""
        return any(lane.needs_acknowledgements for lane in self.lanes.values())

    @property
    def free_packet_id(self) -> int:
        """A packet identifier that no message in flight has, nor will have soon."""
        return self._normal.free_packet_id

    @property
    def spare_packet_id(self) -> int:
        """Another one."""
        return self._normal.spare_packet_id

    @property
    def acknowledged(self) -> int:
        """Messages that the upstream acknowledged, since the start."""
        return sum(lane.acknowledged for lane in self.lanes.values())

    @property
    def depth(self) -> int:
        """Messages that wait for the upstream's acknowledgement."""
        return sum(lane.queue.depth for lane in self.lanes.values())

    @property
    def in_flight(self) -> int:
        """Those of them that were sent on this connection."""
        return sum(lane.in_flight for lane in self.lanes.values())

    @property
    def draining(self) -> int:
        """Messages that waited when the connection stood and are not acknowledged yet, about."""
        return sum(lane.draining for lane in self.lanes.values())

    @property
    def drain_seconds(self) -> float | None:
        """How long those take at their pace, which the lanes share; None where that has no limit."""
        return self._normal.seconds_to_drain([lane for lane in self.lanes.values() if lane.priority != HIGH])
