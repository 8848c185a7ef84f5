"""The configuration as the parts of the broker want it: each function makes one part, or says that there is none.

`broker` puts them together. Nothing here runs anything; what is heavy is imported when it is wanted.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from edge_broker.config.audit import AuditConfig
from edge_broker.config.bind import UnixBind
from edge_broker.config.http import HttpConfig
from edge_broker.config.limits import LimitsConfig
from edge_broker.config.listeners import ListenerConfig
from edge_broker.config.model import Config
from edge_broker.config.security import SecurityConfig
from edge_broker.config.store import StoreConfig
from edge_broker.core.settings import Settings
from edge_broker.errors import ConfigError
from edge_broker.net.endpoints import TcpEndpoint, UnixEndpoint
from edge_broker.net.gate import Gate
from edge_broker.net.listeners import Listener, context_of_files
from edge_broker.net.tls import TlsPipe
from edge_broker.net.transport import Hub
from edge_broker.ops.disk import written_bytes
from edge_broker.security.admission import ListenerAdmission
from edge_broker.security.certificates import CertificateVetting, Demands
from edge_broker.security.denied import Denied, DenyList, read_denied
from edge_broker.store import Vault, WriteBudget

if TYPE_CHECKING:
    from edge_broker.config.acl_file import AclFile
    from edge_broker.ops.audit import Audit
    from edge_broker.ops.control import ControlServer, Handler
    from edge_broker.ops.http import HttpServer
    from edge_broker.ops.observed import Observed
    from edge_broker.security.acl import Acl
    from edge_broker.security.acl_decisions import AclAuthorizer
    from edge_broker.security.guessing import Guessing, GuessLimits
    from edge_broker.security.password_admission import PasswordAdmission, Timer
    from edge_broker.security.token_admission import TokenAdmission
    from edge_broker.security.tokens import TokenRules

_CONTROL_MODE: Final = 0o600
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
        max_store_messages=config.store.max_messages,
        max_store_bytes=config.store.max_bytes,
        dead_letters=config.dead_letters.enabled,
        max_dead_letters=config.dead_letters.max_messages,
        max_dead_letter_bytes=config.dead_letters.max_bytes,
        max_dead_letter_age_seconds=config.dead_letters.max_age_seconds,
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
    from edge_broker.security.password_admission import (
        PasswordAdmission,
    )  # memory that a broker without them keeps
    from edge_broker.security.passwords import read_passwords

    passwords = read_passwords(security.password_file)
    return PasswordAdmission(passwords, _guess_limits(security), security.max_waiting_passwords, call_later)


def _guess_limits(security: SecurityConfig) -> GuessLimits:
    from edge_broker.security.guessing import GuessLimits

    return GuessLimits(
        per_name=security.wrong_passwords_per_name,
        per_address=security.wrong_passwords_per_address,
        window_seconds=security.wrong_password_window_seconds,
        ban_seconds=security.ban_seconds,
        delay_seconds=security.wrong_password_delay_seconds,
    )


def make_tokens(
    security: SecurityConfig,
    call_later: Timer,
    passwords: PasswordAdmission | None,
    wall: Callable[[], float] = time.time,
) -> TokenAdmission | None:
    """Who comes in by JSON Web Token; what is guessed counts together with the passwords. `ConfigError` for a key file.

    `wall`: the time that tokens expire by, in Unix seconds.
    """
    if not security.jwt_keys:
        return None
    from edge_broker.security.token_admission import (
        TokenAdmission,
    )  # PyJWT and cryptography come with the keys
    from edge_broker.security.token_keys import read_token_keys

    return TokenAdmission(
        read_token_keys(security.jwt_keys),
        make_token_rules(security),
        passwords.guessing if passwords is not None else _make_guessing(security),
        call_later,
        match_user_name=security.jwt_user_name == "must_match",
        wall=wall,
    )


def _make_guessing(security: SecurityConfig) -> Guessing:
    """For tokens alone: there are no names that would be known."""
    import random

    from edge_broker.security.guessing import Guessing

    return Guessing(_guess_limits(security), lambda _name: False, random.random)


def make_token_rules(security: SecurityConfig) -> TokenRules:
    """What a token has to say."""
    from edge_broker.security.tokens import TokenRules

    return TokenRules(
        audience=security.jwt_audience,
        issuer=security.jwt_issuer,
        leeway_seconds=security.jwt_leeway_seconds,
        name_claim=security.jwt_name_claim,
        groups_claim=security.jwt_groups_claim,
        max_bytes=security.jwt_max_bytes,
    )


def make_admission(
    anonymous: Mapping[str, bool], passwords: PasswordAdmission | None, tokens: TokenAdmission | None
) -> ListenerAdmission:
    """Who comes in by listener, all ways together."""
    if tokens is None:
        return ListenerAdmission(anonymous, passwords)
    from edge_broker.security.tokens import looks_like_token

    return ListenerAdmission(anonymous, passwords, tokens, looks_like_token)


def make_http(observed: Observed, config: HttpConfig) -> HttpServer | None:
    """The HTTP port, which does not listen yet. `ConfigError` for a token file, or where it would be open to a network."""
    if config.address is None:
        return None
    if config.missing_off_loopback:
        problem = f"{config.bind} can be reached from elsewhere"
        raise ConfigError("http.bind", problem, f"it needs {' and '.join(config.missing_off_loopback)}")
    from edge_broker.ops.http import HttpServer  # aiohttp costs memory that a broker without it keeps
    from edge_broker.ops.http_access import HttpAccess

    tokens: HttpTokens | None = None
    if config.token_file is not None or not config.address.is_loopback:
        from edge_broker.security.http_tokens import HttpTokens, read_http_tokens

        tokens = HttpTokens() if config.token_file is None else read_http_tokens(config.token_file)
    load_tls = None
    if config.certificate is not None and config.key is not None:
        load_tls = partial(_load_tls, str(config.certificate), str(config.key))
    return HttpServer(observed, HttpAccess(tokens, config.open_health), load_tls)


def _load_tls(certificate: str, key: str) -> Callable[[], TlsPipe]:
    """What makes the server's side of each TLS connection; `ConfigError` where the files cannot be used."""
    return partial(TlsPipe, context_of_files(certificate, key), server_side=True)


