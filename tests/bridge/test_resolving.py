import asyncio
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from bridge.resolving import Resolver


async def test_an_address_needs_no_lookup(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading.Thread, "start", lambda self: pytest.fail("a thread for an address"))
    addresses = await Resolver().resolve("127.0.0.1", 1883)
    assert [address.socket_address for address in addresses] == [("127.0.0.1", 1883)]
    addresses = await Resolver().resolve("::1", 1883)
    assert addresses[0].family == socket.AF_INET6


async def test_a_name_is_looked_up() -> None:
    addresses = await Resolver().resolve("localhost", 1883)
    assert {address.socket_address[0] for address in addresses} & {"127.0.0.1", "::1"}


@pytest.mark.parametrize("name", ["no-such-host.invalid", "a..b", "x" * 70 + ".example"])
async def test_a_name_without_address_is_an_error(name: str) -> None:
    with pytest.raises(socket.gaierror):
        await asyncio.wait_for(Resolver().resolve(name, 1883), 20)


async def test_a_resolver_that_hangs_costs_one_thread_and_nobodys_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hanging = threading.Event()
    real = socket.getaddrinfo
    lookups = []

    def hang(host: str, *arguments: object, **more: object) -> object:
        if more.get("flags") or host != "slow.example":
            return real(host, *arguments, **more)  # type: ignore[arg-type]
        lookups.append(host)
        hanging.wait(20)
        return real("127.0.0.1", *arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    resolver = Resolver()
    try:
        for _ in range(3):
            started = time.monotonic()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(resolver.resolve("slow.example", 1883), 0.05)
            assert time.monotonic() - started < 1
        assert lookups == ["slow.example"]
        waiting = asyncio.ensure_future(resolver.resolve("slow.example", 1883))
        await asyncio.sleep(0)
    finally:
        hanging.set()
    assert (await waiting)[0].socket_address == ("127.0.0.1", 1883)
    await resolver.resolve("slow.example", 1883)
    assert len(lookups) == 2


def test_a_lookup_that_hangs_does_not_keep_the_process(tmp_path: Path) -> None:
    script = tmp_path / "hang.py"
    script.write_text(
        "import asyncio, socket, time\n"
        "from bridge.resolving import Resolver\n"
        "real = socket.getaddrinfo\n"
        "def hang(*a, **k):\n"
        "    if k.get('flags'):\n"
        "        return real(*a, **k)\n"
        "    time.sleep(60)\n"
        "socket.getaddrinfo = hang\n"
        "async def main():\n"
        "    try:\n"
        "        await asyncio.wait_for(Resolver().resolve('slow.example', 1), 0.1)\n"
        "    except TimeoutError:\n"
        "        print('gave up')\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=20, check=True)
    assert (done.stdout, done.stderr) == ("gave up\n", "")
