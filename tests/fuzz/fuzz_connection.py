"""A whole broker core under hostile clients: three strangers do what the input says, honest clients go on.

`fuzz_connection` reads its input as a script. The first byte chooses the limits; then one byte is a step (its lower two
bits say who, the next three what) and the bytes behind it are what the step takes. The strangers connect, send raw bytes,
packets with a right length or whole phrases, acknowledge, stop reading, vanish; the store commits or is behind; time
passes; the broker crashes and comes back. What must hold is asserted along the way here, and at the end in ``aftermath``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from edge_broker.core.ports import Principal
from edge_broker.security.acl import Acl, Role
from edge_broker.security.acl_decisions import AclAuthorizer
from edge_broker.wire.properties import encode_varint
from tests.fuzz import honest, keeper
from tests.fuzz.aftermath import assert_consistent, assert_nothing_left
from tests.fuzz.door import FuzzDoor
from tests.fuzz.honest import Honest
from tests.fuzz.keeper import Keeper
from tests.fuzz.phrases import CONNECTS, phrases
from tests.fuzz.stranger import Stranger
from tests.permitting import SimpleRules
from tests.pump.pump import Pump

MAX_EXPIRY_SECONDS: Final = 3600
MOST_STEPS: Final = 200
STRANGERS: Final = 3

TIGHT: Final[dict[str, Any]] = {
    "max_packet_bytes": 1000,
    "receive_maximum": 3,
    "send_window": 3,
    "send_window_bytes": 5000,
    "window_bytes": 4000,
    "max_queue_bytes_in_memory": 3000,
    "max_uncommitted_bytes": 4000,
    "max_topic_levels": 4,
    "max_subscriptions_per_client": 4,
    "topic_alias_maximum": 2,
    "max_client_id_bytes": 30,
    "max_topic_bytes": 40,
    "max_user_properties": 2,
    "max_sessions_per_identity": 3,
    "max_delayed_wills": 1,
    "max_retained_messages": 3,
    "max_retained_bytes": 300,
    "max_inbound_qos_2": 3,
    "work_budget_bytes": 32,
    "work_budget_deliveries": 3,
    "work_budget_retained": 2,
    "page_messages": 2,
}
"""Every limit where a short script can reach it."""


class Choosy(SimpleRules):
    """An authorizer: nothing that begins with "no", to nobody."""

    def may_publish(self, principal: Principal, topic: str) -> bool:
        return not topic.startswith("no")

    def may_subscribe(self, principal: Principal, topic_filter: str) -> bool:
        return not topic_filter.startswith("no")


PARTLY = Acl(
    {
        "some": Role(
            "some",
            {
                "publish": ("#",),
                "retain": ("+",),
                "subscribe": ("#",),
                "share": ("#",),
                "receive": ("+", "a/#"),
            },
            {"subscribe": ("no/#",), "receive": ("a/b", "{client_id}")},
            max_qos=1,
        ),
        "honest": Role("honest", dict.fromkeys(("publish", "subscribe"), (honest.TOPIC, keeper.TOPIC))),
    },
    {"*": ("some",), "anonymous": ("some",), "honest-*": ("honest",), "kept-*": ("honest",)},
    filters_wide=True,
)
"""Wide subscriptions get a part of what they ask for, so routes and shares are not whole."""
LIMITS: Final[tuple[dict[str, Any], ...]] = (
    {},
    TIGHT,
    TIGHT | {"authorizer": Choosy()},
    {"send_window": 2, "max_queue_bytes_in_memory": 2000, "page_messages": 1, "window_bytes": 0},
    {
        "retain_available": False,
        "wildcard_subscriptions_available": False,
        "shared_subscriptions_available": False,
        "subscription_ids_available": False,
        "check_payload_format": True,
        "max_publishes_per_second": 10,
        "response_information": "r/{client_id}",
        "server_reference": "other.example:1883",
    },
    TIGHT | {"authorizer": AclAuthorizer(PARTLY)},
)


class Script:
    """The input, read from the front; past its end it gives zeros."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def over(self) -> bool:
        return self._at >= len(self._data)

    def byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1] if self._at <= len(self._data) else 0

    def bytes(self) -> bytes:
        """A length in one byte, and as many bytes."""
        size = self.byte()
        self._at += size
        return self._data[self._at - size : self._at]


