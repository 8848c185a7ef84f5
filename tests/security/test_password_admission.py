"""Passwords in CONNECT: real hashes in real threads, on a running event loop, with the test's own clock."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from edge_broker.core.ports import Admission, Credentials
from edge_broker.security.guessing import GuessLimits
from edge_broker.security.hashing import Argon2Cost, Argon2Hash
from edge_broker.security.password_admission import PasswordAdmission
from edge_broker.security.passwords import Passwords, User
from edge_broker.security.verifying import Check
from edge_broker.wire import const
from tests.security.serving import argon2_of, scram_of

RIGHT, WRONG, BUSY, BANNED = (
    const.SUCCESS,
    const.BAD_USER_NAME_OR_PASSWORD,
    const.SERVER_BUSY,
    const.BANNED,
)
USERS = Passwords.of(
    {"anna": User(argon2_of("pencil")), "bob": User(argon2_of("paper")), "scram": User(None, scram_of("x"))}
)


class Door:
    """A `PasswordAdmission` with a clock that stands still; delays are noted, and over at once."""

    def __init__(self, max_waiting: int = 100, **limits: Any) -> None:
        self.now = 1_000.0
        self.delays: list[float] = []
        self.ours = PasswordAdmission(
            USERS, GuessLimits(**limits), max_waiting, self._later, clock=lambda: self.now, chance=lambda: 0.5
        )

    def _later(self, seconds: float, callback: Callable[[], None]) -> None:
        if seconds:
            self.delays.append(seconds)
        asyncio.get_running_loop().call_soon(callback)

    def knock(
        self, name: str | None, password: bytes | None, address: str = "192.0.2.1:5"
    ) -> asyncio.Future[Admission]:
        """The answer, when it comes; that it comes once, on this thread."""
        answered: asyncio.Future[Admission] = asyncio.get_running_loop().create_future()
        thread = threading.get_ident()

        def answer(admission: Admission) -> None:
            assert threading.get_ident() == thread
            assert not answered.done(), "a second answer"
            answered.set_result(admission)

        self.ours.authenticate(Credentials("c", name, password, address, "l"), answer)
        return answered

    async def code(self, name: str | None, password: bytes | None, address: str = "192.0.2.1:5") -> int:
        async with asyncio.timeout(30):
            return (await self.knock(name, password, address)).reason_code


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    door = Door()
    yield door
    door.ours.close()


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The hashes that were really checked, oldest first."""
    checked: list[str] = []
    really = Argon2Hash.is_of

    def is_of(kept: Argon2Hash, password: bytes) -> bool:
        checked.append(kept.text)
        return really(kept, password)

    monkeypatch.setattr(Argon2Hash, "is_of", is_of)
    return checked


# ---- right and wrong


async def test_a_right_password(door: Door) -> None:
    admission = await door.knock("anna", b"pencil")
    assert admission == Admission(RIGHT, "anna", method="password")


@pytest.mark.parametrize(
    ("name", "password", "detail"),
    [
        ("anna", b"pen", "a wrong password for 'anna'"),
        ("anna", b"", "a wrong password for 'anna'"),
        ("anna", b"pencil\0", "a wrong password for 'anna'"),
        ("Anna", b"pencil", "a user name of nobody"),
        ("", b"pencil", "a user name of nobody"),
        ("scram", b"x", "a wrong password for 'scram'"),
        ("anna", b"pencil" * 1_000, "a wrong password for 'anna'"),
    ],
)
async def test_a_wrong_one_costs_the_same_whoever_it_is_for(
    door: Door, checked: list[str], name: str, password: bytes, detail: str
) -> None:
    admission = await door.knock(name, password)
    assert admission == Admission(WRONG, detail=detail)
    assert door.delays == [0.2]
    (text,) = checked
    assert Argon2Hash.from_text(text).cost == argon2_of("pencil").cost


@pytest.mark.parametrize(("name", "password"), [(None, b"x"), ("anna", None)])
async def test_what_is_no_attempt_is_no_failure(
    door: Door, checked: list[str], name: str | None, password: bytes | None
) -> None:
    assert await door.code(name, password) == WRONG
    assert (checked, door.ours.guessing.counters.failures) == ([], 0)


async def test_a_password_of_a_decoys_own_lets_nobody_in(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Argon2Hash, "is_of", lambda *_: True)
    assert await door.code("nobody", b"x") == WRONG
    assert await door.code("anna", b"p" * 2_000) == WRONG


