"""Output into files: a line of JSON or an item of CBOR per message, appended and synced; how far, is in the transaction.

Whatever stands behind the committed length after a crash was never committed, comes again from the cluster, and is cut
off. A file that is large enough is followed by the next; files that are complete are anybody's to take away. Where the
files are not what the database remembers, nothing is overwritten: a new file begins.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import cbor2
import msgspec

from bridge.envelope import Enclosed, Envelope
from bridge.ingest.database import read_fact, transaction, write_fact
from bridge.ingest.property_names import named_properties
from edge_broker.errors import StoreError

log: Final = logging.getLogger("bridge.ingest")

_SUFFIXES: Final = {"json": "jsonl", "cbor": "cborseq"}
_NAME: Final = re.compile(r"messages-(\d{6,})\.(?:jsonl|cborseq)")
_WRITE_BYTES: Final = 256 << 10
_MESSAGES_AT_ONCE: Final = 1_000
_KNOWN_BLOCKS: Final = 1_000
_LONGEST_KNOWN_BLOCK: Final = 512


class _Position(msgspec.Struct):
    """How far the output is: the file's number and its length in bytes."""

    number: int
    length: int


class FileSink:
    """Files in `directory`, named `messages-000001.jsonl` and so on."""

    already_there = 0

    def __init__(self, directory: Path, form: Literal["json", "cbor"], rotate_bytes: int) -> None:
        self._directory = directory
        self._suffix = _SUFFIXES[form]
        self._encode: Callable[[Envelope, Sequence[Enclosed], float], bytes]
        self._encode = JsonLines().encode if form == "json" else _CborItems().encode
        self._rotate_bytes = rotate_bytes
        self._descriptor = -1
        self._position = _Position(0, 0)
        self._dirty = False
        self._buffer: list[bytes] = []
        self._buffered_bytes = 0

    def recover(self, connection: sqlite3.Connection) -> None:
        """Open the file that was written last and cut off what was not committed."""
        self.close()
        self._directory.mkdir(parents=True, exist_ok=True)
        position = read_fact(connection, "file", _Position)
        if position is None:
            self._begin_anew(connection, self._highest() + 1)
            return
        self._remove_uncommitted(position.number)
        path = self._path(position.number)
        size = path.stat().st_size if path.exists() else -1
        if size < position.length:
            log.warning(
                "%s %s, and %d bytes of it were committed: a new file follows (if nobody took it away, look at the disk)",
                path,
                "is gone" if size < 0 else f"has {size} bytes",
                position.length,
            )
            self._begin_anew(connection, position.number + 1)
            return
        self._open(position.number)
        if size > position.length:
            os.ftruncate(self._descriptor, position.length)
            os.fsync(self._descriptor)
        self._position = position

    def write(self, connection: sqlite3.Connection, run: Envelope, received_at: float) -> None:
        """Append the messages of `run`."""
        if not self._dirty:
            self._dirty = True
            if self._position.length >= self._rotate_bytes:
                os.close(self._descriptor)
                self._descriptor = -1
                self._open(self._position.number + 1)
                self._position = _Position(self._position.number + 1, 0)
        messages = run.messages
        for at in range(0, len(messages), _MESSAGES_AT_ONCE):
            part = messages[at : at + _MESSAGES_AT_ONCE] if len(messages) > _MESSAGES_AT_ONCE else messages
            self._append(self._encode(run, part, received_at))

    def _append(self, data: bytes) -> None:
        self._buffer.append(data)
        self._buffered_bytes += len(data)
        if self._buffered_bytes >= _WRITE_BYTES:
            self._write_buffer()

    def _write_buffer(self) -> None:
        rest = memoryview(b"".join(self._buffer))
        self._position.length += len(rest)
        self._buffer.clear()
        self._buffered_bytes = 0
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]

    def sync(self) -> None:
        """One sync for all of the batch."""
        if self._dirty:
            self._write_buffer()
            os.fdatasync(self._descriptor)

    def commit(self, connection: sqlite3.Connection) -> None:
        """Note how far it is."""
        if self._dirty:
            write_fact(connection, "file", self._position)
            self._dirty = False

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        self._dirty = False
        self._buffer.clear()
        self._buffered_bytes = 0

    # ---- files

    def _path(self, number: int) -> Path:
        return self._directory / f"messages-{number:06}.{self._suffix}"

    def _open(self, number: int) -> None:
        """Open a file to append to, made if it is not there; the directory knows of it for good."""
        self._descriptor = os.open(
            self._path(number), os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640
        )
        directory = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def _begin_anew(self, connection: sqlite3.Connection, number: int) -> None:
        if self._path(number).exists():
            raise StoreError(
                "open", f"{self._path(number)} is not ours", "move it away, or choose another directory"
            )
        self._open(number)
        self._position = _Position(number, 0)
        with transaction(connection):
            write_fact(connection, "file", self._position)

    def _remove_uncommitted(self, number: int) -> None:
        """The next file, where a crash came before its first commit; there can be no more than that one."""
        if self._highest() > number + 1:
            raise StoreError(
                "open",
                f"{self._directory} has files that this database does not know of, newer than number {number}",
                "was an old copy of ingest.db put back? Move those files away, or begin with another data_dir",
            )
        with contextlib.suppress(FileNotFoundError):
            self._path(number + 1).unlink()

    def _highest(self) -> int:
        found = [_NAME.fullmatch(path.name) for path in self._directory.iterdir()]
        return max((int(match[1]) for match in found if match), default=0)


