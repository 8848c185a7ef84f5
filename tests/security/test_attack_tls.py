"""TLS as an attacker would have it: older, weaker, begun anew, packed, replayed; and certificates shown where they count
for nothing. What a listener thinks of certificates themselves is in `tests.net.test_client_certificates`.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from edge_broker.broker import Broker
from edge_broker.config.model import Config, ListenerConfig
from edge_broker.config.security import SecurityConfig
from edge_broker.wire import const
from edge_broker.wire.encoder import encode_connect
from edge_broker.wire.packets import Connack, Connect
from tests.net.hub import Peer
from tests.security.issuing import SERVER, Issuer
from tests.security.serving import lines

OURS = Issuer("ours")
GATEWAY = OURS.issue("gateway", dns=["localhost"], usages=(SERVER,))
CONNECT = encode_connect(Connect(const.MQTT_5, "c", True, 0))


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[Broker]:
    """Listens for certificates, for passwords over TLS, over WebSocket, and in plain; in this order."""
    (folder / "ca.pem").write_bytes(OURS.pem)
    (folder / "passwords").write_text(lines("anna", "pencil"))
    (folder / "passwords").chmod(0o600)
    certificate, key = (Path(name) for name in GATEWAY.write(folder, "server"))
    listeners = (
        ListenerConfig("tls", "127.0.0.1:0", certificate=certificate, key=key, client_ca=folder / "ca.pem"),
        ListenerConfig("tls", "127.0.0.1:0", certificate=certificate, key=key, anonymous=False),
        ListenerConfig("wss", "127.0.0.1:0", certificate=certificate, key=key, anonymous=False),
        ListenerConfig("tcp", "127.0.0.1:0", anonymous=False),
    )
    security = SecurityConfig(password_file=folder / "passwords")
    broker = Broker(Config(data_dir=folder / "data", listeners=listeners, security=security))
    await broker.start()
    try:
        yield broker
    finally:
        await broker.stop()


def port_of(broker: Broker, number: int) -> int:
    return int(broker.listening[number].split(":")[2].split("/")[0])


def careless() -> ssl.SSLContext:
    """A client that takes whatever it gets."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    return context


async def shake(port: int, context: ssl.SSLContext) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.wait_for(asyncio.open_connection("127.0.0.1", port, ssl=context), 20)


@pytest.mark.parametrize("listener", [0, 1, 2])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
async def test_no_older_version(tmp_path: Path, version: ssl.TLSVersion, listener: int) -> None:
    context = careless()
    with pytest.warns(DeprecationWarning, match="TLS"):
        context.minimum_version = context.maximum_version = version
    async with serving(tmp_path) as broker:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await shake(port_of(broker, listener), context)
        assert broker.router.counters.refused == {"tls": 1}


@pytest.mark.parametrize(
    "cipher",
    ["AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-SHA", "ECDHE-ECDSA-AES256-SHA384", "aNULL:eNULL", "PSK"],
    ids=["no forward secrecy", "cbc", "cbc with sha-2", "nobody signs, nothing is encrypted", "psk"],
)
async def test_no_weaker_cipher(tmp_path: Path, cipher: str) -> None:
    context = careless()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(f"{cipher}:@SECLEVEL=0")
    async with serving(tmp_path) as broker:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await shake(port_of(broker, 1), context)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_nothing_is_packed_and_no_protocol_is_made_up(tmp_path: Path, version: ssl.TLSVersion) -> None:
    """TLS compression would tell an attacker who can add to it what is in it (CRIME)."""
    context = careless()
    context.minimum_version = context.maximum_version = version
    context.options &= ~ssl.OP_NO_COMPRESSION
    context.set_alpn_protocols(["h2", "http/1.1", "x-amzn-mqtt-ca"])
    async with serving(tmp_path) as broker:
        _, writer = await shake(port_of(broker, 1), context)
        tls = writer.get_extra_info("ssl_object")
        assert (tls.compression(), tls.selected_alpn_protocol()) == (None, None)
        writer.close()


