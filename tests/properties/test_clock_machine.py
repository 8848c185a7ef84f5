"""Expiry under clocks that lie: random steps, reboots without a clock, crashes and syncs, against the truth.

The model knows the true time. What is asked of the store's clock, of every message at every moment:

- No step, in any direction, brings a message nearer to its expiry than the time that truly passed. Two ways are left open,
  as nothing can tell them from downtime: a clock that was behind, but not behind the store, and was set right while nobody
  ran; and one that was set ahead, and still was when the run ended.
- The time that brokers ran since it came counts in full, but for what a crash cut off since the newest time was written.
- In memory and read back from the disk it is of one age, also after the correction.
- Once the clock is right, the stamps of this run are the true times.
"""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from edge_broker.core.message import Message, build_message
from edge_broker.store.clock import NOT_BEFORE, STEP_SECONDS, StoreClock, kept_deltas
from edge_broker.store.segment import decode_record, encode_record
from edge_broker.store.times import wall_times
from edge_broker.wire.topics import TopicCache

HOUR, DAY = 3600.0, 86_400.0
START = NOT_BEFORE + 100 * DAY
ROUNDING = 0.05
EXPIRY = 1000.0

durations = st.sampled_from([0.5, 3.0, 50.0, 700.0, 2 * HOUR, DAY, 30 * DAY])
behind = st.sampled_from(["right", "1970", "an hour", "a day", "at shutdown"])


@dataclass
class Known:
    """A message as the truth has it: when it came, and how much of its life nobody can have counted."""

    body: bytes
    came_at: float
    ran: float = 0.0  # uptime since, that must count
    too_old: float = 0.0  # what a wrong clock at the end of a run may have added, unknown to anybody


