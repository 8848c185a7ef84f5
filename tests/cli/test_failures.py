"""Why it did not start: one sentence, with what to do."""

from __future__ import annotations

import errno
import os

import pytest

from edge_broker.cli.failures import explain_start_failure
from edge_broker.config.http import HttpConfig
from edge_broker.config.listeners import ListenerConfig
from edge_broker.config.model import Config
from edge_broker.errors import StoreError

ONE = Config(listeners=(ListenerConfig(bind="127.0.0.1:1883"),))
TWO = Config(
    listeners=(ListenerConfig(bind="127.0.0.1:1883"), ListenerConfig(bind="[::1]:1883")),
    http=HttpConfig(bind="127.0.0.1:8080"),
)


def failure(number: int, filename: str | None = None) -> OSError:
    return (
        OSError(number, os.strerror(number), filename) if filename else OSError(number, os.strerror(number))
    )


@pytest.mark.parametrize(
    ("error", "config", "said"),
    [
        (failure(errno.EADDRINUSE), ONE, "127.0.0.1:1883 is in use (stop the program that listens there"),
        (failure(errno.EADDRINUSE), TWO, "one of 127.0.0.1:1883, [::1]:1883, 127.0.0.1:8080 is in use"),
        (
            OSError(
                errno.EADDRINUSE, "error while attempting to bind on address ('::1', 1883, 0, 0): in use"
            ),
            TWO,
            "[::1]:1883 is in use",
        ),
        (
            failure(errno.EADDRINUSE, "mqtt://[::1]:1883"),
            TWO,
            "mqtt://[::1]:1883 is in use (stop the program",
        ),
        (failure(errno.EADDRNOTAVAIL), ONE, "127.0.0.1:1883 is no address of this machine (change its bind"),
        (failure(errno.EACCES), ONE, "127.0.0.1:1883 may not be used (ports below 1024 need a privilege"),
        (failure(errno.EACCES, "/data"), ONE, "/data: Permission denied (the user that runs the broker"),
        (failure(errno.EMFILE), ONE, "Too many open files (listening on 127.0.0.1:1883)"),
        (
            StoreError("open", "the disk is full", "free some space"),
            ONE,
            "open: the disk is full (free some space)",
        ),
    ],
)
def test_each_failure_says_what_to_do(error: OSError | StoreError, config: Config, said: str) -> None:
    assert explain_start_failure(error, config).startswith(said)
