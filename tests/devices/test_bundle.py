"""A bundle's `device.toml`: what it says is where the device connects, and what is wrong with it is told."""

from pathlib import Path

import pytest

from devices.bundle import read_bundle
from devices.device import Device
from devices.errors import BrokerUrlError
from tests.config.certificates import write_pair

SETTINGS = {
    "host": '"gw.local"',
    "port": "8884",
    "client_id": '"sensor-1"',
    "ca": '"ca.pem"',
    "certificate": '"certificate.pem"',
    "key": '"key.pem"',
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    certificate, key = write_pair(tmp_path, "sensor-1")
    certificate.rename(tmp_path / "certificate.pem")
    key.rename(tmp_path / "key.pem")
    (tmp_path / "ca.pem").write_bytes((tmp_path / "certificate.pem").read_bytes())
    return write(tmp_path, SETTINGS)


def write(folder: Path, settings: dict[str, str]) -> Path:
    (folder / "device.toml").write_text("".join(f"{key} = {value}\n" for key, value in settings.items()))
    return folder


def test_a_folder_or_its_file(folder: Path) -> None:
    for path in (folder, folder / "device.toml", str(folder)):
        bundle = read_bundle(path)
        assert bundle.name == "sensor-1"
        assert str(bundle.broker) == "mqtts://gw.local:8884"
        assert bundle.broker.certificate == folder / "certificate.pem"


def test_an_address_of_version_6(folder: Path) -> None:
    assert (
        str(read_bundle(write(folder, {**SETTINGS, "host": '"fd00::1"'})).broker) == "mqtts://[fd00::1]:8884"
    )


def test_a_device_out_of_it(folder: Path) -> None:
    device = Device.from_bundle(folder, topic_prefix="sensors")
    try:
        assert device.name == "sensor-1"
        assert device.readings_topic == "sensors/sensor-1/readings"
    finally:
        device.close(0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"host": "7"}, "lacks host"),
        ({"port": '"8883"'}, "lacks port"),
        ({"key": '"gone.pem"'}, "cannot be used"),
        ({"host": "nothing"}, "is not TOML"),
    ],
)
def test_what_is_wrong_is_said(folder: Path, change: dict[str, str], said: str) -> None:
    with pytest.raises(BrokerUrlError, match=said):
        read_bundle(write(folder, {**SETTINGS, **change}))


def test_a_folder_without_it(tmp_path: Path) -> None:
    with pytest.raises(BrokerUrlError, match="cannot be read"):
        read_bundle(tmp_path)
