"""Where the upstreams are: those that the configuration names, and those that DNS names for a service (SRV, RFC 2782).

An answer counts for its TTL, within bounds, and goes on to count while DNS fails: who was there yesterday is a better guess
than nobody. Each look-up has a thread of its own, one at a time per name.

Who can forge DNS must not lead us to a host of his own, for which he may well have a certificate. So over TLS a record
counts only where its host is within the service's domain, or where `server_name` or `upstream_identity` says what the
certificate must be for.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, NamedTuple

from bridge import failures
from bridge.background import call_in_background
from bridge.places import Place, Service, Upstream
from bridge.upstreams import Member
from edge_broker.errors import UpstreamUnavailable

_SHORTEST_SECONDS: Final = 30.0
_LONGEST_SECONDS: Final = 86_400.0
_RETRY_SECONDS: Final = 30.0
_MOST_RECORDS: Final = 64


class Record(NamedTuple):
    """One SRV record."""

    priority: int
    weight: int
    host: str
    port: int


class Answer(NamedTuple):
    """What DNS says of a service, and for how long that counts."""

    records: list[Record]
    ttl_seconds: float


class Directory:
    """The upstreams of one bridge. `look_up(name)` blocks; it gives an `Answer` or raises `OSError`."""

    def __init__(
        self,
        places: Sequence[Place],
        needs_own_domain: bool,
        timeout_seconds: float,
        look_up: Callable[[str], Answer] | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._places = places
        self._needs_own_domain = needs_own_domain
        self._timeout = timeout_seconds
        self._look_up = look_up or partial(look_up_srv, timeout_seconds=timeout_seconds)
        self._now = now
        self._found: dict[Service, list[Member]] = {}
        self._due_at: dict[Service, float] = {}
        self._under_way: dict[Service, asyncio.Future[Answer]] = {}

    @property
    def members(self) -> list[Member]:
        """All upstreams that are known now, each once: as the first place that names it ranks it."""
        found: dict[Upstream, Member] = {}
        for where, priority, weight, delay, share in self._places:
            if isinstance(where, Upstream):
                found.setdefault(where, Member(where, priority, weight, delay, share))
            else:
                for member in self._found.get(where, ()):
                    ranked = Member(member.upstream, priority + member.priority, member.weight, delay, share)
                    found.setdefault(member.upstream, ranked)
        return list(found.values())

    async def refresh(self) -> bool:
        """Ask DNS what is due. True where the answer may be new; `UpstreamUnavailable` where nothing is known at all."""
        due = [
            place.where
            for place in self._places
            if isinstance(place.where, Service) and self._now() >= self._due_at.get(place.where, 0.0)
        ]
        error: UpstreamUnavailable | None = None
        for service in due:
            try:
                await self._ask(service)
            except UpstreamUnavailable as failure:
                error = failure
                self._due_at[service] = self._now() + (_RETRY_SECONDS if self.members else 0.0)
        if error is not None and not self.members:
            raise error
        return bool(due)

    async def _ask(self, service: Service) -> None:
        under_way = self._under_way.get(service)
        if under_way is None:
            under_way = self._under_way[service] = call_in_background(
                partial(self._look_up, service.name), f"resolve {service.name}"
            )
            under_way.add_done_callback(partial(self._forget, service))
        try:
            async with asyncio.timeout(self._timeout):
                answer = await asyncio.shield(under_way)
        except TimeoutError:
            raise failures.service_not_found(service, f"no answer within {self._timeout:g} s") from None
        except OSError as error:
            raise failures.service_not_found(service, failures.printable(str(error))) from None
        self._found[service] = self._judge(service, answer.records)
        ttl_seconds = min(max(answer.ttl_seconds, _SHORTEST_SECONDS), _LONGEST_SECONDS)
        self._due_at[service] = self._now() + ttl_seconds

    def _forget(self, service: Service, done: asyncio.Future[Answer]) -> None:
        del self._under_way[service]
        if not done.cancelled():
            done.exception()  # whoever waits has seen it

    def _judge(self, service: Service, records: list[Record]) -> list[Member]:
        """The upstreams of `records` that may be believed."""
        there = [record for record in records[:_MOST_RECORDS] if record.host not in ("", ".") and record.port]
        if not there:
            raise failures.service_not_found(service, "there are none")
        believed = [record for record in there if self._may_be(service, record.host)]
        if not believed:
            raise failures.service_elsewhere(service, [record.host for record in there])
        return [
            Member(Upstream(host, port, service.tls), priority, weight)
            for priority, weight, host, port in believed
        ]

    def _may_be(self, service: Service, host: str) -> bool:
        domain = service.domain.lower()
        return (
            not (service.tls and self._needs_own_domain)
            or host.lower() == domain
            or host.lower().endswith("." + domain)
        )


def look_up_srv(name: str, timeout_seconds: float) -> Answer:
    """Ask the resolver of this machine for the SRV records of `name`; `OSError` says why there are none."""
    import dns.exception
    import dns.resolver

    try:
        answer = dns.resolver.Resolver().resolve(name, "SRV", lifetime=timeout_seconds)
    except dns.exception.DNSException as error:
        raise OSError(str(error)) from None
    records = [
        Record(each.priority, each.weight, each.target.to_text(omit_final_dot=True), each.port)
        for each in answer
    ]
    return Answer(records, answer.rrset.ttl if answer.rrset is not None else 0.0)
