"""The configuration file and the environment into one `Config`, or every mistake in them at once.

Nothing is started, changed or created here; files that the configuration names are opened to see whether they will do.
A section that this package does not know (a bridge's) is read by the parser that the caller registers for it, so that
nothing has to be imported for a section that is not there.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from edge_broker.config.checks import CHECKS, check_listeners
from edge_broker.config.environment import OVERRIDES, default_data_dir
from edge_broker.config.listeners import ListenerConfig
from edge_broker.config.model import Config
from edge_broker.config.reading import UNREADABLE, Reading, heading_of, struct_of
from edge_broker.errors import ConfigError

SectionParser = Callable[[object, Reading], tuple[Any, ...]]
"""Takes what the file says under one top-level key; whatever is wrong with it goes to the reading."""

_SYNTAX_HINTS: Final = {
    "Expected newline": 'text needs quotes: level = "info"',
    "Invalid value": 'text needs quotes: level = "info"; yes and no are true and false',
    "Unterminated string": "a closing quote is missing",
    "Illegal character": "a closing quote is missing",
    "Cannot overwrite": "a key stands twice; keep one of them",
    "Cannot declare": "a [section] stands twice; put its keys together, or write [[listeners]] for each listener",
    "Expected '='": "write key = value",
    "Invalid hex value": "write two backslashes for one, or put the text in 'single quotes'",
    "Unescaped": "write two backslashes for one, or put the text in 'single quotes'",
}
"""How tomllib's messages begin, and what is nearly always meant."""
_POSITION: Final = re.compile(
    r"^(?P<problem>.*) \(at (?:line (?P<line>\d+), column (?P<column>\d+)|end of document)\)$"
)


class ConfigMistakes(ConfigError):
    """Everything that is wrong with one configuration. `source`: the file, or what stands for it."""

    def __init__(self, source: str, mistakes: list[ConfigError]) -> None:
        count = "1 mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
        super().__init__(source, count)
        self.source = source
        self.mistakes = tuple(mistakes)

    def in_a_line(self) -> ConfigError:
        """All of them as one mistake, for the log."""
        return ConfigError(self.source, "; ".join(map(str, self.mistakes)))

    def __str__(self) -> str:
        lines = [f"{self.source}: {self.problem}"]
        for mistake in self.mistakes:
            lines.append(f"  {mistake.key}: {mistake.problem}")
            if mistake.hint:
                lines.append(f"      {mistake.hint}")
        return "\n".join(lines)


def load(
    path: Path | None,
    *,
    sections: Mapping[str, SectionParser] | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Config:
    """The configuration in the file at `path`, or the defaults without one; raises `ConfigMistakes`.

    `sections`: for top-level keys that are not this package's to read, who reads them.
    """
    source = str(path) if path else "the environment"
    data = read_toml(path) if path else {}
    folder = path.resolve().parent if path else Path.cwd()
    reading = Reading(folder, _homes())
    values = _read_sections(data, reading, sections or {})
    if "data_dir" not in values and not environ.get("EDGE_BROKER_DATA_DIR"):
        try:
            values["data_dir"] = default_data_dir(environ)
        except ConfigError as error:
            reading.adopt(error, "")
    values |= _overrides(environ, values, reading)
    if reading.mistakes:
        raise ConfigMistakes(source, reading.mistakes)
    return Config(**values)


def read_toml(path: Path) -> dict[str, Any]:
    """The file's plain data; `ConfigMistakes` with the one mistake that keeps it from being read."""
    import tomllib  # a broker without a file needs no parser

    try:
        text = path.read_bytes().decode("utf-8-sig")
        return tomllib.loads(text)
    except OSError as error:
        mistake = ConfigError(str(path), f"cannot be read: {error.strerror}", _unreadable_hint(error))
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        mistake = ConfigError(f"line {line}", "is not UTF-8", "save the file as UTF-8 text")
    except tomllib.TOMLDecodeError as error:
        mistake = _syntax_mistake(str(error))
    raise ConfigMistakes(str(path), [mistake])


def _unreadable_hint(error: OSError) -> str:
    if isinstance(error, PermissionError):
        return "let the user that runs the broker read it"
    return "give the path of a TOML file; without a file every key has its default"


def _syntax_mistake(message: str) -> ConfigError:
    """tomllib's message as a mistake: where, what, and for the usual slips what to write instead."""
    found = _POSITION.match(message)
    problem = found["problem"] if found else message
    where = (
        f"line {found['line']}, column {found['column']}" if found and found["line"] else "end of the file"
    )
    hint = next((hint for start, hint in _SYNTAX_HINTS.items() if problem.startswith(start)), "")
    return ConfigError(where, f"is not TOML: {problem[:1].lower()}{problem[1:]}", hint)


def _read_sections(
    data: dict[str, Any], reading: Reading, sections: Mapping[str, SectionParser]
) -> dict[str, Any]:
    """Each top-level key read by whoever it belongs to, and checked as far as it could be read."""
    known = {field.encode_name: field for field in msgspec.structs.fields(Config)}
    values: dict[str, Any] = {}
    security = data.get("security")
    has_passwords = isinstance(security, dict) and bool(
        security.get("password_file") or security.get("jwt_keys")
    )
    for name, content in data.items():
        if name in sections:
            values[name] = sections[name](content, reading)
        elif name == "bridges":
            reading.mistake(name, "cannot be read by this program", "the bridge package is not installed")
        elif name == "listeners":
            listeners = reading.structs(content, ListenerConfig, name)
            check_listeners(listeners, reading, has_passwords)
            values[name] = tuple(listeners)
        elif name not in known:
            reading.unknown(name, known, "")
        else:
            values[name] = reading.value(content, known[name].type, name)
            if name in CHECKS and values[name] is not UNREADABLE:
                CHECKS[name](values[name], reading)
    return values


def _overrides(environ: Mapping[str, str], values: dict[str, Any], reading: Reading) -> dict[str, Any]:
    """What the environment's variables put in place of what `values` has."""
    here = Reading(Path.cwd())
    changed: dict[str, Any] = {}
    for variable, path in OVERRIDES.items():
        text = environ.get(variable, "")
        if not text:
            continue
        name, _, key = path.partition(".")
        annotation = _field_type(Config, name)
        if not key:
            changed[name] = here.value(text, annotation, variable)
            continue
        setting = here.value(text, _field_type(annotation, key), variable)
        section = values.get(name, UNREADABLE)
        if setting is not UNREADABLE:
            section = annotation() if section is UNREADABLE else section
            changed[name] = msgspec.structs.replace(section, **{key: setting})
    reading.mistakes.extend(here.mistakes)
    return changed


def _field_type(struct: Any, name: str) -> Any:
    return next(field.type for field in msgspec.structs.fields(struct) if field.encode_name == name)


def _homes() -> dict[str, str]:
    """Where each key belongs that only one section has, in words."""
    homes: dict[str, str] = {}
    ambiguous: set[str] = set()
    for section in msgspec.structs.fields(Config):
        struct = struct_of(section.type)
        if struct is None:
            homes[section.encode_name] = "at the top of the file, above the first [section]"
            continue
        heading = heading_of(section.encode_name, section.type)
        for field in msgspec.structs.fields(struct):
            if field.encode_name in homes:
                ambiguous.add(field.encode_name)
            homes[field.encode_name] = f"in {heading}"
    return {name: home for name, home in homes.items() if name not in ambiguous}
