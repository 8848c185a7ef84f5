"""A SPIFFE agent played by a small gRPC server: the Workload API's X.509 stream, in the `spiffe` package's own messages."""

import queue
import threading
from collections.abc import Iterator, Sequence
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
from spiffe._proto import workload_pb2, workload_pb2_grpc

from tests.bridge.svids import Svid, TrustDomain


class Agent(workload_pb2_grpc.SpiffeWorkloadAPIServicer):
    """Gives whoever asks at `path` the `svid` of now and each one after it. `streams`: how many were opened."""

    def __init__(self, path: Path, domain: TrustDomain, spiffe_id: str, svid: Svid | None) -> None:
        self.url = f"unix://{path}"
        self.streams = 0
        self._domain = domain
        self._id = spiffe_id
        self._svid = svid
        self._federated: Sequence[TrustDomain] = ()
        self._waiting: list[queue.SimpleQueue[None]] = []
        self._lock = threading.Lock()
        self._server: grpc.Server | None = None

    async def start(self) -> "Agent":
        self._server = grpc.server(futures.ThreadPoolExecutor(4))
        workload_pb2_grpc.add_SpiffeWorkloadAPIServicer_to_server(self, self._server)
        self._server.add_insecure_port(self.url)
        self._server.start()
        return self

    def stop(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            self._wake()
            server.stop(0).wait()

    def give(self, svid: Svid | None, *federated: TrustDomain) -> None:
        """Another SVID, or none any more; to those who listen at once."""
        self._svid = svid
        self._federated = federated
        self._wake()

    def _wake(self) -> None:
        with self._lock:
            for waiting in self._waiting:
                waiting.put(None)

    def FetchX509SVID(self, request: Any, context: Any) -> Iterator[Any]:
        if ("workload.spiffe.io", "true") not in context.invocation_metadata():
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "security header missing from request")
        news: queue.SimpleQueue[None] = queue.SimpleQueue()
        with self._lock:
            self.streams += 1
            self._waiting.append(news)
        while context.is_active() and self._server is not None:
            if self._svid is None:
                context.abort(grpc.StatusCode.PERMISSION_DENIED, "no identity issued")
            yield self._answer(self._svid)
            news.get()

    def _answer(self, svid: Svid) -> Any:
        return workload_pb2.X509SVIDResponse(
            svids=[
                workload_pb2.X509SVID(
                    spiffe_id=self._id,
                    x509_svid=b"".join(svid.chain),
                    x509_svid_key=svid.key,
                    bundle=self._domain.ca_der,
                )
            ],
            federated_bundles={f"spiffe://{domain.name}": domain.ca_der for domain in self._federated},
        )
