"""Trace context in messages: continued or created, told when the upstream has acknowledged."""

from __future__ import annotations

from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.rules import RuleConfig
from bridge.tracing import NAME, Context, MessageTracer, Span, find_context, parse_traceparent
from edge_broker.core.message import Message
from edge_broker.wire import const
from tests.bridge.memory import Bridged

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"


class Followed(Bridged):
    """A bridge whose messages are followed. `told`: the spans; identifiers count up, dice are `rolls`."""

    def __init__(
        self,
        rate: float,
        rolls: float = 0.0,
        rule_rate: float | None = None,
        qos: int = 1,
        max_age_seconds: float = 0.0,
    ) -> None:
        rule = RuleConfig(
            filter="#",
            remote_prefix="up/",
            qos=qos,
            trace_rate=rule_rate,
            max_age_seconds=max_age_seconds,
        )
        super().__init__(out=[rule])
        self.told: list[Span] = []
        numbers = count()  # the first is zero, and no identifier

        def identifier(size: int) -> bytes:
            return next(numbers).to_bytes(size, "big")

        tracer = MessageTracer("cloud", rate, self.told.extend, lambda: rolls, identifier)
        self.outbox.tracer = self.forwarder.tracer = tracer
        self.connect()


def context_of(message: Message) -> Context | None:
    return find_context(message.properties.get(const.USER_PROPERTY, ()))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"00-{TRACE}-{PARENT}-01", Context(TRACE, PARENT, True)),
        (f"00-{TRACE}-{PARENT}-00", Context(TRACE, PARENT, False)),
        (f"00-{TRACE}-{PARENT}-ff", Context(TRACE, PARENT, True)),
        (f"cc-{TRACE}-{PARENT}-01-what-comes-later", Context(TRACE, PARENT, True)),
        (f"00-{TRACE}-{PARENT}-01-more", None),
        (f"ff-{TRACE}-{PARENT}-01", None),
        (f"00-{TRACE.upper()}-{PARENT}-01", None),
        (f"00-{'0' * 32}-{PARENT}-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (f"00-{TRACE}-{PARENT}", None),
        (f"00-{TRACE}-{PARENT}-1", None),
        (f" 00-{TRACE}-{PARENT}-01", None),
        ("", None),
    ],
)
def test_a_traceparent_is_read_as_the_standard_has_it(text: str, expected: Context | None) -> None:
    assert parse_traceparent(text) == expected


@given(
    st.binary(min_size=16, max_size=16).filter(any),
    st.binary(min_size=8, max_size=8).filter(any),
    st.booleans(),
)
def test_what_is_written_is_read(trace_id: bytes, span_id: bytes, sampled: bool) -> None:
    context = Context(trace_id.hex(), span_id.hex(), sampled)
    assert parse_traceparent(str(context)) == context


@pytest.mark.parametrize("version", [const.MQTT_5, const.MQTT_3_1_1])
def test_a_trace_is_created_and_told_when_it_is_acknowledged(version: int) -> None:
    bridged = Followed(1.0)
    message = bridged.publish("t", b"four", version=version)
    bridged.router.now += 2
    (sent,) = bridged.sent_messages()
    context = context_of(sent)
    assert context == Context("0" * 31 + "1", "0" * 15 + "2", True)
    assert (sent.payload, bridged.told, message.unsafe) == (b"four", [], 1)
    bridged.router.now += 3
    bridged.acknowledge(sent.packet_id)
    assert message.unsafe == 0
    whole, queued, acknowledged = bridged.told
    assert [span.name for span in bridged.told] == ["publish", "queued", "acknowledged"]
    assert {span.trace_id for span in bridged.told} == {context.trace_id}
    assert (whole.span_id, whole.parent_id) == (context.span_id, "")
    assert {queued.parent_id, acknowledged.parent_id} == {context.span_id}
    assert len({span.span_id for span in bridged.told}) == 3
    times = [(span.began - 1000, span.ended - 1000) for span in bridged.told]
    assert times == [(0, 5), (0, 2), (2, 5)]
    assert whole.attributes["messaging.destination.name"] == "up/t"
    assert whole.attributes["messaging.message.body.size"] == 4
    assert (whole.attributes["edge.sequence"], whole.attributes["edge.tries"]) == (1, 1)
    assert "four" not in str(bridged.told)


def test_a_trace_that_the_publisher_began_goes_on() -> None:
    bridged = Followed(0.0)
    came = [("a", "b"), (NAME, f"00-{TRACE}-{PARENT}-01"), ("tracestate", "x=1")]
    bridged.publish("t", b"x", properties={const.USER_PROPERTY: came, const.CONTENT_TYPE: "c"}, expiry=60)
    (sent,) = bridged.sent_messages()
    context = context_of(sent)
    assert context is not None
    assert (context.trace_id, context.sampled) == (TRACE, True)
    assert context.span_id != PARENT
    users = [("a", "b"), ("tracestate", "x=1"), (NAME, str(context))]
    assert sent.properties == {const.CONTENT_TYPE: "c", const.USER_PROPERTY: users}
    assert sent.expiry_interval == 60
    bridged.acknowledge(sent.packet_id)
    assert (bridged.told[0].span_id, bridged.told[0].parent_id) == (context.span_id, PARENT)


