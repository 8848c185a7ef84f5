"""A broker process whose certificates change under it: by rename, in place, half-written, broken, revoked while connected.

The clients are mosquitto's and paho's, with certificates as `edge-broker pki` makes them.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest

from devices.device import Device
from tests.integration.broker_process import until
from tests.integration.serving import Serving


class Gateway:
    """A CA, a broker that trusts it, and devices."""

    def __init__(self, folder: Path, *keys: str) -> None:
        self.folder = folder
        self.pki_folder = folder / "pki"
        self.pki("init")
        self.pki("issue-server", "localhost", "127.0.0.1")
        server = self.pki_folder / "servers" / "localhost"
        self.certificate, self.key = folder / "server.crt", folder / "server.key"
        self.denied = folder / "denied"
        self.denied.touch()
        for source, target in (
            (server / "certificate.pem", self.certificate),
            (server / "key.pem", self.key),
        ):
            shutil.copy(source, target)
        table = (
            f'transport = "tls"\nbind = "127.0.0.1:0"\ncertificate = "{self.certificate}"\nkey = "{self.key}"\n'
            f'client_ca = "{self.pki_folder}/ca.pem"\ncrl_files = ["{self.pki_folder}/crl.pem"]\n'
        )
        settings = f'[http]\nbind = "127.0.0.1:0"\n[security]\ndeny_file = "{self.denied}"\n'
        self.serving = Serving(folder, table + "\n".join(keys), settings=settings).start()

    @property
    def http(self) -> str:
        found = re.search(r"health and metrics on (\S+)", self.serving.log)
        assert found
        return found[1]

    @property
    def port(self) -> int:
        return self.serving.port_of(0)

    def pki(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "edge_broker", "pki", "--dir", str(self.pki_folder), *arguments]
        subprocess.run(command, check=True, capture_output=True, timeout=60)

    def device(self, name: str) -> Path:
        """Its bundle."""
        self.pki("issue-device", name, "--port", str(self.port))
        return self.pki_folder / "devices" / name

    def publish(self, bundle: Path, *, client_id: str = "") -> bool:
        """By mosquitto_pub, at QoS 1; whether that was acknowledged."""
        files = [f"--{option}={bundle / file}" for option, file in _FILES]
        command = ["mosquitto_pub", "-h", "localhost", "-p", str(self.port), *_split(files)]
        command += ["-i", client_id or f"{bundle.name}-pub", "-q", "1", "-t", "t", "-m", "21.5"]
        return subprocess.run(command, capture_output=True, timeout=30).returncode == 0

    def shown(self) -> str:
        """The serial number of the certificate that it shows now."""
        context = ssl.create_default_context(cafile=str(self.pki_folder / "ca.pem"))
        with (
            socket.create_connection(("127.0.0.1", self.port)) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as wrapped,
        ):
            return str((wrapped.getpeercert() or {})["serialNumber"]).lower()

    def problems(self) -> list[dict[str, str]]:
        try:
            answer = urllib.request.urlopen(f"{self.http}/healthz", timeout=10)
        except urllib.error.HTTPError as error:
            answer = error
        found: list[dict[str, str]] = json.loads(answer.read())["problems"]
        return found

    def metric(self, name: str) -> float:
        text = urllib.request.urlopen(f"{self.http}/metrics", timeout=10).read().decode()
        (line,) = [line for line in text.splitlines() if line.startswith(name)]
        return float(line.rpartition(" ")[2])

    def new_pair(self) -> tuple[bytes, bytes, str]:
        """Certificate, key and serial number of another certificate for the broker."""
        self.pki("issue-server", "localhost", "--renew")
        server = self.pki_folder / "servers" / "localhost"
        serial = json.loads((self.pki_folder / "issued.json").read_text())["certificates"][-1]["serial"]
        return (server / "certificate.pem").read_bytes(), (server / "key.pem").read_bytes(), serial


_FILES = (("cafile", "ca.pem"), ("cert", "certificate.pem"), ("key", "key.pem"))
_REFUSED = 'edge_broker_files_refused{files="certificates of mqtts://127.0.0.1:0"}'


def _split(options: list[str]) -> list[str]:
    return [part for option in options for part in option.split("=", 1)]


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    running = Gateway(tmp_path)
    yield running
    assert running.serving.stop() == 0


class Paho:
    """A client that stays connected, and does not come back by itself."""

    def __init__(self, gateway: Gateway, bundle: Path) -> None:
        self.client = paho.Client(
            paho.CallbackAPIVersion.VERSION2,
            bundle.name,
            protocol=paho.MQTTv5,
            reconnect_on_failure=False,
        )
        self.client.tls_set(*(str(bundle / file) for _, file in _FILES))
        self.reasons: list[Any] = []
        self.client.on_disconnect = lambda client, data, flags, reason, properties: self.reasons.append(
            reason
        )
        self.client.connect("localhost", gateway.port)
        self.client.loop_start()
        until(self.client.is_connected, "it does not connect")

    def stop(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@pytest.mark.needs("mosquitto_pub")
def test_revoked_while_connected(gateway: Gateway) -> None:
    one, two = gateway.device("sensor-1"), gateway.device("sensor-2")
    assert gateway.publish(one)
    revoked, other = Paho(gateway, one), Paho(gateway, two)
    gateway.pki("revoke", "sensor-1")
    until(lambda: revoked.reasons, "it was not ended")
    assert str(revoked.reasons[0]) == "Not authorized"
    until(lambda: "sensor-1 from 127.0.0.1" in gateway.serving.log, "it was not told")
    until(lambda: "its certificate was revoked on" in gateway.serving.log, "it was not told")
    assert other.client.is_connected()
    assert not gateway.publish(one), "and it does not come back"
    until(
        lambda: "the client's certificate is refused: certificate revoked" in gateway.serving.log,
        "it was not told",
    )
    assert gateway.publish(two)
    assert other.reasons == []
    other.stop()
    revoked.stop()


@pytest.mark.needs("mosquitto_pub")
def test_denied_while_connected_by_name_and_by_serial(gateway: Gateway) -> None:
    bundles = [gateway.device(f"sensor-{number}") for number in (1, 2, 3)]
    clients = [Paho(gateway, bundle) for bundle in bundles]
    issued = json.loads((gateway.pki_folder / "issued.json").read_text())["certificates"]
    serial = next(found["serial"] for found in issued if found["name"] == "sensor-2")
    gateway.denied.write_text(f"# stolen\nidentity sensor-1\nserial {serial}\n")
    until(lambda: clients[0].reasons and clients[1].reasons, "they were not ended")
    assert clients[2].reasons == []
    assert [gateway.publish(bundle) for bundle in bundles] == [False, False, True]
    gateway.denied.write_text("idendity sensor-3\n")
    until(gateway.problems, "the mistake is not shown")
    (problem,) = gateway.problems()
    assert problem["component"] == "deny list"
    assert "line 1: says neither identity nor serial" in problem["problem"]
    assert [gateway.publish(bundle) for bundle in bundles] == [False, False, True], "the old list counts"
    gateway.denied.write_text("")
    until(lambda: not gateway.problems(), "it was mended")
    assert gateway.publish(bundles[0])
    for client in clients:
        client.stop()


def test_a_new_certificate_by_rename_and_in_place(gateway: Gateway) -> None:
    client = Paho(gateway, gateway.device("sensor-1"))
    certificate, key, serial = gateway.new_pair()
    for path, data in ((gateway.key, key), (gateway.certificate, certificate)):
        new = path.with_suffix(".new")
        new.write_bytes(data)
        os.replace(new, path)
    until(lambda: gateway.shown().lstrip("0") == serial, "not taken after a rename")
    certificate, key, serial = gateway.new_pair()
    gateway.key.write_bytes(key)
    gateway.certificate.write_bytes(certificate)
    until(lambda: gateway.shown().lstrip("0") == serial, "not taken after writing in place")
    assert client.client.is_connected()
    assert client.reasons == []
    assert gateway.problems() == []
    client.stop()


def test_a_pair_that_does_not_fit_yet_and_a_broken_file_are_refused_until_they_are_mended(
    gateway: Gateway,
) -> None:
    client = Paho(gateway, gateway.device("sensor-1"))
    before = gateway.shown()
    certificate, key, serial = gateway.new_pair()
    gateway.key.write_bytes(key)
    until(lambda: gateway.metric(_REFUSED) == 1, "half a pair is not refused")
    assert gateway.shown() == before
    (problem,) = gateway.problems()
    assert f"{gateway.key}: is not the key of {gateway.certificate}" in problem["problem"]
    gateway.certificate.write_bytes(certificate[: len(certificate) // 2])
    until(lambda: "the new file is refused" in gateway.serving.log)
    (problem,) = gateway.problems()
    assert problem["component"] == "certificates of mqtts://127.0.0.1:0"
    assert "refused" in problem["problem"]
    assert gateway.shown() == before
    gateway.certificate.write_bytes(certificate)
    until(lambda: gateway.metric(_REFUSED) == 0, "it was mended")
    assert gateway.shown().lstrip("0") == serial
    assert gateway.problems() == []
    assert client.reasons == []
    client.stop()


def test_a_signal_takes_it_at_once(gateway: Gateway) -> None:
    """Files and signal come together: it does not matter who is first."""
    certificate, key, serial = gateway.new_pair()
    gateway.key.write_bytes(key)
    gateway.certificate.write_bytes(certificate)
    os.kill(gateway.serving.pid, signal.SIGHUP)
    until(lambda: "reloaded: what is in the files" in gateway.serving.log, "it does not reload")
    assert gateway.shown().lstrip("0") == serial


def test_the_sdk_takes_a_bundle_as_it_is(gateway: Gateway) -> None:
    with Device.from_bundle(gateway.device("sensor-1")) as device:
        device.publish_reading({"temperature_celsius": 21.5})
        assert device.flush(20), device.stats.problem
        assert device.stats.acknowledged == 1
