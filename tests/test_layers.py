"""Who may import whom: every module's imports, read from its source, against the table of docs/ARCHITECTURE.md.

Imports inside functions and under TYPE_CHECKING count for the layers, since they are dependencies all the same; what
must not be loaded before it is needed is looked at apart, in the source and in a running interpreter.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import pytest

ROOT: Final = Path(__file__).resolve().parent.parent
PACKAGES: Final = ("edge_broker", "bridge", "devices", "benchmarks")

VERSION: Final = "edge_broker"  # the package itself, where `__version__` is
ERRORS: Final = "edge_broker.errors"
KEY_PAIR: Final = "edge_broker.key_pair"
WIRE: Final = "edge_broker.wire.*"
CORE: Final = "edge_broker.core.*"

LAYERS: Final[dict[str, tuple[str, ...]]] = {
    "edge_broker": (),
    "edge_broker.errors": (),
    "edge_broker.key_pair": (),
    "edge_broker.wire.*": (ERRORS,),
    "edge_broker.core.*": (ERRORS, WIRE),
    "edge_broker.config.*": (VERSION, ERRORS, WIRE, CORE, KEY_PAIR),
    "edge_broker.security.*": (VERSION, ERRORS, WIRE, CORE),
    "edge_broker.ops.*": (VERSION, ERRORS, WIRE, CORE),
    "edge_broker.store.*": (VERSION, ERRORS, WIRE, "edge_broker.core.ops", "edge_broker.core.message"),
    "edge_broker.net.*": (VERSION, ERRORS, WIRE, CORE, KEY_PAIR),
    "edge_broker.wiring": (
        ERRORS,
        CORE,
        "edge_broker.config.*",
        "edge_broker.security.*",
        "edge_broker.ops.*",
        "edge_broker.store.*",
        "edge_broker.net.*",
    ),
    "edge_broker.renewing": (
        CORE,
        "edge_broker.config.*",
        "edge_broker.security.*",
        "edge_broker.ops.*",
        "edge_broker.net.*",
    ),
    "edge_broker.reading": (ERRORS, CORE, "edge_broker.store"),
    "edge_broker.turns": ("edge_broker.reading", CORE, "edge_broker.store"),
    "edge_broker.serving": (
        "edge_broker.turns",
        "edge_broker.wiring",
        "edge_broker.renewing",
        "edge_broker.config.*",
        "edge_broker.ops.*",
        "edge_broker.net.*",
    ),
    "edge_broker.broker": (
        "edge_broker.reading",
        "edge_broker.turns",
        "edge_broker.serving",
        "edge_broker.wiring",
        "edge_broker.renewing",
        VERSION,
        ERRORS,
        WIRE,
        CORE,
        "edge_broker.config.*",
        "edge_broker.security.*",
        "edge_broker.ops.*",
        "edge_broker.store.*",
        "edge_broker.net.*",
    ),
    "edge_broker.cli.*": ("edge_broker.*", "bridge.*", "devices.*"),
    "edge_broker.__main__": ("edge_broker.cli",),
    "bridge.*": (
        VERSION,
        ERRORS,
        WIRE,
        CORE,
        "edge_broker.store",
        "edge_broker.store.connection",
        "edge_broker.store.faults",
        "edge_broker.store.lock",
        "edge_broker.net.transport",
        "edge_broker.net.tls",
        "edge_broker.security.spiffe",  # reading of names and of DER, which decides nothing
        "edge_broker.security.der",
        "edge_broker.config.*",
        KEY_PAIR,
    ),
    "devices.*": (),
    "benchmarks.*": (),
    "benchmarks.readings": ("devices.recorded",),  # what sensors sent
    "benchmarks.encryption": (WIRE, CORE, "edge_broker.store.*"),  # the store by itself: no broker in between
}
"""By module: what of the project it may import, beside its own package. `x.*` is the package and all in it, `x` itself."""

PURE: Final = (WIRE, CORE)
IMPURE: Final = frozenset(
    ("asyncio", "ssl", "sqlite3", "time", "random", "logging", "socket", "threading", "os")
)
"""What `wire` and `core` never import: time and randomness are parameters, bytes go in and come out."""

DATABASES: Final = {
    "aiosqlite": ("edge_broker.store.*",),
    "sqlite3": ("edge_broker.store.*", "devices.*", "bridge.ingest.*", "edge_broker.cli.ingest"),
}

HEAVY: Final = (
    "aiohttp",
    "cryptography",
    "devices",
    "dns",
    "grpc",
    "jwt",
    "prometheus_client",
    "rich",
    "spiffe",
    "websockets",
)
MAY_BE_HEAVY: Final = (
    "edge_broker.net.websocket",
    "edge_broker.ops.http",
    "edge_broker.ops.metrics",
    "edge_broker.security.",
    "edge_broker.cli.",
)
"""Beginnings of the names of modules that are loaded only where they are needed."""


class Import(NamedTuple):
    """One import. `lazy`: inside a function. `typing_only`: under TYPE_CHECKING, so never run."""

    importer: str
    target: str
    line: int
    lazy: bool
    typing_only: bool

    @property
    def top(self) -> str:
        """The package that the target is in."""
        return self.target.partition(".")[0]

    @property
    def at_once(self) -> bool:
        """Whether importing the importer imports the target."""
        return not self.lazy and not self.typing_only

    def __str__(self) -> str:
        return f"{self.importer} imports {self.target} (line {self.line})"


class Project(NamedTuple):
    """The modules by their dotted names, and every import in them."""

    modules: dict[str, Path]
    imports: list[Import]


def read_project(root: Path) -> Project:
    """The project as its source says."""
    modules = {}
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return Project(modules, [found for name in modules for found in _imports_of(name, modules)])


def _imports_of(name: str, modules: dict[str, Path]) -> Iterator[Import]:
    path = modules[name]
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]

    def walk(node: ast.AST, lazy: bool, typing_only: bool) -> Iterator[Import]:
        for target in _targets(node, package, modules):
            yield Import(name, target, getattr(node, "lineno", 0), lazy, typing_only)
        inside = lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        guarded = node.body if isinstance(node, ast.If) and _is_type_checking(node.test) else []
        for child in ast.iter_child_nodes(node):
            if not isinstance(child, ast.expr_context | ast.operator):
                yield from walk(child, inside, typing_only or child in guarded)

    return walk(ast.parse(path.read_text(encoding="utf-8"), str(path)), False, False)


def _is_type_checking(test: ast.expr) -> bool:
    return getattr(test, "id", getattr(test, "attr", "")) == "TYPE_CHECKING"


def _targets(node: ast.AST, package: str, modules: dict[str, Path]) -> Iterator[str]:
    """The modules that one node names; `from a import b` names a.b where that is a module."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        above = package.split(".")[: package.count(".") + 2 - node.level] if node.level else []
        base = ".".join([*above, *([node.module] if node.module else [])])
        for alias in node.names:
            submodule = f"{base}.{alias.name}"
            yield submodule if submodule in modules else base
    elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
        called = getattr(node.func, "id", getattr(node.func, "attr", ""))
        if called == "import_module" and isinstance(node.args[0].value, str):
            yield node.args[0].value


