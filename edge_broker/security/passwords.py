"""The password file: names and what is kept of their passwords, read strictly, changed line by line, written whole.

A line is `name:credential`; a credential is an argon2id hash (for passwords in CONNECT) or a SCRAM-SHA-256 verifier, and a
name may have one of each. `#` begins a comment line. What it keeps true:

- A file with a mistake is no file: every mistake is told with its line, and nothing of the file is used.
- No message repeats what stands in a credential's place: it may be a password that somebody wrote there.
- A file is replaced as a whole, for its owner's eyes only; whoever reads it meanwhile sees the old or the new one.

It neither hashes nor verifies, and knows nothing of clients.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import stat
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from edge_broker.errors import ConfigError, FileMistakes
from edge_broker.security.admission import ANONYMOUS
from edge_broker.security.hashing import Argon2Cost, Argon2Hash
from edge_broker.security.scram import DEFAULT_ITERATIONS, METHOD, SALT_BYTES, ScramVerifier, saslprep

log: Final = logging.getLogger("edge_broker.security")

_LONGEST_NAME_BYTES: Final = 256
_MAX_FILE_BYTES: Final = 64 << 20
_FORM: Final = "a line is NAME:CREDENTIAL, as `edge-broker passwd` writes it"
_SET_ANEW: Final = "set the password with `edge-broker passwd`, which writes such a line"


class PasswordFileMistakes(FileMistakes):
    """Everything that is wrong with one password file."""


@dataclass(frozen=True, slots=True)
class User:
    """What is kept of one name's password."""

    argon2: Argon2Hash | None = None
    scram: ScramVerifier | None = None

    def keeps(self, earlier: User) -> bool:
        """Whether whoever proved `earlier` would still be let in: nothing of it has changed or gone."""
        return (earlier.argon2 is None or earlier.argon2 == self.argon2) and (
            earlier.scram is None or earlier.scram == self.scram
        )


_NOBODY: Final = User()
_USUAL_COST: Final = Argon2Cost()


@dataclass(frozen=True, slots=True)
class Passwords:
    """One reading of a password file: users by name. What is usual in it is what decoys for other names look like."""

    users: Mapping[str, User] = field(default_factory=dict)
    cost: Argon2Cost = _USUAL_COST
    iterations: int = DEFAULT_ITERATIONS
    salt_bytes: int = SALT_BYTES
    offers_scram: bool = False

    @classmethod
    def of(cls, users: Mapping[str, User]) -> Passwords:
        """With what most of `users` have as what is usual."""
        costs = Counter(user.argon2.cost for user in users.values() if user.argon2 is not None)
        verifiers = Counter(
            (user.scram.iterations, len(user.scram.salt)) for user in users.values() if user.scram is not None
        )
        cost = costs.most_common(1)[0][0] if costs else _USUAL_COST
        if not verifiers:
            return cls(users, cost)
        iterations, salt_bytes = verifiers.most_common(1)[0][0]
        return cls(users, cost, iterations, salt_bytes, True)

    def argon2(self, name: str) -> Argon2Hash | None:
        """What a password of `name` in CONNECT is checked against."""
        return self.users.get(name, _NOBODY).argon2

    def scram(self, name: str) -> ScramVerifier | None:
        """What a proof of `name` is checked against."""
        return self.users.get(name, _NOBODY).scram

    def changed_in(self, later: Passwords) -> frozenset[str]:
        """The names that `later` does not have any more, or with another password."""
        return frozenset(
            name for name, user in self.users.items() if not later.users.get(name, _NOBODY).keeps(user)
        )


# ---- reading


def read_passwords(path: Path) -> Passwords:
    """The file at `path`; `ConfigError` where it cannot be read, `PasswordFileMistakes` where it is wrong."""
    if _is_open_to_others(path):
        log.warning("%s can be read by everybody on this machine: chmod 600 %s", path, path)
    return parse_passwords(read_text(path), path)


def read_text(path: Path) -> str:
    """The text of the file at `path`; `ConfigError` where it cannot be had."""
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        hint = ""
        if isinstance(error, FileNotFoundError):
            hint = f"make it: edge-broker passwd {path} NAME"
        elif isinstance(error, PermissionError):
            hint = "let the user that runs the broker read it"
        raise ConfigError(str(path), f"cannot be read: {error.strerror}", hint) from None
    if len(data) > _MAX_FILE_BYTES:
        raise ConfigError(str(path), f"is larger than {_MAX_FILE_BYTES >> 20} MiB", "is it the right file?")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        mistake = ConfigError(f"line {line}", "is not UTF-8", "save the file as UTF-8 text")
        raise PasswordFileMistakes(path, [mistake]) from None


