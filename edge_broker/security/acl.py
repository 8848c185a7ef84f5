"""The rules of an ACL, and what of them holds for one principal: its roles, and their filters with its names put in.

What it keeps true:

- Nothing is allowed that no role of the principal allows; what any of its roles denies is denied.
- A name never widens a rule. One with `/`, `+` or `#` in it, an empty one, and at the beginning of a filter one with `$`
  cannot be put in: an `allow` filter then matches nothing, and of a `deny` filter everything is denied from the level on
  that the name would have stood in, so that no choice of a name makes a denial weaker.
- `#` and `+` at the beginning match no topic that begins with `$`, as in a subscription [MQTT-4.7.2-1]: `$SYS` is allowed
  by name or not at all.
- A bridge of the broker itself is found by its own table alone: nobody becomes one by calling himself so.

It decides nothing (``acl_decisions``) and reads no file (``config.acl_file``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from edge_broker.core.ports import Principal
from edge_broker.security.admission import ANONYMOUS

ACTIONS: Final = ("publish", "retain", "subscribe", "share", "receive")
_PLACEHOLDER: Final = re.compile(r"\{(client_id|username|identity)\}")
_CANNOT_BE_PUT_IN: Final = re.compile(r"[/+#\0]")

Filters = Mapping[str, tuple[str, ...]]
"""By action: topic filters as they are written."""


@dataclass(frozen=True, slots=True)
class Role:
    """What somebody may do. Where `allow` has no `receive`, what may be subscribed to may be received."""

    name: str
    allow: Filters = field(default_factory=dict)
    deny: Filters = field(default_factory=dict)
    max_qos: int = 2


@dataclass(frozen=True, slots=True)
class Acl:
    """One reading of an ACL: roles by name, and the names of roles by identity, group and bridge.

    An identity that ends in `*` stands for all that begin so, except anonymous clients. `filters_wide`: a subscription
    wider than what is allowed is granted, and gets what is allowed; else it is refused.
    """

    roles: Mapping[str, Role] = field(default_factory=dict)
    identities: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    bridges: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    filters_wide: bool = False
    _patterns: tuple[str, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Names are looked up; only patterns are gone through one by one."""
        object.__setattr__(self, "_patterns", tuple(name for name in self.identities if name.endswith("*")))

    def roles_of(self, principal: Principal) -> dict[str, str]:
        """The names of its roles, each with why it has it."""
        found: dict[str, str] = {}
        for why, names in self._grants(principal):
            for name in names:
                found.setdefault(name, why)
        return found

    def _grants(self, principal: Principal) -> Iterator[tuple[str, tuple[str, ...]]]:
        if principal.bridge:
            yield f"bridge {principal.bridge!r}", self.bridges.get(principal.bridge, ())
            return
        identity = principal.identity
        names = [] if identity.endswith("*") else [identity]
        if identity != ANONYMOUS:
            names += [name for name in self._patterns if identity.startswith(name[:-1])]
        for name in names:
            if name in self.identities:
                yield f"identity {name!r}", self.identities[name]
        for group in principal.groups:
            if group in self.groups:
                yield f"group {group!r}", self.groups[group]


@dataclass(frozen=True, slots=True)
class Rule:
    """One filter of a role as it holds for one principal. `filters`: with its names in it, none that match nothing."""

    role: str
    effect: str
    action: str
    pattern: str
    filters: tuple[str, ...]
    max_qos: int

    def __str__(self) -> str:
        text = f"role {self.role}, {self.effect}.{self.action} {self.pattern!r}"
        if self.filters == (self.pattern,):
            return text
        return f"{text}, which is {' and '.join(map(repr, self.filters)) or 'nothing'} here"


def rules_for(acl: Acl, principal: Principal) -> list[Rule]:
    """Every rule of its roles, in the order in which roles are given and filters are written."""
    rules = []
    for name in acl.roles_of(principal):
        role = acl.roles[name]
        for action in ACTIONS:
            allowed = role.allow.get("subscribe" if action == "receive" else action, ())
            for effect, patterns in (
                ("allow", role.allow.get(action, allowed)),
                ("deny", role.deny.get(action, ())),
            ):
                rules += [_rule(role, effect, action, pattern, principal) for pattern in patterns]
    return rules


def _rule(role: Role, effect: str, action: str, pattern: str, principal: Principal) -> Rule:
    if "{" not in pattern:
        return _same_for_all(role.name, effect, action, pattern, role.max_qos)
    put_in = allowed_filters if effect == "allow" else denied_filters
    return Rule(role.name, effect, action, pattern, put_in(pattern, principal), role.max_qos)


@lru_cache(maxsize=10_000)
def _same_for_all(role: str, effect: str, action: str, pattern: str, max_qos: int) -> Rule:
    """One object for all sessions: there may be many."""
    return Rule(role, effect, action, pattern, (pattern,), max_qos)


def allowed_filters(pattern: str, principal: Principal) -> tuple[str, ...]:
    """`pattern` with the principal's names in it; nothing where one of them cannot be put in."""
    levels, is_whole, _ = _substitute(pattern, principal)
    return ("/".join(levels),) if is_whole else ()


def denied_filters(pattern: str, principal: Principal) -> tuple[str, ...]:
    """`pattern` with the principal's names in it; what covers it where one of them cannot be put in."""
    levels, is_whole, literal = _substitute(pattern, principal)
    if is_whole:
        return ("/".join(levels),)
    covering = "/".join([*levels, "#"])
    if levels or literal[:1] != "$":
        return (covering,)
    return covering, f"{literal.partition('/')[0]}/#"  # what a `#` does not match


def _substitute(pattern: str, principal: Principal) -> tuple[list[str], bool, str]:
    """The levels of `pattern` with names in them, whether those are all, else the level that a name cannot be put into.

    That level is given as it would read, and is not among the levels.
    """
    levels: list[str] = []
    for level in pattern.split("/"):
        values = [getattr(principal, found) for found in _PLACEHOLDER.findall(level)]
        literal = _PLACEHOLDER.sub(lambda found: str(getattr(principal, found[1])), level)
        unusable = any(not value or _CANNOT_BE_PUT_IN.search(value) for value in values)
        if unusable or (values and not levels and literal[:1] == "$"):
            return levels, False, literal
        levels.append(literal)
    return levels, True, ""
