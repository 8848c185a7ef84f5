"""Whether the upstream is the workload it should be: its X.509-SVID against a pattern and its own trust domain's bundle.

TLS has verified the chain already, against all bundles together, and knows nothing of trust domains: a CA of one federated
domain could vouch for a name in another. So this is asked after the handshake and before the first byte of MQTT, and it
alone decides. What it keeps true:

- The leaf has exactly one URI, a well-formed SPIFFE ID, which the pattern matches [X509-SVID sections 2 and 5.2].
- Its chain leads to the bundle of the trust domain in that ID, and to no other's; every certificate in it is valid now.
- It is no CA's certificate, may not sign others, and where it says what it is for, a TLS server is among that.

`cryptography` verifies the chain. Constraints on URIs in a CA's certificate it does not know: such a chain is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from edge_broker.security.spiffe import check_spiffe_id

if TYPE_CHECKING:
    from cryptography.x509 import Certificate, ExtendedKeyUsage
    from cryptography.x509.verification import Policy, PolicyBuilder

_SCHEME: Final = "spiffe://"
_ONE: Final = "*"
_REST: Final = "**"
_MOST_CERTIFICATES: Final = 10


class IdPattern:
    """Which SPIFFE IDs will do: one of them, or with `*` in place of any one segment of the path, `**` of all that follow.

    `ValueError` says what is wrong with `text`. The trust domain is always exact.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.trust_domain, _, path = text.removeprefix(_SCHEME).partition("/")
        self._segments = path.split("/")
        if _REST in self._segments[:-1]:
            raise ValueError("** stands for all segments that follow, so nothing can come after it")
        for segment in self._segments:
            if "*" in segment and segment not in (_ONE, _REST):
                raise ValueError("* stands for a whole segment of the path, not for a part of one")
        plain = "/".join("x" if segment in (_ONE, _REST) else segment for segment in self._segments)
        check_spiffe_id(text.removesuffix(path) + plain)

    def matches(self, spiffe_id: str) -> bool:
        """Whether `spiffe_id`, which is well formed, is one of them."""
        trust_domain, _, path = spiffe_id.removeprefix(_SCHEME).partition("/")
        if trust_domain != self.trust_domain:
            return False
        segments = path.split("/")
        wanted = self._segments
        if wanted[-1] == _REST:
            wanted = wanted[:-1]
            if len(segments) <= len(wanted):
                return False
            segments = segments[: len(wanted)]
        return len(segments) == len(wanted) and all(
            want in (_ONE, segment) for want, segment in zip(wanted, segments, strict=True)
        )


class PeerJudge:
    """Whom we take for the upstream. `bundles`: the CA certificates of each trust domain, DER."""

    def __init__(self, pattern: IdPattern, bundles: Mapping[str, Sequence[bytes]]) -> None:
        from cryptography import x509

        self._pattern = pattern
        self._bundles = {
            domain: [x509.load_der_x509_certificate(der) for der in bundle]
            for domain, bundle in bundles.items()
        }

    def judge(self, presented: Sequence[bytes], wall: float) -> str:
        """The SPIFFE ID of the peer that presented this chain, leaf first, DER; `ValueError` says why it will not do."""
        from cryptography import x509

        if not presented:
            raise ValueError("it has no certificate")
        if len(presented) > _MOST_CERTIFICATES:
            raise ValueError(f"its chain has more than {_MOST_CERTIFICATES} certificates")
        try:
            chain = [x509.load_der_x509_certificate(der) for der in presented]
            spiffe_id = _spiffe_id(chain[0])
            if not self._pattern.matches(spiffe_id):
                raise ValueError(f"it is {spiffe_id}, not {self._pattern.text}")
            self._verify(chain, wall)
        except (x509.DuplicateExtension, x509.UnsupportedGeneralNameType, x509.InvalidVersion) as error:
            raise ValueError(f"its certificate is malformed: {error}") from None
        return spiffe_id

    def _verify(self, chain: list[Certificate], wall: float) -> None:
        from cryptography.x509.verification import Store, VerificationError

        domain = self._pattern.trust_domain
        bundle = self._bundles.get(domain)
        if not bundle:
            raise ValueError(f"there is no trust bundle for {domain}")
        verifier = (
            _policy().store(Store(bundle)).time(datetime.fromtimestamp(wall, UTC)).build_client_verifier()
        )
        try:
            verifier.verify(chain[0], chain[1:])
        except VerificationError as error:
            raise ValueError(f"the trust bundle of {domain} does not vouch for it: {_why(error)}") from None


def _spiffe_id(leaf: Certificate) -> str:
    """The one URI of `leaf`."""
    from cryptography import x509

    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        raise ValueError("its certificate has no SPIFFE ID") from None
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    if len(uris) != 1:
        count = "none" if not uris else str(len(uris))
        raise ValueError(f"a SPIFFE certificate has exactly one URI, and its has {count}")
    check_spiffe_id(uris[0])
    return uris[0]


def _policy() -> PolicyBuilder:
    """What the certificates of a chain must have.

    The verifier's own rules for clients' certificates, which unlike those for servers ask for no host name, but with the
    purpose of a server, and with SPIFFE IDs that need not be marked critical.
    """
    from cryptography.x509 import ExtendedKeyUsage, SubjectAlternativeName
    from cryptography.x509.verification import Criticality, ExtensionPolicy, PolicyBuilder

    leaf = (
        ExtensionPolicy.webpki_defaults_ee()
        .require_present(SubjectAlternativeName, Criticality.AGNOSTIC, None)
        .may_be_present(ExtendedKeyUsage, Criticality.AGNOSTIC, _check_purpose)
    )
    authority = ExtensionPolicy.webpki_defaults_ca().may_be_present(
        ExtendedKeyUsage, Criticality.AGNOSTIC, _check_purpose
    )
    return PolicyBuilder().extension_policies(ca_policy=authority, ee_policy=leaf)


def _check_purpose(_policy: Policy, _certificate: Certificate, usage: ExtendedKeyUsage | None) -> None:
    from cryptography.x509.oid import ExtendedKeyUsageOID

    allowed: Iterable[object] = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE)
    if usage is not None and not any(purpose in usage for purpose in allowed):
        raise ValueError("it may not be used by a server")


def _why(error: Exception) -> str:
    """In the verifier's words, without the certificate that it prints after them."""
    return str(error).partition(" (encountered")[0].removeprefix("validation failed: ")
