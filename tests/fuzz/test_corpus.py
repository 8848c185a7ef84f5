"""Every seed and every input that once broke something, through its target; and the corpus is what its script writes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import pytest

from edge_broker.core.connection import Connection
from tests.fuzz import make_corpus
from tests.fuzz.corpus import CRASHES, SEEDS, read_seeds
from tests.fuzz.fuzz_connection import Play, Script
from tests.fuzz.targets import TARGETS, load_target

MOST_CORPUS_BYTES = 200_000


@pytest.mark.parametrize("target", TARGETS)
def test_every_seed(target: str) -> None:
    seeds = read_seeds(target)
    assert seeds
    for name, data in seeds:
        try:
            load_target(target)(data)
        except Exception as error:
            error.add_note(f"the seed {name}")
            raise


@pytest.mark.parametrize(
    ("target", "data"),
    [
        pytest.param(target, data, id=f"{target}-{name}")
        for target in TARGETS
        for name, data in read_seeds(target, CRASHES)
    ],
)
def test_what_broke_something_once(target: str, data: bytes) -> None:
    load_target(target)(data)


def test_the_corpus_is_what_the_script_writes() -> None:
    written = {target: read_seeds(target) for target in TARGETS}
    assert written == make_corpus.seeds(), "run: python -m tests.fuzz.make_corpus"


def test_the_corpus_is_small() -> None:
    files = [path for folder in (SEEDS, CRASHES) for path in folder.glob("*")]
    assert 0 < sum(path.stat().st_size for path in files) < MOST_CORPUS_BYTES


@pytest.mark.parametrize("target", TARGETS)
def test_names_of_seeds_are_theirs_alone(target: str) -> None:
    names = [name for name, _ in read_seeds(target) + read_seeds(target, CRASHES)]
    assert len(set(names)) == len(names)


# ---- that each target would see a bug


def _broken(*_args: object, **_options: object) -> None:
    raise RuntimeError("a bug")


@pytest.mark.parametrize(
    ("target", "where"),
    [
        ("decoder", "edge_broker.wire.decoder.decode_body"),
        ("client", "edge_broker.core.client.Client._handle_connack"),
        ("connection", "edge_broker.core.connection.handle_subscribe"),
        ("segment", "edge_broker.store.segment.Message"),
        ("front", "edge_broker.net.websocket.ServerProtocol.accept"),
        ("ingest", "bridge.ingest.worker.Worker._report"),
    ],
)
def test_an_exception_is_seen(target: str, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(where, _broken)
    run, seeds = load_target(target), read_seeds(target)
    with pytest.raises(RuntimeError, match="a bug"):
        deque((run(data) for _, data in seeds), maxlen=0)


@pytest.mark.parametrize(
    ("broken", "seen"),
    [
        (lambda self, *_: setattr(self, "end", (0x80, "broken")), "cut off|not closed|CONNACK|no Connack"),
        (lambda self, *_: self.router.counters.refuse("nobody"), "refused|nobody"),
    ],
    ids=["a connection that ends unclosed", "a count of what was not"],
)
def test_a_broken_promise_is_seen(
    broken: Callable[..., None], seen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What no exception tells: the honest clients, the counters, what is left behind."""
    monkeypatch.setattr(Connection, "check_idle", broken)
    with pytest.raises(AssertionError, match=seen):
        load_target("connection")(b"\x00\x03\x01")


def test_a_message_acknowledged_and_lost_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that says that it has kept what it has not."""
    play = Play({})
    monkeypatch.setattr(play.pump.store, "_write", lambda _write: None)
    play.step(Script(b"\x13"))
    play.step(Script(b"\x07"))
    with pytest.raises(AssertionError, match="acknowledged and lost"):
        play.step(Script(b"\x1f"))


def test_a_session_left_behind_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    play = Play({})
    monkeypatch.setattr(play.pump.router, "end_session", lambda _session: None)
    play.strangers[0].connect("left")
    with pytest.raises(AssertionError):
        play.end()
