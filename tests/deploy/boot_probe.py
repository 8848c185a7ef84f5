"""Runs as root inside the booted system: uses the broker, looks at its process, stops and starts it; writes what it saw.

It knows only what is installed there: the standard library and paho.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import traceback
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt

UNIT = "edge-broker.service"
WAIT_SECONDS = 20.0
WRITABLE = ("/var/lib/edge-broker",)
PLACES = (
    "/",
    "/etc",
    "/etc/edge-broker",
    "/usr",
    "/opt/edge-broker",
    "/var",
    "/var/log",
    "/run",
    "/dev",
    "/sys",
    "/home",
)
_PASSWORD = "of the gateway's test"


def main(report: Path) -> None:
    seen: dict[str, Any] = {}
    try:
        look(seen)
    except BaseException:  # noqa: BLE001 - the report is all that comes out
        seen["problem"] = traceback.format_exc()
        seen["journal"] = run("journalctl", "--no-pager", "-u", UNIT)
    report.write_text(json.dumps(seen, indent=1))


def look(seen: dict[str, Any]) -> None:
    seen["started"] = show()
    pid = int(seen["started"]["MainPID"])
    use(seen.setdefault("used", {}))
    seen["process"] = describe(pid)
    seen["written"] = try_to_write(pid)
    seen["reload"] = run("systemctl", "reload", UNIT) or until(
        state_after_reload, "it does not end its reload"
    )
    watch_the_watchdog(seen, pid)
    seen["stopped"] = stop()
    seen["strict"] = use_where_a_filtered_call_kills()
    seen["stopped_strict"] = stop()
    seen["left_behind"] = left_behind()
    seen["journal"] = run("journalctl", "--no-pager", "-u", UNIT)


def run(*command: str) -> str:
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout


def show() -> dict[str, str]:
    keys = "ActiveState,SubState,MainPID,NRestarts,Result,ExecMainCode,ExecMainStatus,StatusText,WatchdogTimestampMonotonic"
    lines = run("systemctl", "show", UNIT, "-p", keys).splitlines()
    return dict(line.split("=", 1) for line in lines)


def until(condition: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + WAIT_SECONDS
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what}: {show()}"
        time.sleep(0.05)
    return value


def state_after_reload() -> str:
    """Empty while it is at it: `systemctl reload` waits for the signal to be sent."""
    state: str = show()["ActiveState"]
    return "" if state == "reloading" else state


# ---- what clients do


def use(used: dict[str, Any]) -> None:
    """Everything that loads a library or takes a path of its own through the kernel."""
    with urllib.request.urlopen("http://127.0.0.1:8080/healthz", timeout=WAIT_SECONDS) as response:
        used["healthz"] = [response.status, json.load(response)]
    with urllib.request.urlopen("http://127.0.0.1:8080/metrics", timeout=WAIT_SECONDS) as response:
        used["metrics"] = len(response.read())
    used["anonymous"] = publish(1883)
    used["right password"] = publish(1884, password=_PASSWORD)
    used["wrong password"] = publish(1884, password="something else")
    used["tls"] = publish(8883, password=_PASSWORD, ca="/etc/edge-broker/tls/ca.crt")
    used["websocket"] = publish(9001, transport="websockets")


def publish(port: int, password: str = "", ca: str = "", transport: Any = "tcp") -> str:
    """Publish a retained message at QoS 1 for a durable session; `ok`, or why not."""
    client = mqtt.Client(
        mqtt.CallbackAPIVersion.VERSION2,
        f"probe-{port}",
        transport=transport,
        protocol=mqtt.MQTTv311,
        clean_session=False,
    )
    done = threading.Event()
    answers = []

    def on_connect(_: Any, __: Any, ___: Any, reason: Any, ____: Any) -> None:
        answers.append(str(reason))
        if reason.is_failure:
            done.set()
            return
        client.subscribe("sensors/#", 1)
        client.publish(f"sensors/{port}", b"21.5", 1, retain=True)

    client.on_connect = on_connect
    client.on_publish = lambda *_: done.set()
    if password:
        client.username_pw_set("anna", password)
    if ca:
        client.tls_set(ca)
    client.connect("localhost", port)
    client.loop_start()
    came = done.wait(WAIT_SECONDS)
    client.disconnect()
    client.loop_stop()
    if not came:
        return f"nothing came, {answers}"
    return "ok" if answers == ["Success"] else answers[0]


# ---- what the process is


def describe(pid: int) -> dict[str, Any]:
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    maps = Path(f"/proc/{pid}/maps").read_text()
    return {
        "uids": sorted(set(status["Uid"].split())),
        "user": Path("/etc/passwd").read_text(),
        "capabilities": [status[name].strip() for name in ("CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb")],
        "no_new_privileges": status["NoNewPrivs"].strip(),
        "seccomp": status["Seccomp"].strip(),
        "libraries": sorted(
            name
            for name in ("uvloop", "_cffi_backend", "argon2", "libssl", "sqlite3", "speedups")
            if name in maps
        ),
        "writable_and_executable": re.findall(r"^\S+ .wx. .*$", maps, re.MULTILINE),
        "open_for_writing": sorted(open_for_writing(pid)),
    }


def open_for_writing(pid: int) -> set[str]:
    paths = set()
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        try:
            path = os.readlink(fd)
            flags = re.search(
                r"^flags:\s+(\d+)", Path(f"/proc/{pid}/fdinfo/{fd.name}").read_text(), re.MULTILINE
            )
        except FileNotFoundError:
            continue
        if path.startswith("/") and flags and int(flags[1], 8) & os.O_ACCMODE:
            paths.add(path)
    return paths


def try_to_write(pid: int) -> dict[str, str]:
    """As the broker's user, where the broker sees it: what becomes of a new file in each place."""
    uid = Path(f"/proc/{pid}").stat().st_uid
    outcome = {}
    for place in (*PLACES, *WRITABLE):
        script = (
            f"import os; p = {place!r} + '/written'; open(p, 'w').close(); os.unlink(p); print('written')"
        )
        said = run(
            *("nsenter", "--target", str(pid), "--mount", "--setgid", str(uid), "--setuid", str(uid)),
            *("/usr/bin/python3", "-I", "-c", script),
        )
        outcome[place] = said.strip().splitlines()[-1]
    return outcome


