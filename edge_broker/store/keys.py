"""Keys for encryption at rest: 32 random bytes in a file that only the broker can read, and not beside the data.

A file holds them as they are, or as base64 or hexadecimal digits on a line. A key inside the data directory is refused:
whoever takes the card would have both.
"""

from __future__ import annotations

import base64
import binascii
import os
import secrets
from pathlib import Path
from typing import Final

from edge_broker.errors import StoreError
from edge_broker.store.schema import write_private

KEY_BYTES: Final = 32
CREDENTIALS: Final = "CREDENTIALS_DIRECTORY"
"""The variable in which systemd says where a unit's credentials are."""
_HINT: Final = "make one with: edge-broker store new-key FILE"
_MOST_BYTES: Final = 1_024


def new_key(path: Path) -> None:
    """Write a new key to a new file at `path`; `StoreError` where there is one, or it cannot be written."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        write_private(path, base64.b64encode(secrets.token_bytes(KEY_BYTES)) + b"\n")
    except FileExistsError:
        raise StoreError(
            "new key", f"{path} is there already", "name a file that is not: no key is replaced"
        ) from None
    except OSError as error:
        raise StoreError("new key", f"cannot write {path}: {error.strerror or error}") from error


def credential_file(name: str) -> Path:
    """The file of the systemd credential `name`; `StoreError` where this process has none."""
    directory = os.environ.get(CREDENTIALS, "")
    if not directory:
        raise StoreError(
            "open",
            f"there is no credential {name}: ${CREDENTIALS} is not set",
            f"write LoadCredential={name}:/path/to/key into the unit, or use encryption_key_file",
        )
    return Path(directory, name)


def read_key(path: Path, data_dir: Path) -> bytes:
    """The key in the file at `path`, of 32 bytes. `StoreError` with what to do where it will not do."""
    if path.resolve().is_relative_to(data_dir.resolve()):
        raise StoreError(
            "open",
            f"the encryption key {path} is inside the data directory",
            "keep it elsewhere: whoever takes the data must not get the key with it",
        )
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            raw = file.read(_MOST_BYTES)
    except OSError as error:
        raise StoreError("open", f"cannot read the encryption key {path}: {error.strerror}", _HINT) from error
    if mode & 0o007:
        raise StoreError("open", f"everybody can read the encryption key {path}", f"chmod 600 {path}")
    key = _decoded(raw)
    if key is None:
        raise StoreError("open", f"{path} is not an encryption key of {KEY_BYTES} bytes", _HINT)
    return key


def _decoded(raw: bytes) -> bytes | None:
    if len(raw) == KEY_BYTES:
        return raw
    text = raw.strip()
    try:
        if len(text) == 2 * KEY_BYTES:
            return bytes.fromhex(text.decode("ascii"))
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return key if len(key) == KEY_BYTES else None