class _Line(msgspec.Struct, omit_defaults=True):
    """One message as JSON. `payload` where it is UTF-8, else `payload_base64`."""

    received_at: float
    topic: str
    gateway: str = ""
    lane: str = ""
    epoch: int = -1
    sequence: int = -1
    qos: int = 0
    retain: bool = False
    properties: msgspec.Raw | None = None
    payload: str | None = None
    payload_base64: bytes | None = None


class JsonLines:
    """Messages as lines of JSON; what their properties look like is remembered."""

    def __init__(self) -> None:
        self._encoder = msgspec.json.Encoder()
        self._blocks: dict[bytes, msgspec.Raw | None] = {b"\0": None}

    def encode(self, run: Envelope, messages: Sequence[Enclosed], received_at: float) -> bytes:
        """A line for each of `messages`, which are of `run`."""
        try:
            lines = [
                _Line(
                    received_at,
                    message.topic,
                    run.gateway,
                    run.lane,
                    run.epoch,
                    message.sequence,
                    message.qos,
                    message.retain,
                    self._properties(message.property_block),
                    message.payload.decode(),
                )
                for message in messages
            ]
        except UnicodeDecodeError:
            lines = [self._line(run, message, received_at) for message in messages]
        return self._encoder.encode_lines(lines)

    def _line(self, run: Envelope, message: Enclosed, received_at: float) -> _Line:
        """The same for messages among which one is no text."""
        text, data = None, None
        try:
            text = message.payload.decode()
        except UnicodeDecodeError:
            data = message.payload
        return _Line(
            received_at,
            message.topic,
            run.gateway,
            run.lane,
            run.epoch,
            message.sequence,
            message.qos,
            message.retain,
            self._properties(message.property_block),
            text,
            data,
        )

    def _properties(self, block: bytes) -> msgspec.Raw | None:
        try:
            return self._blocks[block]
        except KeyError:
            encoded = msgspec.Raw(self._encoder.encode(named_properties(block)))
        if len(block) <= _LONGEST_KNOWN_BLOCK:
            if len(self._blocks) >= _KNOWN_BLOCKS:
                self._blocks = {b"\0": None}
            self._blocks[block] = encoded
        return encoded


class _CborItems:
    """Messages as CBOR maps, one behind the other [RFC 8742]."""

    def encode(self, run: Envelope, messages: Sequence[Enclosed], received_at: float) -> bytes:
        """An item for each of `messages`, which are of `run`."""
        origin = {} if run.epoch < 0 else {"gateway": run.gateway, "lane": run.lane, "epoch": run.epoch}
        return b"".join([cbor2.dumps(self._item(origin, message, received_at)) for message in messages])

    def _item(self, origin: dict[str, Any], message: Enclosed, received_at: float) -> dict[str, Any]:
        item = {"received_at": received_at, "topic": message.topic, **origin}
        if origin:
            item["sequence"] = message.sequence
        item |= {"qos": message.qos, "retain": message.retain, "payload": message.payload}
        if message.property_block != b"\0":
            item["properties"] = named_properties(message.property_block)
        return item
