"""Unix sockets: who is there, permissions, what a dead broker left, what a live one holds, and nothing left behind."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import stat
import tempfile
from pathlib import Path

import pytest

from edge_broker.net.endpoints import UnixEndpoint
from edge_broker.net.listeners import Listener
from edge_broker.wire import const
from edge_broker.wire.encoder import PINGREQ
from edge_broker.wire.packets import Ping
from tests.net.conftest import Run
from tests.net.hub import LocalHub, Peer, until


async def listening(path: Path, hub: LocalHub | None = None, mode: int = 0o660) -> Listener:
    return await (hub or LocalHub()).listen(endpoint=UnixEndpoint(str(path), mode))


async def enter(path: Path, client_id: str = "c") -> Peer:
    reader, writer = await asyncio.open_unix_connection(str(path))
    peer = Peer(reader, writer, const.MQTT_5)
    assert (await peer.connect(client_id)).reason_code == const.SUCCESS
    return peer


def test_a_conversation(run: Run, tmp_path: Path) -> None:
    async def scenario() -> None:
        hub, path = LocalHub(), tmp_path / "mqtt.sock"
        listener = await listening(path, hub)
        assert (listener.name, listener.url) == (str(path), f"unix://{path}")
        assert listener.accepting
        peer = await enter(path)
        (connection,) = hub.connections
        assert connection.address == f"unix:uid={os.getuid()}"
        assert connection.listener == str(path)
        listener.stop_accepting()
        assert not listener.accepting
        assert not path.exists(), "nothing is left behind"
        peer.writer.write(PINGREQ)
        assert isinstance(await peer.receive(), Ping), "who is in may stay"
        peer.close()
        await until(lambda: not hub.connections)

    run(scenario())


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666])
def test_the_permissions(run: Run, tmp_path: Path, mode: int) -> None:
    async def scenario() -> None:
        path = tmp_path / "mqtt.sock"
        listener = await listening(path, mode=mode)
        assert stat.S_IMODE(path.stat().st_mode) == mode
        listener.stop_accepting()

    run(scenario())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_somebody_else_is_kept_out_by_the_permissions_and_known_by_the_kernel(
    run: Run, tmp_path: Path
) -> None:
    async def scenario() -> None:
        ours = len(Path(tempfile.gettempdir()).parts)
        for folder in (tmp_path, *tmp_path.parents[: len(tmp_path.parts) - ours - 1]):
            folder.chmod(0o755)
        hub, path = LocalHub(), tmp_path / "mqtt.sock"
        listener = await listening(path, hub, 0o600)
        os.seteuid(65534)
        try:
            with pytest.raises(PermissionError):
                await enter(path)
            os.seteuid(0)
            path.chmod(0o666)
            os.seteuid(65534)
            peer = await enter(path)
        finally:
            os.seteuid(0)
        (connection,) = hub.connections
        assert connection.address == "unix:uid=65534"
        peer.close()
        listener.stop_accepting()

    run(scenario())


def test_what_a_dead_broker_left_is_replaced(run: Run, tmp_path: Path) -> None:
    async def scenario() -> None:
        path = tmp_path / "mqtt.sock"
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))
            dead.listen()
        assert path.exists()
        listener = await listening(path)
        (await enter(path)).close()
        listener.stop_accepting()

    run(scenario())


@pytest.mark.parametrize("backlog", [0, 1000])
def test_a_live_broker_is_left_alone(run: Run, tmp_path: Path, backlog: int) -> None:
    """Also one that is too busy to answer."""

    async def scenario() -> None:
        path = tmp_path / "mqtt.sock"
        waiting = []
        with socket.socket(socket.AF_UNIX) as live:
            live.bind(str(path))
            live.listen(backlog)
            for _ in range(2 if backlog == 0 else 0):
                client = socket.socket(socket.AF_UNIX)
                client.setblocking(False)
                waiting.append(client)
                try:
                    client.connect(str(path))
                except BlockingIOError:
                    break
            with pytest.raises(OSError, match="in use") as caught:
                await listening(path)
            assert (caught.value.errno, caught.value.filename) == (errno.EADDRINUSE, f"unix://{path}")
            assert path.exists()
        for client in waiting:
            client.close()

    run(scenario())


def test_a_file_is_left_alone(run: Run, tmp_path: Path) -> None:
    async def scenario() -> None:
        path = tmp_path / "mqtt.sock"
        path.write_text("precious")
        with pytest.raises(OSError, match="no socket") as caught:
            await listening(path)
        assert caught.value.filename == f"unix://{path}"
        assert path.read_text() == "precious"

    run(scenario())


def test_permissions_that_cannot_be_set_leave_nothing(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_path: Path, _mode: int) -> None:
        raise PermissionError(errno.EPERM, "not this file system")

    monkeypatch.setattr(Path, "chmod", refuse)

    async def scenario() -> None:
        path = tmp_path / "mqtt.sock"
        with pytest.raises(PermissionError, match="not this file system"):
            await listening(path)
        assert not path.exists()

    run(scenario())


def test_a_folder_that_is_not_there(run: Run, tmp_path: Path) -> None:
    async def scenario() -> None:
        path = tmp_path / "nowhere" / "mqtt.sock"
        with pytest.raises(OSError, match="No such file") as caught:
            await listening(path)
        assert caught.value.filename == f"unix://{path}"

    run(scenario())


def test_the_socket_of_a_successor_is_not_removed(run: Run, tmp_path: Path) -> None:
    async def scenario() -> None:
        path = tmp_path / "mqtt.sock"
        old = await listening(path)
        path.rename(tmp_path / "moved")
        new = await listening(path)
        old.stop_accepting()
        (await enter(path)).close()
        new.stop_accepting()
        assert not path.exists()

    run(scenario())


def test_the_end_without_the_file(run: Run, tmp_path: Path) -> None:
    async def scenario() -> None:
        path = tmp_path / "mqtt.sock"
        listener = await listening(path)
        path.unlink()
        listener.stop_accepting()
        assert not listener.accepting

    run(scenario())
