"""install.sh and uninstall.sh, for real, into the image of a system that is a temporary directory."""

import os
import stat
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.conftest import CHECKOUT, RASPBERRY_PI

INSTALL = RASPBERRY_PI / "install.sh"
UNINSTALL = RASPBERRY_PI / "uninstall.sh"
INSTALLED_PATHS = (
    "/opt/edge-broker",
    "/etc/edge-broker",
    "/var/lib/edge-broker",
    "/etc/systemd/system/edge-broker.service",
    "/usr/local/bin/edge-broker",
)

pytestmark = [pytest.mark.timeout(300)]
installs = [
    pytest.mark.needs("systemd-sysusers"),
    pytest.mark.usefixtures("as_root"),
    pytest.mark.slow,
]


def run(*command: str | Path, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The command's outcome; with `path`, programs in that directory come before the system's."""
    environment = dict(os.environ)
    if path is not None:
        environment["PATH"] = f"{path}:{environment['PATH']}"
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def install(
    image: Path, *arguments: str | Path, path: Path | None = None
) -> subprocess.CompletedProcess[str]:
    always = ["--root", image, "--python", sys.executable, "--pip-args", "--retries 3"]
    return run(INSTALL, *always, *arguments, path=path)


def describe(path: Path) -> tuple[str, int, int]:
    """Mode, owner and group."""
    status = path.stat()
    return stat.filemode(status.st_mode), status.st_uid, status.st_gid


def identifiers(image: Path) -> tuple[int, int]:
    """The service user's numbers in the image."""
    records = [line.split(":") for line in (image / "etc/passwd").read_text().splitlines()]
    user = next(record for record in records if record[0] == "edge-broker")
    return int(user[2]), int(user[3])


def of_this_machine() -> list[tuple[str, int]]:
    return [(path, os.lstat(path).st_mtime_ns) for path in INSTALLED_PATHS if os.path.lexists(path)]


def run_installed(image: Path, *arguments: str | Path) -> str:
    """What the image's Python prints; isolated, or it would import the checkout that the tests stand in."""
    process = run(image / "opt/edge-broker/venv/bin/python", "-I", *arguments)
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


def print_version(image: Path) -> str:
    return run_installed(image, "-c", "import edge_broker; print(edge_broker.__version__)")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("wheel")
    process = run(
        sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", directory, CHECKOUT
    )
    assert process.returncode == 0, process.stderr
    return next(directory.glob("*.whl"))


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory, as_root: None) -> Iterator[Path]:
    """An image with the checkout installed and some data. The tests go on from there, in their order."""
    image = tmp_path_factory.mktemp("image")
    before = of_this_machine()
    programs = tmp_path_factory.mktemp("programs")
    (programs / "systemctl").write_text(f"#!/bin/sh\ntouch {programs}/called\n")
    (programs / "systemctl").chmod(0o755)
    process = install(image, path=programs)
    assert process.returncode == 0, process.stdout + process.stderr
    (image / "var/lib/edge-broker/readings").write_text("kept")
    yield image
    assert not (programs / "called").exists(), "systemctl was called for an image"
    assert of_this_machine() == before, "something outside of the image was changed"


@pytest.mark.needs("shellcheck")
def test_shellcheck_has_nothing_to_say() -> None:
    process = run("shellcheck", INSTALL, UNINSTALL)
    assert process.returncode == 0, process.stdout


@pytest.mark.parametrize("script", [INSTALL, UNINSTALL], ids=lambda script: script.name)
def test_help_and_unknown_arguments(script: Path) -> None:
    shown = run(script, "--help")
    assert shown.returncode == 0
    assert "--root DIR" in shown.stdout
    refused = run(script, "--hepl")
    assert refused.returncode == 1
    assert "unknown argument --hepl" in refused.stderr
    assert "--root needs a value" in run(script, "--root").stderr


