"""Encryption at rest: what stands in rows about messages, to and from bytes that say nothing without a key.

One seam: whatever writes rows passes them through `seal_…` last, whatever reads them through `open_…` first, and neither
the format of messages nor the queries know of it. A sealed body is a mark, the key's id, a nonce, and what AES-256-GCM
makes of the body; a body that was written without a key begins with two zero bytes, so both can stand side by side in one
table, and a key can be given, changed or taken away over a store that is in use.

- The row's place (table, queue and numbers, session or topic) is authenticated with it: a row that was put in another's
  place is damaged.
- Nonces are 96 random bits. Counting would take fewer, but a count goes back where an old copy of the store is put in
  place, and the same nonce twice gives both messages away. After 2^32 rows two are the same with a chance of 2^-33.
- The checksum is over the sealed body: recovery needs no key, and damage is told from a wrong key.
- A retained message's topic is its row's key; what stands there is the topic's HMAC.
- A key that is not there is never damage: `MissingKey` is raised, and nothing is changed.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from edge_broker.errors import StoreError
from edge_broker.store.rows import Row, checksum, sealed
from edge_broker.store.segment import SegmentRow, is_intact, segment_crc

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

MARK: Final = b"\xeb\x45\x01"
KEY_ID_BYTES: Final = 8
KEY_NAME: Final = "key:"
"""What the names in `meta` begin with that say which keys the store was written with; the id's digits follow."""

_NONCE_BYTES: Final = 12
_BODY_AT: Final = len(MARK) + KEY_ID_BYTES + _NONCE_BYTES
_PLACE: Final = struct.Struct("<qqqq")
_WILL: Final = 6
"""Where a session's row has its will."""


class MissingKey(StoreError):
    """Something is encrypted with a key that was not given."""


class _Key:
    """One key: for bodies, and for topics."""

    def __init__(self, key: bytes) -> None:
        import hashlib  # memory that a store without encryption keeps, as the next

        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self.id = hashlib.sha256(b"edge-broker store key id\0" + key).digest()[:KEY_ID_BYTES]
        self.cipher: AESGCM = AESGCM(key)
        self._topics = hashlib.sha256(b"edge-broker store topics\0" + key).digest()

    def topic(self, topic: str) -> str:
        import hmac

        digest = hmac.digest(self._topics, topic.encode("utf-8", "surrogatepass"), "sha256")
        return f"\0{digest.hex()}"  # no topic has a zero character [MQTT-4.7.3-2]


