"""Looks for known vulnerabilities in what edge-broker depends on, with pip-audit, and never says more than was looked at.

Ends with 1 where there is one, and with 0 where there is none, or where nobody could be asked: then it says so. A mirror of
packages often has no advisories; so first it asks about a version that is known to be vulnerable, and an advisory service
that knows nothing of that one is not believed about the others either.

Only what a gateway installs is looked at: the versions in this environment of what the package requires, and of what that
requires. Tools for development are not.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

ROOT = "edge-broker"
CANARY = "aiohttp==3.8.0"
"""Of many advisories since 2021; the name is one that is asked about anyway."""
ACCEPTED: dict[str, str] = {}
"""Advisories by id that do not concern the broker, and why not."""
CANARY_SECONDS = 5.0
SECONDS = 10.0


class NotAsked(Exception):
    """The advisory service could not be asked, or gave no answer that can be believed."""


def installed(root: str = ROOT) -> list[str]:
    """`name==version` of all that `root` requires, and that these require, as it is installed here."""
    pinned: dict[str, str] = {}
    names = _required_by(root)
    while names:
        name = names.pop()
        if name in pinned:
            continue
        try:
            pinned[name] = distribution(name).version
        except PackageNotFoundError:
            continue  # for another platform or Python
        names += _required_by(name)
    return [f"{name}=={version}" for name, version in sorted(pinned.items())]


def _required_by(name: str) -> list[str]:
    """The names in its requirements, without those of extras."""
    lines = [line for line in distribution(name).requires or () if "extra ==" not in line]
    found = [re.match(r"[A-Za-z0-9._-]+", line) for line in lines]
    return [re.sub(r"[-_.]+", "-", match[0]).lower() for match in found if match]


def vulnerabilities(requirements: Iterable[str], seconds: float) -> list[str]:
    """What is known of `requirements`, a line each; `NotAsked`."""
    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder) / "requirements.txt"
        listed.write_text("\n".join(requirements) + "\n")
        command = [
            sys.executable,
            "-m",
            "pip_audit",
            "--requirement",
            str(listed),
            "--no-deps",
            "--disable-pip",
        ]
        options = ["--format", "json", "--progress-spinner", "off", "--timeout", "4"]
        try:
            process = subprocess.run(command + options, capture_output=True, text=True, timeout=seconds)
        except subprocess.TimeoutExpired:
            raise NotAsked(f"no answer within {seconds:.0f} s") from None
    try:
        answers = json.loads(process.stdout)["dependencies"]
    except (ValueError, KeyError, TypeError):
        raise NotAsked((process.stderr.strip() or "no output").splitlines()[-1][:200]) from None
    found = [
        f"{answer['name']} {answer['version']}: {known['id']}"
        + (f", fixed in {', '.join(known['fix_versions'])}" if known["fix_versions"] else ", no fix yet")
        for answer in answers
        for known in answer.get("vulns", ())
        if known["id"] not in ACCEPTED
    ]
    skipped = [answer["name"] for answer in answers if "skip_reason" in answer]
    if skipped and not found:
        raise NotAsked(f"nothing could be learned of {', '.join(skipped)}")
    return found


def main() -> int:
    requirements = installed()
    try:
        if not vulnerabilities([CANARY], CANARY_SECONDS):
            raise NotAsked(f"it knows nothing of {CANARY}, which is vulnerable: a mirror without advisories?")
        found = vulnerabilities(requirements, SECONDS)
    except NotAsked as why:
        print(f"NOT CHECKED: known vulnerabilities of {len(requirements)} dependencies. {why}")
        return 0
    for line in found:
        print(f"vulnerable: {line}")
    print(f"{len(requirements)} dependencies looked at, {len(found)} known vulnerabilities")
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