class ClockMachine(RuleBasedStateMachine):
    @initialize(boot=behind)
    def begin(self, boot: str) -> None:
        self.true = START
        self.kept: dict[str, int] = {}
        self.known: list[Known] = []
        self.in_memory: list[Message] = []
        self.shut_down_at = START
        self.confirms = False
        self.of_earlier_runs = 0
        self.stretch_from = 0
        self.was_ahead = False
        self._boot(boot, 10.0)

    # ---- the machine

    def _boot(self, clock: str, monotonic: float) -> None:
        right = self.true
        self.wall = {
            "right": right,
            "1970": 5.0,
            "an hour": right - HOUR,
            "a day": right - DAY,
            "at shutdown": self.shut_down_at,
        }[clock]
        self.confirms = False
        self.monotonic = monotonic
        newest = None
        if self.known:
            outside = wall_times(kept_deltas(self.kept))
            newest = decode_record(self.known[-1].body, TopicCache(), outside).received_at
        self.clock = StoreClock(self.kept, newest, self.wall, monotonic, lambda: self.confirms)
        self._save()
        self.in_memory = [self._read(known) for known in self.known]

    def _save(self) -> None:
        changes = self.clock.changes(self.monotonic, alone=True)
        for name, value in changes.items():
            if value is None:
                self.kept.pop(name, None)
            else:
                self.kept[name] = value
        self.clock.written(changes, self.monotonic)
        self.saved_at = self.monotonic

    def _read(self, known: Known) -> Message:
        return decode_record(known.body, TopicCache(), self.clock.times)

    def _run(self, seconds: float) -> None:
        self.true += seconds
        self.wall += seconds
        self.monotonic += seconds
        for known in self.known:
            known.ran += seconds

    def _look(self) -> None:
        correction = self.clock.look(self.wall, self.monotonic)
        if correction is None:
            return
        for message in self.in_memory:
            if message.received_at < correction.before:
                message.received_at -= correction.seconds
                assert message.expires_at is not None
                message.expires_at -= correction.seconds

    # ---- what happens

    @rule()
    def a_message_comes(self) -> None:
        message = build_message("t", b"x", qos=1)
        message.received_at = self.monotonic
        message.expires_at = self.monotonic + EXPIRY
        body = encode_record(message, self.clock.times)
        self._save()  # the commit takes along what is due; that it be the newest time too only makes crashes worse
        self.known.append(Known(body, self.true))
        self.in_memory.append(message)

    # not while the times of what is older are in question: then it may be off by as much
    @precondition(
        lambda self: self.known and not self.was_ahead and self.of_earlier_runs >= self.stretch_from
    )
    @rule(data=st.data())
    def a_message_is_written_again(self, data: st.DataObject) -> None:
        at = data.draw(st.integers(0, len(self.known) - 1))
        self.known[at].body = encode_record(self.in_memory[at], self.clock.times)

    @rule(seconds=durations)
    def it_runs(self, seconds: float) -> None:
        self._run(seconds)
        self._look()
        if self.clock.is_due or self.clock.newest_written_before(self.monotonic - HOUR):
            self._save()

    @rule(confirmed=st.booleans())
    def the_network_sets_the_clock(self, confirmed: bool) -> None:
        self.wall = self.true
        self.confirms = confirmed
        self._look()

    @rule(step=st.sampled_from([-50 * 365 * DAY, -400 * DAY, -HOUR, HOUR, DAY, 300 * DAY, 20 * 365 * DAY]))
    def somebody_sets_the_clock_wrong(self, step: float) -> None:
        self.was_ahead = self.was_ahead or step > 0
        self.wall = max(0.0, self.wall + step)
        self.confirms = False
        ages = [self.monotonic - message.received_at for message in self.in_memory]
        if not self.clock.unsynced:
            self._look()
            assert ages == [self.monotonic - message.received_at for message in self.in_memory]
        self.wall = min(self.wall, self.true)  # and sees it before long
        if self.clock.unsynced:
            return
        self._look()

    @rule(down=durations, clock=behind, is_clean=st.booleans(), monotonic=st.floats(1.0, 1e6))
    def it_boots(self, down: float, clock: str, is_clean: bool, monotonic: float) -> None:
        if is_clean:
            self._save()
        self.shut_down_at = min(self.wall, self.true)
        if not self.kept["clock_unsynced"]:
            by_disk = wall_times(kept_deltas(self.kept)).read(self.clock.times.stamp(self.monotonic))
            for known in self.known:
                known.too_old += abs(self.true - by_disk)
        cut_off = self.monotonic - self.saved_at
        was_unsynced = self.clock.unsynced or self.kept["clock_unsynced"]
        self.true += down
        was_stretch = self.kept["clock_unsynced"]
        self._boot(clock, monotonic)
        self.of_earlier_runs = len(self.known)
        if (
            was_stretch and not self.kept["clock_unsynced"]
        ):  # it ended at a guess, and is corrected with this run
            self.of_earlier_runs, self.stretch_from = self.stretch_from, len(self.known)
        elif not was_stretch:
            self.stretch_from = len(self.known)
        for known in self.known:
            if was_unsynced or self.clock.unsynced:
                known.ran = max(0.0, known.ran - cut_off)

    # ---- what must hold

    @invariant()
    def no_message_is_older_than_it_is(self) -> None:
        for known, message in zip(self.known, self.in_memory, strict=True):
            assert (
                self.monotonic - message.received_at
                <= self.true - known.came_at + known.too_old + STEP_SECONDS
            )

    @precondition(
        lambda self: not self.was_ahead
    )  # what such a clock wrote may be pulled back by too much or too little
    @invariant()
    def the_time_that_it_ran_counts(self) -> None:
        for known, message in zip(self.known, self.in_memory, strict=True):
            assert self.monotonic - message.received_at >= known.ran - STEP_SECONDS

    @invariant()
    def the_disk_says_what_the_memory_says(self) -> None:
        for known, message in zip(self.known, self.in_memory, strict=True):
            stored = self._read(known)
            assert abs(stored.received_at - message.received_at) < ROUNDING
            assert stored.expires_at is not None
            assert message.expires_at is not None
            assert abs(stored.expires_at - stored.received_at - EXPIRY) < ROUNDING
            assert abs(message.expires_at - message.received_at - EXPIRY) < ROUNDING


TestClock = ClockMachine.TestCase
TestClock.settings = settings(max_examples=150, stateful_step_count=25, deadline=None)
