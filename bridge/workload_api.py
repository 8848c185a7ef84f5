"""Our identity from a SPIFFE Workload API (SPIRE's agent): the newest X.509-SVID and trust bundles, streamed.

A daemon thread keeps a stream open for as long as the bridge runs, and opens it anew with growing pauses whenever it ends:
the agent may start after us, restart, or know us only later. What came last stays, and is taken at the next connection.
Nothing of it is ever written anywhere. gRPC has threads of its own; only bytes, in one tuple, cross over to whoever reads.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from spiffe.workloadapi.x509_context import X509Context

log: Final = logging.getLogger("bridge")

_FIRST_PAUSE_SECONDS: Final = 0.2
_LONGEST_PAUSE_SECONDS: Final = 10.0


class Svid(NamedTuple):
    """`chain`: leaf first, PEM; `key`: PEM; `bundles`: by trust domain, DER; `holds`: from when to when, Unix time."""

    spiffe_id: str
    chain: bytes
    key: bytes
    bundles: Mapping[str, Sequence[bytes]]
    holds: tuple[float, float]

    def __repr__(self) -> str:
        return f"Svid({self.spiffe_id})"  # never the key


class WorkloadApi:
    """The stream of one bridge. `newest`: what came last, None before. `problem`: why nothing comes, empty if it does."""

    def __init__(self, name: str, socket_path: str) -> None:
        import spiffe  # noqa: F401 - here, where nobody waits yet: gRPC takes a while to load

        self.socket_path = socket_path
        self.newest: Svid | None = None
        self.problem = "it has not answered yet"
        self._name = name
        self._stopping = threading.Event()
        self._ended = threading.Event()
        self._answered = threading.Event()
        self._logged = ""
        self._pause = _FIRST_PAUSE_SECONDS

    def start(self) -> None:
        """Begin to ask."""
        threading.Thread(target=self._watch, name=f"bridge {self._name} identity", daemon=True).start()

    def stop(self) -> None:
        """Ask no more; returns at once."""
        self._stopping.set()
        self._ended.set()

    def wait(self, seconds: float) -> Svid | None:
        """`newest`; at the start waits until the agent has said anything at all, or cannot be asked."""
        self._answered.wait(seconds)
        return self.newest

    # ---- in the thread

    def _watch(self) -> None:
        while not self._stopping.is_set():
            try:
                self._stream()
            except Exception as error:  # noqa: BLE001 - whatever the package raises, the next try is the answer
                self._note(str(error) or type(error).__name__)
            self._stopping.wait(self._pause)
            self._pause = min(_LONGEST_PAUSE_SECONDS, self._pause * 2)

    def _stream(self) -> None:
        """One stream, until it ends."""
        from spiffe import WorkloadApiClient

        self._ended.clear()
        if self._stopping.is_set():
            return
        client = WorkloadApiClient(self.socket_path)
        try:
            stream = client.stream_x509_contexts(self._on_context, self._on_end, retry_connect=False)
            self._ended.wait()
            stream.cancel()
        finally:
            client.close()

    def _on_context(self, context: X509Context) -> None:
        svid = _svid(context)
        is_new = self.newest is None or svid.chain != self.newest.chain
        self.newest, self.problem = svid, ""
        self._answered.set()
        self._logged = ""
        self._pause = _FIRST_PAUSE_SECONDS
        log.log(
            logging.INFO if is_new else logging.DEBUG,
            "bridge %s: the Workload API gave us the identity %s",
            self._name,
            svid.spiffe_id,
        )

    def _on_end(self, error: Exception) -> None:
        self._note(str(error))
        self._ended.set()

    def _note(self, problem: str) -> None:
        """Said once, until it is over; while there is no identity at all, the bridge says why it cannot connect."""
        if self._stopping.is_set():
            return
        self.problem = problem.removeprefix("Invalid WorkloadApiClient configuration: ")
        self._answered.set()
        if self.newest is not None and self.problem != self._logged:
            self._logged = self.problem
            log.warning(
                "bridge %s: nothing comes from the Workload API at %s: %s (it is tried again; the identity that it gave "
                "last counts as long as it is valid)",
                self._name,
                self.socket_path,
                self.problem,
            )


def _svid(context: X509Context) -> Svid:
    """What we need of it, as bytes: the first SVID, which is the one meant for whoever has no choice of its own."""
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    svid = context.default_svid
    return Svid(
        str(svid.spiffe_id),
        b"".join(certificate.public_bytes(Encoding.PEM) for certificate in svid.cert_chain),
        svid.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        {
            bundle.trust_domain.name: [ca.public_bytes(Encoding.DER) for ca in bundle.x509_authorities]
            for bundle in context.x509_bundle_set.bundles
        },
        (svid.leaf.not_valid_before_utc.timestamp(), svid.leaf.not_valid_after_utc.timestamp()),
    )
