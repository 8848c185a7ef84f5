"""Who we are to the upstream: the TLS context and the login, read anew from their files for each connection.

So a renewed certificate or password counts from the next connection on, without a restart. What cannot be read is said
by name of the key and the file, never with what is in it. Reading may block: whoever calls does so in a thread.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import NamedTuple

from bridge.config import BridgeConfig
from edge_broker.errors import UpstreamUnavailable
from edge_broker.net.tls import client_context


class Credentials(NamedTuple):
    """`context`: for TLS, None without it."""

    context: ssl.SSLContext | None
    username: str | None
    password: bytes | None


class FileIdentity:
    """An identity kept in the files that the configuration names."""

    def __init__(self, config: BridgeConfig) -> None:
        self._config = config

    def read(self, tls: bool) -> Credentials:
        """Everything that one connection needs; `UpstreamUnavailable` says which file will not do, and why."""
        return Credentials(self._context() if tls else None, self._config.username, self._password())

    def _password(self) -> bytes | None:
        try:
            return self._config.read_password()
        except OSError as error:
            raise _unreadable("password_file", self._config.password_file, error) from None

    def _context(self) -> ssl.SSLContext:
        config = self._config
        for key, path in (("ca", config.ca), ("certificate", config.certificate), ("key", config.key)):
            _check_readable(key, path)
        try:
            context = client_context(None if config.ca is None else str(config.ca))
        except ssl.SSLError as error:
            raise UpstreamUnavailable(
                f"ca: {config.ca} holds no certificate: {_words(error)}",
                "it must be PEM: -----BEGIN CERTIFICATE-----",
            ) from None
        if config.certificate is not None:
            self._load_pair(context, config.certificate, config.key)
        return context

    def _load_pair(self, context: ssl.SSLContext, certificate: Path, key: Path | None) -> None:
        try:
            context.load_cert_chain(certificate, key, password=_no_passphrase)
        except ssl.SSLError as error:
            if error.reason == "KEY_VALUES_MISMATCH":
                problem = f"key: {key} does not belong to certificate {certificate}"
                hint = "were both replaced? It is tried again"
            else:
                problem = f"certificate {certificate} and key {key} cannot be used: {_words(error)}"
                hint = "both must be PEM, the key without a passphrase"
            raise UpstreamUnavailable(problem, hint) from None
        except (OSError, ValueError) as error:
            raise UpstreamUnavailable(
                f"certificate {certificate} and key {key} cannot be used: {error}"
            ) from None


def _check_readable(key: str, path: Path | None) -> None:
    if path is None:
        return
    try:
        path.open("rb").close()
    except OSError as error:
        raise _unreadable(key, path, error) from None


def _unreadable(key: str, path: Path | None, error: OSError) -> UpstreamUnavailable:
    hint = "let the broker's user read it" if isinstance(error, PermissionError) else "check the path"
    return UpstreamUnavailable(f"{key}: {path} cannot be read: {error.strerror or error}", hint)


def _no_passphrase() -> str:
    """Asked for by OpenSSL where a key has a passphrase; otherwise it would ask on the terminal."""
    raise ValueError("the key has a passphrase")


def _words(error: ssl.SSLError) -> str:
    return (error.reason or "not PEM").replace("_", " ").lower()