def parse_passwords(text: str, path: Path) -> Passwords:
    """The users in `text`; `PasswordFileMistakes` with everything that is wrong in it, under the name of `path`."""
    users: dict[str, User] = {}
    first_lines: dict[tuple[str, str], int] = {}
    mistakes: list[ConfigError] = []
    for number, name, credential in _lines(text):
        where = f"line {number}"
        try:
            if credential is None:
                raise ConfigError(where, "has no colon", _FORM)
            check_name(name, where)
            kind, user = _parse_credential(credential, where, users.get(name, _NOBODY))
            earlier = first_lines.setdefault((name, kind), number)
            if earlier != number:
                problem = f"is the second {kind} line of its name, the first is line {earlier}"
                raise ConfigError(where, problem, "keep one of them")
        except ConfigError as mistake:
            mistakes.append(mistake)
        else:
            users[name] = user
    if mistakes:
        raise PasswordFileMistakes(path, mistakes)
    return Passwords.of(users)


def _lines(text: str) -> Iterator[tuple[int, str, str | None]]:
    """Number, name and credential (None without a colon) of each line that is neither empty nor a comment."""
    for number, line in enumerate(text.split("\n"), 1):
        line = line.removesuffix("\r")
        if line.strip() and not line.startswith("#"):
            name, colon, credential = line.partition(":")
            yield number, name, credential if colon else None


def check_name(name: str, where: str) -> None:
    """`ConfigError` at `where` for a name that cannot be in the file."""
    if not name:
        raise ConfigError(where, "has no name", _FORM)
    if name != name.strip() or name.startswith("#") or ":" in name:
        raise ConfigError(
            where, "has a name that begins or ends with a space, begins with # or has a colon", _FORM
        )
    if name == ANONYMOUS:
        raise ConfigError(
            where, f"has the name {ANONYMOUS}", "that is whoever proves nothing; choose another"
        )
    try:
        prepared = saslprep(name, stored=True)
    except ValueError as error:
        raise ConfigError(where, f"has a name that cannot be: {error}", "choose another name") from None
    if prepared != name:
        raise ConfigError(where, "has a name that is written otherwise for SCRAM", f"write {prepared!r}")
    if len(name.encode()) > _LONGEST_NAME_BYTES:
        raise ConfigError(
            where, f"has a name of more than {_LONGEST_NAME_BYTES} bytes", "choose a shorter one"
        )


def _parse_credential(credential: str, where: str, user: User) -> tuple[str, User]:
    """Which kind it is, and `user` with it."""
    try:
        if credential.startswith("$argon2"):
            return "argon2id", User(Argon2Hash.from_text(credential), user.scram)
        if credential.startswith(METHOD):
            if credential != credential.strip():
                raise ValueError("a space at the end")
            return METHOD, User(user.argon2, ScramVerifier.from_text(credential))
    except ValueError as error:
        raise ConfigError(where, f"has a credential that cannot be used: {error}", _SET_ANEW) from None
    if credential.startswith("$"):
        raise ConfigError(where, f"has a credential that is neither argon2id nor {METHOD}", _SET_ANEW)
    raise ConfigError(
        where, f"has a credential that is neither argon2id nor {METHOD}, perhaps a plain password", _SET_ANEW
    )


# ---- changing


def with_user(text: str, name: str, credentials: tuple[str, ...]) -> tuple[str, bool]:
    """`text` with `credentials` as the only lines of `name`, where its first line was or at the end; whether it was there.

    Comments and everybody else's lines stay as they are. No credentials: the name is gone.
    """
    added = [f"{name}:{credential}" for credential in credentials]
    kept: list[str] = []
    found = False
    for line in text.removesuffix("\n").split("\n") if text else []:
        if line.startswith("#") or line.partition(":")[0] != name:
            kept.append(line)
        elif not found:
            found = True
            kept += added
    if not found:
        kept += added
    return "".join(f"{line}\n" for line in kept), found


def change_file(path: Path, change: Callable[[str], str]) -> None:
    """Replace the file at `path` (an empty one where there is none) by what `change` makes of its text.

    Whole or not at all, mode 0600, of the same owner as before; two that change it at once take turns. `ConfigError`,
    `OSError`, or what `change` raises: the file is as it was.
    """
    path = path.resolve()  # a link stays one
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        text = read_text(path) if path.exists() else ""
        _replace(path, change(text), folder)
    finally:
        os.close(folder)


def _replace(path: Path, text: str, folder: int) -> None:
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            _keep_owner(path, file.fileno())
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    os.fsync(folder)


def _keep_owner(path: Path, descriptor: int) -> None:
    """Else a file that root changes could not be read by the user that runs the broker."""
    if not path.exists():
        return
    before, new = path.stat(), os.fstat(descriptor)
    if (before.st_uid, before.st_gid) != (new.st_uid, new.st_gid):
        os.fchown(descriptor, before.st_uid, before.st_gid)


def _is_open_to_others(path: Path) -> bool:
    with contextlib.suppress(OSError):  # whoever opens it next says why
        return bool(path.stat().st_mode & stat.S_IROTH)
    return False
