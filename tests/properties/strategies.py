"""What Hypothesis draws from: texts, topics, properties and whole packets, as the specifications allow them."""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from edge_broker.wire.encoder import encode_publish
from edge_broker.wire.packets import (
    Ack,
    Auth,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Ping,
    Suback,
    Subscribe,
    SubscriptionRequest,
    Unsubscribe,
    Will,
)
from edge_broker.wire.properties import Properties, encode_properties
from tests.golden.packets import encode
from tests.golden.properties import PACKETS, PROPERTIES

VERSIONS: Final = (3, 4, 5)
HOP_PROPERTIES: Final = ("topic_alias", "message_expiry_interval", "subscription_identifier")
"""What ends at the next broker; every other property of a PUBLISH travels on [MQTT-3.3.2-4, -6 and others]."""

quick: Final = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""For every test here: a machine shared with others has no deadline of 200 ms."""

texts: Final = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
topic_names: Final = st.text(
    st.characters(codec="utf-8", exclude_characters="\0+#"), min_size=1, max_size=12
) | st.sampled_from(("/", "$SYS/x", "a/b/c", "t" * 300))
topic_filters: Final = st.sampled_from(
    ("#", "+/a", "a/#", "$share/g/a/+", "/", "$SYS/#")
) | topic_names.filter(lambda topic: not topic.startswith("$share/"))
payloads: Final = st.binary(max_size=40) | st.sampled_from((b"x" * 124, b"x" * 125, b"\0" * 20_000))
packet_ids: Final = st.integers(1, 65535)
reason_codes: Final = st.sampled_from((0x00, 0x10, 0x80, 0x87, 0x97))


def _property_values(name: str) -> SearchStrategy[Any]:
    entry = PROPERTIES[name]
    if name == "response_topic":
        return topic_names
    if name == "subscription_identifier":
        return st.lists(st.integers(1, entry.highest), min_size=1, max_size=1)
    by_kind: dict[str, SearchStrategy[Any]] = {
        "string": texts,
        "binary": st.binary(max_size=12),
        "pair": st.lists(st.tuples(texts, texts), min_size=1, max_size=3),
    }
    widths = {"byte": 0xFF, "two": 0xFFFF, "four": 0xFFFFFFFF}
    if entry.kind in by_kind:
        return by_kind[entry.kind]
    return st.integers(entry.lowest, min(entry.highest, widths[entry.kind]))


@cache
def properties_of(place: str, without: tuple[str, ...] = ()) -> SearchStrategy[Properties]:
    """Any properties that may stand in `place`, by identifier; authentication data with its method only."""
    allowed = {
        entry.identifier: _property_values(name)
        for name, entry in PROPERTIES.items()
        if place in entry.places and name not in without
    }
    method, data = (PROPERTIES[f"authentication_{part}"].identifier for part in ("method", "data"))

    def with_method(drawn: Properties) -> Properties:
        if data in drawn and method not in drawn:
            return drawn | {method: "m"}
        return drawn

    return st.fixed_dictionaries({}, optional=allowed).map(with_method)


def _own(version: int, place: str) -> SearchStrategy[Properties]:
    return properties_of(place) if version >= 5 else st.just({})


@st.composite
def wills(draw: DrawFn, version: int) -> Will:
    """A will message with its own properties; the delay is a field of its own."""
    delay = draw(st.integers(0, 0xFFFFFFFF)) if version >= 5 else 0
    properties = draw(properties_of("WILL", ("will_delay_interval",))) if version >= 5 else {}
    topic, payload = draw(topic_names), draw(st.binary(max_size=20))
    return Will(topic, payload, draw(st.integers(0, 2)), draw(st.booleans()), delay, properties)


@st.composite
def connects(draw: DrawFn, version: int) -> Connect:
    """Any CONNECT; before MQTT 5 no password comes without a user name."""
    username = draw(st.none() | texts)
    may_have_password = version >= 5 or username is not None
    return Connect(
        version,
        draw(texts),
        draw(st.booleans()),
        draw(st.integers(0, 65535)),
        username,
        draw(st.none() | st.binary(max_size=12)) if may_have_password else None,
        draw(st.none() | wills(version)),
        draw(_own(version, "CONNECT")),
    )


@cache
def _requests(version: int) -> SearchStrategy[list[SubscriptionRequest]]:
    if version < 5:
        return st.lists(
            st.builds(SubscriptionRequest, topic_filters, st.integers(0, 2)), min_size=1, max_size=4
        )
    request = st.builds(
        SubscriptionRequest,
        topic_filters,
        st.integers(0, 2),
        st.booleans(),
        st.booleans(),
        st.integers(0, 2),
    )
    return st.lists(request, min_size=1, max_size=4)


def _acks(version: int) -> SearchStrategy[Ack]:
    def of_type(packet_type: int) -> SearchStrategy[Ack]:
        codes = reason_codes if version >= 5 else st.just(0)
        own = _own(version, PACKETS[packet_type - 1])
        return st.builds(Ack, st.just(packet_type), packet_ids, codes, own)

    return st.integers(PACKETS.index("PUBACK") + 1, PACKETS.index("PUBCOMP") + 1).flatmap(of_type)


def _subacks(version: int, place: str) -> SearchStrategy[Suback]:
    codes = st.lists(
        reason_codes if version >= 5 else st.sampled_from((0, 1, 2, 0x80)), min_size=1, max_size=4
    )
    if place == "UNSUBACK" and version < 5:
        codes = st.just([])
    return st.builds(Suback, st.just(PACKETS.index(place) + 1), packet_ids, codes, _own(version, place))


@cache
def control_packets(version: int) -> dict[str, SearchStrategy[Packet]]:
    """Any packet but PUBLISH that one side or the other may send at `version`, by its name."""
    of_five = version >= 5
    packets: dict[str, SearchStrategy[Packet]] = {
        "CONNECT": connects(version),
        "CONNACK": st.builds(
            Connack,
            st.booleans() if version > 3 else st.just(False),
            reason_codes if of_five else st.integers(0, 5),
            _own(version, "CONNACK"),
        ),
        "ACK": _acks(version),
        "SUBSCRIBE": st.builds(Subscribe, packet_ids, _requests(version), _own(version, "SUBSCRIBE")),
        "SUBACK": _subacks(version, "SUBACK"),
        "UNSUBSCRIBE": st.builds(
            Unsubscribe,
            packet_ids,
            st.lists(topic_filters, min_size=1, max_size=4),
            _own(version, "UNSUBSCRIBE"),
        ),
        "UNSUBACK": _subacks(version, "UNSUBACK"),
        "PING": st.builds(
            Ping, st.sampled_from((PACKETS.index("PINGREQ") + 1, PACKETS.index("PINGRESP") + 1))
        ),
        "DISCONNECT": st.builds(
            Disconnect, reason_codes if of_five else st.just(0), _own(version, "DISCONNECT")
        ),
    }
    if of_five:
        packets["AUTH"] = st.builds(Auth, st.sampled_from((0x00, 0x18, 0x19)), properties_of("AUTH"))
    return packets


@st.composite
def publish_bytes(draw: DrawFn, version: int) -> bytes:
    """A PUBLISH as it may come over a connection without topic aliases."""
    qos = draw(st.integers(0, 2))
    return encode_publish(
        version,
        draw(topic_names),
        draw(payloads),
        qos,
        draw(st.booleans()),
        qos > 0 and draw(st.booleans()),
        draw(packet_ids),
        encode_properties(draw(properties_of("PUBLISH", ("topic_alias",)))),
    )


@cache
def packet_bytes(version: int) -> SearchStrategy[bytes]:
    """Any packet but CONNECT as bytes; PUBLISH is half of them."""
    rest = [packets for name, packets in control_packets(version).items() if name != "CONNECT"]
    others = st.one_of(rest).map(lambda packet: encode(packet, version))
    return publish_bytes(version) | others