def covers(pattern: str, module: str) -> bool:
    """Whether `pattern` names `module`."""
    if pattern.endswith(".*"):
        return module == pattern[:-2] or module.startswith(pattern[:-1])
    return module == pattern


def _layer_of(module: str) -> str | None:
    return max((layer for layer in LAYERS if covers(layer, module)), key=len, default=None)


def broken_layers(project: Project) -> list[str]:
    """What the table does not allow, modules that have no place in it included."""
    broken = [f"{module} has no place in the table" for module in project.modules if not _layer_of(module)]
    for found in project.imports:
        layer = _layer_of(found.importer)
        if layer and found.top in PACKAGES:
            allowed = (layer, *LAYERS[layer])
            if not any(covers(pattern, found.target) for pattern in allowed):
                broken.append(str(found))
    return broken


def impurities(project: Project) -> list[str]:
    """Clocks, sockets, threads and the like in what is pure."""
    return [
        str(found)
        for found in project.imports
        if found.top in IMPURE and any(covers(pattern, found.importer) for pattern in PURE)
    ]


def stray_databases(project: Project) -> list[str]:
    """SQLite anywhere but where it belongs."""
    return [
        str(found)
        for found in project.imports
        if found.top in DATABASES and not any(covers(owner, found.importer) for owner in DATABASES[found.top])
    ]


