"""The deny list: identities and certificates that are not let in, whatever they prove. A text file, one a line.

    # stolen on Monday
    identity cellar
    serial   3F:A2:09:5C

An identity is what a client comes in as, by certificate, password or otherwise; a serial number is that of a certificate,
in hexadecimal as `openssl x509 -serial` or `edge-broker pki status` shows it. A file with a mistake is no file: every
mistake is told with its line, and nothing of it is used.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge_broker.core.ports import (
    Admission,
    AuthenticationExchange,
    Authenticator,
    Challenge,
    Credentials,
)
from edge_broker.core.router import Router
from edge_broker.errors import ConfigError, FileMistakes
from edge_broker.wire import const

_MAX_FILE_BYTES: Final = 16 << 20
_SERIAL: Final = re.compile(r"(?:0[xX])?[0-9A-Fa-f]+")
_FORM: Final = "a line is `identity NAME` or `serial HEX`"
_DETAIL: Final = "is on the deny list"


class DenyFileMistakes(FileMistakes):
    """Everything that is wrong with one deny list."""


@dataclass(frozen=True, slots=True)
class Denied:
    """One reading of a deny list."""

    identities: frozenset[str] = frozenset()
    serials: frozenset[int] = frozenset()


class DenyList:
    """The reading that counts now. `replace` takes another one; whoever is on it is then to be ended (`end_denied`)."""

    def __init__(self, denied: Denied) -> None:
        self.now = denied

    def replace(self, denied: Denied) -> None:
        """It counts from now on."""
        self.now = denied


def read_denied(path: Path) -> Denied:
    """The file at `path`; `ConfigError` where it cannot be read, `DenyFileMistakes` where it is wrong."""
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        hint = ""
        if isinstance(error, FileNotFoundError):
            hint = f"make an empty one: touch {path}"
        elif isinstance(error, PermissionError):
            hint = "let the user that runs the broker read it"
        raise ConfigError(str(path), f"cannot be read: {error.strerror}", hint) from None
    if len(data) > _MAX_FILE_BYTES:
        raise ConfigError(str(path), f"is larger than {_MAX_FILE_BYTES >> 20} MiB", "is it the right file?")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DenyFileMistakes(path, [ConfigError(f"line {line}", "is not UTF-8")]) from None
    return parse_denied(text, path)


def parse_denied(text: str, path: Path) -> Denied:
    """What `text` denies; `DenyFileMistakes`, under the name of `path`, with everything that is wrong in it."""
    identities: set[str] = set()
    serials: set[int] = set()
    mistakes: list[ConfigError] = []
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        kind, _, value = line.partition(" ")
        value = value.strip()
        digits = value.replace(":", "")
        if kind == "identity" and value:
            identities.add(value)
        elif kind == "serial" and _SERIAL.fullmatch(digits):
            serials.add(int(digits, 16))
        elif kind == "serial":
            mistakes.append(ConfigError(f"line {number}", "has no serial number in hexadecimal", _FORM))
        else:
            mistakes.append(ConfigError(f"line {number}", "says neither identity nor serial", _FORM))
    if mistakes:
        raise DenyFileMistakes(path, mistakes)
    return Denied(frozenset(identities), frozenset(serials))


def end_denied(router: Router, denied: Denied) -> int:
    """End the connections of denied identities, however they came in; how many. Have the output flushed afterwards."""
    ended = 0
    for session in list(router.sessions.values()):
        connection = session.claimed_by
        if connection is not None and session.identity in denied.identities:
            connection.fail(const.BANNED, f"{session.identity!r} {_DETAIL}")
            ended += 1
    return ended


class DenyingAdmission:
    """An `Authenticator` around another: whom that one lets in is looked up in the deny list."""

    def __init__(self, admission: Authenticator, deny_list: DenyList) -> None:
        self._admission = admission
        self._deny_list = deny_list

    @property
    def passwords(self) -> Authenticator | None:
        """Who decides about passwords, for whoever counts what they do."""
        passwords: Authenticator | None = getattr(self._admission, "passwords", None)
        return passwords

    @property
    def tokens(self) -> Authenticator | None:
        """Who decides about tokens."""
        tokens: Authenticator | None = getattr(self._admission, "tokens", None)
        return tokens

    def authenticate(self, credentials: Credentials, answer: Callable[[Admission], None]) -> None:
        """As the other one does, and then the list."""
        self._admission.authenticate(credentials, lambda admission: answer(self._look_up(admission)))

    def begin(self, credentials: Credentials, method: str) -> AuthenticationExchange | None:
        """The other one's exchange, and at its end the list."""
        exchange = self._admission.begin(credentials, method)
        return None if exchange is None else _DenyingExchange(exchange, self._look_up)

    def _look_up(self, admission: Admission) -> Admission:
        if admission.reason_code == const.SUCCESS and admission.identity in self._deny_list.now.identities:
            return Admission(const.BANNED, detail=f"{admission.identity!r} {_DETAIL}")
        return admission


class _DenyingExchange:
    """An exchange whose outcome is looked up."""

    def __init__(self, exchange: AuthenticationExchange, look_up: Callable[[Admission], Admission]) -> None:
        self._exchange = exchange
        self._look_up = look_up

    def step(self, data: bytes) -> Challenge | Admission:
        """The exchange's own."""
        result = self._exchange.step(data)
        return self._look_up(result) if isinstance(result, Admission) else result
