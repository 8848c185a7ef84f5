"""Where the broker is and how it is reached: a URL, and what TLS and authentication need.

    mqtt://[user[:password]@]host[:port]      TCP, port 1883 unless given
    mqtts://[user[:password]@]host[:port]     TLS 1.2 or newer, port 8883 unless given

A server's certificate is always verified, name included: there is no switch to turn that off. Without `ca` the system's
certificate authorities are trusted. The files are read anew for every connection, so that rotated certificates are
picked up. The password appears in no repr, log line or error.
"""

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from devices.errors import BrokerUrlError

_DEFAULT_PORTS = {"mqtt": 1883, "mqtts": 8883}
_LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class BrokerAddress:
    """A broker's address, checked."""

    host: str
    port: int
    tls: bool
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'mqtts' if self.tls else 'mqtt'}://{host}:{self.port}"

    @property
    def shows_password(self) -> bool:
        """Whether the password would cross a network unencrypted."""
        return self.password is not None and not self.tls and self.host not in _LOOPBACK_HOSTS

    def tls_context(self) -> ssl.SSLContext | None:
        """A fresh context from the files as they are now, None without TLS; BrokerUrlError names the bad file."""
        if not self.tls:
            return None
        try:
            context = ssl.create_default_context(cafile=self.ca)
        except (OSError, ssl.SSLError) as error:
            raise BrokerUrlError(f"the CA file {self.ca} cannot be used: {_why(error)}") from error
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.certificate is not None:
            try:
                context.load_cert_chain(self.certificate, self.key)
            except (OSError, ssl.SSLError) as error:
                files = self.certificate if self.key is None else f"{self.certificate} with key {self.key}"
                raise BrokerUrlError(f"the certificate {files} cannot be used: {_why(error)}") from error
        return context


def parse_broker_url(
    url: str,
    *,
    username: str | None = None,
    password: str | None = None,
    ca: Path | str | None = None,
    certificate: Path | str | None = None,
    key: Path | str | None = None,
) -> BrokerAddress:
    """Read a broker URL and check that everything given with it fits; BrokerUrlError says what does not."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise BrokerUrlError(f"the broker URL has a bad port: {error}") from error
    if parts.scheme not in _DEFAULT_PORTS:
        raise BrokerUrlError(
            f"the broker URL must begin with mqtt:// or mqtts://, not {parts.scheme or 'nothing'!r}"
        )
    if not parts.hostname:
        raise BrokerUrlError("the broker URL names no host; write it like mqtt://127.0.0.1:1883")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise BrokerUrlError("the broker URL ends after the port; topics are given elsewhere")
    if port == 0:
        raise BrokerUrlError("the broker URL has port 0; give the port that the broker listens on")
    address = BrokerAddress(
        host=parts.hostname,
        port=port or _DEFAULT_PORTS[parts.scheme],
        tls=parts.scheme == "mqtts",
        username=username if username is not None else _unquoted(parts.username),
        password=password if password is not None else _unquoted(parts.password),
        ca=_path(ca),
        certificate=_path(certificate),
        key=_path(key),
    )
    _check_what_goes_together(address)
    return address


def _check_what_goes_together(address: BrokerAddress) -> None:
    if not address.tls and (address.ca or address.certificate or address.key):
        raise BrokerUrlError("ca, certificate and key need TLS: begin the broker URL with mqtts://")
    if address.key and not address.certificate:
        raise BrokerUrlError("a key was given without its certificate")
    if address.password is not None and address.username is None:
        raise BrokerUrlError("a password was given without a username")
    address.tls_context()  # a missing or broken file is better said now than at the first connection


def _unquoted(text: str | None) -> str | None:
    return None if text is None else unquote(text)


def _path(path: Path | str | None) -> Path | None:
    return None if path is None else Path(path)


def _why(error: OSError) -> str:
    return error.strerror or str(error)
