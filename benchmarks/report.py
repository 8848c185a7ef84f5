"""The results as plain text for a terminal, Markdown for a page, JSON with every raw figure."""

import json
import math
from dataclasses import asdict

from benchmarks.figures import DISTURBED_PERCENT, Outcome
from benchmarks.results import Results
from benchmarks.tables import tables

HOW_THE_LOAD_WORKS = (
    "One Python process on a core of its own drives all connections through epoll, with packets encoded beforehand "
    "and parsed in bulk; the broker runs on another core, and its CPU time is read from the kernel's clock of its "
    "process, all threads and system calls included. "
    "The load is a closed loop: a publisher keeps at most W messages outstanding, and a message is outstanding until "
    "every subscriber has it and, at QoS 1, its PUBACK came; subscribers at QoS 1 acknowledge every message. "
    "Every receiver checks that each publisher's messages come exactly once and in order, and latency is taken from "
    "a timestamp inside every sixteenth message."
)


def as_text(results: Results) -> str:
    parts = [table.as_text() for table in tables(results)]
    parts += [f"FAILED {_failure_line(outcome)}" for outcome in results.failures()]
    return "\n".join(parts)


def _failure_line(outcome: Outcome) -> str:
    return f"{outcome.scenario}, round {outcome.round}, {outcome.broker}: {outcome.failure}"


def as_markdown(results: Results) -> str:
    machine = results.machine
    apart = f"broker on core {results.cores.broker}, load generator on core {results.cores.generator}"
    lines = [
        "# Benchmarks",
        "",
        f"Measured on {results.date} by `{results.command}`, which wrote this page.",
        "",
        f"- Machine: {machine.cpu}, {machine.cores} cores, {machine.memory_gb:.0f} GB; {machine.kernel}",
        f"- {machine.python}; stores on {machine.data_filesystem}",
        f"- {apart if results.cores.are_apart else 'broker and load generator share the only core'}",
        f"- MQTT {'5.0' if results.options.version == 5 else '3.1.1'}; medians of {_rounds(results)}; "
        f"{results.options.seconds:g} s each after a warm-up; a fresh broker process per run, brokers alternating",
        f"- A run during which other processes took more than {DISTURBED_PERCENT:g} % of a core does not count, unless "
        "no calm one is left; the column Calm says how many were",
        "- MB are 10^6 bytes, RSS is resident memory",
        *(f"- {name} {results.versions[name]}: {kind.settings}" for name, kind in results.kinds.items()),
        "",
        HOW_THE_LOAD_WORKS,
        "",
    ]
    if results.failures():
        lines += [
            "## Failed runs",
            "",
            *(f"- {_failure_line(outcome)}" for outcome in results.failures()),
            "",
        ]
    return "\n".join(lines) + "\n" + "\n".join(table.as_markdown() for table in tables(results))


def _rounds(results: Results) -> str:
    fewer = [
        f"{scenario.name} {scenario.most_rounds}"
        for scenario in results.scenarios
        if scenario.most_rounds is not None and scenario.most_rounds < results.rounds
    ]
    return f"{results.rounds} rounds" + (f" ({', '.join(fewer)})" if fewer else "")


def as_json(results: Results) -> str:
    document = {
        "date": results.date,
        "command": results.command,
        "machine": results.machine.as_dict(),
        "cores": asdict(results.cores),
        "options": asdict(results.options),
        "brokers": {
            name: {"version": results.versions[name], "settings": kind.settings, "promise": kind.promise}
            for name, kind in results.kinds.items()
        },
        "runs": [asdict(outcome) for outcome in results.outcomes],
        "targets": [{**asdict(target), "met": target.met} for target in results.targets()],
    }
    return json.dumps(_without_nan(document), indent=2, ensure_ascii=False) + "\n"


def _without_nan(value: object) -> object:
    """JSON has no nan: what was not measured is null."""
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return value
