"""Wherever it fails or crashes: each message is in the output once, and nothing that was acknowledged is lost."""

from __future__ import annotations

import errno
import json
import sqlite3
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, Literal

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.envelope import Enclosed, Envelope, EnvelopeWriter
from bridge.ingest.config import BrokerConfig, DevicesConfig, IngestConfig, LimitsConfig
from bridge.ingest.database import connect, open_for_reading, read_rejected
from bridge.ingest.file_sink import FileSink
from bridge.ingest.outbox_sink import OutboxSink
from bridge.ingest.sink import Sink
from bridge.ingest.table_sink import TableSink
from bridge.ingest.worker import Report, Worker
from bridge.origin import NAME, Origin
from bridge.windows import LaneKey
from edge_broker.core.message import Message, build_message
from edge_broker.errors import StoreError
from edge_broker.wire import const
from edge_broker.wire.properties import encode_properties

Where = Literal["", "write", "sync", "commit", "lost"]


class Flaky(FileSink):
    """Files on a disk that fails where it is told to."""

    fails_at: Where = ""

    def write(self, connection: sqlite3.Connection, run: Envelope, received_at: float) -> None:
        super().write(connection, run, received_at)
        self._fail("write")

    def sync(self) -> None:
        super().sync()
        self._fail("sync")

    def commit(self, connection: sqlite3.Connection) -> None:
        super().commit(connection)
        self._fail("commit")

    def _fail(self, where: Where) -> None:
        if self.fails_at == where:
            raise OSError(errno.ENOSPC, "No space left on device")


class Ingest:
    """A worker with its database and a sink, in `folder`."""

    def __init__(
        self, folder: Path, sink: Sink, dictionaries: tuple[bytes, ...] = (), **sections: Any
    ) -> None:
        self.config = IngestConfig(cluster=BrokerConfig(urls=("mqtt://h",)), data_dir=folder, **sections)
        self.sink = sink
        self.connection = connect(folder)
        self.now = 1000.0
        self.worker = Worker(self.config, sink, dictionaries, lambda: self.now)
        self.report = self.worker.recover(self.connection)

    def take(self, *messages: Message) -> Report:
        self.report = self.worker.process(messages, self.connection)
        return self.report

    def close(self) -> None:
        self.sink.close()
        self.connection.close()


def plain(gateway: str, number: int, epoch: int = 1, lane: str = "up", **more: str) -> Message:
    pairs = [(NAME, str(Origin(gateway, lane, epoch, number))), *more.items()]
    block = encode_properties({const.USER_PROPERTY: pairs})
    return build_message(f"s/{gateway}", b"%d" % number, qos=1, property_block=block)


def enveloped(gateway: str, *numbers: int, topic: str = "", **more: Any) -> Message:
    messages = [Enclosed(number, f"s/{gateway}", b"%d" % number, **more) for number in numbers]
    packed = EnvelopeWriter().pack(Envelope(gateway, "up", 1, messages))
    return build_message(topic or f"edge/{gateway}/envelopes", packed, qos=1)


def written(folder: Path) -> list[dict[str, Any]]:
    return [
        json.loads(line)
        for path in sorted((folder / "output").iterdir())
        for line in path.read_bytes().splitlines()
    ]


_message = st.tuples(st.sampled_from("ab"), st.lists(st.integers(1, 25), min_size=1, max_size=6))
_batch = st.tuples(
    st.lists(_message, min_size=1, max_size=5),
    st.sampled_from(["", "", "write", "sync", "commit", "lost"]),
    st.booleans(),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(_batch, min_size=1, max_size=8), st.sampled_from([4_096, 200]))