def early_imports(project: Project) -> list[str]:
    """What is heavy, or the bridge, imported before anybody asked for it."""
    early = []
    for found in project.imports:
        if found.at_once and found.importer.startswith("edge_broker"):
            heavy = found.top in HEAVY and not found.importer.startswith(MAY_BE_HEAVY)
            if heavy or found.top == "bridge":
                early.append(str(found))
    return early


def complaints_of(project: Project) -> list[str]:
    """Everything that any check says."""
    checks = (broken_layers, impurities, stray_databases, early_imports)
    return [complaint for check in checks for complaint in check(project)]


@pytest.fixture(scope="module")
def project() -> Project:
    return read_project(ROOT)


def test_every_package_is_seen(project: Project) -> None:
    """The checks below are about something: a wrong root or a renamed package would make them pass on nothing."""
    for expected in (
        *PACKAGES,
        "edge_broker.errors",
        "edge_broker.wire.decoder",
        "edge_broker.core.message",
        "edge_broker.broker",
    ):
        assert expected in project.modules
    pairs = {(found.importer, found.target) for found in project.imports}
    assert ("edge_broker.wire.decoder", "edge_broker.errors") in pairs
    assert (
        "edge_broker.wire.decoder",
        "edge_broker.wire.const",
    ) in pairs  # from edge_broker.wire import const
    assert len(pairs) > 100


def test_layers(project: Project) -> None:
    broken = broken_layers(project)
    assert not broken, "\n".join(broken)


def test_the_core_is_pure(project: Project) -> None:
    broken = impurities(project)
    assert not broken, "\n".join(broken)


def test_the_store_owns_the_database(project: Project) -> None:
    broken = stray_databases(project)
    assert not broken, "\n".join(broken)


def test_nothing_heavy_is_imported_early(project: Project) -> None:
    broken = early_imports(project)
    assert not broken, "\n".join(broken)


def test_only_the_command_line_knows_broker_and_bridge(project: Project) -> None:
    know_broker = {found.importer for found in project.imports if found.target == "edge_broker.broker"}
    know_bridge = {found.importer for found in project.imports if found.top == "bridge"}
    knowing = {name for name in know_broker | know_bridge if not covers("bridge.*", name)}
    assert knowing
    assert {name for name in knowing if not covers("edge_broker.cli.*", name)} == set()


def test_a_running_broker_has_nothing_heavy_loaded(project: Project) -> None:
    """What the source says, seen in an interpreter: an idle broker's memory is mostly imports."""
    modules = [
        name
        for name in ("edge_broker.cli", "edge_broker.broker", "edge_broker.cli.run")
        if name in project.modules
    ]
    assert "edge_broker.cli" in modules
    script = f"import sys, {', '.join(modules)}; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert run.returncode == 0, run.stderr
    loaded = run.stdout.split()
    assert set(modules) <= set(loaded)
    assert {name.partition(".")[0] for name in loaded} & {*HEAVY, "bridge"} == set()


