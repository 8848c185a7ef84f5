"""Key files: what is one, and what is said of what is none."""

from __future__ import annotations

import base64
import os
import stat
from pathlib import Path

import pytest

from edge_broker.errors import StoreError
from edge_broker.store.keys import credential_file, new_key, read_key

KEY = bytes(range(100, 132))


def write(path: Path, content: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(content)
    path.chmod(mode)
    return path


@pytest.mark.parametrize(
    "content",
    [KEY, KEY.hex().encode(), KEY.hex().upper().encode() + b"\n", base64.b64encode(KEY) + b"\n"],
    ids=["raw", "hex", "hex with a line's end", "base64"],
)
def test_a_key_in_each_form(tmp_path: Path, content: bytes) -> None:
    assert read_key(write(tmp_path / "key", content), tmp_path / "data") == KEY


@pytest.mark.parametrize("content", [b"", b"x", KEY[:31], KEY + b"x", b"z" * 64, base64.b64encode(KEY[:16])])
def test_what_is_no_key(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(StoreError, match="not an encryption key of 32 bytes") as caught:
        read_key(write(tmp_path / "key", content), tmp_path / "data")
    assert "store new-key" in caught.value.hint
    assert content == b"" or repr(content) not in str(caught.value)


def test_a_key_beside_the_data_is_refused_whatever_way_it_is_named(tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "keys").mkdir(parents=True)
    key = write(data / "keys" / "key", KEY)
    (tmp_path / "link").symlink_to(key)
    (tmp_path / "same-data").symlink_to(data)
    for path, directory in (
        (key, data),
        (tmp_path / "link", data),
        (tmp_path / "same-data" / "keys" / "key", data),
        (key, tmp_path / "same-data"),
    ):
        with pytest.raises(StoreError, match="inside the data directory"):
            read_key(path, directory)


def test_a_key_for_everybody_is_none(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="everybody can read") as caught:
        read_key(write(tmp_path / "key", KEY, 0o644), tmp_path / "data")
    assert "chmod 600" in caught.value.hint
    assert (
        read_key(write(tmp_path / "key", KEY, 0o640), tmp_path / "data") == KEY
    )  # root's, for the broker's group


def test_a_key_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot read the encryption key"):
        read_key(tmp_path / "key", tmp_path / "data")


def test_a_new_key_is_private_random_and_replaces_none(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        for name in ("one", "other"):
            new_key(tmp_path / name)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "one").stat().st_mode) == 0o600
    keys = [read_key(tmp_path / name, tmp_path / "data") for name in ("one", "other")]
    assert keys[0] != keys[1]
    with pytest.raises(StoreError, match="is there already"):
        new_key(tmp_path / "one")
    assert read_key(tmp_path / "one", tmp_path / "data") == keys[0]
    with pytest.raises(StoreError, match="cannot write"):
        new_key(tmp_path / "nowhere" / "key")


def test_a_credential_of_systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    with pytest.raises(StoreError, match="no credential store-key") as caught:
        credential_file("store-key")
    assert "LoadCredential=store-key" in caught.value.hint
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    write(tmp_path / "store-key", KEY, 0o400)
    assert read_key(credential_file("store-key"), tmp_path / "data") == KEY
