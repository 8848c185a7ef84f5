"""TLS to a real mosquitto: verified certificates, client certificates, and what is refused."""

import ssl
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from devices import BrokerUrlError, Device, Timing
from tests.devices.collector import Collector
from tests.devices.mosquitto import Mosquitto, wait_until
from tests.devices.scripted_broker import ScriptedBroker

QUICK = Timing(connect_timeout=5.0, reconnect_first=0.05, reconnect_longest=0.1)


class Authority:
    """A CA that signs certificates into files."""

    def __init__(self, directory: Path, name: str) -> None:
        directory.mkdir()
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.path = directory / "ca.pem"
        certificate = (
            self._builder(self._name, self._key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def sign(self, name: str, address: str | None = None) -> tuple[Path, Path]:
        """A certificate and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = self._builder(subject, key)
        if address is not None:
            names = x509.SubjectAlternativeName([x509.IPAddress(ip_address(address))])
            builder = builder.add_extension(names, critical=False)
        certificate_path, key_path = self._directory / f"{name}.pem", self._directory / f"{name}.key"
        certificate = builder.sign(self._key, hashes.SHA256())
        certificate_path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        key_path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return certificate_path, key_path

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=1))
        )


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca", "the house")


@pytest.fixture
def tls_mosquitto(tmp_path: Path, authority: Authority) -> Iterator[Mosquitto]:
    """TLS with client certificates on one port, plain on another for the collector."""
    certificate, key = authority.sign("broker", "127.0.0.1")
    broker = Mosquitto(
        tmp_path / "mosquitto",
        listener=(
            f"allow_anonymous true\ncafile {authority.path}\ncertfile {certificate}\nkeyfile {key}\n"
            "require_certificate true"
        ),
        beside=True,
    )
    broker.url = broker.url.replace("mqtt://", "mqtts://")
    yield broker.start()
    broker.stop()


def test_readings_and_commands_over_mutual_tls(
    tls_mosquitto: Mosquitto, authority: Authority, collect: Callable[..., Collector]
) -> None:
    collector = collect(tls_mosquitto.plain_port)
    certificate, key = authority.sign("porch")
    commands: list[bytes] = []
    with Device("porch", tls_mosquitto.url, ca=authority.path, certificate=certificate, key=key) as device:
        device.on_command(lambda command: commands.append(command.payload))
        device.publish_readings([{"value": value, "padding": "x" * 500} for value in range(500)])
        assert device.flush(20)
        collector.wait_for_sequences("porch", 500)
        for number in range(50):
            collector.publish("devices/porch/commands/count", str(number).encode())
        wait_until(lambda: len(commands) == 50, "the commands did not come")
    assert commands == [str(number).encode() for number in range(50)]


def test_what_tls_has_decrypted_is_not_left_lying(authority: Authority) -> None:
    certificate, key = authority.sign("broker", "127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    broker = ScriptedBroker(context)
    topic = b"devices/porch/commands/led"
    publish = bytes((0x30, 2 + len(topic) + 1 + 2, 0, len(topic))) + topic + b"\0on"
    broker.script.greeting = publish * 5  # six packets in one TLS record: the socket shows only the first
    with Device("porch", broker.url, ca=authority.path) as device:
        # No callback, so no subscription: an answer to that would wake the socket again.
        wait_until(lambda: device.stats.commands == 5, "the commands were left lying", timeout_seconds=5)
    broker.close()


def problem_of(device: Device) -> str:
    with device:
        device.publish_reading(1)
        wait_until(lambda: device.stats.problem is not None, "no problem was noticed")
        problem = device.stats.problem or ""
        assert device.stats.acknowledged == 0
        device.close(timeout_seconds=0)
    return problem


def test_a_certificate_of_an_unknown_authority_is_refused(
    tls_mosquitto: Mosquitto, authority: Authority
) -> None:
    certificate, key = authority.sign("porch")
    problem = problem_of(Device("porch", tls_mosquitto.url, certificate=certificate, key=key, timing=QUICK))
    assert "not trusted" in problem
    assert "CA" in problem


def test_a_certificate_for_another_name_is_refused(tls_mosquitto: Mosquitto, authority: Authority) -> None:
    certificate, key = authority.sign("porch")
    url = tls_mosquitto.url.replace("127.0.0.1", "localhost")
    problem = problem_of(
        Device("porch", url, ca=authority.path, certificate=certificate, key=key, timing=QUICK)
    )
    assert "localhost" in problem


def test_a_device_whose_certificate_is_refused_hears_of_it(
    tls_mosquitto: Mosquitto, authority: Authority, tmp_path: Path
) -> None:
    certificate, key = Authority(tmp_path / "stranger", "a stranger").sign("porch")
    problem = problem_of(
        Device("porch", tls_mosquitto.url, ca=authority.path, certificate=certificate, key=key, timing=QUICK)
    )
    assert "certificate" in problem


def test_the_files_are_read_anew_for_every_connection(
    tls_mosquitto: Mosquitto, authority: Authority, tmp_path: Path
) -> None:
    certificate, key = Authority(tmp_path / "stranger", "a stranger").sign("porch")
    with Device(
        "porch", tls_mosquitto.url, ca=authority.path, certificate=certificate, key=key, timing=QUICK
    ) as device:
        device.publish_reading(1)
        wait_until(lambda: device.stats.problem is not None, "no problem was noticed")
        for old, new in zip((certificate, key), authority.sign("porch"), strict=True):
            new.replace(old)
        assert device.flush(10)


@pytest.mark.parametrize("what", ["ca", "certificate"])
def test_files_that_are_missing_or_broken_are_named(tmp_path: Path, what: str) -> None:
    path = tmp_path / "file.pem"
    with pytest.raises(BrokerUrlError, match=r"file\.pem.*No such file"):
        Device("porch", "mqtts://127.0.0.1", **{what: path})
    path.write_text("not a certificate")
    with pytest.raises(BrokerUrlError, match=r"file\.pem"):
        Device("porch", "mqtts://127.0.0.1", **{what: path})