@pytest.mark.parametrize(
    ("path", "source", "said"),
    [
        ("edge_broker/errors.py", "import edge_broker.wire.const", "errors imports edge_broker.wire.const"),
        ("edge_broker/wire/new.py", "from edge_broker.core import message", "imports edge_broker.core.message"),
        ("edge_broker/wire/new.py", "from ..core.message import M", "imports edge_broker.core.message"),
        ("edge_broker/core/new.py", "from ..store import rows", "imports edge_broker.store.rows"),
        ("edge_broker/core/new.py", "def f():\n    import time", "core.new imports time"),
        ("edge_broker/wire/__init__.py", "from os.path import join", "wire imports os.path"),
        ("edge_broker/core/new.py", "try:\n    import asyncio.events\nfinally: pass", "imports asyncio.events"),
        ("edge_broker/store/new.py", "from edge_broker.core.ports import P", "imports edge_broker.core.ports"),
        ("edge_broker/net/new.py", "import edge_broker.store", "net.new imports edge_broker.store"),
        ("edge_broker/ops/new.py", "from edge_broker import broker", "ops.new imports edge_broker.broker"),
        ("edge_broker/broker.py", "import edge_broker.cli.run", "broker imports edge_broker.cli.run"),
        ("edge_broker/broker.py", "def f():\n    import bridge", "broker imports bridge"),
        ("edge_broker/new.py", "", "edge_broker.new has no place"),
        ("edge_broker/cli/new.py", "import bridge.link", "cli.new imports bridge.link"),
        ("edge_broker/cli/__init__.py", "from rich import print", "cli imports rich"),
        ("edge_broker/net/new.py", "class C:\n    from aiohttp import web", "net.new imports aiohttp"),
        ("edge_broker/net/new.py", "import sqlite3", "net.new imports sqlite3"),
        ("devices/new.py", "import aiosqlite", "devices.new imports aiosqlite"),
        ("devices/new.py", "import edge_broker", "devices.new imports edge_broker"),
        ("benchmarks/new.py", "import bridge", "benchmarks.new imports bridge"),
        ("bridge/new.py", "from edge_broker.store import rows", "bridge.new imports edge_broker.store.rows"),
        ("bridge/new.py", "from edge_broker.broker import Broker", "imports edge_broker.broker"),
        ("bridge/new.py", "from importlib import import_module\nimport_module('edge_broker.cli')", "edge_broker.cli"),
    ],
)  # fmt: skip
def test_a_violation_is_seen(tmp_path: Path, path: str, source: str, said: str) -> None:
    """The checks on a project that breaks one rule, and on the same project before."""
    for module in ("wire/const", "core/message", "core/ports", "store/rows", "cli/run", "ops/x", "net/x"):
        _write(tmp_path / f"edge_broker/{module}.py")
        _write(tmp_path / f"edge_broker/{module.partition('/')[0]}/__init__.py")
    for module in (
        "edge_broker/__init__",
        "edge_broker/broker",
        "bridge/__init__",
        "bridge/link",
        "devices/__init__",
    ):
        _write(tmp_path / f"{module}.py")
    assert complaints_of(read_project(tmp_path)) == []
    _write(tmp_path / path, source)
    complaints = complaints_of(read_project(tmp_path))
    assert any(said in complaint for complaint in complaints), complaints


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("edge_broker/cli/run.py", "def f():\n    from bridge import Bridge\n    import rich.live"),
        ("edge_broker/cli/run.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import bridge"),
        ("edge_broker/ops/http_server.py", "import aiohttp.web"),
        ("edge_broker/broker.py", "def f():\n    import edge_broker.ops.http_server"),
        ("bridge/link.py", "from edge_broker.store import open_store\nfrom . import __name__"),
        ("devices/spool.py", "import sqlite3"),
        ("edge_broker/core/new.py", "import math\nfrom edge_broker.errors import MqttError"),
    ],
)
def test_what_is_allowed_is_not_complained_of(tmp_path: Path, path: str, source: str) -> None:
    _write(tmp_path / path, source)
    assert complaints_of(read_project(tmp_path)) == []


def _write(path: Path, source: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source, encoding="utf-8")
