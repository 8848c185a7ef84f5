"""The configuration as the parts of the broker want it: each function makes one part, or says that there is none.

`broker` puts them together. Nothing here runs anything; what is heavy is imported when it is wanted.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import msgspec

from edge_broker.config.bind import UnixBind
from edge_broker.config.limits import LimitsConfig
from edge_broker.config.model import Config, ListenerConfig, StoreConfig
from edge_broker.config.security import SecurityConfig
from edge_broker.core.settings import Settings
from edge_broker.net.endpoints import TcpEndpoint, UnixEndpoint
from edge_broker.net.gate import Gate
from edge_broker.net.listeners import Listener
from edge_broker.net.transport import Hub
from edge_broker.ops.disk import written_bytes
from edge_broker.store import Vault, WriteBudget

if TYPE_CHECKING:
    from edge_broker.security.password_admission import PasswordAdmission, Timer

_LIMITS: Final = frozenset(LimitsConfig.__struct_fields__) & {
    field.name for field in dataclasses.fields(Settings)
}
"""The limits that are the core's to keep; it calls them as the configuration does."""


def make_settings(config: Config) -> Settings:
    """What the core needs of the configuration."""
    sessions, limits = config.sessions, config.limits
    return Settings(
        receive_maximum=sessions.receive_maximum,
        send_window=sessions.send_window,
        window_bytes=sessions.window_bytes,
        max_session_expiry_seconds=sessions.max_expiry_seconds,
        max_keep_alive_seconds=sessions.max_keep_alive_seconds,
        max_queue_messages=sessions.max_queue_messages,
        max_queue_bytes=sessions.max_queue_bytes,
        max_queue_age_seconds=sessions.max_queue_age_seconds,
        when_queue_full=sessions.when_queue_full,
        hold_seconds=sessions.hold_seconds,
        **{name: getattr(limits, name) for name in _LIMITS},
        **msgspec.structs.asdict(config.protocol),
        durabilities=_durabilities(config.store),
    )


def _durabilities(store: StoreConfig) -> tuple[tuple[str, bool], ...]:
    """(topic filter, whether in memory only), the first that matches counts."""
    durabilities = [(topic.filter, topic.durability == "memory") for topic in store.topics]
    if store.durability == "memory":
        durabilities += [("#", True), ("$SYS/#", True)]
    return tuple(durabilities)


def make_write_budget(store: StoreConfig) -> WriteBudget | None:
    """The daily budget, from now on."""
    if not store.write_budget_bytes_per_day:
        return None
    return WriteBudget(
        store.write_budget_bytes_per_day,
        store.commit_delay_ms / 1000,
        store.max_commit_delay_ms / 1000,
        time.monotonic(),
        written_bytes() or 0,
    )


def make_vault(config: Config) -> Vault:
    """The keys that messages on disk are encrypted with. `StoreError` where one cannot be used."""
    from edge_broker.store.keys import credential_file, read_key

    store = config.store
    path = store.encryption_key_file
    if store.encryption_key_credential:
        path = credential_file(store.encryption_key_credential)
    return Vault(
        None if path is None else read_key(path, config.data_dir),
        [read_key(old, config.data_dir) for old in store.old_encryption_key_files],
    )


def make_passwords(security: SecurityConfig, call_later: Timer) -> PasswordAdmission | None:
    """Who comes in by password. `ConfigError` where the file cannot be used."""
    if security.password_file is None:
        return None
    from edge_broker.security.guessing import GuessLimits  # memory that a broker without passwords keeps
    from edge_broker.security.password_admission import PasswordAdmission
    from edge_broker.security.passwords import read_passwords

    limits = GuessLimits(
        per_name=security.wrong_passwords_per_name,
        per_address=security.wrong_passwords_per_address,
        window_seconds=security.wrong_password_window_seconds,
        ban_seconds=security.ban_seconds,
        delay_seconds=security.wrong_password_delay_seconds,
    )
    passwords = read_passwords(security.password_file)
    return PasswordAdmission(passwords, limits, security.max_waiting_passwords, call_later)


def make_listener(
    hub: Hub, config: ListenerConfig, gate: Gate, on_listening: Callable[[Listener], None]
) -> Listener:
    """A listener that does not listen yet."""
    address = config.address
    endpoint = (
        UnixEndpoint(address.path, config.permissions)
        if isinstance(address, UnixBind)
        else TcpEndpoint(address.host, address.port)
    )
    return Listener(
        hub,
        endpoint,
        gate=gate,
        certificate=None if config.certificate is None else str(config.certificate),
        key=None if config.key is None else str(config.key),
        client_ca=None if config.client_ca is None else str(config.client_ca),
        require_client_certificate=config.require_client_certificate,
        identity_from=config.identity_from,
        websocket_paths=config.websocket_paths,
        origins=config.origins,
        proxies=config.proxy_protocol_from,
        on_listening=on_listening,
    )
