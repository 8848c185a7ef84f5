"""`edge-broker store` as a person runs it: beside a real broker, on a stopped store, on a damaged one."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import threading
from pathlib import Path

import cbor2
import pytest

from tests.integration.broker_process import BrokerProcess, until
from tests.integration.conftest import StartBroker, start_broker  # noqa: F401 - a fixture
from tests.integration.foreign import Paho
from tests.store.sample import look_inside

BRIDGE = '[[bridges]]\nname = "cloud"\nurls = ["mqtt://127.0.0.1:9"]\nout = [{ filter = "data/#" }]\n'
MESSAGES = 50


def run(*arguments: object) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "edge_broker", "store", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, timeout=60)


def status(directory: Path) -> dict[str, object]:
    done = run("status", "--json", "--data-dir", directory)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def lines(done: subprocess.CompletedProcess[bytes]) -> list[dict[str, object]]:
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture
def broker(start_broker: StartBroker) -> BrokerProcess:  # noqa: F811
    """A broker with 50 messages for a session and a bridge whose upstream is not there, and a retained message."""
    broker = start_broker(settings=BRIDGE)
    Paho(broker.port, "display", expiry=3600, clean=False).connected().subscribe("data/#", 1).leave()
    publisher = Paho(broker.port, "sensor").connected()
    for number in range(1, MESSAGES + 1):
        publisher.publish("data/temperature", b"%d" % number, 1)
    publisher.publish(
        "data/raw", b"\xff\xfe", 2, retain=True, ContentType="octets", UserProperty=("unit", "C")
    )
    publisher.leave()
    return broker


def check_status(found: dict[str, object], holder: str | None) -> None:
    assert found["holder"] == holder
    queues = {queue["name"]: queue for queue in found["queues"]}  # type: ignore[attr-defined]
    assert queues.keys() == {"bridge:cloud", "session:display"}
    for queue in queues.values():
        assert (queue["depth"], queue["first"], queue["last"]) == (MESSAGES + 1, 1, MESSAGES + 1)
        assert 60 > queue["oldest_age_seconds"] >= queue["newest_age_seconds"] >= 0
    assert [session["client_id"] for session in found["sessions"]] == ["display"]  # type: ignore[attr-defined]
    assert found["retained"] == 1


def check_export(directory: Path) -> None:
    for queue in ("cloud", "bridge:cloud", "display", "session:display"):
        found = lines(run("export", queue, "--data-dir", directory))
        assert [one["payload"] for one in found[:-1]] == [str(number) for number in range(1, MESSAGES + 1)]
        assert [one["number"] for one in found] == list(range(1, MESSAGES + 2))
        assert found[-1]["payload_base64"] == "//4="
        assert found[-1]["properties"] == {"content_type": "octets", "user_properties": [["unit", "C"]]}
        assert found[0]["id"] != found[1]["id"]
    some = lines(run("export", "cloud", "--from", 7, "--to", 9, "--data-dir", directory))
    assert [one["number"] for one in some] == [7, 8, 9]
    output = directory / "out.cbor"
    assert (
        run("export", "retained", "--format", "cbor", "-o", output, "--data-dir", directory).returncode == 0
    )
    retained = cbor2.loads(output.read_bytes())
    assert (retained["topic"], retained["payload"], retained["retain"]) == ("data/raw", b"\xff\xfe", True)
    assert retained["received_at"].tzinfo is not None
    output.unlink()


def test_beside_a_running_broker_and_on_a_stopped_one(broker: BrokerProcess) -> None:
    directory = broker.data_dir
    pid = str(broker.pid)
    check_status(status(directory), pid)
    check_export(directory)
    verified = run("verify", "--data-dir", directory)
    assert (verified.returncode, verified.stderr) == (0, b"")
    assert verified.stdout.startswith(b"sound: 102 messages in 2 queues")
    refused = run("compact", "--data-dir", directory)
    assert refused.returncode == 1
    assert f"process {pid}".encode() in refused.stderr

    assert broker.stop() == 0
    check_status(status(directory), None)
    check_export(directory)
    assert run("verify", "--data-dir", directory).returncode == 0
    compacted = run("compact", "--data-dir", directory)
    assert compacted.returncode == 0, compacted.stderr
    assert b" before, " in compacted.stdout
    check_status(status(directory), None)

    broker.start()
    back = Paho(broker.port, "display", expiry=3600, clean=False).connected()
    assert back.session_present
    assert [message.payload for message in back.wait_for(MESSAGES + 1)[:3]] == [b"1", b"2", b"3"]
    back.leave()


def test_after_a_kill(broker: BrokerProcess) -> None:
    """The last commits are in the write-ahead log only, and nobody has brought them into the database yet."""
    broker.kill()
    check_status(status(broker.data_dir), None)
    assert run("verify", "--data-dir", broker.data_dir).returncode == 0
    check_export(broker.data_dir)


def test_under_load_nothing_is_disturbed(start_broker: StartBroker) -> None:  # noqa: F811
    """A broker that appends and removes all the time is sound whenever one looks, and goes on."""
    broker = start_broker(settings=BRIDGE)
    reader = Paho(broker.port, "reader", expiry=3600, clean=False).connected().subscribe("data/#", 1)
    publisher = Paho(broker.port, "sensor", in_flight=200).connected()
    done = threading.Event()

    def publish() -> None:
        while not done.is_set():
            publisher.client.publish("data/1", bytes(200), 1).wait_for_publish(20)

    threads = [threading.Thread(target=publish) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(3):
            seen = len(reader.messages)
            verified = run("verify", "--data-dir", broker.data_dir)
            assert verified.returncode == 0, verified.stdout
            numbers = [one["number"] for one in lines(run("export", "cloud", "--data-dir", broker.data_dir))]
            assert numbers == list(range(1, len(numbers) + 1))
            until(lambda seen=seen: len(reader.messages) > seen + 100, "the broker stands still")  # type: ignore[misc]
    finally:
        done.set()
        for thread in threads:
            thread.join()
        publisher.leave()
        reader.leave()
    assert "error" not in broker.log


def test_damage_is_said_exactly(broker: BrokerProcess) -> None:
    assert broker.stop() == 0
    database = look_inside(broker.data_dir)
    first, last = database.execute(
        "SELECT first_number, last_number FROM segment JOIN outbox USING (queue_id) ORDER BY 1 LIMIT 1"
    ).fetchone()
    database.execute(
        "UPDATE segment SET body = x'00' WHERE first_number = ? AND queue_id = (SELECT queue_id FROM outbox)",
        (first,),
    )
    database.close()
    verified = run("verify", "--data-dir", broker.data_dir)
    assert verified.returncode == 1
    assert (
        f"bridge:cloud: messages {first} to {last} cannot be read: the checksum".encode() in verified.stdout
    )
    assert verified.stdout.splitlines()[-1].startswith(b"DAMAGED: ")
    exported = run("export", "cloud", "--data-dir", broker.data_dir)
    assert exported.returncode == 1
    assert f"messages {first} to {last} cannot be read".encode() in exported.stderr
    assert len(exported.stdout.splitlines()) == MESSAGES + 1 - (last - first + 1)


def test_what_is_kept_in_memory_only_is_no_fault(start_broker: StartBroker) -> None:  # noqa: F811
    """Its messages have numbers among those on disk, and the store never hears of them."""
    broker = start_broker(settings='[[store.topics]]\nfilter = "fast/#"\ndurability = "memory"\n')
    Paho(broker.port, "display", expiry=3600, clean=False).connected().subscribe("#", 1).leave()
    publisher = Paho(broker.port, "sensor").connected()
    for topic in ("slow/1", "fast/1", "fast/2", "slow/2"):
        publisher.publish(topic, b"x", 1)
    publisher.leave()
    for where in (("-c", broker.directory / "edge-broker.toml"), ("--data-dir", broker.data_dir)):
        told = run("verify", *where)
        assert told.returncode == 0
        assert (
            b"session:display: messages 2 to 3 are on no disk: they were kept in memory only" in told.stdout
        )
    assert [one["topic"] for one in lines(run("export", "display", "--data-dir", broker.data_dir))] == [
        "slow/1",
        "slow/2",
    ]


def test_the_configuration_says_where_it_is(broker: BrokerProcess, tmp_path: Path) -> None:
    config = tmp_path / "broker.toml"
    config.write_text(f'data_dir = "{broker.data_dir}"\n')
    assert run("status", "-c", config).stdout.startswith(
        f"{broker.data_dir}: process {broker.pid} runs on it\n".encode()
    )
    both = run("status", "-c", config, "--data-dir", broker.data_dir)
    assert both.returncode == 2
    config.write_text("[log]\nlevel = 'loud'\n")
    assert run("status", "-c", config).returncode == 2


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["status"], 1, "there is no store in"),
        (["verify"], 1, "there is no store in"),
        (["compact"], 1, "there is no store in"),
        (["export", "cloud"], 1, "there is no store in"),
        (["export", "retained", "--from", "3"], 2, "retained messages have no numbers"),
        (["export"], 2, "Missing argument"),
    ],
)
def test_what_cannot_be_done_is_said(tmp_path: Path, arguments: list[str], code: int, said: str) -> None:
    done = run(*arguments, "--data-dir", tmp_path)
    assert done.returncode == code
    assert said in done.stderr.decode()
    assert b"Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_queue_is_told_with_those_that_there_are(broker: BrokerProcess) -> None:
    done = run("export", "nobody", "--data-dir", broker.data_dir)
    assert done.returncode == 1
    assert b"there is no queue nobody (there is bridge:cloud, session:display)" in done.stderr


def test_a_damaged_file_is_told_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "broker.db").write_bytes(b"rubbish" * 1000)
    done = run("status", "--data-dir", tmp_path)
    assert done.returncode == 1
    assert b"edge-broker store verify says where" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    verified = run("verify", "--data-dir", tmp_path)
    assert verified.returncode == 1
    assert b"the database cannot be opened" in verified.stdout


def on_a_terminal(*arguments: object) -> str:
    """What it prints where standard output and standard error are a terminal."""
    outer, inner = pty.openpty()
    command = [sys.executable, "-m", "edge_broker", "store", *map(str, arguments)]
    process = subprocess.Popen(
        command, stdout=inner, stderr=inner, env=os.environ | {"COLUMNS": "120", "TERM": "xterm"}
    )
    os.close(inner)
    printed = b""
    while chunk := _read(outer):
        printed += chunk
    os.close(outer)
    assert process.wait(60) in (0, 2), printed
    return printed.decode()


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65_536)
    except OSError:  # the other end is closed
        return b""


def test_a_person_gets_tables_and_progress(broker: BrokerProcess) -> None:
    tables = on_a_terminal("status", "--data-dir", broker.data_dir)
    assert "\x1b[1m" in tables
    for words in ("waiting", "oldest", "bridge:cloud", "1 to 51", "subscriptions", "display"):
        assert words in tables
    plain = run("status", "--data-dir", broker.data_dir).stdout
    assert b"\x1b" not in plain
    assert b"session:display: waiting 51, numbers 1 to 51, oldest " in plain
    assert "sound: 102 messages" in on_a_terminal("verify", "--data-dir", broker.data_dir)
    assert "CBOR is not for a terminal" in on_a_terminal(
        "export", "cloud", "--format", "cbor", "--data-dir", broker.data_dir
    )
    broker.stop()
    assert "100%" in on_a_terminal("compact", "--data-dir", broker.data_dir)


def test_help_says_what_there_is() -> None:
    done = run("--help")
    assert done.returncode == 0
    for command in (b"status", b"verify", b"export", b"compact"):
        assert command in done.stdout


def test_rich_is_not_loaded_for_a_pipe(broker: BrokerProcess) -> None:
    script = (
        "import sys\nfrom edge_broker.cli import main\n"
        f"try: main(['store', 'status', '--data-dir', {str(broker.data_dir)!r}])\n"
        "finally: print('rich' in sys.modules, file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=60)
    assert done.stderr.decode().strip() == "False"
