"""Keys that are the same wherever a client of a broker is configured: the bridge's upstream, the ingester's two brokers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from msgspec import Meta

from edge_broker.errors import ConfigError

Username = Annotated[str | None, Meta(description="The name to log in with.")]
PasswordFile = Annotated[
    Path | None,
    Meta(
        description="The file with the password, read at each connect. A line feed at its end does not count."
    ),
]
Certificate = Annotated[Path | None, Meta(description="Our certificate, with its chain, PEM (mTLS).")]
Key = Annotated[Path | None, Meta(description="Its private key, PEM, without a passphrase.")]
BackoffInitial = Annotated[
    float, Meta(ge=0.01, le=3_600, description="The pause after a first failure; it doubles with each.")
]
BackoffMax = Annotated[float, Meta(ge=0.01, le=86_400, description="The longest pause between two tries.")]


def check_client_id(client_id: str, key: str = "client_id") -> None:
    """`ConfigError` where MQTT has no place for it."""
    if not client_id or "\0" in client_id or len(client_id.encode()) > 65_535:
        raise ConfigError(key, "must be text of 1 to 65535 bytes", "leave it out for the default")
