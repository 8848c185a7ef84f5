"""Clients that show a certificate, over real TLS: which are let in, and which are ended when what is demanded changes."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from edge_broker.errors import ConfigError
from edge_broker.net.listeners import Listener, context_of_files
from edge_broker.net.tls import TlsPipe, client_context, server_context
from edge_broker.security.denied import Denied, DenyList
from edge_broker.wire import const
from edge_broker.wire.encoder import PINGREQ
from edge_broker.wire.packets import Disconnect, Ping
from tests.net.conftest import Run
from tests.net.hub import LocalHub, Peer, until
from tests.security.issuing import CLIENT, DAY, NOW, SERVER, Issuer, Pair

OURS, OTHERS = Issuer("ours"), Issuer("others")
MIDDLE = Issuer("middle", OURS)
GATEWAY = OURS.issue("gateway", dns=["localhost"], usages=(SERVER,))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What a listener reads: `ca.pem`, `crl.pem`, `server.crt`, `server.key`."""
    (tmp_path / "ca.pem").write_bytes(OURS.pem)
    (tmp_path / "crl.pem").write_bytes(OURS.crl())
    GATEWAY.write(tmp_path, "server")
    return tmp_path


def trusting(folder: Path, pair: Pair | None) -> ssl.SSLContext:
    (folder / "roots.pem").write_bytes(OURS.pem)
    files = (None, None) if pair is None else pair.write(folder, f"client-{id(pair)}")
    return client_context(str(folder / "roots.pem"), *files)


async def listen(hub: LocalHub, folder: Path, **options: Any) -> Listener:
    return await hub.listen(
        certificate=str(folder / "server.crt"),
        key=str(folder / "server.key"),
        **{"client_ca": str(folder / "ca.pem"), "require_client_certificate": True, **options},
    )


async def enter(listener: Listener, folder: Path, pair: Pair | None, client_id: str = "c") -> Peer:
    """Connected, and the CONNACK read: in TLS 1.3 a refusal comes after the client's handshake."""
    peer = await Peer.open(listener, trusting(folder, pair))
    assert (await peer.connect(client_id)).reason_code == const.SUCCESS
    return peer


async def is_refused(hub: LocalHub, listener: Listener, folder: Path, pair: Pair | None) -> None:
    with pytest.raises((ssl.SSLError, ConnectionError, EOFError)):
        await enter(listener, folder, pair)
    await until(lambda: not hub.connections)
    assert hub.router.sessions == {}


def end_of(hub: LocalHub) -> str:
    (connection,) = hub.connections
    assert connection.end is not None
    return connection.end[1]


ODD = {
    "expired": OURS.issue(begin=NOW - 2 * DAY, end=NOW - DAY),
    "not yet valid": OURS.issue(begin=NOW + DAY, end=NOW + 2 * DAY),
    "wrong CA": OTHERS.issue(),
    "a CA of the same name": Issuer("ours").issue(),
    "for servers only": OURS.issue(usages=(SERVER,)),
    "the gateway's own": GATEWAY,
}


@pytest.mark.parametrize("why", ODD)
def test_refused_in_the_handshake(run: Run, folder: Path, why: str) -> None:
    async def scenario() -> None:
        hub = LocalHub()
        listener = await listen(hub, folder)
        await is_refused(hub, listener, folder, ODD[why])
        assert hub.refused == {"tls": 1}

    run(scenario())


def test_a_certificate_that_signed_itself(run: Run, folder: Path) -> None:
    stranger = Issuer("sensor-1")
    itself = Pair(stranger.certificate, stranger.key, [])

    async def scenario() -> None:
        hub = LocalHub()
        await is_refused(hub, await listen(hub, folder), folder, itself)

    run(scenario())


@pytest.mark.parametrize("usages", [(CLIENT,), (SERVER, CLIENT), None], ids=["client", "both", "not said"])
def test_let_in(run: Run, folder: Path, usages: Any) -> None:
    async def scenario() -> None:
        hub = LocalHub()
        listener = await listen(hub, folder, crl_files=(folder / "crl.pem",))
        peer = await enter(listener, folder, OURS.issue(usages=usages))
        (connection,) = hub.connections
        assert connection.certificate_names == ("sensor-1",)
        peer.close()

    run(scenario())


