"""`edge-broker check`: OK and what the file would do, or every mistake and 2."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from edge_broker.cli import main
from tests.config.certificates import write_pair
from tests.security.issuer import jwk, write_set


@pytest.fixture(autouse=True)
def _home(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("STATE_DIRECTORY", "XDG_STATE_HOME", "EDGE_BROKER_DATA_DIR", "EDGE_BROKER_LOG_LEVEL"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", "/home/pi")


def check(folder: Path, text: str) -> tuple[Path, Result]:
    path = folder / "edge-broker.toml"
    path.write_text(text)
    return path, CliRunner().invoke(main, ["check", str(path)])


def test_an_empty_file_is_right(tmp_path: Path) -> None:
    path, result = check(tmp_path, "")
    assert result.exit_code == 0
    assert result.output == (
        f"{path}: OK\n"
        "  data    /home/pi/.local/state/edge-broker\n"
        "  listen  mqtt://127.0.0.1:1883  anyone on this machine\n"
        "  http    off\n"
        "  log     info and worse, as text\n"
    )


LISTENERS = """
[[listeners]]
bind = "0.0.0.0:1883"
anonymous = true
[[listeners]]
transport = "tls"
bind = "*:8883"
certificate = "gateway.crt"
key = "gateway.key"
client_ca = "ca.crt"
[[listeners]]
transport = "tls"
bind = "[::1]:8884"
certificate = "gateway.crt"
key = "gateway.key"
client_ca = "ca.crt"
anonymous = false
require_client_certificate = false
[[listeners]]
transport = "tls"
bind = "10.0.0.1:8885"
certificate = "gateway.crt"
key = "gateway.key"
anonymous = true
"""


def test_who_may_connect_is_said_in_words(tmp_path: Path) -> None:
    write_pair(tmp_path, "gateway")
    write_pair(tmp_path, "ca")
    _, result = check(tmp_path, LISTENERS)
    assert result.exit_code == 0
    assert [line.removeprefix("  listen  ") for line in result.output.splitlines() if "listen" in line] == [
        "mqtt://0.0.0.0:1883  ANYONE who reaches it, unencrypted",
        f"mqtts://*:8883  clients with a certificate of {tmp_path}/ca.crt",
        f"mqtts://[::1]:8884  clients with a certificate of {tmp_path}/ca.crt; others get as far as their CONNECT",
        "mqtts://10.0.0.1:8885  ANYONE who reaches it",
    ]


BRIDGE = """
[[bridges]]
name = "cloud"
urls = ["mqtts://a.example.com", "mqtt://b.example.com"]
client_id = "pi-1"
username = "pi"
password_file = "password"
out = [{ filter = "sensors/#", remote_prefix = "pi/1/" }]
in = [{ filter = "commands/#", remote_prefix = "pi/1/", qos = 0 }]
"""

RULES = """
[[bridges]]
urls = ["mqtt://127.0.0.1"]
out = [
  { from = "site/+room/#rest", to = "p/{gateway}/{room}/{rest}", except = ["site/a", "site/+/b"], retain = "clear" },
  { filter = "alarms/#", max_age_seconds = 60, keep_latest = true, priority = "high" },
]
in = [{ from = "p/+room", to = "site/{room}", characters = { "." = "_" }, expiry_seconds = 60, payload = "cbor_to_json" }]
"""


def test_bridges_are_described(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("secret")
    _, result = check(tmp_path, BRIDGE)
    assert result.exit_code == 0
    assert "  bridge  cloud: mqtts://a.example.com:8883, mqtt://b.example.com:1883 as pi-1\n" in result.output
    assert "up    sensors/# -> pi/1/sensors/#, QoS 1 at most\n" in result.output
    assert "down  pi/1/commands/# -> commands/#, QoS 0 at most\n" in result.output
    assert "WARNING: its password crosses the network unencrypted; use mqtts://\n" in result.output
    assert "secret" not in result.output


def test_a_separate_uplink_is_described(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("secret")
    _, result = check(tmp_path, BRIDGE.replace("[[bridges]]", "[[bridges]]\nseparate_uplink = true", 1))
    assert result.exit_code == 0, result.output
    assert "mqtt://b.example.com:1883 as pi-1, and as pi-1-up for what goes up\n" in result.output


def test_what_rules_say_beside_topics_is_described(tmp_path: Path) -> None:
    _, result = check(tmp_path, RULES)
    assert result.exit_code == 0, result.output
    up = "site/+room/#rest -> p/{gateway}/{room}/{rest}, QoS 1 at most, but for site/a and site/+/b, never retained"
    assert f"up    {up}\n" in result.output
    alarms = (
        "QoS 1 at most, no older than 60 s, the latest of each topic, before all others, in a spent month too"
    )
    assert f"up    alarms/# -> alarms/#, {alarms}\n" in result.output
    down = (
        "p/+room -> site/{room}, QoS 1 at most, with '.' as '_', for 60 s, cbor to json (keep what cannot be)"
    )
    assert f"down  {down}\n" in result.output


def test_envelopes_and_lateness_are_described(tmp_path: Path) -> None:
    text = """
