"""A certificate and its key are two files, and who renews them replaces one after the other.

Whoever reads both in between has a new key and an old certificate. A gateway that starts just then must not stay away over
it: where the two do not belong together they are read again, for a second in all, and only then refused. What cannot be
read at all is refused at once, and so is a key with a passphrase, which OpenSSL would ask for on the terminal. It waits in
the thread that it is called in, which is never a running event loop's.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from os import PathLike
from typing import Final

_ATTEMPTS: Final = 11
_PAUSE_SECONDS: Final = 0.1
_MISMATCH: Final = "KEY_VALUES_MISMATCH"
NO_PASSPHRASE: Final = "write a copy without one: openssl pkey -in KEY -out NEW-KEY"  # noqa: S105 - a hint

_Path = str | PathLike[str]


class PassphraseWanted(Exception):
    """The key is encrypted, and nobody is there to type."""


def load_key_pair(
    context: ssl.SSLContext, certificate: _Path, key: _Path, pause: Callable[[float], None] = time.sleep
) -> None:
    """`context.load_cert_chain`, patiently: its `ssl.SSLError` and `OSError` once waiting does not help.

    `PassphraseWanted` for an encrypted key.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            context.load_cert_chain(certificate, key, _refuse_passphrase)
        except ssl.SSLError as error:
            if not is_mismatch(error) or attempt == _ATTEMPTS:
                raise
            pause(_PAUSE_SECONDS)
        else:
            return


def is_mismatch(error: ssl.SSLError) -> bool:
    """Whether OpenSSL says that the key is another certificate's."""
    return error.reason == _MISMATCH


def _refuse_passphrase() -> str:
    raise PassphraseWanted
