"""Plain data into the model's structs, with every mistake in it found at once, not only the first.

A `Reading` is one pass over one file. It walks the data along the struct's own fields, so keys, types and ranges stand in
the model alone; each thing that does not fit becomes a `ConfigError` with the key's path (lists count from 0) and what to
write instead. Text is repeated in a message only where it had to be one of a few words: it might be a secret in the wrong
place. What several keys say together is checked elsewhere, by whoever knows what they mean.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar, get_args, get_origin

import msgspec

from edge_broker.errors import ConfigError

S = TypeVar("S", bound=msgspec.Struct)

UNREADABLE: Final = object()
"""What is read in place of a value that does not fit."""
_WANTED: Final = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text in quotes",
    Path: "a path in quotes",
    dict: "a table of text in quotes",
}
_GIVEN: Final = {bool: "true or false", int: "a number", float: "a number with a point", str: "text"}
_EXAMPLES: Final = {
    bool: "true",
    int: "1",
    float: "1.5",
    str: '"…"',
    dict: "{ … }",
    Path: '"/path/to/file.pem"',
}


class Reading:
    """One reading of one configuration: the mistakes so far, and the folder that relative paths start from.

    Reading goes on after a mistake as if the key were not there, so that what else is wrong is found too; nothing of what
    it made may be used once there are mistakes. `homes`: of keys that only one section has, where that is, in words.
    """

    def __init__(self, folder: Path, homes: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.mistakes: list[ConfigError] = []
        self._homes = homes or {}

    def mistake(self, key: str, problem: str, hint: str = "") -> None:
        """Remember that what stands at `key` cannot be. Only the first at a key counts: others may just follow from it."""
        if not any(mistake.key == key for mistake in self.mistakes):
            self.mistakes.append(ConfigError(key, problem, hint))

    def adopt(self, error: ConfigError, under: str) -> None:
        """Remember a mistake found by code that does not know where in the file it was: its key is one below `under`."""
        self.mistake(_join(under, error.key), error.problem, error.hint)

    def is_wrong(self, key: str) -> bool:
        """Whether there is a mistake at `key` or below it."""
        return any(
            mistake.key == key or mistake.key.startswith((key + ".", key + "[")) for mistake in self.mistakes
        )

    def struct(self, data: object, struct: type[S], key: str) -> S | None:
        """`data` as a `struct`, without the keys that do not fit; None where nothing can be made of it."""
        if not isinstance(data, dict):
            hint = f"write [{key}], with single brackets" if isinstance(data, list) and "[" not in key else ""
            self.mistake(key, "must be one table", hint)
            return None
        fields = {field.encode_name: field for field in msgspec.structs.fields(struct)}
        for name in data:
            if name not in fields:
                self.unknown(name, fields, key)
        values: dict[str, Any] = {}
        for name, field in fields.items():
            if name in data:
                value = self.value(data[name], field.type, _join(key, name))
                if value is not UNREADABLE:
                    values[field.name] = value
            elif field.required:
                self.mistake(_join(key, name), "is missing", f"write {name} = {_example(field.type)}")
        return self._make(struct, values, key)

    def _make(self, struct: type[S], values: dict[str, Any], key: str) -> S | None:
        """The struct of `values`, which checks them itself; each one it refuses is a mistake and left out."""
        required = {field.name for field in msgspec.structs.fields(struct) if field.required}
        while required <= values.keys():
            try:
                return struct(**values)
            except ConfigError as error:
                self.adopt(error, key)
                if values.pop(error.key, UNREADABLE) is UNREADABLE:
                    return None
        return None

    def structs(self, data: object, struct: type[S], key: str) -> list[S | None]:
        """A list of tables as structs in their order, None for each that does not fit."""
        if isinstance(data, list):
            return [self.struct(item, struct, f"{key}[{position}]") for position, item in enumerate(data)]
        inline = "[" in key  # a list within a list of tables is written between brackets
        hint = (
            f"write {_last(key)} = [ {{ … }} ]"
            if inline
            else f"write [[{key}]], with two brackets on each side"
        )
        self.mistake(key, "must be a list of tables", hint)
        return []

    def value(self, data: object, annotation: Any, key: str) -> Any:
        """`data` as what `annotation` says; `UNREADABLE`, and at least one mistake more, where it does not fit."""
        kind = kind_of(annotation)
        if _is_struct(kind):
            made = self.struct(data, kind, key)
            return UNREADABLE if made is None else made
        if get_origin(kind) is tuple:
            return self._sequence(data, get_args(kind)[0], key)
        if get_origin(kind) is dict:
            return self._named(data, annotation, key)
        try:
            return msgspec.convert(data, annotation, dec_hook=self._as_path)
        except msgspec.ValidationError:
            self._misfit(data, annotation, key)
            return UNREADABLE

    def unknown(self, name: str, known: Iterable[str], key: str) -> None:
        """Remember that `name` is no key below `key`, with what may have been meant."""
        import difflib  # only where there is a mistake to explain

        close = difflib.get_close_matches(name.lower().replace("-", "_"), known, n=1)
        if name in self._homes:
            self.mistake(_join(key, name), "does not belong here", f"it belongs {self._homes[name]}")
        elif close:
            self.mistake(_join(key, name), "is not a known key", f"did you mean {close[0]}?")
        else:
            self.mistake(_join(key, name), "is not a known key", f"there are {', '.join(known)}")

    def _sequence(self, data: object, element: Any, key: str) -> Any:
        kind = kind_of(element)
        if _is_struct(kind):
            items: list[Any] = [
                UNREADABLE if item is None else item for item in self.structs(data, kind, key)
            ]
        elif isinstance(data, list):
            items = [self.value(item, element, f"{key}[{position}]") for position, item in enumerate(data)]
        else:
            self.mistake(
                key, "must be a list", f"write {_last(key)} = [{_example(element)}], even if it is only one"
            )
            return UNREADABLE
        return UNREADABLE if UNREADABLE in items else tuple(items)

    def _named(self, data: object, annotation: Any, key: str) -> Any:
        """A table whose keys are names that the user chooses."""
        if not isinstance(data, dict):
            self.mistake(
                key,
                f"must be a table, not {_given(data)}",
                f"write {_last(key)} = {_example(annotation)}",
            )
            return UNREADABLE
        element = get_args(kind_of(annotation))[1]
        items = {name: self.value(item, element, f"{key}.{name}") for name, item in data.items()}
        return UNREADABLE if UNREADABLE in items.values() else items

    def _as_path(self, _type: type, data: object) -> Path:
        """msgspec's hook for what it does not know: a path, which if relative starts at the file's folder."""
        if not isinstance(data, str) or "\0" in data:
            raise TypeError("not a path")
        if not data:
            raise ValueError("an empty path")
        return self.folder / os.path.expanduser(data)

    def _misfit(self, data: object, annotation: Any, key: str) -> None:
        kind = kind_of(annotation)
        if get_origin(kind) is Literal:
            self.mistake(
                key,
                _wrong_word(data, annotation),
                "write " + " or ".join(f'"{word}"' for word in get_args(kind)),
            )
        elif kind is Path and data == "":
            self.mistake(key, "is empty", f"write {_last(key)} = {_example(annotation)}, or leave it out")
        elif isinstance(data, int | float) and not isinstance(data, bool) and kind in (float, type(data)):
            self.mistake(key, f"{data} is out of range", f"{_WANTED[kind]} {_range(annotation)}")
        else:
            self.mistake(
                key, f"must be {_WANTED[kind]}, not {_given(data)}", _instead(data, annotation, _last(key))
            )


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key and name else key or name


def _last(key: str) -> str:
    return key.rpartition(".")[2]


def kind_of(annotation: Any) -> Any:
    """An annotation without its `Annotated` and its `| None`."""
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    choices = [choice for choice in get_args(annotation) if choice is not type(None)]
    if type(None) in get_args(annotation) and len(choices) == 1:
        return choices[0]
    if get_origin(annotation) is dict:
        return dict
    return annotation


def meta_of(annotation: Any) -> msgspec.Meta:
    """What the model says about a key: its description, range and examples."""
    if get_origin(annotation) is Annotated:
        for extra in get_args(annotation)[1:]:
            if isinstance(extra, msgspec.Meta):
                return extra
    return msgspec.Meta()


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def struct_of(annotation: Any) -> Any:
    """The struct that a section holds, or a list of them; None where it is neither."""
    kind = kind_of(annotation)
    if get_origin(kind) is tuple:
        kind = kind_of(get_args(kind)[0])
    return kind if _is_struct(kind) else None


def heading_of(name: str, annotation: Any) -> str:
    """How a section's heading is written in the file."""
    return f"[[{name}]]" if get_origin(kind_of(annotation)) is tuple else f"[{name}]"