def make_authorizer(acl_file: Path | None, bridges: Collection[str]) -> AclAuthorizer | None:
    """Who says what each may do; None where everybody may do everything. `ConfigError` where the file cannot be used.

    `bridges`: the names of those there are.
    """
    if acl_file is None:
        return None
    from edge_broker.config.acl_file import read_acl_file
    from edge_broker.config.loading import ConfigMistakes
    from edge_broker.security.acl_decisions import AclAuthorizer

    try:
        file = read_acl_file(acl_file, bridges)
    except ConfigMistakes as mistakes:  # a line of the log for all of them
        raise mistakes.in_a_line() from None
    return AclAuthorizer(make_acl(file))


def make_acl(file: AclFile) -> Acl:
    """The rules in an ACL's file."""
    from edge_broker.security.acl import Acl, Role

    roles = {}
    for name, role in file.roles.items():
        allow, deny = (
            {
                action: filters
                for action, filters in msgspec.structs.asdict(rights).items()
                if filters is not None
            }
            for rights in (role.allow, role.deny)
        )
        roles[name] = Role(name, allow, deny, role.max_qos)
    return Acl(roles, file.identities, file.groups, file.bridges, file.wide_subscriptions == "filter")


def make_audit(audit: AuditConfig) -> Audit | None:
    """The audit log, open. `ConfigError` where its file cannot be written."""
    if audit.file is None:
        return None
    from edge_broker.ops.audit import Audit  # memory that a broker without it keeps
    from edge_broker.ops.audit_file import AuditFile
    from edge_broker.security.guessing import origin_of

    made = Audit(AuditFile(audit.file, audit.max_bytes, audit.files), time.monotonic(), origin_of)
    made.open()
    return made


def make_deny_list(security: SecurityConfig) -> DenyList:
    """Who is not let in, whatever they prove. `ConfigError` where the file cannot be used."""
    return DenyList(Denied() if security.deny_file is None else read_denied(security.deny_file))


def make_demands(config: ListenerConfig) -> Demands | None:
    """What a listener demands of its clients' certificates; None where it asks for none."""
    if config.client_ca is None:
        return None
    return Demands(
        config.client_ca,
        config.identity_from,
        config.allowed_names,
        config.crl_files,
        config.when_crl_expired,
    )


def make_listener(
    hub: Hub,
    config: ListenerConfig,
    gate: Gate,
    deny_list: DenyList,
    on_listening: Callable[[Listener], None],
) -> Listener:
    """A listener that does not listen yet."""
    demands = make_demands(config)
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
        crls=() if demands is None else [str(path) for path in demands.strict_crls],
        read_vetting=None if demands is None else partial(CertificateVetting, demands, deny_list),
        websocket_paths=config.websocket_paths,
        origins=config.origins,
        proxies=config.proxy_protocol_from,
        on_listening=on_listening,
    )


def make_control(config: Config, commands: Mapping[str, Handler]) -> ControlServer | None:
    """Who answers on the control socket; None where the configuration wants nobody to."""
    path = config.control_path
    if path is None:
        return None
    from edge_broker.ops.control import ControlServer

    return ControlServer(UnixEndpoint(str(path), _CONTROL_MODE), commands)