[[bridges]]
name = "cloud"
urls = ["mqtt://127.0.0.1:1"]
envelopes = { enabled = true }
out = [{ filter = "alarms/#", envelope = false, ingested = true }, { filter = "noise/#", priority = "low" }]
in = [{ filter = "commands/#", when_late = "drop" }]
"""
    _, result = check(tmp_path, text)
    assert result.exit_code == 0, result.output
    said = result.output
    assert "up    alarms/# -> alarms/#, QoS 1 at most, for an ingester, in no envelope with others\n" in said
    assert "up    noise/# -> noise/#, QoS 1 at most, behind all others\n" in said
    assert "up    in envelopes, while an ingester announces itself on edge/ingest/lease\n" in said
    assert "down  commands/# -> commands/#, QoS 1 at most, drop what is late\n" in said


def test_mistakes_are_listed_and_the_exit_code_is_2(tmp_path: Path) -> None:
    path, result = check(tmp_path, "[log]\nlevel = 'loud'\n[sessions]\nreceive_maximum = 0\n")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith(f"{path}: 2 mistakes\n  log.level: cannot be 'loud'\n")


def test_a_real_process_says_the_same(tmp_path: Path) -> None:
    def run(text: str) -> subprocess.CompletedProcess[str]:
        path = tmp_path / "edge-broker.toml"
        path.write_text(text)
        command = [sys.executable, "-m", "edge_broker", "check", str(path)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    right = run("")
    assert (right.returncode, right.stderr) == (0, "")
    assert ": OK\n" in right.stdout
    wrong = run("[[listeners]]\nbind = '0.0.0.0:1883'\n")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "listeners[0].anonymous: is false, so nobody could connect" in wrong.stderr


PASSWORDS = """
[[listeners]]
bind = "127.0.0.1:1883"
anonymous = false
[[listeners]]
bind = "0.0.0.0:1884"
[[listeners]]
transport = "tls"
bind = "*:8883"
certificate = "gateway.crt"
key = "gateway.key"
client_ca = "ca.crt"
require_client_certificate = false
[security]
password_file = "passwords"
"""


def test_passwords(tmp_path: Path) -> None:
    write_pair(tmp_path, "gateway")
    write_pair(tmp_path, "ca")
    made = CliRunner().invoke(
        main, ["passwd", str(tmp_path / "passwords"), "anna", "--stdin"], input="pencil"
    )
    assert made.exit_code == 0
    _, result = check(tmp_path, PASSWORDS)
    assert [line.removeprefix("  listen  ") for line in result.output.splitlines() if "listen" in line] == [
        "mqtt://127.0.0.1:1883  clients with a password",
        "mqtt://0.0.0.0:1884  clients with a password, PASSWORDS UNENCRYPTED",
        f"mqtts://*:8883  clients with a password or a certificate of {tmp_path}/ca.crt",
    ]
    assert f"  users   1 in {tmp_path}/passwords\n" in result.output
    assert result.exit_code == 0


def test_mistakes_in_the_password_file(tmp_path: Path) -> None:
    write_pair(tmp_path, "gateway")
    write_pair(tmp_path, "ca")
    _, result = check(tmp_path, PASSWORDS)
    assert "security.password_file" in result.output
    assert result.exit_code == 2
    (tmp_path / "passwords").write_text("anna:hunter2\nbob\n")
    _, result = check(tmp_path, PASSWORDS)
    assert result.output.startswith(f"{tmp_path}/passwords: 2 mistakes\n  line 1: has a credential")
    assert "hunter2" not in result.output
    assert result.exit_code == 2


def test_mistakes_in_deny_and_revocation_lists(tmp_path: Path) -> None:
    write_pair(tmp_path, "gateway")
    write_pair(tmp_path, "ca")
    (tmp_path / "crl").write_text("nothing\n")
    (tmp_path / "denied").write_text("cellar\n")
    _, result = check(
        tmp_path,
        '[[listeners]]\ntransport = "tls"\nbind = "*:8883"\ncertificate = "gateway.crt"\nkey = "gateway.key"\n'
        'client_ca = "ca.crt"\ncrl_files = ["crl"]\n[security]\ndeny_file = "denied"\n',
    )
    assert result.exit_code == 2
    assert result.stdout == ""
    assert f"{tmp_path}/denied: 1 mistake; line 1: says neither identity nor serial" in result.stderr
    assert f"{tmp_path}/crl: has no revocation list in it" in result.stderr


TOKENS = """
[[listeners]]
transport = "tls"
bind = "*:8883"
certificate = "gateway.crt"
key = "gateway.key"
[[listeners]]
bind = "*:1883"
anonymous = false
[security]
jwt_keys = ["issuer.json"]
jwt_audience = "mqtt"
[http]
bind = "*:8443"
certificate = "gateway.crt"
key = "gateway.key"
token_file = "http-tokens"
open_health = true
"""


def test_tokens_of_clients_and_of_http(tmp_path: Path) -> None:
    write_pair(tmp_path, "gateway")
    write_set(tmp_path / "issuer.json", jwk("ES256", kid="a"), jwk("EdDSA"), jwk("RS256", use="enc"))
    (tmp_path / "http-tokens").write_text("")
    _, result = check(tmp_path, TOKENS)
    assert result.exit_code == 0, result.output
    assert "mqtts://*:8883  clients with a token\n" in result.output
    assert "mqtt://*:1883  clients with a token, TOKENS UNENCRYPTED\n" in result.output
    assert (
        "tokens  for 'mqtt', verified by 2 keys (ES256, EdDSA), 1 for other purposes passed over\n"
        in result.output
    )
    assert (
        f"http    https://*:8443  whoever has a token of {tmp_path}/http-tokens; health for anyone\n"
        in result.output
    )


@pytest.mark.parametrize(
    ("file", "said"), [("issuer.json", "has no key in it"), ("http-tokens", "line 1: is not such")]
)
def test_files_of_tokens_with_mistakes(tmp_path: Path, file: str, said: str) -> None:
    write_pair(tmp_path, "gateway")
    write_set(tmp_path / "issuer.json", jwk("ES256", kid="a"))
    (tmp_path / "http-tokens").write_text("")
    (tmp_path / file).write_text("nonsense")
    _, result = check(tmp_path, TOKENS)
    assert result.exit_code == 2
    assert said in result.output


def test_an_audit_log_without_a_folder(tmp_path: Path) -> None:
    """The broker would not start."""
    _, result = check(tmp_path, '[audit]\nfile = "nowhere/audit.log"\n')
    assert result.exit_code == 2
    assert f"audit.file: {tmp_path / 'nowhere'} is no folder" in result.output


def test_whom_it_denies_and_where_it_is_told(tmp_path: Path) -> None:
    """The folder of the data is made at the start."""
    (tmp_path / "denied").write_text("identity cellar\nserial 3F\nserial 40\n")
    text = 'data_dir = "data"\n[audit]\nfile = "data/audit.log"\n[security]\ndeny_file = "denied"\n'
    _, result = check(tmp_path, text)
    assert result.exit_code == 0, result.output
    assert f"  denied  1 identities and 2 certificates in {tmp_path / 'denied'}\n" in result.output
    assert f"  audit   {tmp_path / 'data' / 'audit.log'}\n" in result.output
