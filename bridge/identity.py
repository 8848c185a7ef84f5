"""Who we are to the upstream, and whom we take for it: the TLS context, the login and the judge of its certificate.

All of it is taken anew for each connection, from its files or from what the Workload API gave last. So a renewed
certificate, bundle or password counts from the next connection on, without a restart. What cannot be read is said by name
of the key and the file, never with what is in it. Reading may block: whoever calls does so in a thread.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from bridge import failures
from bridge.config import BridgeConfig
from bridge.identity_checks import SOCKET_VARIABLE
from bridge.link import Judge
from bridge.memory_keys import load_pair
from bridge.trust import IdPattern, PeerJudge
from bridge.workload_api import WorkloadApi
from edge_broker.errors import UpstreamUnavailable
from edge_broker.key_pair import is_mismatch
from edge_broker.net.tls import client_context
from edge_broker.security.der import pem_blocks, validity


class Credentials(NamedTuple):
    """`context`: for TLS, None without it. `judge`: asked about the upstream after the handshake, None where TLS decides.

    `holds`: from when to when our certificate does, Unix time; None without one.
    """

    context: ssl.SSLContext | None
    username: str | None
    password: bytes | None
    judge: Judge | None = None
    holds: tuple[float, float] | None = None


class Identity(Protocol):
    """Where the credentials of one bridge come from."""

    def start(self) -> None:
        """The bridge starts."""

    def stop(self) -> None:
        """The bridge stops."""

    def read(self, tls: bool) -> Credentials:
        """Everything that one connection needs; `UpstreamUnavailable` says what is missing, and why."""

    def ends_at(self) -> float | None:
        """When the certificate that a connection would have now expires, Unix time; None where that is not known."""


def identity_of(config: BridgeConfig) -> Identity:
    """As the configuration says."""
    return SpireIdentity(config) if config.identity == "spire" else FileIdentity(config)


class FileIdentity:
    """An identity kept in the files that the configuration names."""

    def __init__(self, config: BridgeConfig) -> None:
        self._config = config
        self._pattern = _pattern(config)

    def start(self) -> None:
        """Nothing to do: files are read when they are needed."""

    def stop(self) -> None:
        """Nothing to do."""

    def read(self, tls: bool) -> Credentials:
        """Everything that one connection needs; `UpstreamUnavailable` says which file will not do, and why."""
        config = self._config
        password = _read_password(config)
        if not tls:
            return Credentials(None, config.username, password)
        holds = self._holds()
        if self._pattern is None:
            return Credentials(self._context(), config.username, password, None, holds)
        bundles = self._bundles()
        if not bundles.get(self._pattern.trust_domain):
            raise failures.no_bundle(self._pattern.trust_domain, "trust_bundles")
        context = _spiffe_context(bundles)
        self._show_ourselves(context)
        return Credentials(context, config.username, password, PeerJudge(self._pattern, bundles).judge, holds)

    def ends_at(self) -> float | None:
        """When the certificate that is in the file now expires."""
        try:
            holds = self._holds()
        except UpstreamUnavailable:
            return None
        return None if holds is None else holds[1]

    def _holds(self) -> tuple[float, float] | None:
        """Read before the pair is loaded: should it be replaced between the two, the old one's end is the earlier."""
        path = self._config.certificate
        if path is None:
            return None
        try:
            return validity(pem_blocks(path.read_bytes())[0])
        except OSError as error:
            raise _unreadable("certificate", path, error) from None
        except (ValueError, IndexError):
            return None  # what is wrong with it is said where it is loaded

    def _bundles(self) -> Mapping[str, Sequence[bytes]]:
        found = {}
        for domain, path in (self._config.trust_bundles or {}).items():
            try:
                found[domain] = pem_blocks(path.read_bytes())
            except OSError as error:
                raise _unreadable(f"trust_bundles, {domain}", path, error) from None
            except ValueError:
                found[domain] = []
            if not found[domain]:
                raise UpstreamUnavailable(
                    f"trust_bundles, {domain}: {path} holds no certificate",
                    "it must be PEM: -----BEGIN CERTIFICATE-----",
                    "files",
                )
        return found

    def _context(self) -> ssl.SSLContext:
        config = self._config
        _check_readable("ca", config.ca)
        try:
            context = client_context(None if config.ca is None else str(config.ca))
        except ssl.SSLError as error:
            raise UpstreamUnavailable(
                f"ca: {config.ca} holds no certificate: {_words(error)}",
                "it must be PEM: -----BEGIN CERTIFICATE-----",
                "files",
            ) from None
        self._show_ourselves(context)
        return context

    def _show_ourselves(self, context: ssl.SSLContext) -> None:
        config = self._config
        if config.certificate is not None:
            _check_readable("certificate", config.certificate)
            _check_readable("key", config.key)
            self._load_pair(context, config.certificate, config.key)

    def _load_pair(self, context: ssl.SSLContext, certificate: Path, key: Path | None) -> None:
        try:
            context.load_cert_chain(certificate, key, password=_no_passphrase)
        except ssl.SSLError as error:
            if is_mismatch(error):
                problem = f"key: {key} does not belong to certificate {certificate}"
                hint = "were both replaced? It is tried again"
            else:
                problem = f"certificate {certificate} and key {key} cannot be used: {_words(error)}"
                hint = "both must be PEM, the key without a passphrase"
            raise UpstreamUnavailable(problem, hint, "files") from None
        except (OSError, ValueError) as error:
            raise UpstreamUnavailable(
                f"certificate {certificate} and key {key} cannot be used: {error}", "", "files"
            ) from None


