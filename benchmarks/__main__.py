"""The command line: which brokers, which scenarios, how long; progress on stderr, tables on stdout.

Exits 1 when a run failed, or with `--check` when a target is missed.
"""

import datetime
import os
import shlex
import signal
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import click

from benchmarks import process, report, scenarios
from benchmarks.brokers import KINDS, USUAL, BrokerUnavailable, Kind
from benchmarks.figures import DISTURBED_PERCENT, Outcome
from benchmarks.live import PATTERNS
from benchmarks.machine import Cores, Machine, raise_open_files_limit
from benchmarks.results import Results
from benchmarks.scenarios import FAMILIES, Bench, Options, Scenario
from benchmarks.wire import BrokerMisbehaved

VERSIONS = {"3.1.1": 4, "5": 5}
QUICK = Options(
    seconds=1.0,
    backlog=20_000,
    flood_seconds=2.0,
    idle_seconds=2.0,
    steady_seconds=5.0,
    large_backlog=50_000,
    pairs=1,
    drain=20_000,
)
SPARE_FILES = 500

_PATIENCE = "Seconds that a run may wait for other processes to calm down."


def parse_brokers(text: str) -> dict[str, Kind]:
    """The brokers to compare, by the label that they get: a second `mosquitto` is `mosquitto (2)`."""
    chosen: dict[str, Kind] = {}
    names = [name.strip() for name in text.split(",")]
    for index, name in enumerate(names):
        if name not in KINDS:
            raise click.BadParameter(f"{name!r} is not one of {', '.join(KINDS)}", param_hint="--brokers")
        before = names[:index].count(name)
        chosen[f"{name} ({before + 1})" if before else name] = KINDS[name]
    return chosen


def order_of_round(labels: list[str], round_number: int) -> Iterator[str]:
    """Each round begins with another broker."""
    first = round_number % len(labels) if labels else 0
    yield from labels[first:]
    yield from labels[:first]


def labels_for(scenario: Scenario, kinds: dict[str, Kind]) -> list[str]:
    """The brokers that a scenario is for; one that is for another broker has none."""
    return [label for label, kind in kinds.items() if scenario.only in (None, kind.name)]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--brokers", default=",".join(USUAL), show_default=True, help="What to compare; one may come twice."
)
@click.option(
    "--scenario", "families", multiple=True, type=click.Choice(FAMILIES), help="Only this; repeatable."
)
@click.option("--qos", type=click.IntRange(0, 1), help="Only at this QoS.")
@click.option(
    "--version", type=click.Choice(list(VERSIONS)), default="3.1.1", show_default=True, help="MQTT version."
)
@click.option(
    "--rounds", type=click.IntRange(1), help="Rounds per scenario; the median counts.  [default: 5]"
)
@click.option("--seconds", type=click.FloatRange(0.1), help="Length of a live run.  [default: 3]")
@click.option(
    "--backlog", type=click.IntRange(1_000), help="Messages for the offline session.  [default: 200000]"
)
@click.option(
    "--large-backlog",
    type=click.IntRange(1_000),
    help="Messages for the backlog of millions.  [default: 5000000]",
)
@click.option(
    "--steady-seconds",
    type=click.FloatRange(1),
    help="Length of the ordinary day, for each of its two halves.  [default: 60]",
)
@click.option(
    "--drain", type=click.IntRange(1_000), help="Messages for the drain of the outbox.  [default: 1000000]"
)
@click.option("--quick", is_flag=True, help="One short round of everything: does it work at all?")
@click.option("--patience", type=click.FloatRange(0), default=20.0, show_default=True, help=_PATIENCE)
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the brokers keep their stores.",
)
@click.option(
    "--write", "page", type=click.Path(dir_okay=False, path_type=Path), help="Write this Markdown page."
)
@click.option(
    "--json", "raw", type=click.Path(dir_okay=False, path_type=Path), help="Write every raw figure here."
)
@click.option("--check", is_flag=True, help="Exit 1 when a target is missed.")
def main(
    brokers: str,
    families: tuple[str, ...],
    qos: int | None,
    version: str,
    rounds: int | None,
    seconds: float | None,
    backlog: int | None,
    large_backlog: int | None,
    steady_seconds: float | None,
    drain: int | None,
    quick: bool,
    patience: float,
    data_dir: Path | None,
    page: Path | None,
    raw: Path | None,
    check: bool,
) -> None:
    """Measure MQTT brokers side by side under closed-loop load."""
    usual = QUICK if quick else Options()
    options = replace(
        usual,
        version=VERSIONS[version],
        seconds=seconds or usual.seconds,
        backlog=backlog or usual.backlog,
        steady_seconds=steady_seconds or usual.steady_seconds,
        drain=drain or usual.drain,
        large_backlog=large_backlog or usual.large_backlog,
    )
    rounds = rounds or (1 if quick else 5)
    kinds = parse_brokers(brokers)
    wanted = scenarios.chosen(families, qos)
    versions = prepare(kinds, connections_of(wanted, options), [path for path in (page, raw) if path])
    cores = Cores.of_this_process()
    date = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    with tempfile.TemporaryDirectory(prefix="benchmarks-", dir=data_dir) as directory:
        machine = Machine.here(Path(directory))
        if cores.are_apart:
            os.sched_setaffinity(0, {cores.generator})
        plan = Plan(wanted, kinds, rounds, 0.0 if quick else patience)
        outcomes = list(run_all(plan, Path(directory), cores, options))
    command = shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]])
    results = Results(machine, cores, date, command, options, rounds, kinds, versions, wanted, outcomes)
    print(report.as_text(results))
    if page:
        page.write_text(report.as_markdown(results))
    if raw:
        raw.write_text(report.as_json(results))
    missed = [target for target in results.targets() if not target.met]
    sys.exit(1 if results.failures() or (check and missed) else 0)


