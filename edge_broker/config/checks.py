"""What is wrong with keys that are each right by themselves: listeners nobody could use, files that will not do.

Files are opened and certificates loaded, because "it will not start" is better said before than at the start. A check adds
to the reading's mistakes, and does not ask about keys that have one already.
"""

from __future__ import annotations

import importlib.util
import itertools
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from edge_broker.config.audit import AuditConfig
from edge_broker.config.http import HttpConfig
from edge_broker.config.listeners import ListenerConfig
from edge_broker.config.model import RuntimeConfig
from edge_broker.config.reading import Reading
from edge_broker.config.security import SecurityConfig
from edge_broker.config.store import StoreConfig
from edge_broker.errors import ConfigError, MqttError
from edge_broker.wire.topics import check_topic_filter

_TLS: Final = ("tls", "wss")
_WEBSOCKET: Final = ("ws", "wss")
_TRANSPORTS_OF: Final = {
    "certificate": _TLS,
    "key": _TLS,
    "client_ca": _TLS,
    "allowed_names": _TLS,
    "crl_files": _TLS,
    "path": _WEBSOCKET,
    "origins": _WEBSOCKET,
    "mode": ("unix",),
    "proxy_protocol_from": ("tcp", "tls", "ws", "wss"),
}
"""The keys that not every transport has."""
_MODE: Final = re.compile(r"0?[0-7]{3}")
_ORIGIN: Final = re.compile(r"https?://[^/\s]+")


def check_listeners(
    listeners: Sequence[ListenerConfig | None], reading: Reading, has_passwords: bool = False
) -> None:
    """Each listener by itself, then all of them together. `has_passwords`: clients may come in by password."""
    if not listeners and not reading.is_wrong("listeners"):
        reading.mistake("listeners", "is empty, so nobody could connect", "leave it out for 127.0.0.1:1883")
    for position, listener in enumerate(listeners):
        if listener is None:
            continue
        key = f"listeners[{position}]"
        if not reading.is_wrong(f"{key}.transport"):
            _check_transport(listener, key, reading)
        _check_who(listener, key, reading, has_passwords)
    _check_overlaps(listeners, reading)


def _check_overlaps(listeners: Sequence[ListenerConfig | None], reading: Reading) -> None:
    binds = [
        (f"listeners[{position}].bind", listener)
        for position, listener in enumerate(listeners)
        if listener is not None and not reading.is_wrong(f"listeners[{position}].bind")
    ]
    for (_, earlier), (key, listener) in itertools.combinations(binds, 2):
        if listener.address.overlaps(earlier.address):
            reading.mistake(
                key,
                f"{listener.bind} is taken by the listener on {earlier.bind}",
                "give each listener a port or an address of its own",
            )


def _check_transport(listener: ListenerConfig, key: str, reading: Reading) -> None:
    for name, transports in _TRANSPORTS_OF.items():
        if listener.transport not in transports and getattr(listener, name):
            reading.mistake(
                f"{key}.{name}",
                f"has no meaning for {listener.transport}",
                f"{_instead(listener.transport, transports)}leave it out",
            )
    if listener.encrypted:
        _check_tls(listener, key, reading)
    _check_websocket(listener, key, reading)
    if listener.mode is not None and not _MODE.fullmatch(listener.mode):
        reading.mistake(f"{key}.mode", f"{listener.mode!r} is no octal mode", 'write mode = "0660"')
    _check_proxies(listener.proxy_protocol_from, f"{key}.proxy_protocol_from", reading)


def _instead(transport: str, transports: Sequence[str]) -> str:
    """The hint's beginning: the transport that has the key and is like the one given."""
    likely = [other for other in transports if other.startswith(transport)] or list(transports[:1])
    return "" if transport == "unix" else f'write transport = "{likely[0]}", or '


def _check_websocket(listener: ListenerConfig, key: str, reading: Reading) -> None:
    path = listener.path
    if path is not None and (not path.startswith("/") or any(c in "?#" or c.isspace() for c in path)):
        reading.mistake(
            f"{key}.path", f"{path!r} is no path of a URL", 'it begins with a slash: path = "/mqtt"'
        )
    for position, origin in enumerate(listener.origins):
        if not _ORIGIN.fullmatch(origin):
            reading.mistake(
                f"{key}.origins[{position}]",
                f"{origin!r} is no origin",
                'scheme and host, and a port if it is an unusual one: "https://example.com"',
            )


def _check_proxies(proxies: Sequence[str], key: str, reading: Reading) -> None:
    import ipaddress

    for position, text in enumerate(proxies):
        try:
            ipaddress.ip_network(text)
        except ValueError:
            try:
                hint = f'the network is "{ipaddress.ip_network(text, strict=False)}"'
            except ValueError:
                hint = 'write "10.0.0.7" or "10.0.0.0/8"'
            reading.mistake(f"{key}[{position}]", f"{text!r} is neither an address nor a network", hint)