class SpireIdentity:
    """An identity that the Workload API gives, and keeps new. Without TLS, and for the login, as `FileIdentity`."""

    def __init__(self, config: BridgeConfig) -> None:
        self._config = config
        self._pattern = _pattern(config)
        self._api = WorkloadApi(config.name, config.spire_socket or os.environ.get(SOCKET_VARIABLE, ""))

    def start(self) -> None:
        """Begin to ask the agent."""
        self._api.start()

    def stop(self) -> None:
        """Ask no more."""
        self._api.stop()

    def read(self, tls: bool) -> Credentials:
        """Everything that one connection needs; `UpstreamUnavailable` where the agent has not given it."""
        config = self._config
        password = _read_password(config)
        if not tls:
            return Credentials(None, config.username, password)
        svid = self._api.wait(config.connect_timeout_seconds / 2)
        if svid is None:
            raise failures.agent_silent(self._api.socket_path, self._api.problem)
        judge = None
        if self._pattern is None:
            _check_readable("ca", config.ca)
            context = client_context(None if config.ca is None else str(config.ca))
        else:
            if not svid.bundles.get(self._pattern.trust_domain):
                raise failures.no_bundle(self._pattern.trust_domain, "what the agent gives")
            context = _spiffe_context(svid.bundles)
            judge = PeerJudge(self._pattern, svid.bundles).judge
        try:
            load_pair(context, svid.chain, svid.key)
        except (OSError, ValueError) as error:  # an SSLError is an OSError
            raise UpstreamUnavailable(
                f"what the Workload API gave cannot be used: {error}", "look at the agent", "files"
            ) from None
        return Credentials(context, config.username, password, judge, svid.holds)

    def ends_at(self) -> float | None:
        """When the SVID that came last expires."""
        return None if self._api.newest is None else self._api.newest.holds[1]


def _pattern(config: BridgeConfig) -> IdPattern | None:
    return None if config.upstream_identity is None else IdPattern(config.upstream_identity)


def _spiffe_context(bundles: Mapping[str, Sequence[bytes]]) -> ssl.SSLContext:
    """TLS verifies by way of any bundle and asks for no host name; the judge decides."""
    authorities = [der for bundle in bundles.values() for der in bundle]
    return client_context(authorities=authorities, check_hostname=False)


def _read_password(config: BridgeConfig) -> bytes | None:
    try:
        return config.read_password()
    except OSError as error:
        raise _unreadable("password_file", config.password_file, error) from None


def _check_readable(key: str, path: Path | None) -> None:
    if path is None:
        return
    try:
        path.open("rb").close()
    except OSError as error:
        raise _unreadable(key, path, error) from None


def _unreadable(key: str, path: Path | None, error: OSError) -> UpstreamUnavailable:
    hint = "let the broker's user read it" if isinstance(error, PermissionError) else "check the path"
    return UpstreamUnavailable(f"{key}: {path} cannot be read: {error.strerror or error}", hint, "files")


def _no_passphrase() -> str:
    """Asked for by OpenSSL where a key has a passphrase; otherwise it would ask on the terminal."""
    raise ValueError("the key has a passphrase")


def _words(error: ssl.SSLError) -> str:
    return (error.reason or "not PEM").replace("_", " ").lower()