def test_each_message_is_there_once_wherever_it_fails_or_crashes(
    batches: list[Any], rotate_bytes: int
) -> None:
    """`lost`: committed, but the cluster never heard. `crash`: a new process, not the same one, goes on."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ingest = Ingest(folder, Flaky(folder / "output", "json", rotate_bytes))
        wanted = set()
        for parts, where, crash in batches:
            messages = [
                plain(gateway, numbers[0]) if len(numbers) == 1 else enveloped(gateway, *sorted(set(numbers)))
                for gateway, numbers in parts
            ]
            wanted |= {(gateway, number) for gateway, numbers in parts for number in numbers}
            assert isinstance(ingest.sink, Flaky)
            ingest.sink.fails_at = where
            if where in ("write", "sync", "commit"):
                before = Counter(ingest.report.counters.rejected)
                try:
                    ingest.take(*messages)
                except OSError:
                    assert not ingest.connection.in_transaction
                assert Counter(ingest.report.counters.rejected) == before
            else:
                ingest.take(*messages)
            ingest.sink.fails_at = ""
            if crash:
                ingest.close()
                ingest = Ingest(folder, Flaky(folder / "output", "json", rotate_bytes))
            else:
                ingest.worker.recover(ingest.connection)
            if where:
                ingest.take(*messages)  # nothing was acknowledged, so it comes again
        found = Counter((one["gateway"], one["sequence"]) for one in written(folder))
        assert set(found) == wanted
        assert set(found.values()) == {1}
        assert ingest.report.counters.written == len(wanted)
        ingest.close()


def test_an_uncommitted_end_is_cut_off_and_an_uncommitted_file_removed(tmp_path: Path) -> None:
    ingest = Ingest(tmp_path, FileSink(tmp_path / "output", "json", 100))
    ingest.take(plain("a", 1))
    ingest.close()
    with (tmp_path / "output/messages-000001.jsonl").open("ab") as file:
        file.write(b'{"half')
    (tmp_path / "output/messages-000002.jsonl").write_bytes(b'{"whole": 1}\n')
    ingest = Ingest(tmp_path, FileSink(tmp_path / "output", "json", 100))
    assert [one["sequence"] for one in written(tmp_path)] == [1]
    ingest.take(plain("a", 2))
    assert [path.name for path in sorted((tmp_path / "output").iterdir())] == [
        "messages-000001.jsonl",
        "messages-000002.jsonl",
    ]
    assert [one["sequence"] for one in written(tmp_path)] == [1, 2]
    ingest.close()


def test_files_that_were_taken_away_cost_nothing_but_themselves(tmp_path: Path) -> None:
    ingest = Ingest(tmp_path, FileSink(tmp_path / "output", "json", 1_000))
    ingest.take(plain("a", 1))
    ingest.close()
    (tmp_path / "output/messages-000001.jsonl").unlink()
    ingest = Ingest(tmp_path, FileSink(tmp_path / "output", "json", 1_000))
    ingest.take(plain("a", 1), plain("a", 2))
    ingest.close()
    assert [path.name for path in (tmp_path / "output").iterdir()] == ["messages-000002.jsonl"]
    (tmp_path / "ingest.db").unlink()
    ingest = Ingest(tmp_path, FileSink(tmp_path / "output", "json", 1_000))
    ingest.take(plain("a", 3))
    ingest.close()
    assert [one["sequence"] for one in written(tmp_path)] == [2, 3]


def test_an_old_database_overwrites_nothing(tmp_path: Path) -> None:
    Ingest(tmp_path, FileSink(tmp_path / "output", "json", 1_000)).close()
    for number in (2, 3):
        (tmp_path / f"output/messages-00000{number}.jsonl").write_bytes(b"{}\n")
    with pytest.raises(StoreError, match="does not know of"):
        Ingest(tmp_path, FileSink(tmp_path / "output", "json", 1_000))
    assert len(list((tmp_path / "output").iterdir())) == 3


def test_a_cbor_sequence_has_what_json_has(tmp_path: Path) -> None:
    ingest = Ingest(tmp_path, FileSink(tmp_path / "output", "cbor", 1 << 20))
    block = encode_properties({const.CONTENT_TYPE: "x", const.USER_PROPERTY: [("a", "b")]})
    ingest.take(
        enveloped("g", 5, retain=True, qos=2, property_block=block), build_message("t", b"\xff", qos=0)
    )
    with (tmp_path / "output/messages-000001.cborseq").open("rb") as file:
        first, second = cbor2.load(file), cbor2.load(file)
    assert first == {
        "received_at": 1000.0, "topic": "s/g", "gateway": "g", "lane": "up", "epoch": 1, "sequence": 5, "qos": 2,
        "retain": True, "payload": b"5", "properties": {"content_type": "x", "user_properties": [["a", "b"]]},
    }  # fmt: skip
    assert second == {"received_at": 1000.0, "topic": "t", "qos": 0, "retain": False, "payload": b"\xff"}
    ingest.close()


def test_json_lines_say_everything(tmp_path: Path) -> None:
    ingest = Ingest(tmp_path, FileSink(tmp_path / "output", "json", 1 << 20))
    block = encode_properties(
        {const.CORRELATION_DATA: b"\0\1", const.USER_PROPERTY: [("a", "b"), ("a", "c")]}
    )
    ingest.take(
        enveloped("g", 5, retain=True, qos=2, property_block=block),
        build_message("t", b"line\nfeed \xff", qos=0),
    )
    assert written(tmp_path) == [
        {
            "received_at": 1000.0, "topic": "s/g", "gateway": "g", "lane": "up", "epoch": 1, "sequence": 5, "qos": 2,
            "retain": True, "payload": "5",
            "properties": {"correlation_data": "AAE=", "user_properties": [["a", "b"], ["a", "c"]]},
        },
        {"received_at": 1000.0, "topic": "t", "payload_base64": "bGluZQpmZWVkIP8="},
    ]  # fmt: skip
    ingest.close()


def test_a_table_tells_what_it_has_although_everything_else_is_forgotten(tmp_path: Path) -> None:
    ingest = Ingest(tmp_path, TableSink(tmp_path / "readings.db"))
    ingest.take(enveloped("a", 1, 2, 3), build_message("t", b"x", qos=1))
    ingest.close()
    (tmp_path / "ingest.db").unlink()
    ingest = Ingest(tmp_path, TableSink(tmp_path / "readings.db"))
    ingest.take(enveloped("a", 2, 3, 4), build_message("t", b"x", qos=1))
    assert ingest.report.counters.already_there == 2
    ingest.close()
    rows = sqlite3.connect(tmp_path / "readings.db").execute(
        "SELECT gateway, sequence FROM messages ORDER BY id"
    )
    assert rows.fetchall() == [("a", 1), ("a", 2), ("a", 3), (None, None), ("a", 4), (None, None)]


def test_a_devices_own_number_drops_what_two_gateways_brought(tmp_path: Path) -> None:
    ingest = Ingest(
        tmp_path, FileSink(tmp_path / "output", "json", 1 << 20), devices=DevicesConfig(deduplicate=True)
    )
    same = {"device": "porch", "spool": "s", "sequence": "7"}
    block = encode_properties({const.USER_PROPERTY: list(same.items())})
    ingest.take(plain("a", 1, **same), plain("b", 1, **same), enveloped("c", 1, property_block=block))
    ingest.take(plain("a", 2, **(same | {"sequence": "8"})), plain("a", 3))
    assert [one["sequence"] for one in written(tmp_path)] == [1, 2, 3]
    counters = ingest.report.counters
    assert (counters.duplicates, counters.device_duplicates, counters.written) == (0, 2, 3)
    assert ingest.report.gaps == {LaneKey("a", "up"): (0, [])}
    ingest.close()
    ingest = Ingest(
        tmp_path, FileSink(tmp_path / "output", "json", 1 << 20), devices=DevicesConfig(deduplicate=True)
    )
    assert ingest.take(plain("d", 1, **same)).counters.device_duplicates == 3
    ingest.close()


def test_gateways_beyond_the_limit_pass_and_are_counted(tmp_path: Path) -> None:
    limits = LimitsConfig(gateways=2, lanes_per_gateway=1)
    ingest = Ingest(tmp_path, FileSink(tmp_path / "output", "json", 1 << 20), limits=limits)
    report = ingest.take(*(plain(gateway, 1) for gateway in "aabbcc"))
    assert (report.counters.duplicates, report.counters.untracked, report.counters.written) == (2, 2, 4)
    ingest.now += 1
    report = ingest.take(plain("a", 1, lane="other"))
    assert (report.counters.forgotten_lanes, report.lanes, report.gateways) == (1, 2, 2)
    ingest.close()
    again = Ingest(tmp_path, FileSink(tmp_path / "output", "json", 1 << 20), limits=limits)
    assert set(again.report.gaps) == {LaneKey("a", "other"), LaneKey("b", "up")}
    again.close()


def test_what_cannot_be_unpacked_is_kept_the_latest_of_it(tmp_path: Path) -> None:
    limits = LimitsConfig(rejected=3, rejected_bytes=1_000)
    ingest = Ingest(tmp_path, FileSink(tmp_path / "output", "json", 1 << 20), limits=limits)
    for number in range(6):
        ingest.take(build_message("edge/g/envelopes", b"no %d" % number, qos=1))
    ingest.take(enveloped("g", 1, topic="edge/other/envelopes"))
    with open_for_reading(tmp_path) as database:
        kept = [
            (number, one.reason.partition(":")[0], one.payload) for number, one in read_rejected(database)
        ]
    assert [number for number, *_ in kept] == [5, 6, 7]
    assert kept[0] == (5, "unreadable", b"no 4")
    assert kept[2][1] == "wrong_gateway"
    ingest.take(
        build_message("edge/g/envelopes", b"x" * 900, qos=1),
        build_message("edge/g/skipped", b"y" * 99, qos=1),
    )
    with open_for_reading(tmp_path) as database:
        assert [number for number, _ in read_rejected(database)] == [8, 9]
    assert ingest.report.counters.rejected == {"unreadable": 8, "wrong_gateway": 1}
    assert ingest.report.counters.written == 0
    ingest.close()


def test_a_fault_of_ours_sets_aside_the_message_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest = Ingest(tmp_path, FileSink(tmp_path / "output", "json", 1 << 20))
    sound = FileSink.write

    def write(self: FileSink, connection: sqlite3.Connection, run: Envelope, received_at: float) -> None:
        if run.gateway == "b":
            raise KeyError("a fault")
        sound(self, connection, run, received_at)

    monkeypatch.setattr(FileSink, "write", write)
    report = ingest.take(plain("a", 1), plain("b", 1), plain("b", 2), plain("c", 1))
    assert [one["gateway"] for one in written(tmp_path)] == ["a", "c"]
    assert report.counters.rejected == {"internal_error": 2}
    with open_for_reading(tmp_path) as database:
        assert [one.payload for _, one in read_rejected(database)] == [b"1", b"2"]
    ingest.close()


def test_silent_lanes_are_forgotten_at_the_start(tmp_path: Path) -> None:
    ingest = Ingest(tmp_path, OutboxSink(""))
    ingest.take(plain("old", 1))
    ingest.now += 400 * 86_400
    ingest.take(plain("new", 1))
    now = ingest.now
    ingest.close()
    again = Ingest.__new__(Ingest)
    again.now = now
    again.config, again.sink, again.connection = ingest.config, OutboxSink(""), connect(tmp_path)
    again.worker = Worker(again.config, again.sink, (), lambda: again.now)
    assert set(again.worker.recover(again.connection).gaps) == {LaneKey("new", "up")}
    again.close()


def test_the_outbox_gets_topic_and_origin(tmp_path: Path) -> None:
    ingest = Ingest(tmp_path, OutboxSink("in/"))
    block = encode_properties({const.CONTENT_TYPE: "x"})
    ingest.take(enveloped("g 1", 5, property_block=block), build_message("t", b"x", qos=1))
    rows = ingest.connection.execute("SELECT number, step, topic, properties, payload FROM outbox").fetchall()
    origin = encode_properties({const.CONTENT_TYPE: "x", const.USER_PROPERTY: [(NAME, "g%201/up/1/5")]})
    assert rows == [(1, 0, "in/s/g 1", origin, b"5"), (2, 0, "in/t", b"\0", b"x")]
    ingest.connection.execute("DELETE FROM outbox")
    ingest.close()
    again = Ingest(tmp_path, OutboxSink("in/"))
    again.take(plain("g", 9))
    assert again.connection.execute("SELECT number FROM outbox").fetchall() == [(3,)]
    again.close()
