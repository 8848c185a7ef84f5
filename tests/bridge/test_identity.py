import os
import ssl
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bridge.config import BridgeConfig
from bridge.identity import FileIdentity
from bridge.memory_keys import load_pair
from edge_broker.errors import UpstreamUnavailable
from tests.bridge.certificates import Authority
from tests.bridge.svids import TrustDomain


def identity(**files: Path | str | None) -> FileIdentity:
    return FileIdentity(BridgeConfig(urls=("mqtts://broker.example.com",), client_id="gw", **files))  # type: ignore[arg-type]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def problem(of: FileIdentity) -> str:
    with pytest.raises(UpstreamUnavailable) as caught:
        of.read(tls=True)
    return str(caught.value)


def test_everything_is_read(authority: Authority, tmp_path: Path) -> None:
    certificate, key = authority.issue("gw")
    password = tmp_path / "password"
    password.write_text("secret\n")
    credentials = identity(
        ca=authority.ca, certificate=certificate, key=key, username="me", password_file=password
    ).read(tls=True)
    assert credentials.context is not None
    assert credentials.context.check_hostname
    assert (credentials.username, credentials.password) == ("me", b"secret")


def test_without_tls_no_certificate_is_read() -> None:
    assert identity(ca="/nowhere").read(tls=False).context is None


def test_each_reading_makes_a_new_context(authority: Authority) -> None:
    files = identity(ca=authority.ca)
    assert files.read(True).context is not files.read(True).context


@pytest.mark.parametrize("key", ["ca", "certificate", "key", "password_file"])
def test_a_missing_file_is_named_with_its_key(key: str, authority: Authority, tmp_path: Path) -> None:
    certificate, private = authority.issue("gw")
    password = tmp_path / "password"
    password.write_text("x")
    files = {"ca": authority.ca, "certificate": certificate, "key": private, "password_file": password}
    missing = files[key]
    missing.unlink()
    assert problem(identity(username="me", **files)) == (
        f"{key}: {missing} cannot be read: No such file or directory (check the path)"
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_we_may_not_read(authority: Authority) -> None:
    authority.ca.chmod(0)
    assert "let the broker's user read it" in problem(identity(ca=authority.ca))


def test_a_ca_that_is_none(authority: Authority) -> None:
    authority.ca.write_text("not a certificate")
    assert problem(identity(ca=authority.ca)).startswith(f"ca: {authority.ca} holds no certificate")


def test_a_key_of_another_certificate(authority: Authority) -> None:
    certificate, _ = authority.issue("gw")
    _, other = authority.issue("other")
    assert problem(identity(ca=authority.ca, certificate=certificate, key=other)) == (
        f"key: {other} does not belong to certificate {certificate} (were both replaced? It is tried again)"
    )


def test_a_key_with_a_passphrase_is_refused_and_nobody_is_asked_for_it(authority: Authority) -> None:
    certificate, key = authority.issue("gw", passphrase=b"words")
    assert "passphrase" in problem(identity(ca=authority.ca, certificate=certificate, key=key))


def test_a_key_that_is_no_pem(authority: Authority) -> None:
    certificate, key = authority.issue("gw")
    key.write_text("garbage")
    text = problem(identity(ca=authority.ca, certificate=certificate, key=key))
    assert str(key) in text
    assert "garbage" not in text


def test_a_bridge_without_spiffe_loads_nothing_for_it() -> None:
    """Each of these is 10 MB or more."""
    script = "import sys, bridge; print(*{name.partition('.')[0] for name in sys.modules})"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    assert set(run.stdout.split()) & {"cryptography", "grpc", "spiffe"} == set()


# ---- trust bundles in files


@pytest.fixture
def cluster() -> TrustDomain:
    return TrustDomain("cluster.example")


def meshed(directory: Path, domain: TrustDomain, **files: Path) -> FileIdentity:
    bundle = domain.write_bundle(directory / "bundle.pem")
    return identity(
        upstream_identity="spiffe://cluster.example/broker",
        trust_bundles={"cluster.example": bundle},  # type: ignore[arg-type]
        **files,
    )


def test_with_bundles_tls_trusts_them_and_nobody_else(cluster: TrustDomain, tmp_path: Path) -> None:
    """Not the system's CAs, whatever else is or is not there; a host name is not asked for."""
    credentials = meshed(tmp_path, cluster).read(tls=True)
    assert credentials.context is not None
    assert credentials.context.get_ca_certs(binary_form=True) == [cluster.ca_der]
    assert credentials.context.verify_mode == ssl.CERT_REQUIRED
    assert not credentials.context.check_hostname
    assert credentials.judge is not None
    assert credentials.judge(cluster.issue("broker").chain, time.time()) == "spiffe://cluster.example/broker"


def test_a_bundle_of_another_domain_alone_is_none(cluster: TrustDomain, tmp_path: Path) -> None:
    bundle = cluster.write_bundle(tmp_path / "bundle.pem")
    files = identity(
        upstream_identity="spiffe://other.example/broker",
        trust_bundles={"cluster.example": bundle},  # type: ignore[arg-type]
    )
    assert problem(files).startswith("there is no trust bundle for other.example")


def test_how_long_the_certificate_holds_is_known(cluster: TrustDomain, tmp_path: Path) -> None:
    certificate, key = cluster.issue("gw", lifetime_seconds=1000).write(tmp_path, "gw")
    files = meshed(tmp_path, cluster, certificate=certificate, key=key)
    holds = files.read(tls=True).holds
    assert holds is not None
    assert holds[1] == files.ends_at()
    assert abs(holds[1] - time.time() - 1000) < 60
    cluster.issue("gw", lifetime_seconds=2000).write(tmp_path, "gw")
    assert (files.ends_at() or 0) - holds[1] > 900
    certificate.unlink()
    assert files.ends_at() is None


def test_a_key_is_loaded_from_memory(cluster: TrustDomain) -> None:
    """And refused where it is another's."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    svid, other = cluster.intermediate().issue(), cluster.issue()
    before = set(os.listdir("/proc/self/fd"))
    load_pair(context, svid.chain_pem, svid.key_pem)
    with pytest.raises(ssl.SSLError, match="not the certificate's"):
        load_pair(context, svid.chain_pem, other.key_pem)
    with pytest.raises(ssl.SSLError, match="too long"):
        load_pair(context, svid.chain_pem * 200, svid.key_pem)
    assert set(os.listdir("/proc/self/fd")) == before
