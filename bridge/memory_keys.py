"""A private key into an `ssl.SSLContext` without ever being in a file.

A context takes certificates and keys from files alone. So each goes through a pipe, which OpenSSL opens by its name under
/proc/self/fd: what is in a pipe is in the kernel's memory and, unlike a memory file's, never swapped out. What OpenSSL
and this process then hold in memory is as safe from a disk as the machine's swap is.
"""

from __future__ import annotations

import errno
import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_PIPE_BYTES: Final = 64 << 10
"""What a pipe takes while nobody reads."""


def load_pair(context: ssl.SSLContext, certificates: bytes, key: bytes) -> None:
    """Give `context` a chain, leaf first, and the leaf's key, both PEM. `ssl.SSLError` where they will not do."""
    with _named(certificates) as certificate_path, _named(key) as key_path:
        try:
            context.load_cert_chain(certificate_path, key_path)
        except OSError as error:
            if (
                error.errno != errno.ESPIPE
            ):  # OpenSSL's own words are lost where it tried to seek in a pipe before
                raise
            raise ssl.SSLError("the key is not the certificate's, or one of them is not PEM") from None


@contextmanager
def _named(data: bytes) -> Iterator[str]:
    """A path from which `data` can be read once."""
    if len(data) > _PIPE_BYTES:
        raise ssl.SSLError(f"a certificate chain of {len(data)} bytes is too long")
    reading, writing = os.pipe()
    try:
        try:
            os.write(writing, data)
        finally:
            os.close(writing)
        yield f"/proc/self/fd/{reading}"
    finally:
        os.close(reading)
