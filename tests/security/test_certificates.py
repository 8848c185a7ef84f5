"""What a listener makes of certificates: names, SPIFFE's rules, deny list, revocation lists, and all of it again."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from edge_broker.core.ports import PeerCertificate
from edge_broker.errors import ConfigError
from edge_broker.security.certificates import CertificateVetting, Demands
from edge_broker.security.denied import Denied, DenyList
from tests.security.issuing import DAY, NOW, Issuer, Pair

OURS = Issuer("ours")
MIDDLE = Issuer("middle", OURS)


def peer(pair: Pair, *above: Issuer) -> PeerCertificate:
    """As TLS would show it after it verified the chain up to the last of `above`."""
    subject = [attribute.value for attribute in pair.certificate.subject]
    try:
        names = pair.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        dns, uris = [], []
    else:
        dns = names.get_values_for_type(x509.DNSName)
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    return PeerCertificate(
        {
            "common_name": tuple(str(value) for value in subject),
            "san_dns": tuple(dns),
            "uri": tuple(uris),
            "spiffe": tuple(uri for uri in uris if uri.startswith("spiffe://")),
        },
        (pair.der, *(issuer.der for issuer in above or (OURS,))),
    )


Vet = Callable[..., CertificateVetting]


@pytest.fixture
def vet(tmp_path: Path) -> Vet:
    """Makes a vetting for `cas` with revocation lists of these contents."""

    def make(
        *crls: bytes,
        cas: tuple[Issuer, ...] = (OURS,),
        denied: Denied | None = None,
        wall: float = NOW.timestamp(),
        **demands: Any,
    ) -> CertificateVetting:
        ca = tmp_path / "ca.pem"
        ca.write_bytes(b"".join(issuer.pem for issuer in cas))
        files = []
        for number, crl in enumerate(crls):
            files.append(tmp_path / f"crl-{number}.pem")
            files[-1].write_bytes(crl)
        deny_list = DenyList(denied or Denied())
        return CertificateVetting(Demands(ca, crl_files=tuple(files), **demands), deny_list, lambda: wall)

    return make


@pytest.mark.parametrize(
    ("identity_from", "name"),
    [("common_name", "sensor-1"), ("san_dns", "a.local"), ("spiffe", "spiffe://home/device/sensor-1")],
)
def test_who_it_is(vet: Vet, identity_from: str, name: str) -> None:
    pair = OURS.issue("sensor-1", dns=["a.local", "b.local"], uris=["spiffe://home/device/sensor-1"])
    assert vet(identity_from=identity_from).judge(peer(pair)) == ((name,), "")


@pytest.mark.parametrize(
    ("identity_from", "said"),
    [
        ("common_name", "no common name"),
        ("san_dns", "no DNS name"),
        ("spiffe", "exactly one URI, and it has no"),
    ],
)
def test_without_the_name_it_is_refused_and_not_ignored(vet: Vet, identity_from: str, said: str) -> None:
    judgement = vet(identity_from=identity_from).judge(peer(OURS.issue(None)))
    assert judgement.names == ()
    assert said in judgement.refusal


@pytest.mark.parametrize("name", ["anonymous", "a\tb", "a\x00b", " a", "a\u202eb"])
def test_names_that_nobody_has(vet: Vet, name: str) -> None:
    certificate = PeerCertificate({"common_name": (name,)}, (OURS.issue().der, OURS.der))
    assert vet().judge(certificate).names == ()


@pytest.mark.parametrize(
    ("uris", "said"),
    [
        (["spiffe://home/a", "spiffe://home/b"], "exactly one URI, and it has 2"),
        (["spiffe://home/a", "https://home/a"], "exactly one URI, and it has 2"),
        (["https://home/a"], "begins with spiffe://"),
        (["spiffe://Home/a"], "lower-case"),
        (["spiffe://home:443/a"], "lower-case"),
        (["spiffe://me@home/a"], "lower-case"),
        (["spiffe://home"], "has a path"),
        (["spiffe://home/"], "has a path"),
        (["spiffe://home/a/"], "between its slashes"),
        (["spiffe://home//a"], "between its slashes"),
        (["spiffe://home/a/../b"], "between its slashes"),
        (["spiffe://home/a?b"], "between its slashes"),
        (["spiffe://home/a%20b"], "between its slashes"),
        (["spiffe://home/+/a"], "between its slashes"),
        (["spiffe:///a"], "lower-case"),
        (["spiffe://home/" + "a" * 2048], "at most 2048"),
        (["spiffe://" + "a" * 256 + "/a"], "at most 255"),
    ],
)
def test_spiffe_is_strict(vet: Vet, uris: list[str], said: str) -> None:
    judgement = vet(identity_from="spiffe").judge(peer(OURS.issue("x", uris=uris)))
    assert judgement.names == ()
    assert said in judgement.refusal


def test_a_ca_is_no_spiffe_client(vet: Vet) -> None:
    pair = OURS.issue("x", uris=["spiffe://home/a"], ca=True)
    assert "CA's" in vet(identity_from="spiffe").judge(peer(pair)).refusal


def test_names_may_be_limited(vet: Vet) -> None:
    vetting = vet(allowed_names=("sensor-*", "display"))
    assert vetting.judge(peer(OURS.issue("sensor-7"))).names == ("sensor-7",)
    assert vetting.judge(peer(OURS.issue("display"))).names == ("display",)
    assert vet(allowed_names=("a[1]?",)).judge(peer(OURS.issue("a[1]?"))).names, "only * is special"
    assert vet(allowed_names=("a[1]?",)).judge(peer(OURS.issue("a1x"))).refusal
    for name in ("display-2", "Sensor-7", "actor", "my-sensor-7"):
        assert "allowed_names" in vetting.judge(peer(OURS.issue(name))).refusal


def test_a_denied_serial(vet: Vet) -> None:
    bad, good = OURS.issue("a"), OURS.issue("b")
    vetting = vet(denied=Denied(serials=frozenset({bad.certificate.serial_number})))
    refusal = vetting.judge(peer(bad)).refusal
    assert f"serial {bad.certificate.serial_number:x}" in refusal
    assert "deny list" in refusal
    assert vetting.judge(peer(good)).names == ("b",)


# ---- revocation lists


def test_a_revoked_certificate(vet: Vet) -> None:
    bad, good = OURS.issue("a"), OURS.issue("b")
    vetting = vet(OURS.crl(bad.certificate))
    assert "was revoked on" in vetting.judge(peer(bad)).refusal
    assert vetting.judge(peer(good)).names == ("b",)


def test_each_ca_speaks_for_its_own_certificates(vet: Vet) -> None:
    """A serial number on one CA's list says nothing of another's."""
    others = Issuer("others")
    bad = OURS.issue("a")
    vetting = vet(others.crl(bad.certificate) + OURS.crl(), cas=(OURS, others))
    assert vetting.judge(peer(bad)).names == ("a",)
    both = vet(OURS.crl(bad.certificate), others.crl(), cas=(OURS, others))
    assert both.judge(peer(bad)).refusal


def test_a_revoked_ca_in_between(vet: Vet) -> None:
    pair = MIDDLE.issue("a")
    vetting = vet(OURS.crl(MIDDLE.certificate), MIDDLE.crl(), cas=(OURS, MIDDLE))
    assert "a CA above its certificate was revoked" in vetting.judge(peer(pair, MIDDLE, OURS)).refusal


@pytest.mark.parametrize(
    ("contents", "said"),
    [
        (b"", "no revocation list"),
        (b"-----BEGIN X509 CRL-----\nMIIB\n", "torn"),
        (OURS.crl()[:150], "torn"),
        (OURS.pem, "no revocation list"),
        (Issuer("strangers").crl(), "no CA of client_ca signed"),
        (OURS.crl(signed_by=Issuer("ours")), "no CA of client_ca signed"),
        (OURS.crl(part=True), "only part of one"),
    ],
)
def test_lists_that_will_not_do(vet: Vet, contents: bytes, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as error:
        vet(contents)
    assert error.value.key.endswith("crl-0.pem")


def test_a_list_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_bytes(OURS.pem)
    with pytest.raises(ConfigError, match="No such file"):
        CertificateVetting(Demands(tmp_path / "ca.pem", crl_files=(tmp_path / "x",)), DenyList(Denied()))


@pytest.mark.parametrize(("choice", "said"), [("refuse", "not let in"), ("warn", "is not known")])
def test_an_expired_list_is_told(vet: Vet, caplog: pytest.LogCaptureFixture, choice: str, said: str) -> None:
    bad, good = OURS.issue("a"), OURS.issue("b")
    with caplog.at_level(logging.ERROR):
        vetting = vet(OURS.crl(bad.certificate, next_update=NOW - DAY), when_crl_expired=choice)
    assert "CN=ours has expired" in caplog.text
    assert said in caplog.text
    assert vetting.judge(peer(bad)).refusal
    assert vetting.judge(peer(good)).names == ("b",)


def test_the_handshake_looks_into_lists_only_where_expired_ones_refuse() -> None:
    crl = Path("crl.pem")
    assert Demands(Path("ca"), crl_files=(crl,)).strict_crls == (crl,)
    assert Demands(Path("ca"), crl_files=(crl,), when_crl_expired="warn").strict_crls == ()


def test_a_ca_file_without_a_certificate(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing")
    with pytest.raises(ConfigError, match="no certificate"):
        CertificateVetting(Demands(tmp_path / "ca.pem"), DenyList(Denied()))


# ---- again, for who is connected


def test_who_would_still_be_let_in_stays(vet: Vet) -> None:
    assert vet().judge_again(peer(OURS.issue("a"))).names == ("a",)


def test_an_expired_certificate_ends(vet: Vet) -> None:
    pair = OURS.issue("a", end=NOW + DAY)
    vetting = vet(wall=(NOW + DAY).timestamp() + 1)
    assert "expired" in vetting.judge_again(peer(pair)).refusal
    assert "expired" in vetting.judge(peer(pair)).refusal, "TLS does not look at it when a session is resumed"


def test_a_ca_that_is_gone(vet: Vet) -> None:
    others = Issuer("others")
    vetting = vet(cas=(others,))
    assert "not trusted any more" in vetting.judge_again(peer(OURS.issue("a"))).refusal
    assert "not trusted any more" in vetting.judge_again(peer(MIDDLE.issue("a"), MIDDLE, OURS)).refusal
    assert vet(cas=(others, OURS)).judge_again(peer(MIDDLE.issue("a"), MIDDLE, OURS)).names == ("a",)


def test_another_ca_of_the_same_name_vouches_for_nobody(vet: Vet) -> None:
    assert vet(cas=(Issuer("ours"),)).judge_again(peer(OURS.issue("a"))).refusal


def test_a_renewed_ca_with_the_same_key_vouches_for_the_same(vet: Vet) -> None:
    renewed = Issuer("ours", key=OURS.key, lifetime=9 * DAY)
    assert renewed.der != OURS.der
    vetting = vet(cas=(renewed,))
    assert vetting.judge_again(peer(OURS.issue("a"))).names == ("a",)
    assert vetting.judge_again(peer(MIDDLE.issue("a"), MIDDLE, OURS)).names == ("a",)


def test_a_resumed_session_shows_its_own_certificate_alone(vet: Vet) -> None:
    """Then it has to be a CA of the bundle that signed it."""
    direct, through = OURS.issue("a"), MIDDLE.issue("b")
    alone = [PeerCertificate(peer(pair).names, (pair.der,)) for pair in (direct, through)]
    vetting = vet()
    assert vetting.judge_again(alone[0]).names == ("a",)
    assert vetting.judge_again(alone[1]).refusal
    assert vet(cas=(OURS, MIDDLE)).judge_again(alone[1]).names == ("b",)


def test_denied_and_revoked_later(vet: Vet) -> None:
    pair = OURS.issue("a")
    assert vet(OURS.crl(pair.certificate)).judge_again(peer(pair)).refusal
    denied = Denied(serials=frozenset({pair.certificate.serial_number}))
    assert vet(denied=denied).judge_again(peer(pair)).refusal


@pytest.mark.parametrize("der", [b"", b"0", b"\x30\x80" + OURS.der[4:], OURS.der[:-1]])
def test_what_others_than_openssl_cannot_read_is_refused(vet: Vet, der: bytes) -> None:
    """OpenSSL takes BER here and there."""
    unreadable = PeerCertificate({"common_name": ("a",)}, (der, der))
    for vetting in (vet(), vet(OURS.crl())):
        for judge in (vetting.judge, vetting.judge_again):
            assert judge(unreadable).names == ()
            assert judge(unreadable).refusal
