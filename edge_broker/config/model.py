"""What can be configured: one struct per section, every key with its default, its range and one line of meaning.

The larger sections are in files of their own; here are the small ones and the whole. The descriptions are what
`docs/configuration.md` and `edge-broker reference` show. A struct is immutable, and none has a default that is still to be
found out. Ranges and types are enforced by `loading`, which also checks what no single key can tell.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from edge_broker.config.audit import AuditConfig
from edge_broker.config.dead_letters import DeadLettersConfig
from edge_broker.config.environment import default_data_dir
from edge_broker.config.http import HttpConfig
from edge_broker.config.limits import LimitsConfig
from edge_broker.config.listeners import ListenerConfig
from edge_broker.config.protocol import ProtocolConfig
from edge_broker.config.section import DAY_SECONDS, Section
from edge_broker.config.security import SecurityConfig
from edge_broker.config.sessions import SessionsConfig
from edge_broker.config.store import StoreConfig

CONTROL_SOCKET: Final = "control.sock"


class ControlConfig(Section, frozen=True):
    """The socket of `edge-broker status`, `trace` and the like, which only the broker's user and root may open."""

    enabled: Annotated[bool, Meta(description="Whether there is one.")] = True
    path: Annotated[
        Path | None,
        Meta(
            description="The socket's file, in a directory that is there; the system allows 107 bytes.",
            extra={"default": "control.sock in data_dir"},
        ),
    ] = None


class LogConfig(Section, frozen=True):
    """What is logged, to standard error. Never payloads, never secrets."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Meta(description="The least serious that is logged."),
    ] = "info"
    format: Annotated[
        Literal["text", "json"],
        Meta(description="`text` for people, `json` for collectors: one object per line."),
    ] = "text"


class RuntimeConfig(Section, frozen=True):
    """What the broker runs on."""

    loop: Annotated[
        Literal["auto", "uvloop", "asyncio"],
        Meta(description="The event loop; `auto` is uvloop where it is installed."),
    ] = "auto"


class Config(Section, frozen=True):
    """The whole configuration. `bridges` holds what the parser registered for that section made of it."""

    data_dir: Annotated[
        Path,
        Meta(
            description="Where queues, sessions and retained messages are kept. Made if missing.",
            extra={
                "default": "$STATE_DIRECTORY, else $XDG_STATE_HOME/edge-broker, else ~/.local/state/edge-broker"
            },
        ),
    ] = msgspec.field(default_factory=default_data_dir)
    sys_interval_seconds: Annotated[
        int,
        Meta(
            ge=0,
            le=DAY_SECONDS,
            description="How often what has changed of the `$SYS/broker/` topics is published; 0 is never.",
        ),
    ] = 10
    listeners: tuple[ListenerConfig, ...] = (ListenerConfig(),)
    sessions: SessionsConfig = SessionsConfig()
    store: StoreConfig = StoreConfig()
    dead_letters: DeadLettersConfig = DeadLettersConfig()
    limits: LimitsConfig = LimitsConfig()
    protocol: ProtocolConfig = ProtocolConfig()
    security: SecurityConfig = SecurityConfig()
    audit: AuditConfig = AuditConfig()
    http: HttpConfig = HttpConfig()
    control: ControlConfig = ControlConfig()
    log: LogConfig = LogConfig()
    runtime: RuntimeConfig = RuntimeConfig()
    bridges: tuple[Any, ...] = ()

    @property
    def control_path(self) -> Path | None:
        """Where the control socket is; None where there is none."""
        if not self.control.enabled:
            return None
        return self.control.path or self.data_dir / CONTROL_SOCKET
