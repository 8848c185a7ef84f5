"""paho-mqtt through a proxy that tells its clients' addresses; the broker process's log says what it was told."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import find_program
from tests.integration.broker_process import until
from tests.integration.foreign import Paho
from tests.integration.serving import Serving
from tests.net.test_proxy_header import block_4, v2

HEADERS = {
    "v1": b"PROXY TCP4 192.0.2.7 198.51.100.1 51234 1883\r\n",
    "v2": v2(0x21, 0x11, block_4() + b"\x04\x00\x03xyz"),
}


class TellingProxy:
    """A TCP proxy on a port of its own that says `header` first, one byte at a time."""

    def __init__(self, upstream: int, header: bytes) -> None:
        self._upstream, self._header = upstream, header
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy")
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._serve, "127.0.0.1", 0), self._loop
        ).result(20)
        self.port: int = self._server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", self._upstream)
        for at in range(len(self._header)):
            upstream_writer.write(self._header[at : at + 1])
            await asyncio.sleep(0)
        await asyncio.gather(_carry(reader, upstream_writer), _carry(upstream_reader, writer))

    def stop(self) -> None:
        async def end() -> None:
            self._server.close()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(20)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(20)
        self._loop.close()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory, pki: Path) -> Iterator[Serving]:
    keys = f'certificate = "{pki}/server.crt"\nkey = "{pki}/server.key"\n'
    kinds = [
        'transport = "tcp"\n',
        f'transport = "tls"\n{keys}',
        'transport = "ws"\n',
        f'transport = "wss"\n{keys}',
    ]
    serving = Serving(
        tmp_path_factory.mktemp("proxy"),
        *(f'{kind}bind = "127.0.0.1:0"\nproxy_protocol_from = ["127.0.0.0/8"]' for kind in kinds),
        settings='[log]\nlevel = "debug"\n',
    ).start()
    yield serving
    assert serving.stop() == 0


@pytest.mark.parametrize("header", HEADERS)
@pytest.mark.parametrize("number", range(4), ids=["tcp", "tls", "ws", "wss"])
def test_a_client_behind_a_proxy(serving: Serving, pki: Path, number: int, header: str) -> None:
    tls = ssl.create_default_context(cafile=str(pki / "ca.crt")) if number % 2 else None
    proxy = TellingProxy(serving.port_of(number), HEADERS[header])
    name = f"c-{number}-{header}"
    try:
        client = Paho(
            proxy.port, name, tls=tls, transport="websockets" if number >= 2 else "tcp", comes_back=False
        )
        client.connected().subscribe("t", 1)
        client.publish("t", b"x", 1)
        client.wait_for(1)
        client.leave()
        until(lambda: f"{name} from 192.0.2.7:51234" in serving.log, "not under its address")
    finally:
        proxy.stop()


@pytest.mark.needs("haproxy")
@pytest.mark.parametrize("send", ["send-proxy", "send-proxy-v2"])
def test_haproxy(serving: Serving, tmp_path: Path, free_port: int, send: str) -> None:
    """A proxy that nobody here wrote, with its health checks."""
    config = tmp_path / "haproxy.cfg"
    config.write_text(
        "defaults\n mode tcp\n timeout connect 5s\n timeout client 1m\n timeout server 1m\n"
        f"frontend clients\n bind 127.0.0.1:{free_port}\n default_backend mqtt\n"
        f"backend mqtt\n server gateway 127.0.0.1:{serving.port_of(0)} {send} check inter 50\n"
    )
    program = find_program("haproxy")
    assert program
    haproxy = subprocess.Popen([program, "-f", str(config), "-db"])
    try:
        until(lambda: _answers(free_port), "HAProxy does not listen")
        before = len(serving.log)
        client = Paho(free_port, f"behind {send}").connected()
        client.publish("t", b"x", 1)
        client.leave()
        until(lambda: f"behind {send} from 127.0.0.1:" in serving.log, "not under its address")
        assert "PROXY" not in serving.log[before:], "its header was refused"
    finally:
        haproxy.kill()
        haproxy.wait()


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_client_that_comes_without_the_proxy(serving: Serving) -> None:
    client = Paho(serving.port_of(0), comes_back=False)
    until(lambda: client.losses or "no PROXY header" in serving.log, "it is let in")
    until(lambda: "no PROXY header" in serving.log, "nobody is told")
    client.leave()