class Vault:
    """The keys of a store: `key` for what is written, None to write it plainly; `old_keys` beside it to read."""

    def __init__(self, key: bytes | None = None, old_keys: Iterable[bytes] = ()) -> None:
        self._key = None if key is None else _Key(key)
        keys = [] if self._key is None else [self._key]
        self._keys: dict[bytes, _Key] = {one.id: one for one in [*keys, *map(_Key, old_keys)]}

    @property
    def key_id(self) -> str | None:
        """The id of the key that is written with."""
        return None if self._key is None else self._key.id.hex()

    @property
    def has_keys(self) -> bool:
        """Whether there is any."""
        return bool(self._keys)

    def check(self, meta: Mapping[str, int]) -> None:
        """`MissingKey` if the store whose numbers `meta` are was written with a key that was not given."""
        for name in meta:
            if name.startswith(KEY_NAME) and name not in {f"{KEY_NAME}{one.hex()}" for one in self._keys}:
                raise self._missing(name.removeprefix(KEY_NAME))

    def new_meta(self, meta: Mapping[str, int]) -> dict[str, int]:
        """What is to be in `meta` beside that, to say which key is written with."""
        name = f"{KEY_NAME}{self.key_id}"
        return {} if self._key is None or name in meta else {name: 1}

    # ---- rows to be written

    def seal_segments(self, segments: list[SegmentRow]) -> list[SegmentRow]:
        """Rows of `segment`."""
        return segments if self._key is None else [self._seal_segment(row) for row in segments]

    def _seal_segment(self, row: SegmentRow) -> SegmentRow:
        queue_id, first, last, count, _, body = row
        if not body:
            return row
        body = self._seal(_segment_place(row), body)
        return queue_id, first, last, count, segment_crc(queue_id, first, last, count, body), body

    def seal_session(self, row: Row) -> Row:
        """A row of `session`: its will."""
        if self._key is None or row[_WILL] is None:
            return row
        return sealed(*row[:_WILL], self._seal(_will_place(row), row[_WILL]))

    def seal_retained(self, row: Row) -> Row:
        """A row of `retained`: topic, checksum, body."""
        if self._key is None:
            return row
        topic = self._key.topic(row[0])
        body = self._seal(_retained_place(topic), row[2])
        return topic, checksum(topic, body), body

    def retained_keys(self, topic: str) -> list[str]:
        """Under what a topic's retained message may stand, by whichever key, or none, it was written."""
        return [topic, *(key.topic(topic) for key in self._keys.values())]

    # ---- rows that were read

    def open_segment(self, row: SegmentRow) -> SegmentRow:
        """A row of `segment` as it was before it was sealed; one that is not intact as it is. `MissingKey`."""
        if not _is_sealed(row[5]) or not is_intact(row):
            return row
        queue_id, first, last, count, _, body = row
        opened = self._open(_segment_place(row), body)
        if opened is None:
            return queue_id, first, last, count, -1, body
        return queue_id, first, last, count, segment_crc(queue_id, first, last, count, opened), opened

    def open_session(self, row: Row) -> Row:
        """A row of `session`, likewise."""
        if not _is_sealed(row[_WILL]) or checksum(*row[:-1]) != row[-1]:
            return row
        will = self._open(_will_place(row), row[_WILL])
        return (*row[:-1], -1) if will is None else sealed(*row[:_WILL], will)

    def open_retained(self, row: Row) -> Row:
        """A row of `retained`, likewise; its topic stays what it is in the table."""
        topic, crc, body = row
        if not _is_sealed(body) or checksum(topic, body) != crc:
            return row
        opened = self._open(_retained_place(topic), body)
        return (topic, -1, body) if opened is None else (topic, checksum(topic, opened), opened)

    # ---- bodies

    def _seal(self, place: bytes, body: bytes) -> bytes:
        assert self._key is not None
        nonce = os.urandom(_NONCE_BYTES)
        return b"".join((MARK, self._key.id, nonce, self._key.cipher.encrypt(nonce, body, place)))

    def _open(self, place: bytes, body: bytes) -> bytes | None:
        """What was sealed; None if it, or its place, is not what it was."""
        from cryptography.exceptions import InvalidTag

        key_id = body[len(MARK) : len(MARK) + KEY_ID_BYTES]
        key = self._keys.get(key_id)
        if key is None:
            raise self._missing(key_id.hex())
        try:
            return key.cipher.decrypt(body[_BODY_AT - _NONCE_BYTES : _BODY_AT], body[_BODY_AT:], place)
        except (InvalidTag, ValueError):
            return None

    def _missing(self, key_id: str) -> MissingKey:
        if not self._keys:
            return MissingKey(
                "open",
                f"the store is encrypted (key {key_id}), and no key was given",
                "name its key: encryption_key_file or encryption_key_credential in [store], or --key-file",
            )
        given = ", ".join(one.hex() for one in self._keys)
        return MissingKey(
            "open",
            f"the store was encrypted with another key ({key_id}; given: {given})",
            "give that key, or list it in old_encryption_key_files beside the new one",
        )


def key_ids(bodies: Sequence[object]) -> set[str]:
    """The ids of the keys that these bodies, or beginnings of bodies, were sealed with."""
    end = len(MARK) + KEY_ID_BYTES
    return {body[len(MARK) : end].hex() for body in bodies if _is_sealed(body) and isinstance(body, bytes)}


def _is_sealed(body: object) -> bool:
    return type(body) is bytes and body.startswith(MARK) and len(body) >= len(MARK) + KEY_ID_BYTES


def _segment_place(row: SegmentRow) -> bytes:
    return b"segment\0" + _PLACE.pack(*row[:4])


def _will_place(row: Row) -> bytes:
    return b"will\0%d" % row[0]


def _retained_place(topic: str) -> bytes:
    return b"retained\0" + topic.encode("utf-8", "surrogatepass")
