"""A broken store: the broker says what is wrong and ends, or sets it aside, says so, and serves."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.broker_process import WAIT_SECONDS, BrokerProcess, until
from tests.integration.conftest import StartBroker
from tests.integration.foreign import Paho


def ends_with(broker: BrokerProcess, code: int, *words: str) -> None:
    """It does not start: that exit code, a clear message, no traceback."""
    process = broker.launch()
    assert process.wait(WAIT_SECONDS) == code
    broker.process = None
    assert "Traceback" not in broker.log
    for word in words:
        assert word in broker.log


def test_a_data_dir_that_is_a_file(tmp_path: Path) -> None:
    broker = BrokerProcess(tmp_path)
    broker.data_dir.write_text("in the way")
    ends_with(broker, 2, "does not start", str(broker.data_dir))
    assert broker.data_dir.read_text() == "in the way"


def test_a_data_dir_that_another_broker_uses(start_broker: StartBroker, tmp_path: Path) -> None:
    first = start_broker()
    second = BrokerProcess(tmp_path / "second")
    second.data_dir = first.data_dir
    ends_with(second, 1, "does not start", str(first.data_dir))
    Paho(first.port).connected().leave()


def test_a_port_that_is_taken(start_broker: StartBroker, tmp_path: Path) -> None:
    first = start_broker()
    second = BrokerProcess(tmp_path / "second")
    second.ports = [first.port]
    ends_with(second, 1, "does not start", str(first.port))


@pytest.mark.parametrize("damage", ["garbage", "truncated", "empty"])
def test_a_damaged_store_is_set_aside_and_the_broker_serves(start_broker: StartBroker, damage: str) -> None:
    broker = start_broker()
    client = Paho(broker.port, "c", expiry=3600, clean=False).connected().subscribe("t", 1)
    client.leave()
    publisher = Paho(broker.port).connected()
    for number in range(10):
        publisher.publish("t", b"%d" % number * 1000, 1)
    publisher.leave()
    broker.kill()
    (database,) = (
        path for path in broker.data_dir.iterdir() if path.suffix in (".db", ".sqlite", ".sqlite3")
    )
    content = database.read_bytes()
    if damage == "garbage":
        database.write_bytes(b"\xde\xad" * (len(content) // 2))
    elif damage == "truncated":
        database.write_bytes(content[: len(content) // 2])
    else:
        database.write_bytes(b"")
    broker.start()
    back = Paho(broker.port, "c", expiry=3600, clean=False).connected().subscribe("t", 1)
    back.publish("t", b"it serves", 1)
    until(lambda: b"it serves" in back.payloads, "it does not")
    back.leave()
    assert "Traceback" not in broker.log
