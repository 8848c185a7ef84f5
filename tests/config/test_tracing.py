"""`[tracing]` is refused where what it needs is not installed, before anything starts."""

from __future__ import annotations

import importlib.util
from importlib.machinery import ModuleSpec

import pytest

from edge_broker.config import tracing
from edge_broker.config.tracing import TracingConfig
from edge_broker.errors import ConfigError

ENDPOINT = "https://collector.example.com/v1/traces"


def test_with_the_extra_an_endpoint_is_taken() -> None:
    assert TracingConfig(endpoint=ENDPOINT).endpoint == ENDPOINT


@pytest.mark.parametrize("raises", [False, True])
def test_without_the_extra_it_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch, raises: bool) -> None:
    def find(name: str, package: str | None = None) -> ModuleSpec | None:
        if not name.startswith("opentelemetry"):
            return importlib.util.find_spec(name, package)
        if raises:
            raise ModuleNotFoundError(name)
        return None

    monkeypatch.setattr(tracing, "find_spec", find)
    with pytest.raises(ConfigError) as caught:
        TracingConfig(endpoint=ENDPOINT)
    assert caught.value.key == "endpoint"
    assert "edge-broker[otel]" in caught.value.hint
    assert TracingConfig(sample_rate=0.5).endpoint is None
