"""A small CA for people without one: makes certificates for brokers and devices, takes them back, knows what it made.

What it keeps true:

- What a certificate could be used for is in the book before the certificate is anywhere else: nothing that exists cannot be
  revoked.
- A name has one good certificate, unless `renew` is asked for: that makes another one, and the old one stays good until it
  is revoked or expires.
- The revocation list is written anew with each revocation, from the book, and holds as long as the CA: it lies beside the
  broker, where nobody can keep a newer one from it.
"""

from __future__ import annotations

import ipaddress
import re
import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from edge_broker.errors import ConfigError
from edge_broker.security.authority import Authority
from edge_broker.security.der import pem_blocks, serial_of
from edge_broker.security.pki_files import Book, Issued, Kind, PkiFolder, replace
from edge_broker.security.spiffe import check_trust_domain

_DEVICE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HOST: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
_LONGEST_COMMON_NAME: Final = 64
MQTTS_PORT: Final = 8883


class Pki:
    """The CA in one folder."""

    def __init__(self, path: Path) -> None:
        self.folder = PkiFolder(path)

    def init(self, trust_domain: str, now: datetime, lifetime: timedelta) -> None:
        """Make the folder and the CA; `ConfigError` where there is something already."""
        try:
            check_trust_domain(trust_domain)
        except ValueError as error:
            raise ConfigError("--trust-domain", str(error)) from None
        name = f"edge-broker CA of {trust_domain}"[: _LONGEST_COMMON_NAME - 9]
        authority = Authority(
            f"{name} {secrets.token_hex(4)}", now, lifetime
        )  # two of one domain are not mistaken
        files = {
            "ca-key.pem": authority.key,
            "ca.pem": authority.certificate,
            "crl.pem": authority.revocation_list((), 1, now, authority.expires_at),
        }
        self.folder.make(files, Book(trust_domain=trust_domain, crl_number=1))

    def issue_server(
        self, hosts: Sequence[str], now: datetime, lifetime: timedelta, renew: bool = False
    ) -> tuple[Issued, Path]:
        """For a broker that is reached as `hosts`, names and addresses, the first of which it is called by."""
        for host in hosts:
            _check_host(host)
        with self.folder.locked() as book:
            name = hosts[0]
            self._check_free(book, name, "server", now, renew)
            authority = self._signing(now)
            lifetime = min(lifetime, authority.expires_at - now)
            pair = authority.issue(
                name[:_LONGEST_COMMON_NAME], now, lifetime, hosts=tuple(hosts), client=False
            )
            issued = self._enter(book, name, "server", pair.certificate, now, now + lifetime, tuple(hosts))
            folder = self.folder.of(name, "server")
            self.folder.put(folder, {"key.pem": pair.key, "certificate.pem": pair.certificate})
        return issued, folder

    def issue_device(
        self,
        name: str,
        now: datetime,
        lifetime: timedelta,
        *,
        host: str | None = None,
        port: int = MQTTS_PORT,
        renew: bool = False,
    ) -> tuple[Issued, Path]:
        """For the device `name`, which finds its broker at `host`: the first name of the server issued last if None."""
        if not _DEVICE_NAME.fullmatch(name):
            raise ConfigError(
                name, "cannot be a device's name", "letters, digits, dots, dashes, underscores; 64 at most"
            )
        with self.folder.locked() as book:
            self._check_free(book, name, "device", now, renew)
            host = host or _last_host(book)
            authority = self._signing(now)
            lifetime = min(lifetime, authority.expires_at - now)
            uri = f"spiffe://{book.trust_domain}/device/{name}"
            pair = authority.issue(name, now, lifetime, uris=(uri,))
            issued = self._enter(book, name, "device", pair.certificate, now, now + lifetime)
            folder = self.folder.of(name, "device")
            files = {
                "key.pem": pair.key,
                "certificate.pem": pair.certificate,
                "ca.pem": authority.certificate,
                "device.toml": _device_settings(name, host, port).encode(),
            }
            self.folder.put(folder, files)
        return issued, folder

    def revoke(self, name: str, now: datetime) -> list[Issued]:
        """Take back every certificate of a name, and write the list; those that were good until now."""
        with self.folder.locked() as book:
            found = book.of(name)
            if not found:
                raise ConfigError(name, "has no certificate", "edge-broker pki status lists who has")
            authority = self._signing(now)  # or nothing is revoked
            revoked = [issued for issued in found if issued.is_good(now)]
            for issued in revoked:
                issued.revoked_at = now
            book.crl_number += 1
            self.folder.write_book(book)
            self._write_crl(book, authority, now)
        return revoked

    def status(self) -> tuple[Book, datetime, bool]:
        """The book, when the CA expires, and whether the list has all that the book says is revoked."""
        book = self.folder.read_book()
        authority = self._authority()
        return book, authority.expires_at, self._is_crl_whole(book)

    def _signing(self, now: datetime) -> Authority:
        """The CA, where it may still sign."""
        authority = self._authority()
        if authority.expires_at <= now:
            raise ConfigError(
                str(self.folder.ca),
                f"has expired on {authority.expires_at:%Y-%m-%d}",
                "make another CA in another folder: edge-broker pki --dir DIR init",
            )
        return authority

    def _authority(self) -> Authority:
        try:
            return Authority.load(self.folder.ca.read_bytes(), self.folder.ca_key.read_bytes())
        except OSError as error:
            raise ConfigError(str(error.filename), f"cannot be read: {error.strerror}") from None
        except (ValueError, TypeError) as error:
            raise ConfigError(str(self.folder.ca_key), f"is no key of {self.folder.ca}: {error}") from None

    def _check_free(self, book: Book, name: str, kind: Kind, now: datetime, renew: bool) -> None:
        good = [issued for issued in book.of(name, kind) if issued.is_good(now)]
        if good and not renew:
            raise ConfigError(
                name,
                f"has a certificate, issued on {good[-1].issued_at:%Y-%m-%d}, good until {good[-1].expires_at:%Y-%m-%d}",
                f"--renew makes another one; edge-broker pki revoke {name} takes it back",
            )

    def _enter(
        self,
        book: Book,
        name: str,
        kind: Kind,
        certificate: bytes,
        now: datetime,
        expires_at: datetime,
        hosts: tuple[str, ...] = (),
    ) -> Issued:
        """Into the book, before anybody has it."""
        serial = f"{serial_of(pem_blocks(certificate)[0]):x}"
        issued = Issued(
            name=name, kind=kind, serial=serial, issued_at=now, expires_at=expires_at, hosts=hosts
        )
        book.certificates.append(issued)
        self.folder.write_book(book)
        return issued

    def _write_crl(self, book: Book, authority: Authority, now: datetime) -> None:
        revoked = [
            (int(issued.serial, 16), issued.revoked_at)
            for issued in book.certificates
            if issued.revoked_at is not None
        ]
        replace(
            self.folder.crl, authority.revocation_list(revoked, book.crl_number, now, authority.expires_at)
        )

    def _is_crl_whole(self, book: Book) -> bool:
        from cryptography import x509

        try:
            found = x509.load_pem_x509_crl(self.folder.crl.read_bytes())
        except (OSError, ValueError):
            return False
        listed = {entry.serial_number for entry in found}
        return listed >= {int(issued.serial, 16) for issued in book.certificates if issued.revoked_at}


def _check_host(host: str) -> None:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        if not _HOST.fullmatch(host):
            raise ConfigError(
                host, "is neither a host name nor an address", "such as gateway.local"
            ) from None


def _last_host(book: Book) -> str:
    servers = [issued for issued in book.certificates if issued.kind == "server" and not issued.revoked_at]
    if not servers:
        raise ConfigError(
            "--host",
            "is not given, and no server has a certificate yet",
            "say where the device finds its broker, or first: edge-broker pki issue-server HOST",
        )
    return servers[-1].hosts[0]


def _device_settings(name: str, host: str, port: int) -> str:
    return f"""# What the device {name} needs to reach its broker. Paths start at this file's folder.
host = "{host}"
port = {port}
client_id = "{name}"
ca = "ca.pem"
certificate = "certificate.pem"
key = "key.pem"
"""
