"""`[tracing]`: which messages that a bridge carries are followed by OpenTelemetry, and where that is told."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Annotated, Final
from urllib.parse import urlsplit

from msgspec import Meta

from edge_broker.config.section import Section
from edge_broker.errors import ConfigError

_EXPORTER: Final = "opentelemetry.exporter.otlp.proto.http"


class TracingConfig(Section, frozen=True):
    """Messages followed from their publisher to the upstream, as OpenTelemetry has it. See [The bridge](bridge.md)."""

    endpoint: Annotated[
        str | None,
        Meta(
            description="Where spans go, OTLP over HTTP; without it none are made. Needs the extra `otel`.",
            examples=['"http://127.0.0.1:4318/v1/traces"'],
        ),
    ] = None
    sample_rate: Annotated[
        float,
        Meta(
            ge=0,
            le=1,
            description="The part of the messages that go up and have no `traceparent` that get one. Those that have one "
            "are followed anyway, if it says so.",
        ),
    ] = 0.0
    service_name: Annotated[str, Meta(description="Who made the spans.")] = "edge-broker"

    def __post_init__(self) -> None:
        if self.endpoint is None:
            return
        example = "http://127.0.0.1:4318/v1/traces"
        try:
            parts = urlsplit(self.endpoint)
            sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            sound = False
        if not sound:
            raise ConfigError("endpoint", "is no http:// or https:// URL", f'for instance "{example}"')
        if not _is_installed():
            raise ConfigError(
                "endpoint",
                "needs OpenTelemetry, which is not installed",
                "pip install 'edge-broker[otel]', or leave it out",
            )


def _is_installed() -> bool:
    try:
        return find_spec(_EXPORTER) is not None
    except ModuleNotFoundError:
        return False
