"""Following single messages from their publisher to the upstream's acknowledgement: W3C Trace Context in user properties.

What comes with a `traceparent` whose sampled flag is set is followed on; of what comes without, a stated part gets one. The
message goes up with the identifier of the bridge's own span in it, so whoever takes it from there hangs on below. Three
spans tell of it once the upstream has acknowledged it: `publish`, the whole, and in it `queued` and `acknowledged`.

The property is stored with the message, so a trace lives through a restart; whose child it was does not, and is then not
told. Pure but for the clock, the dice and `tell`, which are given. [https://www.w3.org/TR/trace-context/]
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from bridge.shapes import derived
from edge_broker.core.message import Message
from edge_broker.wire import const
from edge_broker.wire.properties import encode_properties

NAME: Final = "traceparent"
_FORM: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_SAMPLED: Final = 1
_MOST: Final = 10_000
"""Messages that are followed at a time; the oldest gives way."""


class Context(NamedTuple):
    """What a `traceparent` says, in hexadecimal digits."""

    trace_id: str
    span_id: str
    sampled: bool

    def __str__(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{int(self.sampled):02x}"


class Span(NamedTuple):
    """One stretch of a message's way. Times by the broker's clock; `parent_id` and `error` empty where there is none."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    began: float
    ended: float
    attributes: dict[str, str | int]
    error: str = ""


class _Followed:
    __slots__ = ("attributes", "context", "parent_id", "received_at", "sent_at", "tries")

    def __init__(self, context: Context, parent_id: str, received_at: float, sent_at: float) -> None:
        self.context = context
        self.parent_id = parent_id
        self.received_at = received_at
        self.sent_at = sent_at
        self.tries = 1
        self.attributes: dict[str, str | int] = {}


def parse_traceparent(text: str) -> Context | None:
    """What `text` says; None where it is none [Trace Context 3.2.2]. Of later versions what this one has is read."""
    found = _FORM.fullmatch(text)
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    if version == "ff" or (version == "00" and more) or not int(trace_id, 16) or not int(span_id, 16):
        return None
    return Context(trace_id, span_id, bool(int(flags, 16) & _SAMPLED))


def find_context(user_properties: Iterable[tuple[str, str]]) -> Context | None:
    """The trace that a message with these properties belongs to."""
    for name, value in user_properties:
        if name == NAME:
            return parse_traceparent(value)
    return None


class MessageTracer:
    """One bridge's. `sample_rate`: of messages without a `traceparent`, where their rule says nothing. `tell` gets
    finished spans.

    `random()`: below 1; `random_bytes(count)`: identifiers.
    """

    def __init__(
        self,
        bridge: str,
        sample_rate: float,
        tell: Callable[[list[Span]], None],
        random: Callable[[], float],
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self._bridge = bridge
        self._sample_rate = sample_rate
        self._tell = tell
        self._random = random
        self._random_bytes = random_bytes
        self._parents: dict[str, str] = {}  # by our span's identifier, until the message is sent
        self._open: dict[int, _Followed] = {}  # by number: sent and not acknowledged

    def beside(self) -> MessageTracer:
        """Another one, for a queue with numbers of its own, of messages that either has begun to follow."""
        other = MessageTracer(self._bridge, self._sample_rate, self._tell, self._random, self._random_bytes)
        other._parents = self._parents
        return other

    def begin(self, message: Message, rate: float | None = None) -> Message:
        """`message`, which goes into the queue, with our span in it; itself where it is not followed.

        `rate`: of its rule, None where it says nothing.
        """
        if not _may_bear(message):
            if rate is None:
                rate = self._sample_rate
            if rate <= 0 or self._random() >= rate:
                return message
            return self._rewritten(message, Context(self._new_id(16), "", True))
        came = find_context(message.properties.get(const.USER_PROPERTY, ()))
        if came is None:  # something that only looks like one
            return message
        return self._rewritten(message, came) if came.sampled else message

    def _rewritten(self, message: Message, came: Context) -> Message:
        span_id = self._new_id(8)
        properties = message.properties
        others = [pair for pair in properties.pop(const.USER_PROPERTY, ()) if pair[0] != NAME]
        context = Context(came.trace_id, span_id, True)
        properties[const.USER_PROPERTY] = [*others, (NAME, str(context))]
        if came.span_id:
            _bound(self._parents)
            self._parents[span_id] = came.span_id
        return derived(message, message.payload, encode_properties(properties), message.retain)

    def _new_id(self, count: int) -> str:
        while not any(raw := self._random_bytes(count)):
            pass  # all zeros is no identifier [Trace Context 3.2.2.3]
        return raw.hex()

    def on_sent(self, message: Message, number: int, topic: str, now: float) -> None:
        """`message` left for `topic` upstream. `number` 0: nobody acknowledges it."""
        if not _may_bear(message):
            return
        known = self._open.get(number)
        if known is not None:
            known.tries += 1
            return
        context = find_context(message.properties.get(const.USER_PROPERTY, ()))
        if context is None or not context.sampled:
            return
        parent_id = self._parents.pop(context.span_id, "")
        followed = _Followed(context, parent_id, message.received_at, now)
        followed.attributes = {
            "messaging.system": "mqtt",
            "messaging.operation.type": "send",
            "messaging.destination.name": topic,
            "messaging.message.body.size": len(message.frame) - message.payload_at,
            "edge.bridge": self._bridge,
            "edge.sequence": number,
        }
        if number:
            _bound(self._open)
            self._open[number] = followed
        else:
            self._end(followed, now, "")

    def on_done(self, number: int, now: float, error: str = "") -> None:
        """`number` is acknowledged, or given up for `error`."""
        followed = self._open.pop(number, None)
        if followed is not None:
            self._end(followed, now, error)

    def _end(self, followed: _Followed, now: float, error: str) -> None:
        trace_id, span_id, _ = followed.context
        began, sent_at = min(followed.received_at, followed.sent_at), followed.sent_at
        attributes = followed.attributes | {"edge.tries": followed.tries}
        self._tell(
            [
                Span("publish", trace_id, span_id, followed.parent_id, began, now, attributes, error),
                Span("queued", trace_id, self._new_id(8), span_id, began, sent_at, {}),
                Span("acknowledged", trace_id, self._new_id(8), span_id, sent_at, now, {}, error),
            ]
        )


def _may_bear(message: Message) -> bool:
    return (
        message.version >= const.MQTT_5
        and message.frame.find(b"traceparent", message.packet_id_at, message.payload_at) >= 0
    )


def _bound(followed: dict[str, str] | dict[int, _Followed]) -> None:
    if len(followed) >= _MOST:
        del followed[next(iter(followed))]  # type: ignore[arg-type]
