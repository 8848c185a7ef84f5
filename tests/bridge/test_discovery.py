"""Where DNS says that the upstreams are: what is believed, for how long, and what happens where it is silent."""

import asyncio
import threading
from collections.abc import Callable

import pytest

from bridge.config import BridgeConfig
from bridge.discovery import Answer, Directory, Record, look_up_srv
from bridge.identity import Credentials
from bridge.link import Link
from bridge.places import Place, Service, Upstream
from bridge.roaming import Roaming
from bridge.upstreams import Member
from edge_broker.errors import UpstreamError, UpstreamUnavailable

SERVICE = Service("_mqtt._tcp.example.com", True)
PLAIN = Service("_mqtt._tcp.example.com", False)
FIXED = Upstream("fixed", 8883, True)
A = Record(10, 5, "a.example.com", 8883)
B = Record(20, 0, "b.example.com", 443)


class Dns:
    """Answers what `records` has, or fails with `error`. `asked`: how often."""

    def __init__(self, *records: Record, ttl: float = 100.0) -> None:
        self.records = list(records)
        self.ttl = ttl
        self.error: OSError | None = None
        self.asked = 0
        self.now = 0.0

    def look_up(self, name: str) -> Answer:
        assert name == "_mqtt._tcp.example.com"
        self.asked += 1
        if self.error is not None:
            raise self.error
        return Answer(self.records, self.ttl)

    def directory(self, *places: Place, own_domain: bool = True, timeout: float = 5.0) -> Directory:
        return Directory(places or (Place(SERVICE),), own_domain, timeout, self.look_up, lambda: self.now)


def to(record: Record, tls: bool = True, priority: int = 0) -> Member:
    return Member(Upstream(record.host, record.port, tls), priority + record.priority, record.weight)


async def test_records_become_members() -> None:
    directory = Dns(A, B).directory(Place(FIXED, 3, 7, 0.5, 0.1), Place(SERVICE, priority=2))
    assert directory.members == [Member(FIXED, 3, 7, 0.5, 0.1)]
    assert await directory.refresh()
    assert directory.members == [Member(FIXED, 3, 7, 0.5, 0.1), to(A, priority=2), to(B, priority=2)]


async def test_nothing_is_asked_without_a_service() -> None:
    directory = Dns().directory(Place(FIXED))
    assert not await directory.refresh()
    assert directory.members == [Member(FIXED)]


@pytest.mark.parametrize(("ttl", "counts"), [(100.0, 100.0), (0.0, 30.0), (1e9, 86_400.0)])
async def test_an_answer_counts_for_its_ttl_within_bounds(ttl: float, counts: float) -> None:
    dns = Dns(A, ttl=ttl)
    directory = dns.directory()
    await directory.refresh()
    dns.records = [B]
    dns.now = counts - 0.1
    assert not await directory.refresh()
    assert (directory.members, dns.asked) == ([to(A)], 1)
    dns.now = counts
    assert await directory.refresh()
    assert (directory.members, dns.asked) == ([to(B)], 2)


async def test_the_last_answer_counts_while_dns_fails() -> None:
    dns = Dns(A)
    directory = dns.directory()
    await directory.refresh()
    dns.error = OSError("SERVFAIL")
    dns.now = 1000.0
    await directory.refresh()
    assert directory.members == [to(A)]
    await directory.refresh()
    assert dns.asked == 2, "not asked anew at once"
    dns.now = 1030.0
    await directory.refresh()
    assert dns.asked == 3


async def test_without_any_answer_it_says_so_unless_others_are_known() -> None:
    dns = Dns()
    dns.error = OSError("NXDOMAIN")
    with pytest.raises(UpstreamUnavailable, match=r"SRV records of _mqtt\._tcp\.example\.com .*: NXDOMAIN"):
        await dns.directory().refresh()
    both = dns.directory(Place(SERVICE), Place(FIXED))
    dns.asked = 0
    assert await both.refresh()
    assert not await both.refresh(), "and nobody waits for it again at once"
    assert (both.members, dns.asked) == ([Member(FIXED)], 1)


@pytest.mark.parametrize("records", [[], [Record(0, 0, ".", 1)], [Record(0, 0, "", 1)], [A._replace(port=0)]])
async def test_a_service_that_is_not_there(records: list[Record]) -> None:
    with pytest.raises(UpstreamUnavailable, match="there are none"):
        await Dns(*records).directory().refresh()


@pytest.mark.parametrize(
    "host", ["evil.example.net", "evilexample.com", "example.com.evil.net", "example.com.", "xexample.com"]
)
async def test_a_record_out_of_the_domain_is_not_believed(host: str) -> None:
    evil = Record(0, 0, host, 8883)
    with pytest.raises(UpstreamUnavailable, match="lead out of its domain"):
        await Dns(evil).directory().refresh()
    directory = Dns(evil, A).directory()
    await directory.refresh()
    assert directory.members == [to(A)]


