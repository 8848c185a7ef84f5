"""Atheris, which is libFuzzer for Python, at one target: `python -m tests.fuzz.drive TARGET [OPTIONS] [DIRECTORIES]`.

Options and directories are libFuzzer's own: `-max_total_time=60`, `-runs=1000`, a directory with inputs. With the name of
a file it runs that input once: how to see a crash again. Ends with 0 where nothing was found.
"""

from __future__ import annotations

import sys

import atheris

from tests.fuzz.targets import TARGETS, load_target

DEFAULTS = ("-max_len=1200", "-timeout=20", "-rss_limit_mb=2048")


def main() -> None:
    """Never returns: libFuzzer ends the process."""
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        raise SystemExit(f"usage: python -m tests.fuzz.drive {{{','.join(TARGETS)}}} [OPTIONS] [DIRECTORIES]")
    with atheris.instrument_imports(include=["edge_broker", "bridge"]):
        target = load_target(sys.argv[1])
    atheris.Setup([sys.argv[0], *DEFAULTS, *sys.argv[2:]], target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
