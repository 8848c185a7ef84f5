"""A broker with one bridge and nothing to do: its memory, its CPU, and what idle connections add.

Two fresh processes, because memory that closed connections gave back would hide what the next ones need: one for
plain connections, one for TLS.
"""

import datetime
import ipaddress
import ssl
import time
from collections.abc import Callable
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from benchmarks import process
from benchmarks.brokers import Certificate, RunningBroker
from benchmarks.figures import Figures
from benchmarks.links import Link

SETTLE_SECONDS = 1.0  # after the start, and after the last connection: what is deferred has happened


def measure_plain(broker: RunningBroker, version: int, seconds: float, connections: int) -> Figures:
    time.sleep(SETTLE_SECONDS)
    meter = process.Meter(broker.pid)
    time.sleep(seconds)
    interval = meter.stop()
    idle = process.memory(broker.pid)
    added = _added_mb(broker, connections, lambda name: Link(broker.address, name, version))
    return {
        "idle_resident_mb": idle.resident_mb,
        "idle_cpu_percent": interval.broker_cpu_seconds / interval.seconds * 100,
        "others_busy_percent": interval.others_cpu_seconds / interval.seconds * 100,
        "connections": connections,
        "connections_added_mb": added,
    }


def measure_tls(broker: RunningBroker, version: int, connections: int, certificate: Certificate) -> Figures:
    """The clients verify the broker's certificate; they have none of their own."""
    context = ssl.create_default_context(cafile=str(certificate.certificate))
    time.sleep(SETTLE_SECONDS)
    added = _added_mb(broker, connections, lambda name: Link(broker.tls_address, name, version, tls=context))
    return {"tls_connections": connections, "tls_connections_added_mb": added}


def _added_mb(broker: RunningBroker, connections: int, connect: Callable[[str], Link]) -> float:
    """How much the broker's resident memory grows when so many clients connect and stay."""
    before = process.memory(broker.pid).resident_mb
    links: list[Link] = []
    try:
        links.extend(connect(f"idle-{number:05d}") for number in range(connections))
        time.sleep(SETTLE_SECONDS)
        return process.memory(broker.pid).resident_mb - before
    finally:
        for link in links:
            link.close()


def make_certificate(directory: Path) -> Certificate:
    """A self-signed certificate for loopback, on the P-256 curve."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "benchmark broker")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = Certificate(directory / "broker.pem", directory / "broker.key")
    paths.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    paths.key.chmod(0o600)
    return paths
