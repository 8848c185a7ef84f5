"""TlsPipe: both ends joined in memory, in whatever pieces the bytes arrive."""

from __future__ import annotations

import random
import ssl
from pathlib import Path

import pytest

from edge_broker.net.tls import TlsPipe, client_context, server_context


def pipes(
    pki: Path, client: str | None = "client", *, require: bool = True, ca: str = "ca"
) -> tuple[TlsPipe, TlsPipe]:
    """(client's end, server's end), not shaken hands yet."""
    serving = server_context(str(pki / "server.crt"), str(pki / "server.key"), str(pki / "ca.crt"), require)
    calling = client_context(
        str(pki / f"{ca}.crt"),
        None if client is None else str(pki / f"{client}.crt"),
        None if client is None else str(pki / f"{client}.key"),
    )
    return TlsPipe(calling, False, "localhost"), TlsPipe(serving, True)


def shake(client: TlsPipe, server: TlsPipe) -> None:
    """Carry bytes to and fro until nobody says anything more."""
    client.start()
    while True:
        to_server = client.take_output()
        if to_server:
            assert server.receive(to_server) == b""
        to_client = server.take_output()
        if to_client:
            assert client.receive(to_client) == b""
        if not to_server and not to_client:
            return


def test_a_conversation(pki: Path) -> None:
    client, server = pipes(pki)
    shake(client, server)
    assert client.established
    assert server.established
    assert client.version == server.version == "TLSv1.3"
    client.send(b"question")
    assert server.receive(client.take_output()) == b"question"
    server.send(b"ans")
    server.send(b"wer")
    assert client.receive(server.take_output()) == b"answer"


@pytest.mark.parametrize("piece", [1, 7, 1000])
def test_in_pieces(pki: Path, piece: int) -> None:
    client, server = pipes(pki)
    client.send(b"before the handshake")
    client.start()
    received, told = b"", False
    for _ in range(10):
        data = client.take_output()
        for at in range(0, len(data), piece):
            received += server.receive(data[at : at + piece])
        data = server.take_output()
        for at in range(0, len(data), piece):
            client.receive(data[at : at + piece])
        if server.established and not told:
            told = True
            client.send(b", and behind it")
    assert received == b"before the handshake, and behind it"


def test_much_data_both_ways(pki: Path) -> None:
    client, server = pipes(pki)
    shake(client, server)
    data = random.Random(1).randbytes(1 << 20)
    client.send(data)
    server.send(data)
    assert server.receive(client.take_output()) == data
    assert client.receive(server.take_output()) == data


def test_the_names_of_the_peer(pki: Path) -> None:
    client, server = pipes(pki)
    shake(client, server)
    assert server.peer_names() == {
        "common_name": ("sensor-1",),
        "san_dns": ("sensor.local",),
        "uri": ("spiffe://home/sensor",),
        "spiffe": ("spiffe://home/sensor",),
    }
    certificate = server.peer_certificate()
    assert certificate is not None
    assert certificate[0] == 0x30
    assert client.peer_names()["common_name"] == ("gateway",)


def test_without_a_certificate_there_are_no_names(pki: Path) -> None:
    client, server = pipes(pki, None, require=False)
    shake(client, server)
    assert server.established
    assert server.peer_names() == {"common_name": (), "san_dns": (), "uri": (), "spiffe": ()}
    assert server.peer() is None
    assert server.peer_certificate() is None


@pytest.mark.parametrize("who", [None, "stranger", "expired"])
def test_a_client_that_cannot_prove_itself(pki: Path, who: str | None) -> None:
    """In TLS 1.3 it hears of it only after its own handshake."""
    client, server = pipes(pki, who)
    with pytest.raises(ssl.SSLError):
        shake(client, server)
    assert not server.established
    alert = server.take_output()
    assert alert, "the client is told"
    with pytest.raises(ssl.SSLError):
        client.receive(alert)


def test_a_server_that_cannot_prove_itself(pki: Path) -> None:
    client, server = pipes(pki, ca="other-ca")
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(client, server)
    with pytest.raises(ssl.SSLError):
        server.receive(client.take_output())


def test_a_server_of_another_name(pki: Path) -> None:
    _, server = pipes(pki)
    context = client_context(str(pki / "ca.crt"), str(pki / "client.crt"), str(pki / "client.key"))
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(TlsPipe(context, False, "elsewhere.example"), server)


@pytest.mark.parametrize(
    "garbage",
    [b"\x10\x0c\0\x04MQTT\x04\x02\0\0\0\0", b"GET / HTTP/1.1\r\n\r\n", bytes(100), b"\x16\x03\x01\xff\xff"],
)
def test_what_is_no_tls(pki: Path, garbage: bytes) -> None:
    _, server = pipes(pki)
    try:
        assert server.receive(garbage) == b""
    except ssl.SSLError:
        pass
    assert not server.established


def test_a_changed_byte_ends_it(pki: Path) -> None:
    client, server = pipes(pki)
    shake(client, server)
    client.send(b"pay 10")
    data = bytearray(client.take_output())
    data[-3] ^= 1
    with pytest.raises(ssl.SSLError):
        server.receive(bytes(data))


def test_the_end_in_due_form(pki: Path) -> None:
    client, server = pipes(pki)
    shake(client, server)
    client.send(b"last")
    client.shut()
    assert server.receive(client.take_output()) == b"last"
    assert server.ended
    assert not client.ended


def test_the_end_before_the_beginning_is_nothing(pki: Path) -> None:
    client, _ = pipes(pki)
    client.shut()
    assert client.take_output() == b""


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_old_versions_are_refused(pki: Path, version: ssl.TLSVersion) -> None:
    _, server = pipes(pki, None, require=False)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLS"):
        context.minimum_version = context.maximum_version = version
    with pytest.raises(ssl.SSLError):
        shake(TlsPipe(context, False, "localhost"), server)