def _check_who(listener: ListenerConfig, key: str, reading: Reading, has_passwords: bool) -> None:
    """That somebody could connect."""
    if reading.is_wrong(f"{key}.bind") or reading.is_wrong(f"{key}.client_ca"):
        return
    if listener.require_client_certificate and listener.client_ca is None:
        reading.mistake(
            f"{key}.require_client_certificate",
            "needs client_ca",
            'write client_ca = "/path/to/ca.pem": whose certificates are let in',
        )
    elif not listener.anonymous and listener.client_ca is None and not has_passwords:
        reading.mistake(f"{key}.anonymous", "is false, so nobody could connect", _who_hint(listener))


def _who_hint(listener: ListenerConfig) -> str:
    """How somebody could connect."""
    everybody = "anonymous = true lets everybody in"
    passwords = "[security] password_file or jwt_keys lets those with a password or a token in"
    if listener.encrypted:
        return (
            f"client_ca lets those with a certificate of that CA in; {passwords}; "
            f"{everybody} that reaches {listener.bind}"
        )
    if listener.address.is_loopback:
        return f"{passwords}; {everybody} on this machine, and nobody else"
    with_tls = "wss" if listener.websocket_paths else "tls"
    return (
        f'transport = "{with_tls}" with client_ca lets known clients in; {passwords}; '
        f"{everybody} that reaches {listener.bind}"
    )


def _check_tls(listener: ListenerConfig, key: str, reading: Reading) -> None:
    missing = [name for name in ("certificate", "key") if getattr(listener, name) is None]
    for name in missing:
        reading.mistake(
            f"{key}.{name}",
            f"is missing, and {listener.transport} needs it",
            f'write {name} = "/path/to/{name}.pem"',
        )
    if listener.certificate is not None and listener.key is not None:
        check_certificate(listener.certificate, listener.key, key, reading)
    if listener.client_ca is not None:
        check_ca(listener.client_ca, f"{key}.client_ca", reading)
    for name in ("crl_files", "allowed_names"):
        if getattr(listener, name) and listener.client_ca is None:
            reading.mistake(
                f"{key}.{name}",
                "needs client_ca",
                'write client_ca = "/path/to/ca.pem": whose clients it is about',
            )
    for position, path in enumerate(listener.crl_files):
        check_file(path, f"{key}.crl_files[{position}]", reading)


def check_certificate(certificate: Path, private_key: Path, key: str, reading: Reading) -> None:
    """That both files can be read and belong together; `key` is the table that has `certificate` and `key`."""
    import ssl

    from edge_broker.key_pair import NO_PASSPHRASE, PassphraseWanted, is_mismatch, load_key_pair

    readable = [
        check_file(path, f"{key}.{name}", reading)
        for name, path in (("certificate", certificate), ("key", private_key))
    ]
    if not all(readable):
        return
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_verify_locations(certificate)
    except ssl.SSLError:
        reading.mistake(
            f"{key}.certificate", f"{certificate} has no certificate in it", "a PEM file is wanted"
        )
        return
    try:
        load_key_pair(context, certificate, private_key)
    except PassphraseWanted:
        reading.mistake(f"{key}.key", f"{private_key} is protected by a passphrase", NO_PASSPHRASE)
    except ssl.SSLError as error:
        if is_mismatch(error):
            reading.mistake(
                f"{key}.key",
                f"{private_key} is not the key of {certificate}",
                "give the two that were made together",
            )
        else:
            why = f" ({error.reason.lower().replace('_', ' ')})" if error.reason else ""
            reading.mistake(
                f"{key}.key", f"{private_key} cannot be used as a private key{why}", "a PEM file is wanted"
            )


def check_ca(path: Path, key: str, reading: Reading) -> None:
    """That the file has at least one certificate."""
    import ssl

    if not check_file(path, key, reading):
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(path)
    except ssl.SSLError:
        reading.mistake(key, f"{path} has no certificate in it", "a PEM file is wanted")


def check_file(path: Path, key: str, reading: Reading) -> bool:
    """Whether the file is there and readable; the mistake if not."""
    try:
        with path.open("rb") as file:
            file.read(1)
    except OSError as error:
        hint = ""
        if isinstance(error, PermissionError):
            hint = "let the user that runs the broker read it"
        elif isinstance(error, FileNotFoundError):
            hint = f"relative paths start at {reading.folder}"
        reading.mistake(key, f"{path} cannot be read: {error.strerror}", hint)
        return False
    return True