@pytest.mark.parametrize("flags", ["00", "xx"])
def test_what_is_not_sampled_or_no_trace_stays_as_it_is(flags: str) -> None:
    bridged = Followed(1.0)
    users = [(NAME, f"00-{TRACE}-{PARENT}-{flags}")]
    bridged.publish("t", b"x", properties={const.USER_PROPERTY: users})
    (sent,) = bridged.sent_messages()
    assert sent.properties == {const.USER_PROPERTY: users}
    bridged.acknowledge(sent.packet_id)
    assert bridged.told == []


@pytest.mark.parametrize(
    ("rate", "rule_rate", "rolls", "follows"),
    [
        (0.0, None, 0.0, False),
        (0.5, None, 0.4, True),
        (0.5, None, 0.5, False),
        (0.0, 0.5, 0.4, True),
        (1.0, 0.0, 0.0, False),
        (1.0, None, 0.999, True),
    ],
)
def test_the_stated_part_is_followed(
    rate: float, rule_rate: float | None, rolls: float, follows: bool
) -> None:
    bridged = Followed(rate, rolls, rule_rate)
    bridged.publish("t", b"x")
    (sent,) = bridged.sent_messages()
    assert (context_of(sent) is not None) == follows


def test_what_is_sent_again_is_one_trace_with_its_tries() -> None:
    bridged = Followed(1.0)
    bridged.publish("t", b"x")
    (first,) = bridged.sent_messages()
    bridged.disconnect()
    bridged.connect()
    (again,) = bridged.sent_messages()
    assert context_of(first) == context_of(again)
    bridged.acknowledge(again.packet_id)
    assert [span.attributes.get("edge.tries") for span in bridged.told] == [2, None, None]


def test_a_trace_of_what_is_not_sent_again_ends() -> None:
    bridged = Followed(1.0, max_age_seconds=60.0)
    bridged.publish("t", b"x")
    bridged.sent()
    bridged.disconnect()
    bridged.router.now += 60.0
    bridged.connect()
    assert bridged.sent_messages() == []
    assert [span.error for span in bridged.told] == ["too_old", "", "too_old"]


def test_a_trace_lives_in_the_store() -> None:
    bridged = Followed(1.0)
    bridged.disconnect()
    bridged.publish("t", b"x", properties={const.USER_PROPERTY: [(NAME, f"00-{TRACE}-{PARENT}-01")]})
    bridged.commit()
    (stored,) = bridged.stored.values()
    context = context_of(stored)
    bridged.forwarder.tracer = MessageTracer(
        "cloud", 0.0, bridged.told.extend, lambda: 0.0, lambda size: b"\1" * size
    )
    bridged.connect()
    bridged.sent()
    bridged.answer_reads()
    (sent,) = bridged.sent_messages()
    assert context_of(sent) == context
    bridged.acknowledge(sent.packet_id)
    assert context is not None
    assert (bridged.told[0].trace_id, bridged.told[0].span_id) == (TRACE, context.span_id)


def test_what_the_upstream_refuses_is_told_so() -> None:
    bridged = Followed(1.0)
    bridged.publish("t", b"x")
    (sent,) = bridged.sent_messages()
    bridged.acknowledge(sent.packet_id, reason_code=const.NOT_AUTHORIZED)
    assert [span.error for span in bridged.told] == ["not_authorized", "", "not_authorized"]


def test_qos_2_is_told_when_it_is_complete() -> None:
    bridged = Followed(1.0, qos=2)
    bridged.publish("t", b"x")
    bridged.commit()
    (sent,) = bridged.sent_messages()
    bridged.acknowledge(sent.packet_id, kind=const.PUBREC)
    bridged.commit()
    assert bridged.told == []
    bridged.acknowledge(sent.packet_id, kind=const.PUBCOMP)
    assert len(bridged.told) == 3


def test_what_nobody_acknowledges_ends_where_it_leaves() -> None:
    bridged = Followed(1.0, qos=0)
    bridged.publish("t", b"x", qos=0)
    assert context_of(bridged.sent_messages()[0]) is not None
    assert len(bridged.told) == 3


def test_memory_for_traces_is_bounded() -> None:
    tracer = MessageTracer("cloud", 1.0, lambda _: None, lambda: 0.0, lambda size: b"\1" * size)
    bridged = Followed(1.0)
    message = bridged.publish("t", b"x")
    followed = tracer.begin(message)
    for number in range(1, 12_000):
        tracer.on_sent(followed, number, "t", 0.0)
    assert len(tracer._open) == 10_000
    assert 1 not in tracer._open