def left_behind() -> list[str]:
    """Files in the temporary folders that were the broker's alone."""
    return [
        str(path) for folder in ("/tmp", "/var/tmp") for path in Path(folder).rglob("*edge-broker*/tmp/*")
    ]


# ---- what systemd does with it


def watch_the_watchdog(seen: dict[str, Any], pid: int) -> None:
    """It is told that the broker lives; one that stands still is killed and started again."""

    def told() -> str:
        return show()["WatchdogTimestampMonotonic"]

    first = told()
    second = until(lambda: (now := told()) != first and now, "the watchdog is told nothing")
    until(lambda: told() != second, "the watchdog is told nothing more")
    before = show()
    os.kill(pid, signal.SIGSTOP)
    until(lambda: show()["NRestarts"] == "1", "a broker that stands still is left so")
    until(lambda: show()["ActiveState"] == "active", "it does not come back")
    seen["watchdog"] = {"before": before, "after": show(), "again": publish(1883)}


def stop() -> dict[str, str]:
    run("systemctl", "stop", UNIT)
    return show()


def use_where_a_filtered_call_kills() -> dict[str, Any]:
    """The same once more, and a system call that the unit does not allow is the end, instead of an error to live with."""
    folder = Path(f"/run/systemd/system/{UNIT}.d")
    folder.mkdir(parents=True)
    (folder / "strict.conf").write_text("[Service]\nSystemCallErrorNumber=kill\nRestart=no\n")
    said = run("systemctl", "daemon-reload") + run("systemctl", "start", UNIT)
    used: dict[str, Any] = {"said": said, "before": show()}
    use(used)
    used["reload"] = run("systemctl", "reload", UNIT)
    until(state_after_reload, "it does not end its reload")
    used["after"] = show()
    return used


if __name__ == "__main__":
    main(Path(sys.argv[1]))