def _wrong_word(data: object, annotation: Any) -> str:
    if not isinstance(data, str):
        return f"must be text, not {_given(data)}"
    later = (meta_of(annotation).extra or {}).get("later", ())
    return f"{data!r} is not available yet" if data in later else f"cannot be {data!r}"


def _range(annotation: Any) -> str:
    meta = meta_of(annotation)
    return f"from {meta.ge} to {meta.le}"


def _example(annotation: Any) -> str:
    """What one could write, as TOML."""
    examples = meta_of(annotation).examples
    if examples:
        return str(examples[0])
    return _EXAMPLES.get(kind_of(annotation), "…")


def _given(data: object) -> str:
    """What kind of value the file has, without the value."""
    if isinstance(data, list):
        return "a list"
    if isinstance(data, dict):
        return "a table"
    return _GIVEN.get(type(data), "a date or a time")


def _instead(data: object, annotation: Any, name: str) -> str:
    """The hint for a value of the wrong kind: without its quotes, where that is all that is wrong."""
    kind = kind_of(annotation)
    if isinstance(data, str) and (
        (kind in (int, float) and data.isascii() and data.isdigit())
        or (kind is bool and data in ("true", "false"))
    ):
        return f"without quotes: {name} = {data}"
    return f"write {name} = {_example(annotation)}"