class Play:
    """One broker, its strangers, its honest clients, and the steps that a script can take with them."""

    def __init__(self, limits: dict[str, Any]) -> None:
        limits = {"max_session_expiry_seconds": MAX_EXPIRY_SECONDS} | limits
        self.pump = Pump(**limits)
        FuzzDoor.put_in(self.pump)
        self.strangers: list[Stranger] = []
        self.gone: list[Stranger] = []
        self.honest: Honest
        self._open()
        self.keeper = Keeper(self.pump)
        self._steps: tuple[Callable[[Stranger, Script], object], ...] = (
            lambda who, script: who.send(script.bytes()),
            lambda who, script: who.send(_framed(script)),
            lambda who, script: self._connect(who, CONNECTS[script.byte() % len(CONNECTS)]),
            lambda who, _: who.answer(),
            lambda who, _: who.unblock() if who.blocked else who.block(),
            lambda who, _: who.vanish(),
            self._say,
            lambda who, _: self._replace(who),
        )
        pump = self.pump
        self._events: tuple[Callable[[Script], object], ...] = (
            lambda script: self._wait(float(script.byte())),
            lambda _: pump.commit(),
            lambda _: self._seal(),
            lambda _: pump.settle() if pump.sealed else None,
            lambda _: self._converse(),
            lambda _: pump.answer_reads(),
            lambda _: self._open_or_shut_the_door(),
            lambda _: self._crash(),
        )

    def step(self, script: Script) -> None:
        """Take the next step of `script`."""
        step = script.byte()
        what = step >> 2 & 7
        if step & 3 < STRANGERS:
            self._steps[what](self.strangers[step & 3], script)
        else:
            self._events[what](script)

    def _open(self) -> None:
        """Everybody comes anew."""
        self.gone = []
        self.strangers = [Stranger(self.pump) for _ in range(STRANGERS)]
        self.honest = Honest(self.pump)

    def _connect(self, who: Stranger, connect: bytes) -> None:
        if who.connection.client_id or who.closed:
            who = self._replace(who)
        who.send(connect)

    def _say(self, who: Stranger, script: Script) -> None:
        """One of the phrases."""
        known = phrases(who.connection.version)
        who.send(known[script.byte() % len(known)])

    def _replace(self, who: Stranger) -> Stranger:
        """Another connection for `who`; the old one stands as long as it can."""
        self.gone.append(who)
        new = self.strangers[self.strangers.index(who)] = Stranger(self.pump)
        return new

    def _wait(self, seconds: float) -> None:
        self.pump.wait(seconds)
        if self.pump.door.later:
            self._open_or_shut_the_door()
        self.keeper.visit_if_due()

    def _converse(self) -> None:
        self.keeper.write()
        self.honest.converse()
        self.keeper.write()

    def _seal(self) -> None:
        if not self.pump.pending.empty:
            self.pump.seal()

    def _open_or_shut_the_door(self) -> None:
        """Authenticate later from now on, or answer all who wait."""
        door = self.pump.door
        door.later = not door.later
        waiting, door.waiting = door.waiting, []
        for answer in waiting:
            answer()
        self.pump.run()

    def _crash(self) -> None:
        """What was not committed is gone, and so are all connections."""
        self._check()
        self.keeper.on_crash()
        self.pump.door.later, self.pump.door.waiting = False, []
        self.pump.crash()
        self._open()
        self.keeper.come_back()

    def _check(self) -> None:
        assert_consistent(self.pump, [*self.strangers, *self.gone], self.honest, self.keeper)

    def end(self) -> None:
        """Everybody leaves, everything is committed, all sessions expire: what is there now was forgotten by us."""
        pump = self.pump
        if pump.door.later:
            self._open_or_shut_the_door()
        self._check()
        self._converse()
        self.keeper.visit()
        everybody = [*self.strangers, *self.gone]
        for stranger in everybody:
            stranger.unblock()
            stranger.vanish()
        pump.commit()
        self._check()
        pump.wait(MAX_EXPIRY_SECONDS + 1)
        pump.wait(
            MAX_EXPIRY_SECONDS + 1
        )  # wills that came due may have filled queues of sessions that ended since
        pump.commit()
        self.honest.converse()
        self._check()
        assert_nothing_left(pump, self.honest, self.keeper)


def _framed(script: Script) -> bytes:
    """A packet whose remaining length is right, whatever is in it."""
    first, body = script.byte(), script.bytes()
    return bytes((first,)) + encode_varint(len(body)) + body


def fuzz_connection(data: bytes) -> None:
    """One script; AssertionError where a promise is broken, any other exception as it is."""
    script = Script(data)
    play = Play(LIMITS[script.byte() % len(LIMITS)])
    for _ in range(MOST_STEPS):
        if script.over:
            break
        play.step(script)
    play.end()
