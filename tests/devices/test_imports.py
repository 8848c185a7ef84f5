"""A device is a stranger that speaks MQTT: it imports nothing of the broker or the bridge."""

import ast
import subprocess
import sys
from pathlib import Path

import devices

FORBIDDEN = {"edge_broker", "bridge", "tests", "benchmarks"}


def test_no_module_imports_the_broker() -> None:
    modules = list(Path(devices.__file__).parent.rglob("*.py"))
    assert len(modules) > 20
    for path in modules:
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}: a relative import"
                names = [node.module or ""]
            assert not {name.split(".")[0] for name in names} & FORBIDDEN, path


def test_importing_the_sdk_is_light() -> None:
    code = "import devices, sys; print(sorted({'click', 'rich', 'cbor2', 'aiohttp'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"
