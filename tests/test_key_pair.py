"""A certificate and its key, read while they are being renewed one after the other."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

import pytest

from edge_broker.config.loading import load
from edge_broker.key_pair import is_mismatch, load_key_pair
from tests.bridge.svids import TrustDomain


class Renewed:
    """A pair of which the key is the new one already; `seconds` of pauses later the certificate is too."""

    def __init__(self, directory: Path, seconds: float) -> None:
        domain = TrustDomain("site.example")
        self.certificate, self.key = domain.issue("/gateway").write(directory, "gateway")
        self._new, new_key = domain.issue("/gateway").write(directory, "new")
        os.replace(new_key, self.key)
        self._seconds = seconds
        self.paused = 0.0

    def pause(self, seconds: float) -> None:
        self.paused += seconds
        if self.paused >= self._seconds and self._new.exists():
            os.replace(self._new, self.certificate)

    def load(self) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        load_key_pair(context, self.certificate, self.key, self.pause)


def test_a_pair_that_fits_is_taken_at_once(tmp_path: Path) -> None:
    pair = Renewed(tmp_path, 0)
    pair.pause(0)
    pair.load()
    assert pair.paused == 0


def test_a_pair_that_fits_a_moment_later_is_waited_for(tmp_path: Path) -> None:
    pair = Renewed(tmp_path, 0.5)
    pair.load()
    assert 0.5 <= pair.paused < 0.7


def test_a_pair_that_never_fits_is_refused_after_a_second(tmp_path: Path) -> None:
    pair = Renewed(tmp_path, float("inf"))
    with pytest.raises(ssl.SSLError) as raised:
        pair.load()
    assert is_mismatch(raised.value)
    assert pair.paused == pytest.approx(1.0)


def test_what_is_no_pair_at_all_is_refused_at_once(tmp_path: Path) -> None:
    pair = Renewed(tmp_path, 0)
    pair.key.write_text("torn")
    with pytest.raises(ssl.SSLError) as raised:
        pair.load()
    assert not is_mismatch(raised.value)
    assert pair.paused == 0
    pair.key.unlink()
    with pytest.raises(FileNotFoundError):
        pair.load()


def test_a_configuration_that_is_read_in_the_middle_of_a_renewal_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = Renewed(tmp_path, 0.3)
    monkeypatch.setattr(load_key_pair, "__defaults__", (pair.pause,))
    config = tmp_path / "edge-broker.toml"
    config.write_text(
        f'[[listeners]]\nbind = "127.0.0.1:0"\ntransport = "tls"\n'
        f'certificate = "{pair.certificate}"\nkey = "{pair.key}"\n'
    )
    assert load(config).listeners[0].certificate == pair.certificate
    assert pair.paused > 0