def check_http(http: HttpConfig, reading: Reading) -> None:
    """That its files will do, and that off loopback it is encrypted and asks for a token."""
    if (http.certificate is None) != (http.key is None):
        missing = "certificate" if http.certificate is None else "key"
        hint = f'write {missing} = "/path/to/{missing}.pem"'
        reading.mistake(f"http.{missing}", "is missing: HTTPS needs both certificate and key", hint)
    elif http.certificate is not None and http.key is not None:
        check_certificate(http.certificate, http.key, "http", reading)
    if http.token_file is not None:
        check_file(http.token_file, "http.token_file", reading)
    try:
        address = http.address
    except ConfigError as error:
        reading.adopt(error, "http")
        return
    missing_keys = http.missing_off_loopback
    if address is not None and missing_keys and not reading.is_wrong("http"):
        reading.mistake(
            "http.bind",
            f"{http.bind} can be reached from elsewhere, and without {' and '.join(missing_keys)} anybody could look",
            f"write {' and '.join(missing_keys)} (tokens are made by edge-broker http-token add), "
            f'or bind = "127.0.0.1:{address.port}"',
        )


def check_data_dir(data_dir: Path, reading: Reading) -> None:
    """That it is not something else than a folder. One that is not there yet is made at the start."""
    if os.path.exists(data_dir) and not os.path.isdir(data_dir):
        reading.mistake(
            "data_dir", f"{data_dir} is not a folder", "give the path of a folder, or of one to be made"
        )


def check_store(store: StoreConfig, reading: Reading) -> None:
    """That the filters of topics are filters, and the key is said once; what is in it, the broker reads at its start."""
    for index, topic in enumerate(store.topics):
        try:
            check_topic_filter(topic.filter)
        except MqttError as error:
            reading.mistake(
                f"store.topics[{index}].filter", f"{topic.filter!r}: {error.detail}", "such as debug/#"
            )
    if store.encryption_key_file is not None:
        check_file(store.encryption_key_file, "store.encryption_key_file", reading)
    for index, path in enumerate(store.old_encryption_key_files):
        check_file(path, f"store.old_encryption_key_files[{index}]", reading)
    credential = store.encryption_key_credential
    if credential and store.encryption_key_file is not None:
        reading.mistake(
            "store.encryption_key_credential", "there is encryption_key_file too", "leave one of them out"
        )
    if "/" in credential or credential in (".", ".."):
        reading.mistake(
            "store.encryption_key_credential", "is not a credential's name", "without a directory"
        )


def check_security(security: SecurityConfig, reading: Reading) -> None:
    """That the files can be read; what is in them, the broker reads at its start."""
    for name in ("password_file", "deny_file", "acl_file"):
        path = getattr(security, name)
        if path is not None:
            check_file(path, f"security.{name}", reading)
    for position, path in enumerate(security.jwt_keys):
        check_file(path, f"security.jwt_keys[{position}]", reading)
    if security.jwt_keys and not security.jwt_audience:
        reading.mistake(
            "security.jwt_audience",
            "is missing, and a token that its issuer made for somebody else would count here",
            'write jwt_audience = "mqtt", or whatever the issuer puts into aud for this gateway',
        )
    elif security.jwt_audience and not security.jwt_keys:
        reading.mistake(
            "security.jwt_keys",
            "is missing, so no token could be verified",
            'write jwt_keys = ["issuer.pem"]: the public key, or the key set in JSON',
        )


def check_audit(audit: AuditConfig, reading: Reading) -> None:
    """That the file is none yet or a plain one, in a folder that is there; whether it can be written shows the start."""
    file = audit.file
    if file is None:
        return
    if file.is_symlink() or (file.exists() and not file.is_file()):
        reading.mistake(
            "audit.file", f"{file} is no plain file", "give the path of one, or of one to be made"
        )
    elif file.parent.exists() and not file.parent.is_dir():
        reading.mistake("audit.file", f"{file.parent} is no folder", "give the path of a file in a folder")


def check_runtime(runtime: RuntimeConfig, reading: Reading) -> None:
    """That the event loop asked for is there."""
    if runtime.loop == "uvloop" and importlib.util.find_spec("uvloop") is None:
        reading.mistake(
            "runtime.loop", "uvloop is not installed", 'write loop = "auto", or: pip install uvloop'
        )


CHECKS: Final[dict[str, Callable[[Any, Reading], None]]] = {
    "audit": check_audit,
    "data_dir": check_data_dir,
    "http": check_http,
    "runtime": check_runtime,
    "security": check_security,
    "store": check_store,
}
"""Who checks what was read at a top-level key, beside the listeners."""
