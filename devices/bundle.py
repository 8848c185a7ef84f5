"""A device bundle: a folder with all that a device needs to reach its broker, as `edge-broker pki issue-device` makes it.

`device.toml` in it says host, port, client_id, and the files ca, certificate and key; paths start at the folder. Any MQTT
client can use these files as they are; this reads them for the SDK.
"""

import tomllib
from pathlib import Path
from typing import NamedTuple

from devices.address import BrokerAddress, parse_broker_url
from devices.errors import BrokerUrlError

_TEXTS = ("host", "client_id", "ca", "certificate", "key")


class Bundle(NamedTuple):
    """The device's name, which is its client identifier too, and where its broker is."""

    name: str
    broker: BrokerAddress


def read_bundle(path: Path | str) -> Bundle:
    """The bundle in a folder, or the `device.toml` itself; BrokerUrlError says what is wrong with it."""
    file = Path(path)
    if file.is_dir():
        file = file / "device.toml"
    try:
        settings = tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        raise BrokerUrlError(f"{file} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise BrokerUrlError(f"{file} is not TOML: {error}") from error
    missing = [key for key in _TEXTS if not isinstance(settings.get(key), str)]
    port = settings.get("port", 8883)
    if missing or not isinstance(port, int):
        raise BrokerUrlError(
            f"{file} lacks {', '.join([*missing, *([] if isinstance(port, int) else ['port'])])}"
        )
    host = str(settings["host"])
    address = parse_broker_url(
        f"mqtts://[{host}]:{port}" if ":" in host else f"mqtts://{host}:{port}",
        ca=file.parent / settings["ca"],
        certificate=file.parent / settings["certificate"],
        key=file.parent / settings["key"],
    )
    return Bundle(settings["client_id"], address)