def test_let_in_through_a_ca_in_between(run: Run, folder: Path) -> None:
    async def scenario() -> None:
        hub = LocalHub()
        listener = await listen(hub, folder)
        peer = await enter(listener, folder, MIDDLE.issue())
        assert await listener.load_certificates() == 0, "what its certificate leads to is trusted as before"
        peer.writer.write(PINGREQ)
        assert isinstance(await peer.receive(), Ping)
        peer.close()

    run(scenario())


def test_a_good_certificate_without_a_name_is_refused_even_where_none_is_needed(
    run: Run, folder: Path
) -> None:
    async def scenario() -> None:
        hub = LocalHub()
        listener = await listen(hub, folder, require_client_certificate=False, identity_from="san_dns")
        await is_refused(hub, listener, folder, OURS.issue("sensor-1"))
        assert hub.refused == {"certificate": 1}
        peer = await enter(listener, folder, None)
        peer.close()

    run(scenario())


def test_a_fault_of_ours_ends_the_one_connection_that_met_it(
    run: Run, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Faulty:
        def judge(self, peer: object) -> Any:
            raise RuntimeError("of ours")

        judge_again = judge

    async def scenario() -> None:
        hub = LocalHub()
        listener = await listen(hub, folder)
        assert listener._clients is not None
        listener._clients.vetting = Faulty()
        await is_refused(hub, listener, folder, OURS.issue())
        assert hub.refused == {"internal_error": 1}
        assert "of ours" in caplog.text

    run(scenario())


def test_the_log_says_why(folder: Path) -> None:
    server = TlsPipe(
        server_context(str(folder / "server.crt"), str(folder / "server.key"), str(folder / "ca.pem"), True),
        True,
    )
    client = TlsPipe(trusting(folder, ODD["expired"]), False, "localhost")
    client.start()
    server.receive(client.take_output())
    client.receive(server.take_output())
    with pytest.raises(ssl.SSLCertVerificationError) as error:
        server.receive(client.take_output())
    assert error.value.verify_message == "certificate has expired"


def test_each_listener_has_demands_of_its_own(run: Run, folder: Path) -> None:
    (folder / "others.pem").write_bytes(OTHERS.pem)

    async def scenario() -> None:
        hub = LocalHub()
        ours = await listen(hub, folder, allowed_names=("sensor-*",))
        others = await listen(hub, folder, client_ca=str(folder / "others.pem"), identity_from="spiffe")
        sensor, workload = OURS.issue("sensor-1"), OTHERS.issue("x", uris=["spiffe://home/w"])
        (await enter(ours, folder, sensor, "a")).close()
        (await enter(others, folder, workload, "b")).close()
        await until(lambda: not hub.router.sessions)
        for listener, pair in ((ours, workload), (others, sensor), (ours, OURS.issue("display"))):
            await is_refused(hub, listener, folder, pair)
        assert hub.refused == {"tls": 2, "certificate": 1}

    run(scenario())


# ---- revocation lists


@pytest.mark.parametrize(("choice", "counter"), [("refuse", "tls"), ("warn", "certificate")])
def test_a_revoked_certificate(run: Run, folder: Path, choice: str, counter: str) -> None:
    bad, good = OURS.issue(), OURS.issue("sensor-2")
    (folder / "crl.pem").write_bytes(OURS.crl(bad.certificate))

    async def scenario() -> None:
        hub = LocalHub()
        listener = await listen(hub, folder, crl_files=(folder / "crl.pem",), when_crl_expired=choice)
        await is_refused(hub, listener, folder, bad)
        assert hub.refused == {counter: 1}
        (await enter(listener, folder, good)).close()

    run(scenario())


@pytest.mark.parametrize("crl", [OURS.crl(next_update=NOW - timedelta(hours=1)), OTHERS.crl()])
def test_without_a_list_that_holds_nobody_comes_in_unless_that_is_wanted(
    run: Run, folder: Path, crl: bytes
) -> None:
    """Expired; or there is none of the CA that issued the certificate."""
    (folder / "crl.pem").write_bytes(crl)
    (folder / "ca.pem").write_bytes(OURS.pem + OTHERS.pem)

    async def scenario() -> None:
        hub = LocalHub()
        strict = await listen(hub, folder, crl_files=(folder / "crl.pem",))
        await is_refused(hub, strict, folder, OURS.issue())
        lenient = await listen(hub, folder, crl_files=(folder / "crl.pem",), when_crl_expired="warn")
        (await enter(lenient, folder, OURS.issue())).close()

    run(scenario())


# ---- what changes while clients are connected


def test_who_is_revoked_is_ended_and_the_others_stay(run: Run, folder: Path) -> None:
    bad, good = OURS.issue(), OURS.issue("sensor-2")

    async def scenario() -> None:
        hub = LocalHub()
        listener = await listen(hub, folder, crl_files=(folder / "crl.pem",))
        one, two = await enter(listener, folder, bad, "one"), await enter(listener, folder, good, "two")
        (folder / "crl.pem").write_bytes(OURS.crl(bad.certificate))
        assert await listener.load_certificates() == 1
        hub.request_tick()
        goodbye = await one.receive()
        assert isinstance(goodbye, Disconnect)
        assert goodbye.reason_code == const.NOT_AUTHORIZED
        await one.ended()
        two.writer.write(PINGREQ)
        assert isinstance(await two.receive(), Ping)
        two.close()

    run(scenario())


def test_who_showed_a_certificate_and_has_said_nothing_yet_is_ended_too(run: Run, folder: Path) -> None:
    bad = OURS.issue()

    async def scenario() -> None:
        hub = LocalHub()
        listener = await listen(hub, folder, crl_files=(folder / "crl.pem",))
        peer = await Peer.open(listener, trusting(folder, bad))
        await until(lambda: any(connection.certificate_names for connection in hub.connections))
        (folder / "crl.pem").write_bytes(OURS.crl(bad.certificate))
        assert await listener.load_certificates() == 1
        hub.request_tick()
        await peer.ended()

    run(scenario())


def test_a_ca_that_is_taken_out(run: Run, folder: Path) -> None:
    (folder / "ca.pem").write_bytes(OURS.pem + OTHERS.pem)

    async def scenario() -> None:
        hub = LocalHub()
        listener = await listen(hub, folder)
        one = await enter(listener, folder, OTHERS.issue(), "one")
        two = await enter(listener, folder, OURS.issue("sensor-2"), "two")
        (folder / "ca.pem").write_bytes(OURS.pem)
        assert await listener.load_certificates() == 1
        hub.request_tick()
        await one.ended()
        two.writer.write(PINGREQ)
        assert isinstance(await two.receive(), Ping)
        two.close()
        await until(lambda: not hub.router.sessions)
        await is_refused(hub, listener, folder, OTHERS.issue())

    run(scenario())


def test_a_handshake_that_began_before_a_ca_was_taken_out(run: Run, folder: Path) -> None:
    """It ends by the old context, and counts by the new one."""
    (folder / "ca.pem").write_bytes(OURS.pem + OTHERS.pem)

    async def scenario() -> None:
        hub = LocalHub()
        listener = await listen(hub, folder)
        client = TlsPipe(trusting(folder, OTHERS.issue()), False, "localhost")
        host, _, port = listener.name.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        client.start()
        writer.write(client.take_output())
        client.receive(await reader.read(1 << 16))
        assert client.established
        (folder / "ca.pem").write_bytes(OURS.pem)
        assert await listener.load_certificates() == 0
        writer.write(client.take_output())
        await until(lambda: not hub.connections)
        assert hub.refused == {"certificate": 1}
        writer.close()

    run(scenario())


def test_a_denied_serial_is_ended(run: Run, folder: Path) -> None:
    bad = OURS.issue()
    deny_list = DenyList(Denied())

    async def scenario() -> None:
        hub = LocalHub()
        listener = await listen(hub, folder, deny_list=deny_list)
        peer = await enter(listener, folder, bad)
        assert listener.judge_again() == 0
        deny_list.replace(Denied(serials=frozenset({bad.certificate.serial_number})))
        assert listener.judge_again() == 1
        assert "deny list" in end_of(hub)
        hub.request_tick()
        await peer.ended()
        await until(lambda: not hub.connections)
        assert listener._clients is not None
        assert not listener._clients.connected, "who is gone is forgotten"

    run(scenario())


def test_what_will_not_do_changes_nothing(run: Run, folder: Path) -> None:
    """Neither half is taken: certificate and key are good here, the revocation list is not."""
    pair = OURS.issue()

    async def scenario() -> None:
        hub = LocalHub()
        listener = await listen(hub, folder, crl_files=(folder / "crl.pem",))
        peer = await enter(listener, folder, pair, "stays")
        OURS.issue("renewed", dns=["localhost"], usages=(SERVER,)).write(folder, "server")
        (folder / "crl.pem").write_bytes(OTHERS.crl())
        with pytest.raises(ConfigError, match="no CA of client_ca signed"):
            await listener.load_certificates()
        another = await enter(listener, folder, pair, "comes")
        certificate = another.writer.get_extra_info("peercert")
        assert dict(found for names in certificate["subject"] for found in names)["commonName"] == "gateway"
        peer.writer.write(PINGREQ)
        assert isinstance(await peer.receive(), Ping)
        for left in (peer, another):
            left.close()

    run(scenario())


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_resumed_session_is_judged_like_any_other(folder: Path, version: ssl.TLSVersion) -> None:
    """Its certificate was verified before; what was denied since counts all the same."""
    pair = OURS.issue()
    server_side = server_context(
        str(folder / "server.crt"), str(folder / "server.key"), str(folder / "ca.pem"), True
    )
    client_side = trusting(folder, pair)
    client_side.maximum_version = version

    def shake(session: ssl.SSLSession | None) -> tuple[TlsPipe, ssl.SSLObject]:
        server = TlsPipe(server_side, True)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = client_side.wrap_bio(incoming, outgoing, server_hostname="localhost", session=session)
        for _ in range(4):
            try:
                client.do_handshake()
                client.read()
            except ssl.SSLWantReadError:
                pass
            server.receive(outgoing.read())
            incoming.write(server.take_output())
        assert server.established
        return server, client

    first, client = shake(None)
    whole = first.peer()
    assert whole is not None
    assert whole.chain == (pair.der, OURS.der)
    second, resumed = shake(client.session)
    assert resumed.session_reused
    alone = second.peer()
    assert alone is not None
    assert alone.chain[0] == pair.der
    assert alone.names == whole.names


def test_only_ciphers_that_keep_past_secrets_safe(folder: Path) -> None:
    context = server_context(str(folder / "server.crt"), str(folder / "server.key"))
    ciphers = context.get_ciphers()
    assert len(ciphers) > 5
    for cipher in ciphers:
        assert cipher["aead"], cipher["name"]
        assert cipher["protocol"] == "TLSv1.3" or cipher["kea"] == "kx-ecdhe", cipher["name"]


def test_a_key_with_a_passphrase_is_refused_and_not_asked_for(folder: Path) -> None:
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        PrivateFormat,
    )

    locked = GATEWAY.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    (folder / "server.key").write_bytes(locked)
    with pytest.raises(ConfigError, match=r"server\.key: is protected by a passphrase"):
        context_of_files(str(folder / "server.crt"), str(folder / "server.key"))