async def test_a_password_is_in_no_text_about_what_is_under_way(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the event loop puts into the log when a callback fails or is slow."""
    scheduled: list[str] = []
    really = door.ours._later

    def later(seconds: float, callback: Callable[[], None]) -> None:
        scheduled.append(repr(callback))
        really(seconds, callback)

    checks: list[str] = []
    put = door.ours.verifications.put

    def note(check: Check) -> None:
        checks.append(repr(check))
        put(check)

    monkeypatch.setattr(door.ours, "_later", later)
    monkeypatch.setattr(door.ours.verifications, "put", note)
    for name in ("anna", "nobody", "anna"):
        await door.code(name, b"pencil")
    assert len(scheduled) == 3
    assert len(checks) == 2
    for text in (*scheduled, *checks):
        assert "pencil" not in text


# ---- from memory


async def test_who_comes_back_is_not_checked_again(door: Door, checked: list[str]) -> None:
    for _ in range(5):
        assert await door.code("anna", b"pencil") == RIGHT
    assert len(checked) == 1
    assert door.ours.verified.hits == 4
    assert await door.code("anna", b"pen") == WRONG
    assert len(checked) == 2
    door.now += 300
    assert await door.code("anna", b"pencil") == RIGHT
    assert len(checked) == 3


async def test_a_fleet_with_one_password_is_checked_once_or_twice(door: Door, checked: list[str]) -> None:
    answers = await asyncio.gather(*(door.knock("anna", b"pencil", f"192.0.2.{n}:1") for n in range(100)))
    assert {answer.reason_code for answer in answers} == {RIGHT}
    assert len(checked) <= 2


async def test_a_wrong_one_that_is_repeated_is_late_and_no_work(door: Door, checked: list[str]) -> None:
    for _ in range(4):
        assert await door.code("anna", b"old") == WRONG
    assert len(checked) == 1
    assert door.delays == [0.2, 0.4, 0.8, 1.6]
    assert door.ours.guessing.counters.failures == 4
    assert await door.code("anna", b"old", "192.0.2.2:5") == WRONG
    assert len(checked) == 2, "another address does not know what this one tried"


# ---- guesses


async def test_a_guesser_is_banned_and_nobody_else(checked: list[str]) -> None:
    door = Door(per_name=3)
    for password in (b"a", b"b", b"c"):
        assert await door.code("anna", password) == WRONG
    assert await door.code("anna", b"pencil") == BANNED
    assert await door.code("anna", b"pencil", "192.0.2.2:5") == RIGHT
    assert await door.code("anna", b"pencil") == BANNED, "not even now that it is remembered"
    assert await door.code("bob", b"paper") == RIGHT
    door.now += 300
    assert await door.code("anna", b"pencil") == RIGHT
    door.ours.close()


async def test_many_guesses_at_once_are_not_all_looked_at(checked: list[str]) -> None:
    door = Door(per_name=5)
    answers = await asyncio.gather(*(door.knock("anna", b"%d" % n) for n in range(60)))
    codes = [answer.reason_code for answer in answers]
    assert set(codes) == {WRONG, BANNED}
    assert len(checked) <= 5 + 1, "the one that was begun when the ban began"
    assert codes.count(WRONG) == len(checked)
    door.ours.close()


# ---- too many at once


async def test_a_full_queue_turns_away_and_counts() -> None:
    door = Door(max_waiting=5)
    answers = await asyncio.gather(*(door.knock(f"user-{n}", b"x") for n in range(20)))
    codes = [answer.reason_code for answer in answers]
    assert codes.count(BUSY) == 13, "2 under way, 5 wait"
    assert codes.count(WRONG) == 7
    assert door.ours.verifications.turned_away == 13
    assert await door.code("anna", b"pencil") == RIGHT
    door.ours.close()


async def test_one_address_does_not_keep_the_others_out() -> None:
    door = Door(max_waiting=10)
    order: list[str] = []
    flood = [door.knock(f"user-{n}", b"x", "192.0.2.66:1") for n in range(50)]
    guest = door.knock("anna", b"pencil", "192.0.2.1:1")
    for future in (*flood, guest):
        future.add_done_callback(lambda done: order.append(done.result().identity))
    assert (await guest).reason_code == RIGHT
    await asyncio.gather(*flood)
    served = [admission.reason_code for admission in (future.result() for future in flood)]
    assert served.count(BUSY) == 39, "one of its own had to make room"
    door.ours.close()


async def test_a_check_that_fails_says_nothing_of_the_password(
    door: Door, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    really = Argon2Hash.is_of

    def fail(_kept: Argon2Hash, _password: bytes) -> bool:
        raise MemoryError("Memory allocation error")

    monkeypatch.setattr(Argon2Hash, "is_of", fail)
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            assert await door.code("anna", b"pencil") == const.SERVER_UNAVAILABLE
        monkeypatch.setattr(Argon2Hash, "is_of", really)
        assert await door.code("anna", b"pencil") == RIGHT
    assert door.ours.verifications.failed == 3
    assert door.ours.guessing.counters.failures == 0
    assert [message.partition(",")[0] for message in caplog.messages] == [
        "passwords cannot be checked",
        "passwords can be checked again",
    ]


# ---- another password file


async def test_a_new_file_counts_at_once(door: Door) -> None:
    assert await door.code("anna", b"pencil") == RIGHT
    changed = door.ours.replace(
        Passwords.of({"anna": User(argon2_of("new")), "bob": User(argon2_of("paper"))})
    )
    assert changed == {"anna", "scram"}
    assert await door.code("anna", b"pencil") == WRONG
    assert await door.code("anna", b"new") == RIGHT


@pytest.mark.parametrize(
    ("password", "later", "code"),
    [
        (b"pencil", "new", WRONG),
        (b"new", "new", RIGHT),
        (b"pencil", "pencil", RIGHT),
        (b"pencil", None, WRONG),
    ],
)
async def test_what_is_under_way_is_asked_again(
    door: Door, monkeypatch: pytest.MonkeyPatch, password: bytes, later: str | None, code: int
) -> None:
    begun, go_on = threading.Event(), threading.Event()
    really = Argon2Hash.is_of

    def is_of(kept: Argon2Hash, password: bytes) -> bool:
        begun.set()
        assert go_on.wait(30)
        return really(kept, password)

    monkeypatch.setattr(Argon2Hash, "is_of", is_of)
    answered = door.knock("anna", password)
    assert await asyncio.to_thread(begun.wait, 30)
    door.ours.replace(Passwords.of({} if later is None else {"anna": User(argon2_of(later))}))
    go_on.set()
    assert (await answered).reason_code == code


async def test_a_device_that_had_its_new_password_before_the_file(door: Door, checked: list[str]) -> None:
    for _ in range(2):
        assert await door.code("anna", b"new") == WRONG
        assert await door.code("carl", b"chalk") == WRONG
    door.ours.replace(Passwords.of({"anna": User(argon2_of("new")), "carl": User(argon2_of("chalk"))}))
    assert await door.code("anna", b"new") == RIGHT
    assert await door.code("carl", b"chalk") == RIGHT
    assert len(checked) == 4


async def test_decoys_cost_what_is_usual_in_the_new_file(door: Door, checked: list[str]) -> None:
    dear = Argon2Hash.from_password("x", Argon2Cost(8_192, 1))
    door.ours.replace(Passwords.of({"anna": User(dear)}))
    assert await door.code("nobody", b"x") == WRONG
    assert [Argon2Hash.from_text(text).cost for text in checked] == [dear.cost]


async def test_what_was_just_decided_is_asked_again_too(door: Door) -> None:
    """Between the decision and the answer the file is replaced: nobody would end that connection any more."""
    assert await door.code("anna", b"pencil") == RIGHT
    remembered = door.knock("anna", b"pencil")
    assert not remembered.done()
    door.ours.replace(Passwords.of({"anna": User(argon2_of("new"))}))
    assert (await remembered).reason_code == WRONG


# ---- the end


async def test_nothing_is_begun_or_answered_after_the_end(checked: list[str]) -> None:
    door = Door()
    answers = [door.knock(f"user-{n}", b"x") for n in range(20)]
    door.ours.close()
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(checked) <= 2
    assert not any(answer.done() for answer in answers)


async def test_checks_have_a_lower_priority_than_the_rest(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    seen: list[int] = []

    def is_of(_kept: Argon2Hash, _password: bytes) -> bool:
        seen.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        return True

    before = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    monkeypatch.setattr(Argon2Hash, "is_of", is_of)
    assert await door.code("anna", b"pencil") == RIGHT
    assert seen == [min(before + 10, 19)]
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == before


async def test_two_at_a_time(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    together = threading.Barrier(2, timeout=30)
    lock = threading.Lock()
    running = most = 0

    def is_of(_kept: Argon2Hash, _password: bytes) -> bool:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        together.wait()  # each waits for another one
        with lock:
            running -= 1
        return False

    monkeypatch.setattr(Argon2Hash, "is_of", is_of)
    answers = await asyncio.gather(*(door.knock(f"user-{n}", b"x") for n in range(10)))
    assert {answer.reason_code for answer in answers} == {WRONG}
    assert most == 2


async def test_waiting_is_what_has_not_begun(door: Door) -> None:
    answers = [door.knock(f"user-{n}", b"x") for n in range(10)]
    assert door.ours.verifications.waiting == 8
    await asyncio.gather(*answers)
    assert (door.ours.verifications.waiting, door.ours.verifications.done) == (0, 10)
