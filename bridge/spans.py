"""Finished spans on their way to an OpenTelemetry collector: OTLP over HTTP, in a thread of its own.

The thread loads the libraries, encodes and sends, so the event loop only appends to a bounded list. A collector that is
away or slow costs spans, never messages: what does not fit or does not arrive is counted, and the log says so once.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from bridge.tracing import Span

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

log: Final = logging.getLogger("bridge")

_MOST_WAITING: Final = 6_000
_AT_ONCE: Final = 510
_GATHER_SECONDS: Final = 0.5
_SEND_SECONDS: Final = 5.0
_CLOSE_SECONDS: Final = 2.0


class SpanExporter:
    """`put` from the event loop, `close` at the end. `lost`: spans that did not fit or did not arrive."""

    def __init__(self, endpoint: str, service_name: str) -> None:
        self.lost = 0
        self._endpoint = endpoint
        self._service_name = service_name
        self._waiting: deque[Span] = deque()
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._is_failing = False
        self._offset = time.time() - time.monotonic()
        self._thread = threading.Thread(target=self._run, name="spans", daemon=True)
        self._thread.start()

    def put(self, spans: Sequence[Span]) -> None:
        """Have `spans` sent soon."""
        if len(self._waiting) + len(spans) > _MOST_WAITING:
            self.lost += len(spans)
            return
        self._waiting.extend(spans)
        if not self._wake.is_set():
            self._wake.set()

    def close(self) -> None:
        """Send what waits, for as long as that may take; blocks for a moment."""
        self._closing.set()
        self._wake.set()
        self._thread.join(_CLOSE_SECONDS)
        self.lost += len(self._waiting)
        self._waiting.clear()

    # ---- the thread

    def _run(self) -> None:
        exporter: Any = None
        while True:
            self._wake.wait()
            self._closing.wait(_GATHER_SECONDS)  # one request for many
            self._wake.clear()
            self._offset = time.time() - time.monotonic()
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(min(_AT_ONCE, len(self._waiting)))]
                try:
                    if exporter is None:
                        exporter = self._open()
                    sent = exporter.export([self._encoded(span) for span in batch]).name == "SUCCESS"
                except Exception as error:  # noqa: BLE001 - it ends in the log and in a counter
                    self._fail(len(batch), f"{type(error).__name__}: {error}")
                else:
                    if sent:
                        self._is_failing = False
                    else:
                        self._fail(len(batch), "it does not take them")
            if self._closing.is_set():
                return

    def _open(self) -> Any:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # we say it ourselves, and once
        return OTLPSpanExporter(endpoint=self._endpoint, timeout=_SEND_SECONDS)

    def _fail(self, count: int, detail: str) -> None:
        self.lost += count
        if not self._is_failing:
            self._is_failing = True
            log.warning(
                "tracing: no spans arrive at %s: %s (messages are not held up; further losses are counted)",
                self._endpoint,
                detail,
            )

    def _encoded(self, span: Span) -> ReadableSpan:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import ReadableSpan
        from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

        trace_id, flags = int(span.trace_id, 16), TraceFlags(TraceFlags.SAMPLED)

        def context(span_id: str, is_remote: bool = False) -> SpanContext:
            return SpanContext(trace_id, int(span_id, 16), is_remote, flags)

        return ReadableSpan(
            span.name,
            context(span.span_id),
            parent=context(span.parent_id, is_remote=span.name == "publish") if span.parent_id else None,
            resource=Resource({"service.name": self._service_name}),
            attributes=span.attributes,
            kind=SpanKind.PRODUCER if span.name == "publish" else SpanKind.INTERNAL,
            status=Status(StatusCode.ERROR, span.error) if span.error else Status(StatusCode.UNSET),
            start_time=int((span.began + self._offset) * 1e9),
            end_time=int((span.ended + self._offset) * 1e9),
        )
