"""The ACL's file, that `[security] acl_file` names, into plain values, or every mistake in it at once.

A file of its own, because it is read again while the broker runs and is often made by another program than the rest of
the configuration. What the values mean is ``security.acl``'s; what is checked here is that each could be meant.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from msgspec import Meta

from edge_broker.config.loading import ConfigMistakes, read_toml
from edge_broker.config.reading import UNREADABLE, Reading
from edge_broker.config.section import Section
from edge_broker.errors import ConfigError, MqttError
from edge_broker.wire.topics import SHARE_PREFIX, SYSTEM_PREFIX, check_topic_filter

_PLACEHOLDERS: Final = ("{client_id}", "{username}", "{identity}")
_IN_BRACES: Final = re.compile(r"\{[^{}/]*\}")
_TABLES: Final = ("roles", "identities", "groups", "bridges")


class RightsConfig(Section, frozen=True):
    """Topic filters by what is done. `receive` None: the same as `subscribe`."""

    publish: tuple[str, ...] = ()
    retain: tuple[str, ...] = ()
    subscribe: tuple[str, ...] = ()
    share: tuple[str, ...] = ()
    receive: tuple[str, ...] | None = None


class RoleConfig(Section, frozen=True):
    """`[roles.NAME]`."""

    max_qos: Annotated[int, Meta(ge=0, le=2)] = 2
    allow: RightsConfig = RightsConfig()
    deny: RightsConfig = RightsConfig()


class AclOptions(Section, frozen=True):
    """What stands above the tables."""

    wide_subscriptions: Literal["refuse", "filter"] = "refuse"


class AclFile(Section, frozen=True):
    """The whole file: roles by name, and names of roles by identity, group and bridge."""

    wide_subscriptions: Literal["refuse", "filter"]
    roles: dict[str, RoleConfig]
    identities: dict[str, tuple[str, ...]]
    groups: dict[str, tuple[str, ...]]
    bridges: dict[str, tuple[str, ...]]


def read_acl_file(path: Path, bridges: Collection[str] | None = None) -> AclFile:
    """The file at `path`; `ConfigMistakes` with all that is wrong in it.

    `bridges`: the names that the configuration has, None where it is not known. A bridge that the ACL calls by a name that
    no bridge has would be restricted by nothing, so that is a mistake.
    """
    data = read_toml(path)
    reading = Reading(path.resolve().parent)
    acl = _read(data, reading)
    _check_names(acl, reading, bridges)
    if reading.mistakes:
        raise ConfigMistakes(str(path), reading.mistakes)
    return acl


def _read(data: dict[str, Any], reading: Reading) -> AclFile:
    options = {name: content for name, content in data.items() if name not in _TABLES}
    known = (*AclOptions.__struct_fields__, *_TABLES)
    for name in [name for name in options if name not in known]:
        reading.unknown(name, known, "")
        del options[name]
    top = reading.struct(options, AclOptions, "") or AclOptions()
    roles = {}
    for name, content in _table(data, "roles", reading):
        role = reading.struct(content, RoleConfig, f"roles.{_quoted(name)}")
        if role is not None:
            roles[name] = role
            _check_role(role, f"roles.{_quoted(name)}", reading)
    named = {table: dict(_role_names(data, table, reading)) for table in ("identities", "groups", "bridges")}
    return AclFile(wide_subscriptions=top.wide_subscriptions, roles=roles, **named)


def _table(data: Mapping[str, Any], name: str, reading: Reading) -> Iterator[tuple[str, Any]]:
    """What stands in the table `name`, by key."""
    content = data.get(name, {})
    if isinstance(content, dict):
        yield from content.items()
    else:
        reading.mistake(name, "must be a table", f"write [{name}]")


def _role_names(
    data: Mapping[str, Any], table: str, reading: Reading
) -> Iterator[tuple[str, tuple[str, ...]]]:
    for name, content in _table(data, table, reading):
        key = f"{table}.{_quoted(name)}"
        if not name or "\0" in name:
            reading.mistake(key, "is no name", "write the name that the broker's log shows")
        names = reading.value(content, tuple[str, ...], key)
        yield name, () if names is UNREADABLE else names


def _quoted(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else f'"{name}"'


# ---- checks


def _check_role(role: RoleConfig, key: str, reading: Reading) -> None:
    for effect, rights in (("allow", role.allow), ("deny", role.deny)):
        for action in RightsConfig.__struct_fields__:
            for position, pattern in enumerate(getattr(rights, action) or ()):
                try:
                    _check_filter(pattern)
                    if effect == "allow" and action in ("publish", "retain"):
                        _check_not_ours(pattern)
                except ConfigError as error:
                    reading.mistake(f"{key}.{effect}.{action}[{position}]", error.problem, error.hint)


def _check_filter(pattern: str) -> None:
    """`ConfigError`, its key empty, for what is no topic filter, or one whose placeholders could be abused."""
    for level_at, level in enumerate(pattern.split("/")):
        names = _IN_BRACES.findall(level)
        unknown = [name for name in names if name not in _PLACEHOLDERS]
        if unknown or "{" in _IN_BRACES.sub("", level) or "}" in _IN_BRACES.sub("", level):
            hint = f"there are {', '.join(_PLACEHOLDERS)}; for a brace in a topic write +"
            raise ConfigError("", f"{pattern!r} has braces around what is no placeholder", hint)
        if len(names) > 1:
            hint = "give each a level of its own: two names side by side can read like another one's two"
            raise ConfigError("", f"{pattern!r} has two placeholders in one level", hint)
        if names and not level_at and level[:1] == "$":
            raise ConfigError("", f"{pattern!r} has a placeholder behind $", "write the first level out")
    if pattern.startswith(SHARE_PREFIX):
        hint = "write the filter behind the share's name, under share as well as under subscribe"
        raise ConfigError("", f"{pattern!r} is a shared subscription", hint)
    try:
        check_topic_filter(_IN_BRACES.sub("x", pattern))
    except MqttError as error:
        raise ConfigError("", f"{pattern!r}: {error.detail}", "such as sensors/{identity}/#") from None


def _check_not_ours(pattern: str) -> None:
    if pattern.startswith(SYSTEM_PREFIX):
        raise ConfigError("", f"{pattern!r} is the broker's own, nobody may publish there", "leave it out")


def _check_names(acl: AclFile, reading: Reading, bridges: Collection[str] | None) -> None:
    """That roles which are named exist, and that names could be somebody's."""
    for table, named in (("identities", acl.identities), ("groups", acl.groups), ("bridges", acl.bridges)):
        for name, roles in named.items():
            key = f"{table}.{_quoted(name)}"
            for role in roles:
                if role not in acl.roles and not reading.is_wrong(f"roles.{_quoted(role)}"):
                    there = ", ".join(acl.roles) or "none yet"
                    reading.mistake(key, f"names the role {role!r}, which is not there", f"there are {there}")
            if table == "identities" and "*" in name[:-1]:
                reading.mistake(key, "has a * that is not its end", 'such as "spiffe://example.org/sensor/*"')
            if table == "bridges" and bridges is not None and name not in bridges:
                there = ", ".join(sorted(bridges)) or "none"
                reading.mistake(key, "is no bridge of the configuration", f"there are {there}")
