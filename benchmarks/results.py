"""Everything that one `python -m benchmarks` found out, and the medians that count of it."""

from dataclasses import dataclass

from benchmarks import targets
from benchmarks.brokers import Kind
from benchmarks.figures import Figures, Outcome, counted, medians
from benchmarks.machine import Cores, Machine
from benchmarks.scenarios import Options, Scenario
from benchmarks.targets import Target


@dataclass(frozen=True)
class Results:
    """Everything that a report needs to know about one `python -m benchmarks`."""

    machine: Machine
    cores: Cores
    date: str
    command: str
    options: Options
    rounds: int
    kinds: dict[str, Kind]
    versions: dict[str, str]
    scenarios: list[Scenario]
    outcomes: list[Outcome]

    def runs_of(self, scenario: str, broker: str) -> list[Outcome]:
        return [
            outcome for outcome in self.outcomes if (outcome.scenario, outcome.broker) == (scenario, broker)
        ]

    def counted(self, scenario: str, broker: str) -> list[Figures]:
        return [outcome.figures for outcome in counted(self.runs_of(scenario, broker))]

    def calm(self, scenario: str, broker: str) -> str:
        """How many of the runs were undisturbed, in words for a table."""
        runs = self.runs_of(scenario, broker)
        return f"{sum(not outcome.disturbed and outcome.failure is None for outcome in runs)} of {len(runs)}"

    def medians(self) -> dict[tuple[str, str], Figures]:
        return {
            (scenario.name, broker): medians(self.counted(scenario.name, broker))
            for scenario in self.scenarios
            for broker in self.kinds
        }

    def failures(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.failure is not None]

    def targets(self) -> list[Target]:
        return targets.evaluate(
            self.medians(), [scenario.name for scenario in self.scenarios], list(self.kinds)
        )
