"""Whether the broker lives and can do its work, and if not, why and what to do. Pure: facts in, a verdict out.

*Live*: its every-second work runs; if not, only a restart helps. *Ready*: clients can connect, and what they send can be
kept. A bridge that is away is a problem to show and makes nothing unready: to keep what cannot be delivered is the job.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

_LONGEST_SWEEP_PAUSE_SECONDS: Final = 30.0
_LAG_WORTH_SAYING_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True)
class BridgeFacts:
    """One bridge: its `state` in a word, and what went wrong last, if anything did."""

    name: str
    state: str
    upstream: str
    connected: bool
    waiting: int
    in_flight: int
    last_error: str = ""
    last_hint: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is to be judged. `listening`, `not_listening`: URLs. `since_sweep_seconds`: since the every-second work ran.

    `refused_files`: what stands in files that changed and is not used, and why.
    """

    store_healthy: bool
    store_problem: str
    store_full: bool
    listening: Sequence[str]
    not_listening: Sequence[str]
    bridges: Sequence[BridgeFacts]
    since_sweep_seconds: float
    loop_lag_seconds: float
    expiring: Sequence[Problem] = ()
    refused_files: Mapping[str, str] = field(default_factory=dict)
    clock_unsynced: bool = False


class Problem(NamedTuple):
    """One thing that is not as it should be."""

    component: str
    problem: str
    hint: str


@dataclass(frozen=True, slots=True)
class Health:
    """The verdict. `problems` has also what makes the broker neither dead nor unready."""

    live: bool
    ready: bool
    problems: list[Problem] = field(default_factory=list)


def assess(facts: Facts) -> Health:
    """Judge `facts`."""
    problems: list[Problem] = []
    live = facts.since_sweep_seconds <= _LONGEST_SWEEP_PAUSE_SECONDS
    if not live:
        problems.append(
            Problem(
                "event loop",
                f"its every-second work has not run for {facts.since_sweep_seconds:.0f} s",
                "restart the broker; its log says what went wrong before that",
            )
        )
    if not facts.store_healthy:
        problems.append(_store_problem(facts))
    problems += [_listener_problem(url) for url in facts.not_listening]
    listens = bool(facts.listening) and not facts.not_listening
    if not facts.listening and not facts.not_listening:
        problems.append(Problem("listeners", "there are none", "configure one under [[listeners]]"))
    ready = live and facts.store_healthy and listens
    if facts.loop_lag_seconds > _LAG_WORTH_SAYING_SECONDS:
        problems.append(
            Problem(
                "event loop",
                f"it is {facts.loop_lag_seconds:.1f} s late",
                "the machine is busy, hot or short of memory: top, vcgencmd get_throttled",
            )
        )
    if facts.clock_unsynced:
        problems.append(
            Problem(
                "clock_unsynced",
                "the clock is behind what the store knows of the time, or years ahead of it: it is not believed",
                "it comes right with the network: timedatectl, systemctl status systemd-timesyncd; until then "
                "deadlines go by the time that the broker runs, and times are corrected afterwards",
            )
        )
    problems += [_bridge_problem(bridge) for bridge in facts.bridges if not bridge.connected]
    problems += facts.expiring
    problems += [_file_problem(what, why) for what, why in facts.refused_files.items()]
    return Health(live, ready, problems)


def _store_problem(facts: Facts) -> Problem:
    if facts.store_full:
        return Problem(
            "store", facts.store_problem, "the disk is full: make room; what waits is then written by itself"
        )
    return Problem(
        "store",
        facts.store_problem or "the last commit failed",
        "until it works again, nothing that must be written is acknowledged, and nothing that is only on the disk is"
        " delivered: look at the disk (df, dmesg)",
    )


def _listener_problem(url: str) -> Problem:
    return Problem(
        "listeners",
        f"{url} does not accept connections",
        "its address may not be there yet, it is tried again; or the broker is stopping",
    )


def _file_problem(what: str, why: str) -> Problem:
    hint = "mend it: until then what was there before counts, and a restart would not go well"
    return Problem(what, f"the new file is refused: {why}", hint)


def _bridge_problem(bridge: BridgeFacts) -> Problem:
    why = bridge.last_error or f"{bridge.upstream} is not connected yet"
    hint = bridge.last_hint or "what is for the upstream is kept and sent when it is there"
    return Problem(f"bridge {bridge.name}", f"{bridge.state}: {why}", hint)
