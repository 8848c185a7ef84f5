"""A broker process with listeners of any transport, for the tests of transports."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.integration.broker_process import BrokerProcess, until


class Serving(BrokerProcess):
    """`python -m edge_broker run` with `listeners`, TOML tables. `before`: a command that runs that one.

    `urls`: where it listens, in the order in which it said so.
    """

    def __init__(
        self, directory: Path, *listeners: str, settings: str = "", before: tuple[str, ...] = ()
    ) -> None:
        super().__init__(directory, settings)
        self._tables = listeners
        self._before = before

    @property
    def urls(self) -> list[str]:
        return re.findall(r"listening on (\S+)\s", self.log)

    def port_of(self, number: int) -> int:
        """The port of the listener of that number."""
        found = re.match(r"\w+://.*:(\d+)", self.urls[number])
        assert found
        return int(found[1])

    def launch(self) -> subprocess.Popen[bytes]:
        config = self.directory / "edge-broker.toml"
        tables = "".join(f"[[listeners]]\n{table}\n" for table in self._tables)
        config.write_text(f'data_dir = "{self.data_dir}"\n{tables}\n{self._settings}\n')
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [*self._before, sys.executable, "-m", "edge_broker", "run", "--config", str(config)],
                stdout=log,
                stderr=log,
                env=self._environ,
            )
        return self.process

    def start(self) -> Serving:
        """Start it and wait until it has."""
        process = self.launch()

        def started() -> bool:
            assert process.poll() is None, f"it ended by itself:\n{self.log}"
            return "started: epoch" in self.log

        until(started, "it does not start")
        return self

    def stop(self) -> int:
        code = super().stop()
        assert "Traceback" not in self.log, self.log
        assert "internal error" not in self.log, self.log
        return code
