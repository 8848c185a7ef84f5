"""What the environment decides: the default data directory, and the few variables that win over the file.

    EDGE_BROKER_DATA_DIR     data_dir
    EDGE_BROKER_LOG_LEVEL    log.level
    EDGE_BROKER_LOOP         runtime.loop

An empty variable counts as not set.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from edge_broker.errors import ConfigError

OVERRIDES: Final = {
    "EDGE_BROKER_DATA_DIR": "data_dir",
    "EDGE_BROKER_LOG_LEVEL": "log.level",
    "EDGE_BROKER_LOOP": "runtime.loop",
}


def default_data_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """Where systemd says, where XDG says, or under the home directory; `ConfigError` where there is none of them."""
    from_systemd = environ.get("STATE_DIRECTORY", "").partition(":")[0]
    if from_systemd:
        return Path(from_systemd)
    from_xdg = environ.get("XDG_STATE_HOME", "")
    if from_xdg.startswith("/"):  # XDG: a relative path is to be ignored
        return Path(from_xdg, "edge-broker")
    home = environ.get("HOME", "") or os.path.expanduser("~")
    if not home.startswith("/"):
        raise ConfigError(
            "data_dir",
            "there is no home directory to keep data in",
            'write data_dir = "/a/path" or set $HOME',
        )
    return Path(home, ".local", "state", "edge-broker")