def connections_of(wanted: list[Scenario], options: Options) -> int:
    """The most connections that one of the scenarios has at a time."""
    if any(scenario.family == "idle" for scenario in wanted):
        return max(options.connections, options.tls_connections)
    return 2 * max(pattern.publishers for pattern in PATTERNS)


def prepare(kinds: dict[str, Kind], connections: int, outputs: list[Path]) -> dict[str, str]:
    """What would otherwise fail after minutes: a missing broker, too few files, nowhere to write.

    Returns the brokers' versions.
    """
    try:
        for kind in kinds.values():
            kind.command(Path("any"))
        versions = {label: kind.version() for label, kind in kinds.items()}
    except BrokerUnavailable as error:
        raise click.ClickException(str(error)) from error
    raise_open_files_limit(connections + SPARE_FILES)
    for path in outputs:
        path.parent.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a started broker is stopped, too
    return versions


@dataclass(frozen=True)
class Plan:
    """Which scenarios on which brokers, how often, and how long a run may wait for a calm machine."""

    scenarios: list[Scenario]
    kinds: dict[str, Kind]
    rounds: int
    patience_seconds: float


def run_all(plan: Plan, directory: Path, cores: Cores, options: Options) -> Iterator[Outcome]:
    for scenario in plan.scenarios:
        rounds = min(plan.rounds, scenario.most_rounds or plan.rounds)
        for round_number in range(rounds):
            for label in order_of_round(labels_for(scenario, plan.kinds), round_number):
                place = directory / f"{scenario.name}-{round_number}-{label.replace(' ', '')}"
                bench = Bench(plan.kinds[label], place, cores, options)
                process.wait_for_calm(plan.patience_seconds, DISTURBED_PERCENT)
                outcome = run_one(scenario, bench, label, round_number + 1)
                progress(outcome, rounds, scenario.headline)
                yield outcome


def run_one(scenario: Scenario, bench: Bench, label: str, round_number: int) -> Outcome:
    try:
        return Outcome(scenario.name, label, round_number, scenario.run(bench))
    except (BrokerMisbehaved, BrokerUnavailable) as error:
        return Outcome(scenario.name, label, round_number, failure=str(error))


def progress(outcome: Outcome, rounds: int, headline: tuple[str, ...]) -> None:
    if outcome.failure is not None:
        text = f"FAILED: {outcome.failure}"
    else:
        text = "  ".join(f"{name} {outcome.figures[name]:,.2f}" for name in headline)
        text += "  (disturbed)" if outcome.disturbed else ""
    place = f"{outcome.scenario} {outcome.round}/{rounds}"
    print(f"{place:<16} {outcome.broker:<20} {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
