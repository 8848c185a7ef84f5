"""What is left with the broker for later is no way around permissions: delayed messages, dead letters, what is retained."""

from __future__ import annotations

import pytest

from edge_broker.core.dead_letters import QUEUE_NAME
from edge_broker.core.ports import NEVER
from edge_broker.security.acl import Acl, Role
from edge_broker.security.acl_decisions import AclAuthorizer
from edge_broker.wire import const
from edge_broker.wire.packets import Publish, Suback
from tests.pump.pump import Pump, TestClient

EVERYTHING = dict.fromkeys(("publish", "retain", "subscribe", "share"), ("#", "$SYS/#"))


def acl(**roles: Role) -> AclAuthorizer:
    """A role for each user name; `all` may do everything but read the dead letters."""
    made = roles | {"all": Role("all", EVERYTHING)}
    return AclAuthorizer(Acl(made, {name: (name,) for name in made}))


def topics(client: TestClient) -> list[str]:
    return [packet.topic for packet in client.inbox if isinstance(packet, Publish)]


MAY = acl(bob=Role("bob", {"publish": ("doors/#",), "retain": ("doors/#",)}))
MAY_NOT = acl(bob=Role("bob", {"publish": ("lamps/#",)}))


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("is_gone", [False, True])
def test_who_lost_a_permission_left_nothing_behind_that_uses_it(qos: int, is_gone: bool) -> None:
    """Whether the client is still there when its message is due, or its session has ended long ago."""
    pump = Pump(authorizer=MAY, dead_letters=True)
    watcher = pump.client("w", username="all").subscribed("#", 2)
    thief = pump.client("thief", username="bob")
    thief.publish("$delayed/60/doors/front", b"open", qos)
    pump.commit()
    if is_gone:
        thief.vanish()
    pump.router.replace_authorizer(MAY_NOT)
    pump.wait(61)
    pump.commit()
    assert topics(watcher) == []
    assert pump.router.counters.denied == {"publish": 1}
    assert pump.dropped == {"delayed_refused": 1}
    assert pump.router.delayed.refused == {"not_authorized": 1}
    assert len(pump.router.delayed) == 0


def test_nor_one_that_is_retained() -> None:
    pump = Pump(authorizer=MAY)
    pump.client("thief", username="bob").publish("$delayed/60/doors/front", b"open", 1, retain=True)
    pump.commit()
    pump.router.replace_authorizer(acl(bob=Role("bob", {"publish": ("doors/#",)})))
    pump.wait(61)
    pump.commit()
    assert pump.router.retained_messages == 0
    assert pump.dropped == {"delayed_refused": 1}


@pytest.mark.parametrize("is_gone", [False, True])
def test_who_still_may_is_heard(is_gone: bool) -> None:
    pump = Pump(authorizer=MAY)
    watcher = pump.client("w", username="all").subscribed("#", 2)
    honest = pump.client("honest", username="bob")
    honest.publish("$delayed/60/doors/front", b"open", 1)
    pump.commit()
    if is_gone:
        honest.vanish()
    pump.router.replace_authorizer(acl(bob=Role("bob", {"publish": ("doors/#", "lamps/#")})))
    pump.wait(61)
    pump.commit()
    assert topics(watcher) == ["doors/front"]


def buried(pump: Pump) -> int:
    """One dead letter of topic `a`, for the session `s` of bob; its number."""
    pump.client("s", username="bob", clean=False, expiry=600).subscribed("a", 1).vanish()
    pump.client("p", username="all").publish("a", b"1", 1, properties={const.MESSAGE_EXPIRY_INTERVAL: 5})
    pump.commit()
    pump.wait(10)
    pump.commit()
    dead_letters = pump.router.dead_letters
    assert dead_letters is not None
    assert dead_letters.queue is not None
    assert dead_letters.depth == 1
    return dead_letters.queue.head


def test_a_dead_letter_is_not_given_again_to_one_who_may_not_have_it_any_more() -> None:
    reads_a, reads_b = (acl(bob=Role("bob", {"subscribe": (topic,)})) for topic in "ab")
    pump = Pump(authorizer=reads_a, dead_letters=True)
    number = buried(pump)
    dead_letters = pump.router.dead_letters
    assert dead_letters is not None
    letter = pump.store.queues[pump.store.outboxes[QUEUE_NAME]].messages[number]
    pump.router.replace_authorizer(reads_b)
    assert dead_letters.deliver_again(number, letter) == "session:s may not receive that topic"
    assert (dead_letters.depth, pump.session("s").queue.depth) == (1, 0)
    pump.router.replace_authorizer(reads_a)
    assert dead_letters.deliver_again(number, letter) == ""
    pump.commit()
    assert (dead_letters.depth, pump.session("s").queue.depth) == (0, 1)


@pytest.mark.parametrize("topic_filter", ["$dead-letters/#", "$dead-letters/a", "$share/g/$dead-letters/#"])
def test_dead_letters_are_read_by_those_who_are_allowed_them_by_name(topic_filter: str) -> None:
    """`#` in a rule opens them to nobody: they are other clients' messages."""
    reader = Role("reader", {"subscribe": ("$dead-letters/#",), "share": ("$dead-letters/#",)})
    pump = Pump(authorizer=acl(bob=Role("bob", {"subscribe": ("a",)}), reader=reader), dead_letters=True)
    curious = pump.client("c", username="all")
    curious.subscribe(topic_filter)
    assert curious.take(Suback).reason_codes == [const.NOT_AUTHORIZED]
    wide = pump.client("wide", username="all").subscribed("#")
    allowed = pump.client("r", username="reader").subscribed(topic_filter)
    buried(pump)
    assert topics(allowed) == ["$dead-letters/a"]
    assert topics(wide) == ["a"]


def test_dead_letters_of_some_topics_may_be_allowed_alone() -> None:
    reader = Role("reader", {"subscribe": ("$dead-letters/b/#",)})
    pump = Pump(authorizer=acl(bob=Role("bob", {"subscribe": ("a",)}), reader=reader), dead_letters=True)
    client = pump.client("r", username="reader").subscribed("$dead-letters/b/#")
    buried(pump)
    assert topics(client) == []
    permissions = pump.session("r").permissions
    assert permissions is not None
    assert permissions.delivered_qos("$dead-letters/a", False) == NEVER


def test_a_retained_message_that_is_read_from_the_disk_meanwhile_is_asked_about_again() -> None:
    """The permission went while its page was under way."""
    reads = acl(bob=Role("bob", {"subscribe": ("doors/#",)}))
    pump = Pump(authorizer=reads, retained_memory_bytes=0)
    owner = pump.client("owner", username="all")
    for number in range(3):
        owner.publish(f"doors/{number}", b"hers", 1, retain=True, packet_id=number + 1)
    pump.commit()
    bob = pump.client("bob", username="bob")
    bob.subscribe("doors/#")
    pump.run()
    assert pump.pending.retained_reads, "all of them are on disk only"
    bob.take(Suback)
    pump.router.replace_authorizer(acl(bob=Role("bob", {"subscribe": ("lamps/#",)})))
    pump.commit()
    assert topics(bob) == []