async def test_with_a_server_name_or_without_tls_any_host_may_be() -> None:
    elsewhere = Record(0, 0, "lb.example.net", 1)
    named = Dns(elsewhere).directory(own_domain=False)
    await named.refresh()
    assert named.members == [to(elsewhere)]
    plain = Dns(elsewhere).directory(Place(PLAIN))
    await plain.refresh()
    assert plain.members == [to(elsewhere, tls=False)]


@pytest.mark.parametrize(
    ("given", "believed"),
    [
        ({}, False),
        ({"server_name": "broker.example.com"}, True),
        ({"upstream_identity": "spiffe://cluster.example/broker"}, True),
    ],
)
async def test_who_must_prove_who_he_is_may_be_anywhere(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], believed: bool
) -> None:
    elsewhere = Record(0, 0, "lb.example.net", 8883)
    answer = Answer([elsewhere], 60.0)
    monkeypatch.setattr("bridge.discovery.look_up_srv", lambda name, timeout_seconds: answer)
    config = BridgeConfig(urls=(str(SERVICE),), **given)  # type: ignore[arg-type]
    roaming = Roaming(config, lambda: 0.0, no_link)
    if believed:
        await roaming.find_upstreams(refuse)
        assert roaming.policy.upstreams.members == [to(elsewhere)]
    else:
        with pytest.raises(UpstreamUnavailable, match="lead out of its domain") as told:
            await roaming.find_upstreams(refuse)
        assert told.value.kind == "resolve"


async def no_link(upstream: Upstream) -> tuple[Link, Credentials]:
    raise AssertionError(f"nobody asked for {upstream}")


def refuse(error: UpstreamError) -> None:
    raise error


async def test_the_domain_itself_and_any_case_are_within_it() -> None:
    records = [Record(0, 0, "EXAMPLE.com", 1), Record(0, 0, "a.Example.Com", 1)]
    directory = Dns(*records).directory()
    await directory.refresh()
    assert len(directory.members) == 2


async def test_an_upstream_that_two_places_name_is_there_once() -> None:
    same = Upstream(A.host, A.port, True)
    directory = Dns(A, A).directory(Place(same, 1, 1), Place(SERVICE))
    await directory.refresh()
    assert directory.members == [Member(same, 1, 1)]


async def test_very_many_records_are_bounded() -> None:
    directory = Dns(*(Record(0, 0, f"h{n}.example.com", 1) for n in range(5000))).directory()
    await directory.refresh()
    assert len(directory.members) == 64


async def test_a_resolver_that_hangs_costs_one_thread() -> None:
    hanging = threading.Event()
    asked = []

    def hang(name: str) -> Answer:
        asked.append(name)
        hanging.wait(20)
        return Answer([A], 100.0)

    directory = Directory((Place(SERVICE),), True, 0.05, hang)
    try:
        for _ in range(3):
            with pytest.raises(UpstreamUnavailable, match=r"no answer within 0\.05 s"):
                await directory.refresh()
        assert len(asked) == 1
        later = asyncio.ensure_future(directory.refresh())
        await asyncio.sleep(0)
    finally:
        hanging.set()
    await later
    assert directory.members == [to(A)]


# ---- with real packets


class _Responder(asyncio.DatagramProtocol):
    """A name server with one answer."""

    def __init__(self, answer: Callable[[bytes], bytes]) -> None:
        self._answer = answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        self._transport.sendto(self._answer(data), address)  # type: ignore[attr-defined]


async def ask_a_real_server(monkeypatch: pytest.MonkeyPatch, answer: Callable[[bytes], bytes]) -> Answer:
    import dns.resolver

    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(
        lambda: _Responder(answer), local_addr=("127.0.0.1", 0)
    )
    resolver = dns.resolver.Resolver(configure=False)
    resolver.nameservers = ["127.0.0.1"]
    resolver.port = transport.get_extra_info("sockname")[1]
    monkeypatch.setattr(dns.resolver, "Resolver", lambda: resolver)
    try:
        return await asyncio.to_thread(look_up_srv, "_mqtt._tcp.example.com", 5.0)
    finally:
        transport.close()


async def test_a_real_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    import dns.message
    import dns.rrset

    def answer(query: bytes) -> bytes:
        response = dns.message.make_response(dns.message.from_wire(query))
        records = ["10 5 8883 a.example.com.", "20 0 443 b.example.com."]
        response.answer.append(dns.rrset.from_text("_mqtt._tcp.example.com.", 77, "IN", "SRV", *records))
        return response.to_wire()

    found = await ask_a_real_server(monkeypatch, answer)
    assert (sorted(found.records), found.ttl_seconds) == ([A, B], 77)


async def test_a_real_answer_that_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    import dns.message
    import dns.rcode

    def answer(query: bytes) -> bytes:
        response = dns.message.make_response(dns.message.from_wire(query))
        response.set_rcode(dns.rcode.NXDOMAIN)
        return response.to_wire()

    with pytest.raises(OSError, match="does not exist"):
        await ask_a_real_server(monkeypatch, answer)
