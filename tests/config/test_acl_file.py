"""The ACL's file: what a right one becomes, and every mistake in a wrong one at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_broker.config.acl_file import RightsConfig, RoleConfig, read_acl_file
from edge_broker.config.loading import ConfigMistakes
from edge_broker.wiring import make_acl, make_authorizer

RIGHT = """
wide_subscriptions = "filter"

[roles.sensor]
max_qos = 1
allow.publish = ["sensors/{identity}/#"]
allow.subscribe = ["commands/{client_id}/#", "x-{username}"]
deny.publish = ["sensors/{identity}/secret"]

[roles.dashboard.allow]
subscribe = ["sensors/#"]
receive = []

[identities]
cellar = ["sensor"]
"spiffe://example.org/*" = ["sensor", "dashboard"]

[groups]
staff = ["dashboard"]

[bridges]
cloud = ["dashboard"]
"""


def mistakes_in(folder: Path, text: str, bridges: list[str] | None = None) -> list[str]:
    path = folder / "acl.toml"
    path.write_text(text)
    with pytest.raises(ConfigMistakes) as caught:
        read_acl_file(path, bridges)
    return [str(mistake) for mistake in caught.value.mistakes]


def test_a_right_one(tmp_path: Path) -> None:
    path = tmp_path / "acl.toml"
    path.write_text(RIGHT)
    file = read_acl_file(path, ["cloud"])
    assert file.roles["sensor"] == RoleConfig(
        max_qos=1,
        allow=RightsConfig(
            publish=("sensors/{identity}/#",), subscribe=("commands/{client_id}/#", "x-{username}")
        ),
        deny=RightsConfig(publish=("sensors/{identity}/secret",)),
    )
    assert file.identities == {"cellar": ("sensor",), "spiffe://example.org/*": ("sensor", "dashboard")}
    assert (file.groups, file.bridges) == ({"staff": ("dashboard",)}, {"cloud": ("dashboard",)})
    acl = make_acl(file)
    assert acl.filters_wide
    assert "receive" not in acl.roles["sensor"].allow, "left out, it is as subscribe"
    assert acl.roles["dashboard"].allow["receive"] == ()
    assert acl.roles["sensor"].deny["publish"] == ("sensors/{identity}/secret",)


def test_an_empty_one_allows_nobody_anything(tmp_path: Path) -> None:
    path = tmp_path / "acl.toml"
    path.write_text("")
    authorizer = make_authorizer(path, [])
    assert authorizer is not None
    assert (authorizer.acl.roles, authorizer.acl.filters_wide) == ({}, False)
    assert make_authorizer(None, []) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("wide_subscription = 'filter'", "wide_subscription: is not a known key (did you mean wide_subscriptions?)"),
        ("role = 1", "role: is not a known key (did you mean roles?)"),
        ("wide_subscriptions = 'accept'", "wide_subscriptions: cannot be 'accept' (write \"refuse\" or \"filter\")"),
        ("roles = ['a']", "roles: must be a table (write [roles])"),
        ("[roles]\nr = 1", "roles.r: must be one table"),
        ("[roles.r]\nmax_qos = 3", "roles.r.max_qos: 3 is out of range (a whole number from 0 to 2)"),
        ("[roles.r.allow]\npublsh = []", "roles.r.allow.publsh: is not a known key (did you mean publish?)"),
        ("[roles.r]\npublish = []", "roles.r.publish: is not a known key"),
        ("[roles.r.allow]\npublish = 'x'", "roles.r.allow.publish: must be a list"),
        ("[roles.r.deny]\nreceive = [1]", "roles.r.deny.receive[0]: must be text in quotes, not a number"),
        ("[roles.r.allow]\npublish = ['a/#/b']", "roles.r.allow.publish[0]: 'a/#/b': '#' must be the whole last level"),
        ("[roles.r.allow]\npublish = ['a', '']", "roles.r.allow.publish[1]: '': an empty topic filter"),
        ("[roles.r.allow]\npublish = ['{client_id}+']", "'+' must be a whole level"),
        ("[roles.r.allow]\npublish = ['a/{name}']", "'a/{name}' has braces around what is no placeholder"),
        ("[roles.r.allow]\npublish = ['a/{identity']", "has braces around what is no placeholder (there are {client_id},"),
        ("[roles.r.allow]\npublish = ['a/{{identity}}']", "has braces around what is no placeholder"),
        ("[roles.r.allow]\npublish = ['{identity}{client_id}']", "has two placeholders in one level"),
        ("[roles.r.allow]\npublish = ['${identity}']", "has a placeholder behind $"),
        ("[roles.r.allow]\nshare = ['$share/g/a']", "'$share/g/a' is a shared subscription"),
        ("[roles.r.allow]\npublish = ['$SYS/#']", "'$SYS/#' is the broker's own, nobody may publish there"),
        ("[identities]\nx = ['r']", "identities.x: names the role 'r', which is not there (there are none yet)"),
        ("[identities]\nx = 'r'", "identities.x: must be a list"),
        ("[roles.r]\n[identities]\n'a*b' = ['r']", "identities.\"a*b\": has a * that is not its end"),
        ("[identities]\n'' = []", "identities.\"\": is no name"),
        ("[roles.r]\n[bridges]\nclod = ['r']", "bridges.clod: is no bridge of the configuration (there are cloud)"),
        ("[roles.r", "end of the file: is not TOML"),
    ],
)  # fmt: skip
def test_a_mistake(tmp_path: Path, text: str, said: str) -> None:
    (mistake,) = mistakes_in(tmp_path, text, ["cloud"])
    assert said in mistake


def test_all_mistakes_at_once(tmp_path: Path) -> None:
    found = mistakes_in(
        tmp_path,
        "[roles.r.allow]\npublish = ['#/a', 'b/{x}']\n[roles.s]\nmax_qos = 'x'\n[groups]\ng = ['r', 't']",
    )
    assert [mistake.split(":")[0] for mistake in found] == [
        "roles.r.allow.publish[0]",
        "roles.r.allow.publish[1]",
        "roles.s.max_qos",
        "groups.g",
    ]


def test_without_a_configuration_any_bridge_may_be_named(tmp_path: Path) -> None:
    path = tmp_path / "acl.toml"
    path.write_text("[bridges]\nany = []")
    assert read_acl_file(path).bridges == {"any": ()}


def test_one_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigMistakes, match="cannot be read: No such file"):
        read_acl_file(tmp_path / "nowhere.toml")
