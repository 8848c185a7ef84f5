"""Who writes the SVIDs: new ones every few seconds, renamed over the old ones, as `spiffe-helper` does beside an agent."""

from __future__ import annotations

import threading
from pathlib import Path

from tests.bridge.envoy import ClusterIngress
from tests.bridge.svids import TrustDomain
from tests.integration.upstreams.line import BROKER_PATH, GATEWAY_PATH, show

_EVERY_SECONDS = 1.0
LIFETIME_SECONDS = 6.0
"""Half of it is over when they are made: the bridge goes over some 3 to 5 seconds later."""


class Renewal:
    """Renews the gateway's SVID in `directory` and the ingress's, until it is told to stop. `renewed`: how often."""

    def __init__(self, domain: TrustDomain, directory: Path, ingress: ClusterIngress) -> None:
        self._domain = domain
        self._directory = directory
        self._ingress = ingress
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="renewal", daemon=True)
        self.renewed = 0

    def start(self) -> Renewal:
        self._once()
        self._thread.start()
        return self

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def _renew(self) -> None:
        while not self._stopping.wait(_EVERY_SECONDS):
            self._once()

    def _once(self) -> None:
        times = {"lifetime_seconds": LIFETIME_SECONDS, "begins_seconds_ago": LIFETIME_SECONDS}
        show(self._directory, self._domain.issue(GATEWAY_PATH, **times))  # type: ignore[arg-type]
        self._ingress.take(self._domain.issue(BROKER_PATH, **times))  # type: ignore[arg-type]
        self.renewed += 1