@pytest.mark.usefixtures("as_root")
@pytest.mark.needs("systemd-sysusers")
def test_what_is_wrong_with_the_machine_is_said_before_anything_is_written(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.mkdir()
    old = tmp_path / "python3.9"
    prelude = 'import sys; sys.version_info = (3, 9, 2, "final", 0); exec(sys.argv[1])'
    old.write_text(f"#!/bin/sh\nexec {sys.executable} -c '{prelude}' \"$3\"\n")
    old.chmod(0o755)
    assert "needs Python 3.11 or newer" in run(INSTALL, "--root", image, "--python", old).stderr
    assert "is not there" in run(INSTALL, "--root", image, "--python", "/nowhere/python").stderr
    assert "no wheel at" in run(INSTALL, "--root", image, "--wheel", "/nowhere.whl").stderr
    assert "does not exist" in run(INSTALL, "--root", tmp_path / "nowhere").stderr
    assert "leave --root out" in run(INSTALL, "--root", "/").stderr
    assert list(image.iterdir()) == []


class TestInstallation:
    """In order: first installation, upgrade, failed upgrade, removal, purge."""

    pytestmark = installs

    def test_puts_everything_in_its_place(self, image: Path) -> None:
        user, group = identifiers(image)
        assert describe(image / "etc/edge-broker") == ("drwxr-x---", 0, group)
        assert describe(image / "etc/edge-broker/edge-broker.toml") == ("-rw-r-----", 0, group)
        assert describe(image / "var/lib/edge-broker") == ("drwx------", user, group)
        assert describe(image / "opt/edge-broker/venv/bin/edge-broker") == ("-rwxr-xr-x", 0, 0)
        assert describe(image / "opt/edge-broker/venv") == ("drwxr-xr-x", 0, 0)
        unit = image / "etc/systemd/system/edge-broker.service"
        assert unit.read_bytes() == (RASPBERRY_PI / "edge-broker.service").read_bytes()
        assert describe(unit) == ("-rw-r--r--", 0, 0)
        wants = image / "etc/systemd/system/multi-user.target.wants/edge-broker.service"
        assert os.readlink(wants) == "/etc/systemd/system/edge-broker.service"
        assert os.readlink(image / "usr/local/bin/edge-broker") == "/opt/edge-broker/venv/bin/edge-broker"

    def test_the_program_runs_and_names_no_path_of_the_machine_that_built_it(self, image: Path) -> None:
        version = print_version(image).strip()
        assert version
        config = image / "etc/edge-broker/edge-broker.toml"
        assert "OK" in run_installed(image, "-m", "edge_broker", "check", config)
        assert f'__version__ = "{version}"' in (CHECKOUT / "edge_broker/__init__.py").read_text()
        command = image / "opt/edge-broker/venv/bin/edge-broker"
        assert command.read_text().startswith("#!/opt/edge-broker/releases/")
        for script in command.parent.iterdir():
            assert script.is_symlink() or str(image).encode() not in script.read_bytes(), script

    def test_an_upgrade_keeps_the_config_and_one_release(self, image: Path, wheel: Path) -> None:
        config = image / "etc/edge-broker/edge-broker.toml"
        edited = config.read_text().replace('level = "info"', 'level = "debug"')
        config.write_text(edited)
        unit = image / "etc/systemd/system/edge-broker.service"
        unit.write_text("of an older version")
        before = os.readlink(image / "opt/edge-broker/venv")

        # The dependencies were installed once above; without them this takes a fraction of the time.
        process = install(image, "--wheel", wheel, "--pip-args", "--no-deps")
        assert process.returncode == 0, process.stderr
        assert "config kept as it was" in process.stdout
        assert config.read_text() == edited
        assert tomllib.loads(edited)["log"]["level"] == "debug"
        assert (image / "var/lib/edge-broker/readings").read_text() == "kept"
        assert unit.read_bytes() == (RASPBERRY_PI / "edge-broker.service").read_bytes()
        after = os.readlink(image / "opt/edge-broker/venv")
        assert after != before
        assert [f"releases/{path.name}" for path in (image / "opt/edge-broker/releases").iterdir()] == [after]
        assert print_version(image)

    def test_a_failed_upgrade_leaves_what_was_there(self, image: Path, tmp_path: Path) -> None:
        broken = tmp_path / "edge_broker-9.9.9-py3-none-any.whl"
        broken.write_text("cut off by a lost connection")
        before = os.readlink(image / "opt/edge-broker/venv")
        process = install(image, "--wheel", broken)
        assert process.returncode != 0
        assert os.readlink(image / "opt/edge-broker/venv") == before
        releases = (image / "opt/edge-broker/releases").iterdir()
        assert [f"releases/{path.name}" for path in releases] == [before]
        assert print_version(image)

    def test_removal_keeps_config_and_data(self, image: Path) -> None:
        process = run(UNINSTALL, "--root", image)
        assert process.returncode == 0, process.stderr
        assert "kept: /etc/edge-broker and /var/lib/edge-broker" in process.stdout
        for path in INSTALLED_PATHS:
            kept = path in {"/etc/edge-broker", "/var/lib/edge-broker"}
            assert os.path.lexists(f"{image}{path}") is kept, path
        assert not os.path.lexists(image / "etc/systemd/system/multi-user.target.wants/edge-broker.service")
        assert (image / "var/lib/edge-broker/readings").read_text() == "kept"
        assert identifiers(image)

    @pytest.mark.needs("userdel")
    def test_purge_removes_every_trace_and_may_run_twice(self, image: Path) -> None:
        for _ in range(2):
            process = run(UNINSTALL, "--purge", "--root", image)
            assert process.returncode == 0, process.stderr
            for path in INSTALLED_PATHS:
                assert not os.path.lexists(f"{image}{path}"), path
            for database in ("passwd", "group"):
                assert "edge-broker" not in (image / "etc" / database).read_text()
