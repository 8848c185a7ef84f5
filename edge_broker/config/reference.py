"""The reference of every key, written from the model itself: what `docs/configuration.md` shows between its markers.

Sections that the model does not know (a bridge's) are given by the caller as structs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin

import msgspec
from msgspec.structs import FieldInfo

from edge_broker.config.environment import OVERRIDES
from edge_broker.config.model import Config
from edge_broker.config.reading import heading_of, kind_of, meta_of, struct_of

BEGIN: Final = "<!-- reference: written by `edge-broker reference --update`, do not edit by hand -->"
END: Final = "<!-- end of the reference -->"
_TYPES: Final = {
    bool: "true or false",
    int: "whole number",
    float: "number",
    str: "text",
    Path: "path",
    dict: "table of text",
}


def render_reference(sections: Mapping[str, type[msgspec.Struct]]) -> str:
    """Every key as Markdown. `sections`: for lists of tables that the model leaves open, the struct of one table."""
    top: list[FieldInfo] = []
    parts: list[str] = []
    for field in msgspec.structs.fields(Config):
        struct = sections.get(field.encode_name) or struct_of(field.type)
        if struct is None:
            top.append(field)
        else:
            parts += _describe(f"### `{heading_of(field.encode_name, field.type)}`", struct)
    environment = [f"- `{variable}`: `{key}`" for variable, key in OVERRIDES.items()]
    parts += ["### Environment", "What is set here wins over the file:", "\n".join(environment)]
    return "\n\n".join(["### At the top of the file", _table(top), *parts]) + "\n"


def render_file_reference(struct: type[msgspec.Struct]) -> str:
    """Every key of a file that is one `struct`, as Markdown."""
    top: list[FieldInfo] = []
    parts: list[str] = []
    for field in msgspec.structs.fields(struct):
        section = struct_of(field.type)
        if section is None:
            top.append(field)
        else:
            parts += _describe(f"### `{heading_of(field.encode_name, field.type)}`", section)
    return "\n\n".join(["### At the top of the file", _table(top), *parts]) + "\n"


def replace_reference(document: str, reference: str) -> str:
    """`document` with `reference` between its markers; `ValueError` without them."""
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"it needs a line {BEGIN!r} and below it a line {END!r}")
    return f"{before}{BEGIN}\n\n{reference}\n{END}{after}"


def _describe(heading: str, struct: type[msgspec.Struct]) -> list[str]:
    """A section: heading, what it is about, its keys, and below it the tables that it has lists of."""
    fields = msgspec.structs.fields(struct)
    parts = [heading, _about(struct), _table(fields)]
    described: set[type[msgspec.Struct]] = set()
    for field in fields:
        inner = struct_of(field.type)
        if inner is not None and inner not in described:
            described.add(inner)
            keys = f"{{ {', '.join(inner.__struct_encode_fields__)} }}"
            is_list = get_origin(kind_of(field.type)) is tuple
            parts += _describe(f"#### `{keys if is_list else f'{field.encode_name} = {{ … }}'}`", inner)
    return parts


def _about(struct: type[msgspec.Struct]) -> str:
    return (struct.__doc__ or "").partition("\n")[0]


def _table(fields: Iterable[FieldInfo]) -> str:
    rows = ["| key | default | what it is | meaning |", "|---|---|---|---|"]
    for field in fields:
        meaning = meta_of(field.type).description or ""
        rows.append(f"| `{field.encode_name}` | {_default(field)} | {_what(field.type)} | {meaning} |")
    return "\n".join(rows)


def _default(field: FieldInfo) -> str:
    """In the file's own words, or in the model's where it depends on something."""
    told = (meta_of(field.type).extra or {}).get("default")
    if told:
        return str(told)
    if field.required:
        return "required"
    default = field.default
    if default is None or default in ((), {}):
        return "none"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    return (
        f'`"{default}"`'
        if isinstance(default, str)
        else f"`{default:g}`"
        if isinstance(default, float)
        else f"`{default}`"
    )


def _what(annotation: Any) -> str:
    """A key's type, with its range or its words."""
    kind = kind_of(annotation)
    if get_origin(kind) is Literal:
        return ", ".join(f'`"{word}"`' for word in get_args(kind))
    if get_origin(kind) is tuple:
        struct = struct_of(annotation)
        if struct:
            return "list of rules" if "filter" in struct.__struct_fields__ else "list of tables"
        return f"list of {_what(get_args(kind)[0])}"
    if get_origin(kind) is dict:
        return f"table of {_what(get_args(kind)[1])} by name"
    if struct_of(annotation):
        return "table"
    meta = meta_of(annotation)
    return _TYPES[kind] if meta.ge is None else f"{_TYPES[kind]}, {meta.ge} to {meta.le}"
