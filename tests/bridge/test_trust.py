"""Who is taken for the upstream: SPIFFE IDs by pattern, chains by the bundle of their own trust domain."""

import time
from collections.abc import Sequence

import pytest
from cryptography import x509

from bridge.trust import IdPattern, PeerJudge
from tests.bridge.svids import CLIENT, SERVER, Svid, TrustDomain

BROKER = "spiffe://cluster.example/ns/mqtt/sa/broker"


@pytest.fixture(scope="module")
def cluster() -> TrustDomain:
    return TrustDomain("cluster.example")


@pytest.fixture(scope="module")
def other() -> TrustDomain:
    return TrustDomain("other.example")


def judge(svid: Svid, *domains: TrustDomain, pattern: str = BROKER, wall: float | None = None) -> str:
    bundles = {domain.name: [domain.ca_der] for domain in domains}
    return PeerJudge(IdPattern(pattern), bundles).judge(svid.chain, time.time() if wall is None else wall)


def refusal(svid: Svid, *domains: TrustDomain, pattern: str = BROKER, wall: float | None = None) -> str:
    with pytest.raises(ValueError, match=r".") as caught:
        judge(svid, *domains, pattern=pattern, wall=wall)
    return str(caught.value)


# ---- patterns


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        (BROKER, [BROKER], ["spiffe://cluster.example/ns/mqtt/sa/broker2", "spiffe://cluster.example/ns/mqtt/sa"]),
        ("spiffe://a.example/ns/*/sa/b", ["spiffe://a.example/ns/x/sa/b"],
         ["spiffe://a.example/ns/x/y/sa/b", "spiffe://a.example/ns/sa/b", "spiffe://b.example/ns/x/sa/b"]),
        ("spiffe://a.example/ns/**", ["spiffe://a.example/ns/x", "spiffe://a.example/ns/x/y"],
         ["spiffe://a.example/ns", "spiffe://a.example/nsx/y"]),
        ("spiffe://a.example/**", ["spiffe://a.example/x"], ["spiffe://a.example.org/x"]),
        ("spiffe://a.example/*", ["spiffe://a.example/x"], ["spiffe://a.example/x/y"]),
    ],
)  # fmt: skip
def test_a_pattern(pattern: str, matching: Sequence[str], others: Sequence[str]) -> None:
    for spiffe_id in matching:
        assert IdPattern(pattern).matches(spiffe_id), spiffe_id
    for spiffe_id in others:
        assert not IdPattern(pattern).matches(spiffe_id), spiffe_id


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("https://a.example/x", "begins with spiffe://"),
        ("spiffe://a.example", "has a path"),
        ("spiffe://*.example/x", "a trust domain has"),
        ("spiffe://A.example/x", "a trust domain has"),
        ("spiffe://a.example/x*", "not for a part of one"),
        ("spiffe://a.example/*x", "not for a part of one"),
        ("spiffe://a.example/***", "not for a part of one"),
        ("spiffe://a.example/**/x", "nothing can come after"),
        ("spiffe://a.example/x/", "has letters"),
        ("spiffe://a.example/x/../y", "has letters"),
    ],
)
def test_no_pattern(pattern: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        IdPattern(pattern)


# ---- certificates


def test_the_workload_that_is_meant(cluster: TrustDomain, other: TrustDomain) -> None:
    assert judge(cluster.issue(), cluster, other) == BROKER


@pytest.mark.parametrize("usages", [None, [SERVER], [SERVER, CLIENT]])
def test_what_a_server_may_be_issued(
    cluster: TrustDomain, usages: Sequence[x509.ObjectIdentifier] | None
) -> None:
    assert judge(cluster.issue(usages=usages), cluster) == BROKER


def test_a_subject_and_host_names_beside_the_id(cluster: TrustDomain) -> None:
    svid = cluster.issue(subject=cluster.subject, hosts=["broker.example.com"])
    assert judge(svid, cluster) == BROKER


def test_an_intermediate_that_comes_along(cluster: TrustDomain) -> None:
    assert judge(cluster.intermediate().issue(), cluster) == BROKER


def test_a_bundle_with_an_intermediate_alone(cluster: TrustDomain) -> None:
    below = cluster.intermediate()
    assert judge(below.issue(), below) == BROKER


def test_another_workload(cluster: TrustDomain) -> None:
    said = refusal(cluster.issue("ns/mqtt/sa/thief"), cluster)
    assert said == f"it is spiffe://cluster.example/ns/mqtt/sa/thief, not {BROKER}"


def test_a_forgery_across_trust_domains(cluster: TrustDomain, other: TrustDomain) -> None:
    """A federated domain's CA signs a name of ours. OpenSSL, which has both bundles, takes it."""
    assert "the trust bundle of cluster.example does not vouch for it" in refusal(
        other.issue(uris=[BROKER]), cluster, other
    )


def test_a_forgery_by_a_ca_of_the_same_name(cluster: TrustDomain) -> None:
    assert "does not vouch for it" in refusal(TrustDomain("cluster.example").issue(), cluster)


def test_a_forgery_that_brings_its_ca_along(cluster: TrustDomain, other: TrustDomain) -> None:
    forged = other.issue(uris=[BROKER])
    assert "does not vouch" in refusal(Svid((*forged.chain, other.ca_der), forged.key), cluster, other)


def test_a_chain_that_a_leaf_signed(cluster: TrustDomain) -> None:
    """A workload's own certificate as a CA."""
    leaf = cluster.issue("ns/mqtt/sa/thief")
    thief = TrustDomain("cluster.example")
    thief.certificate = x509.load_der_x509_certificate(leaf.chain[0])
    thief.subject = thief.certificate.subject
    from cryptography.hazmat.primitives import serialization

    thief.key = serialization.load_der_private_key(leaf.key, None)  # type: ignore[assignment]
    forged = thief.issue()
    assert "does not vouch" in refusal(Svid((*forged.chain, leaf.chain[0]), forged.key), cluster)


def test_a_trust_domain_without_a_bundle(cluster: TrustDomain, other: TrustDomain) -> None:
    assert refusal(cluster.issue(), other) == "there is no trust bundle for cluster.example"


@pytest.mark.parametrize(
    ("uris", "said"),
    [
        ([], "exactly one URI, and its has none"),
        ([BROKER, "spiffe://other.example/x"], "exactly one URI, and its has 2"),
        ([BROKER, BROKER], "exactly one URI, and its has 2"),
        (["https://cluster.example/ns/mqtt/sa/broker"], "begins with spiffe://"),
        (["spiffe://cluster.example"], "has a path"),
        (["spiffe://cluster.example/ns/mqtt/sa/broker?x"], "has letters"),
        (["spiffe://cluster.example/ns//mqtt/../mqtt/sa/broker"], "has letters"),
    ],
)
def test_names_that_are_none(cluster: TrustDomain, uris: list[str], said: str) -> None:
    assert said in refusal(cluster.issue(uris=uris, hosts=["broker.example.com"]), cluster)


def test_a_certificate_without_any_name(cluster: TrustDomain) -> None:
    assert "no SPIFFE ID" in refusal(cluster.issue(uris=[]), cluster)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"is_ca": True}, "cA must not be asserted"),
        ({"key_cert_sign": True}, "must not assert keyCertSign"),
        ({"usages": [CLIENT]}, "may not be used by a server"),
        ({"lifetime_seconds": -1.0}, "not valid at validation time"),
        ({"begins_seconds_ago": -100.0}, "not valid at validation time"),
    ],
)
def test_a_certificate_that_a_server_may_not_have(
    cluster: TrustDomain, wrong: dict[str, object], said: str
) -> None:
    assert said in refusal(cluster.issue(**wrong), cluster)  # type: ignore[arg-type]


def test_the_time_is_that_of_the_question(cluster: TrustDomain) -> None:
    svid = cluster.issue(lifetime_seconds=60)
    assert "not valid" in refusal(svid, cluster, wall=time.time() + 61)


def test_a_bundle_that_has_expired() -> None:
    expired = TrustDomain("cluster.example", lifetime_seconds=-1)
    assert "does not vouch for it" in refusal(expired.issue(), expired)


def test_a_constraint_that_nobody_can_check_is_not_passed_over(cluster: TrustDomain) -> None:
    below = cluster.intermediate(permitted_uri="cluster.example")
    assert "unsupported name constraint" in refusal(below.issue(), cluster)


def test_a_chain_of_any_length_is_not_looked_at(cluster: TrustDomain) -> None:
    svid = cluster.issue()
    assert "more than" in refusal(Svid(svid.chain * 11, svid.key), cluster)
    assert refusal(Svid((), b""), cluster) == "it has no certificate"