async def openssl(port: int, arguments: Sequence[str], said: bytes) -> str:
    """What `openssl s_client` tells of a connection in which `said` is typed."""
    process = await asyncio.create_subprocess_exec(
        *("openssl", "s_client", "-connect", f"127.0.0.1:{port}", *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(process.communicate(said), 30)
    return output.decode("utf-8", "replace")


@pytest.mark.needs("openssl")
async def test_no_handshake_is_begun_anew(tmp_path: Path) -> None:
    """In TLS 1.2 a client could; each costs the gateway a signature, and one could be slipped in by somebody else."""
    async with serving(tmp_path) as broker:
        told = await openssl(port_of(broker, 1), ["-tls1_2"], b"R\n")
    assert "RENEGOTIATING" in told
    assert "no renegotiation" in told.lower()


@pytest.mark.needs("openssl")
async def test_a_client_that_was_talked_down_is_warned(tmp_path: Path) -> None:
    """Somebody broke its attempts with TLS 1.3 until it tried 1.2: RFC 7507."""
    async with serving(tmp_path) as broker:
        told = await openssl(port_of(broker, 1), ["-tls1_2", "-fallback_scsv"], b"")
    assert "inappropriate fallback" in told.lower()


@pytest.mark.needs("openssl")
async def test_no_early_data(tmp_path: Path) -> None:
    """What comes before the handshake is over can be sent again by whoever has seen it: a CONNECT, a PUBLISH."""
    async with serving(tmp_path) as broker:
        context = careless()
        _, writer = await shake(port_of(broker, 1), context)
        writer.write(CONNECT)
        session = tmp_path / "session.pem"
        first = await openssl(port_of(broker, 1), ["-tls1_3", "-sess_out", str(session)], b"x\n")
        assert "Verification" in first
        assert "Max Early Data: 0" in first or "Max Early Data" not in first
        writer.close()
        if session.exists():
            early = tmp_path / "early"
            early.write_bytes(CONNECT)
            arguments = ["-tls1_3", "-sess_in", str(session), "-early_data", str(early)]
            again = await openssl(port_of(broker, 1), arguments, b"x\n")
            assert "Early data was accepted" not in again


async def test_mqtt_without_tls_gets_nothing_from_a_tls_listener(tmp_path: Path) -> None:
    async with serving(tmp_path) as broker:
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(broker, 1))
        writer.write(CONNECT)
        answer = await asyncio.wait_for(reader.read(), 20)
        assert answer[:1] in (b"", b"\x15"), "an alert of TLS, no CONNACK"
        assert broker.router.counters.connects == 0
        writer.close()


async def test_tls_gets_nothing_from_a_plain_listener(tmp_path: Path) -> None:
    async with serving(tmp_path) as broker:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await shake(port_of(broker, 3), careless())


async def answer_to(
    broker: Broker, listener: int, *, with_certificate: bool, username: str | None
) -> Connack:
    """CONNECT with a good certificate of `anna`, or none; `username` with a wrong password, or none."""
    folder = broker.config.data_dir.parent
    context = careless()
    if with_certificate:
        context.load_cert_chain(*OURS.issue("anna").write(folder, "anna"))
    reader, writer = await shake(port_of(broker, listener), context)
    password = None if username is None else b"wrong"
    writer.write(encode_connect(Connect(const.MQTT_5, "c", True, 0, username, password)))
    answer = await Peer(reader, writer, const.MQTT_5).receive()
    assert isinstance(answer, Connack)
    writer.close()
    return answer


async def test_a_certificate_counts_only_where_one_is_asked_for(tmp_path: Path) -> None:
    """The listener for passwords does not know its CA: whoever shows one there has proved nothing."""
    async with serving(tmp_path) as broker:
        assert (await answer_to(broker, 0, with_certificate=True, username=None)).reason_code == 0
        refused = await answer_to(broker, 1, with_certificate=True, username=None)
        assert refused.reason_code == const.NOT_AUTHORIZED
        wrong = await answer_to(broker, 1, with_certificate=True, username="anna")
        assert wrong.reason_code == const.BAD_USER_NAME_OR_PASSWORD
        assert [session.identity for session in broker.router.sessions.values()] in ([], ["anna"])


async def test_a_password_is_no_certificate(tmp_path: Path) -> None:
    """Where a certificate is demanded, nobody gets as far as saying a password."""
    async with serving(tmp_path) as broker:
        with pytest.raises((ssl.SSLError, ConnectionError, EOFError)):
            await answer_to(broker, 0, with_certificate=False, username="anna")
        assert broker.router.counters.connects == 0
