"""The folder of a small CA: where what lies, the book of what was issued, and how its files are written.

    FOLDER/                        0700
        ca.pem                     what devices and broker trust
        ca-key.pem                 0600, whoever has it can make devices
        crl.pem                    what was revoked: for the broker
        issued.json                the book
        servers/HOST/              certificate.pem, key.pem
        devices/NAME/              ca.pem, certificate.pem, key.pem, device.toml: all that a device needs

What it keeps true: a file is there whole or not at all, whatever interrupts; keys are their owner's alone from their first
byte on; what is there is replaced only by `replace`. Two commands at once take turns (`locked`).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Final, Literal

import msgspec

from edge_broker.errors import ConfigError

Kind = Literal["server", "device"]
FOLDERS: Final[dict[Kind, str]] = {"server": "servers", "device": "devices"}
_PRIVATE: Final = 0o600
_PUBLIC: Final = 0o644
_NAMES_OF_KEYS: Final = ("key.pem", "ca-key.pem", "issued.json")


class Issued(msgspec.Struct, kw_only=True):
    """One certificate. `serial`: hexadecimal, as it is shown; `revoked_at`: None while it is good."""

    name: str
    kind: Kind
    serial: str
    issued_at: datetime
    expires_at: datetime
    hosts: tuple[str, ...] = ()
    revoked_at: datetime | None = None

    def is_good(self, now: datetime) -> bool:
        """Whether a broker would let it in."""
        return self.revoked_at is None and self.expires_at > now


class Book(msgspec.Struct, kw_only=True):
    """What was issued, in its order. `crl_number`: of the revocation list written last."""

    trust_domain: str
    crl_number: int = 0
    certificates: list[Issued] = []

    def of(self, name: str, kind: Kind | None = None) -> list[Issued]:
        """All of one name, in the order in which they were issued."""
        return [found for found in self.certificates if found.name == name and kind in (None, found.kind)]


class PkiFolder:
    """The folder at `path`, which `make` makes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ca = path / "ca.pem"
        self.ca_key = path / "ca-key.pem"
        self.crl = path / "crl.pem"
        self._book = path / "issued.json"

    @property
    def exists(self) -> bool:
        """Whether there is a CA in it."""
        return self._book.exists()

    def of(self, name: str, kind: Kind) -> Path:
        """Where what was issued to a name is put."""
        return self.path / FOLDERS[kind] / name

    def make(self, files: Mapping[str, bytes], book: Book) -> None:
        """Make it, with the CA's `files`; `ConfigError` where something is there already."""
        if self.path.exists() and any(self.path.iterdir()):
            raise ConfigError(str(self.path), "is there and not empty", "give another folder: --dir")
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path.chmod(0o700)
        for name, data in files.items():
            replace(self.path / name, data)
        self.write_book(book)  # last: with it there is a CA

    def read_book(self) -> Book:
        """`ConfigError` where there is none, or a broken one."""
        try:
            return msgspec.json.decode(self._book.read_bytes(), type=Book)
        except FileNotFoundError:
            raise ConfigError(
                str(self.path), "has no CA in it", "make one: edge-broker pki init, or say where it is: --dir"
            ) from None
        except OSError as error:
            raise ConfigError(str(self._book), f"cannot be read: {error.strerror}") from None
        except msgspec.DecodeError as error:
            raise ConfigError(str(self._book), f"is broken: {error}", "put a copy of it back") from None

    def write_book(self, book: Book) -> None:
        """The new book in place of the old one."""
        replace(self._book, msgspec.json.format(msgspec.json.encode(book), indent=1) + b"\n")

    @contextmanager
    def locked(self) -> Iterator[Book]:
        """The book, while no other command changes anything."""
        if not self.path.is_dir():
            self.read_book()  # says what is missing
        descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield self.read_book()
        finally:
            os.close(descriptor)

    def put(self, folder: Path, files: Mapping[str, bytes]) -> None:
        """A folder with `files`, as a whole; where there is one already its files are replaced one by one."""
        folder.parent.mkdir(mode=0o700, exist_ok=True)
        if folder.exists():
            for name, data in files.items():
                replace(folder / name, data)
            return
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))  # mode 0700
        try:
            for name, data in files.items():
                replace(temporary / name, data)
            os.rename(temporary, folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        _sync_folder(folder.parent)


def replace(path: Path, data: bytes) -> None:
    """Write a file that is there whole or not at all; a key's for its owner only."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), _PRIVATE if path.name in _NAMES_OF_KEYS else _PUBLIC)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    _sync_folder(path.parent)


def write_new(path: Path, data: bytes, mode: int) -> None:
    """Write a file that was not there before, whole or not at all; `FileExistsError` where it was."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, path)
    finally:
        os.unlink(temporary)


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