@pytest.mark.parametrize(("keys", "loaded"), [("", False), ('crl_files = ["crl.pem"]\n', True)])
def test_an_idle_broker_does_not_load_what_it_does_not_need(folder: Path, keys: str, loaded: bool) -> None:
    """Not even to know when its certificates expire: only revocation lists need `cryptography`."""
    config = folder / "edge-broker.toml"
    config.write_text(
        'data_dir = "data"\n[[listeners]]\ntransport = "tls"\nbind = "127.0.0.1:0"\ncertificate = "server.crt"\n'
        f'key = "server.key"\nclient_ca = "ca.pem"\n{keys}[security]\ndeny_file = "denied"\n'
    )
    (folder / "denied").write_text("serial ff\n")
    script = (
        "import asyncio, sys, time\nfrom pathlib import Path\n"
        "from edge_broker.broker import Broker\nfrom edge_broker.config.loading import load\n"
        "async def run():\n    broker = Broker(load(Path(sys.argv[1])))\n    await broker.start()\n"
        "    await broker.reload(broker.config)\n    broker.expiring.problems(time.time())\n"
        "    print('cryptography' in sys.modules)\n    await broker.stop()\nasyncio.run(run())\n"
    )
    process = subprocess.run(
        [sys.executable, "-c", script, str(config)], capture_output=True, text=True, timeout=60
    )
    assert process.stdout == f"{loaded}\n", process.stderr
