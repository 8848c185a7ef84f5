"""`edge-broker acl`: the rule that decides, the exit code, and mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from edge_broker.cli import main

RULES = """
[roles.sensor]
max_qos = 1
allow.publish = ["sensors/{identity}/#"]
allow.retain = ["sensors/{identity}/state"]
allow.subscribe = ["commands/{identity}/#"]
deny.publish = ["sensors/{client_id}/secret"]

[roles.dashboard.allow]
subscribe = ["sensors/#"]
share = ["sensors/+/x"]

[identities]
cellar = ["sensor"]

[groups]
staff = ["dashboard"]

[bridges]
cloud = ["dashboard"]
"""
CELLAR = ["--identity", "cellar", "--client-id", "c"]
ANNA = ["--identity", "anna", "--group", "staff"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "acl.toml"
    path.write_text(RULES)
    return path


def explain(file: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["acl", "explain", str(file), *arguments])


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([*CELLAR, "publish", "sensors/cellar/t"], 0, "which is 'sensors/cellar/#' here"),
        ([*CELLAR, "publish", "sensors/cellar/t", "--qos", "1"], 0, "at QoS 1 at most"),
        ([*CELLAR, "publish", "sensors/cellar/t", "--qos", "2"], 1, "QoS 2 is more: refused"),
        ([*CELLAR, "publish", "sensors/cellar/t", "--retain"], 1, "no allow.retain of role sensor matches"),
        ([*CELLAR, "publish", "sensors/cellar/state", "--retain"], 0, "allow.retain"),
        (
            [*CELLAR, "publish", "$delayed/5/sensors/cellar/t"],
            0,
            "may publish to '$delayed/5/sensors/cellar/t'",
        ),
        ([*CELLAR, "publish", "sensors/attic/t"], 1, "no allow.publish of role sensor matches"),
        (["--identity", "cellar", "publish", "sensors/cellar/t"], 1, "there is no --client-id here"),
        (
            [*CELLAR, "subscribe", "commands/cellar/#", "--qos", "2"],
            0,
            "QoS 2 is more: QoS 1 is what it gets",
        ),
        ([*CELLAR, "subscribe", "commands/#"], 1, "it is wider than 'commands/cellar/#'"),
        ([*CELLAR, "receive", "commands/cellar/x"], 0, "may receive"),
        ([*ANNA, "subscribe", "$share/g/sensors/+/x"], 0, "allow.share 'sensors/+/x'"),
        ([*ANNA, "subscribe", "$share/g/sensors/#"], 1, "it is wider than 'sensors/+/x'"),
        ([*ANNA, "receive", "sensors/a"], 0, "roles: dashboard (group 'staff')"),
        (["--identity", "anna", "receive", "sensors/a"], 1, "it has no role\n  roles: none"),
        (["--bridge", "cloud", "receive", "sensors/a"], 0, "roles: dashboard (bridge 'cloud')"),
        (["--bridge", "cloud", "publish", "sensors/a"], 1, "no allow.publish of role dashboard"),
        ([*CELLAR, "--username", "cellar", "receive", "commands/cellar/x"], 0, "may receive"),
        (["--bridge", "lan", "publish", "x"], 0, "the ACL does not name the bridge 'lan'"),
    ],
)
def test_explain(file: Path, arguments: list[str], code: int, said: str) -> None:
    result = explain(file, *arguments)
    assert said in result.output
    assert result.output.startswith("denied: " if code else "allowed: ")
    assert result.exit_code == code


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["publish", "x"], "give --identity or --bridge"),
        ([*CELLAR, "--bridge", "b", "publish", "x"], "give --identity or --bridge"),
        (
            [*CELLAR, "--username", "attic", "publish", "x"],
            "a user name counts only where it is the identity",
        ),
        ([*CELLAR, "publish", "a/+"], "TOPIC 'a/+': a wildcard in a topic name"),
        ([*CELLAR, "subscribe", "a/#/b"], "'#' must be the whole last level"),
        ([*CELLAR, "subscribe", "a", "--retain"], "--retain is of messages that are published"),
    ],
)
def test_a_question_that_is_none(file: Path, arguments: list[str], said: str) -> None:
    result = explain(file, *arguments)
    assert (result.exit_code, said in result.output) == (2, True)


def test_check(file: Path) -> None:
    result = CliRunner().invoke(main, ["acl", "check", str(file)])
    assert result.exit_code == 0
    assert result.output == (
        f"{file}: OK\n"
        "  roles       sensor, dashboard\n"
        "  identities  1\n"
        "  groups      1\n"
        "  bridges     cloud\n"
        "  subscriptions that are too wide are refused\n"
    )


@pytest.mark.parametrize("command", [["acl", "check"], ["acl", "explain"]])
def test_a_broken_file(file: Path, command: list[str]) -> None:
    file.write_text("[identities]\ncellar = ['senso']")
    question = [*CELLAR, "publish", "x"] if "explain" in command else []
    result = CliRunner().invoke(main, [*command, str(file), *question])
    assert result.exit_code == 2
    assert f"{file}: 1 mistake\n  identities.cellar: names the role 'senso'" in result.output


def test_the_configuration_check_covers_it(file: Path) -> None:
    config = file.with_name("edge-broker.toml")
    config.write_text("data_dir = 'd'\n[security]\nacl_file = 'acl.toml'")
    result = CliRunner().invoke(main, ["check", str(config)])
    assert result.exit_code == 2
    assert "bridges.cloud: is no bridge of the configuration" in result.output
    file.write_text(RULES.partition("[bridges]")[0])
    result = CliRunner().invoke(main, ["check", str(config)])
    assert (result.exit_code, f"acl     2 roles in {file}" in result.output) == (0, True)
    config.write_text("data_dir = 'd'\n[security]\nacl_file = 'nowhere.toml'")
    result = CliRunner().invoke(main, ["check", str(config)])
    assert (result.exit_code, "security.acl_file" in result.output) == (2, True)
