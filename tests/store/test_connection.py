"""The thread behind a connection behaves as the store needs it, whatever version of aiosqlite is installed."""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_broker.store.connection import ThreadedConnection


@pytest.fixture
def made() -> Iterator[list[sqlite3.Connection]]:
    """The SQLite connections that were made."""
    yield (connections := [])
    for connection in connections:
        connection.close()


def make(made: list[sqlite3.Connection], path: Path) -> ThreadedConnection:
    def connect() -> sqlite3.Connection:
        made.append(sqlite3.connect(path, isolation_level=None, check_same_thread=False))
        return made[-1]

    return ThreadedConnection("a-name", connect, connect)


async def test_functions_run_in_one_daemon_thread(made: list[sqlite3.Connection], tmp_path: Path) -> None:
    connection = make(made, tmp_path / "x.db")
    await connection.start()
    threads = [await connection.run(lambda _: threading.current_thread()) for _ in range(3)]
    assert len(set(threads)) == 1
    assert threads[0].daemon
    assert threads[0].name == "a-name"
    assert await connection.run(lambda c: c) is made[0]
    await connection.close()
    threads[0].join(5)
    assert not threads[0].is_alive()


async def test_what_a_function_raises_comes_back(made: list[sqlite3.Connection], tmp_path: Path) -> None:
    connection = make(made, tmp_path / "x.db")
    await connection.start()
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        await connection.run(lambda c: c.execute("SELECT * FROM missing"))
    with pytest.raises(ZeroDivisionError):
        await connection.run(lambda _: 1 // 0)
    await connection.close()


async def test_an_error_of_sqlite_makes_a_new_connection(
    made: list[sqlite3.Connection], tmp_path: Path
) -> None:
    connection = make(made, tmp_path / "x.db")
    await connection.start()
    await connection.run(lambda c: c.set_progress_handler(lambda: 1, 1))
    with pytest.raises(sqlite3.OperationalError, match="interrupted"):
        await connection.run(lambda c: c.execute("SELECT 1").fetchone())
    assert await connection.run(lambda c: c.execute("SELECT 1").fetchone()) == (1,)
    assert len(made) == 2
    with pytest.raises(sqlite3.ProgrammingError):
        made[0].execute("SELECT 1")  # the old one is closed
    await connection.close()


async def test_an_error_of_the_caller_does_not(made: list[sqlite3.Connection], tmp_path: Path) -> None:
    connection = make(made, tmp_path / "x.db")
    await connection.start()
    await connection.run(lambda c: c.execute("CREATE TABLE t (a UNIQUE)"))
    with pytest.raises(sqlite3.IntegrityError):
        await connection.run(lambda c: c.execute("INSERT INTO t VALUES (1), (1)"))
    await connection.run(lambda c: c.execute("SELECT 1"))
    assert len(made) == 1
    await connection.close()


async def test_as_long_as_no_new_connection_can_be_made_each_try_says_why(
    made: list[sqlite3.Connection], tmp_path: Path
) -> None:
    tries: list[int] = []

    def reconnect() -> sqlite3.Connection:
        tries.append(1)
        if len(tries) < 3:
            raise sqlite3.OperationalError("not yet")
        return sqlite3.connect(tmp_path / "x.db", check_same_thread=False)

    def connect() -> sqlite3.Connection:
        made.append(sqlite3.connect(tmp_path / "x.db", check_same_thread=False))
        return made[-1]

    connection = ThreadedConnection("x", connect, reconnect)
    await connection.start()
    await connection.release(lambda: None)
    for _ in range(2):
        with pytest.raises(sqlite3.OperationalError, match="not yet"):
            await connection.run(lambda c: c.execute("SELECT 1"))
    assert await connection.run(lambda c: c.execute("SELECT 1").fetchone()) == (1,)
    await connection.close()


async def test_a_connection_is_released_for_something_else(
    made: list[sqlite3.Connection], tmp_path: Path
) -> None:
    connection = make(made, tmp_path / "x.db")
    await connection.start()

    def meanwhile() -> str:
        with pytest.raises(sqlite3.ProgrammingError):
            made[0].execute("SELECT 1")
        return "done"

    assert await connection.release(meanwhile) == "done"
    assert await connection.run(lambda c: c) is made[1]
    await connection.close()


async def test_a_failed_start_leaves_no_thread(tmp_path: Path) -> None:
    before = threading.active_count()

    def connect() -> sqlite3.Connection:
        raise sqlite3.OperationalError("no")

    connection = ThreadedConnection("x", connect, connect)
    with pytest.raises(sqlite3.OperationalError, match="no"):
        await connection.start()
    await connection.close()
    assert not connection._thread.is_alive()
    assert threading.active_count() <= before + 1  # the loop's own executor may have come


async def test_what_is_executed_is_not_in_the_log(
    made: list[sqlite3.Connection], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    secret = "a payload"
    connection = make(made, tmp_path / "x.db")
    await connection.start()
    await connection.run(lambda c, text=secret: c.execute("SELECT ?", (text,)))  # type: ignore[misc]
    await connection.close()
    assert "a payload" not in caplog.text
