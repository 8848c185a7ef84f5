"""A bridge under an ACL: what it may not have does not go up, what it may not publish does not come down."""

from __future__ import annotations

from edge_broker.core.ports import Principal
from edge_broker.security.acl import Acl, Role
from edge_broker.security.acl_decisions import AclAuthorizer
from edge_broker.wire import const
from edge_broker.wire.encoder import encode_publish
from tests.bridge.memory import Bridged, Local, rule

UPLINK = Role(
    "uplink",
    allow={"subscribe": ("sensors/#",), "publish": ("cmd/#",)},
    deny={"receive": ("sensors/+/private",)},
    max_qos=1,
)
CLOUD = Principal("bridge:cloud", "", bridge="cloud")


def named(role: Role = UPLINK) -> AclAuthorizer:
    return AclAuthorizer(Acl({role.name: role}, bridges={"cloud": (role.name,)}))


def bridged_by(authorizer: AclAuthorizer | None) -> Bridged:
    bridged = Bridged(out=[rule("#", 1)], in_=[rule("#", 2)])
    bridged.router.authorizer = authorizer
    bridged.router.admit_companion(bridged.outbox, CLOUD)
    bridged.connect()
    bridged.sent()
    return bridged


def gone_up(bridged: Bridged) -> list[str]:
    return [message.topic for message in bridged.sent_messages()]


def test_what_it_may_not_have_does_not_go_up() -> None:
    bridged = bridged_by(named())
    for topic in ("sensors/a/t", "sensors/a/private", "other"):
        bridged.publish(topic)
    assert gone_up(bridged) == ["sensors/a/t"]
    assert bridged.router.counters.denied == {"receive": 2}


def test_nor_when_it_takes_what_is_retained_here() -> None:
    bridged = bridged_by(named())
    for topic in ("sensors/a/t", "sensors/a/private", "other"):
        bridged.publish(topic, b"x", qos=0, retain=True)
    gone_up(bridged)
    bridged.outbox.take_retained([])
    assert gone_up(bridged) == ["sensors/a/t"]


def test_what_it_may_not_publish_does_not_come_down_and_is_acknowledged() -> None:
    bridged = bridged_by(named())
    local = Local(bridged, "#", durable=False)
    for packet_id, (topic, qos, retain) in enumerate(
        [("cmd/x", 1, False), ("other", 1, False), ("cmd/x", 1, True), ("cmd/x", 2, False)], 1
    ):
        bridged.receive(encode_publish(5, topic, b"", qos, retain, packet_id=packet_id))
    bridged.commit()
    assert [message.topic for message in local.messages] == ["cmd/x"]
    assert bridged.downlink.dropped == {"not_authorized": 3}
    assert bridged.router.counters.denied["publish"] == 3
    kinds = [(kind, packet_id) for kind, packet_id, _ in bridged.sent_acks()]
    assert kinds == [(const.PUBACK, 1), (const.PUBACK, 2), (const.PUBACK, 3), (const.PUBREC, 4)]


def test_one_that_the_acl_does_not_name_does_what_its_rules_say() -> None:
    bridged = bridged_by(AclAuthorizer(Acl()))
    local = Local(bridged, "x", durable=False)
    bridged.publish("anything")
    assert gone_up(bridged) == ["anything"]
    bridged.receive(encode_publish(5, "x", b"", 1, True, packet_id=1))
    assert len(local.messages) == 1


def test_new_rules_are_for_it_too() -> None:
    bridged = bridged_by(None)
    bridged.publish("other")
    bridged.router.replace_authorizer(named())
    bridged.publish("other")
    bridged.publish("sensors/x")
    assert gone_up(bridged) == ["other", "sensors/x"]
    bridged.router.replace_authorizer(None)
    bridged.publish("other")
    assert gone_up(bridged) == ["other"]
