"""`[[bridges]]`: what a right one becomes, and what a wrong one is told."""

from __future__ import annotations

import socket
from pathlib import Path

import msgspec
import pytest

from bridge.config import BridgeConfig, RuleConfig
from bridge.config_checks import parse_bridges
from bridge.places import Place, Service, Upstream, parse_upstream
from edge_broker.config.reading import Reading
from edge_broker.errors import ConfigError
from tests.config.certificates import write_pair

RULE = {"filter": "sensors/#"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bridge")
    write_pair(path, "pi")
    write_pair(path, "other")
    (path / "password").write_bytes(b"secret\r\n")
    (path / "empty").write_bytes(b"\n")
    return path


def read(
    folder: Path, *tables: dict[str, object]
) -> tuple[tuple[BridgeConfig | None, ...], list[ConfigError]]:
    reading = Reading(folder)
    return parse_bridges(list(tables), reading), reading.mistakes


def read_right(folder: Path, table: dict[str, object]) -> BridgeConfig:
    (bridge,), mistakes = read(folder, table)
    assert mistakes == []
    assert bridge is not None
    return bridge


def test_the_promised_defaults(folder: Path) -> None:
    bridge = read_right(folder, {"urls": ["mqtts://up.example.com"], "out": [RULE]})
    assert bridge.name == "upstream"
    assert bridge.client_id == f"edge-broker-{socket.gethostname()}-upstream"
    assert bridge.second_client_id == f"{bridge.client_id}-b"
    assert bridge.separate_uplink is False
    assert bridge.lines == [bridge]
    assert bridge.upstreams == (Upstream("up.example.com", 8883, True),)
    assert (bridge.version, bridge.window, bridge.keep_alive_seconds) == ("auto", 500, 60)
    assert (bridge.connect_timeout_seconds, bridge.connack_timeout_seconds) == (10.0, 10.0)
    assert bridge.puback_timeout_seconds == 30.0
    assert (bridge.backoff_initial_seconds, bridge.backoff_max_seconds) == (1.0, 60.0)
    assert bridge.session_expiry_seconds == 7 * 24 * 3600
    assert bridge.out == (RuleConfig(filter="sensors/#", local_prefix="", remote_prefix="", qos=1),)
    assert bridge.in_ == ()
    assert (bridge.gateway, bridge.origin, bridge.max_hops) == (bridge.client_id, True, 8)
    assert bridge.skipped_topic == "edge/{gateway}/skipped"
    assert bridge.read_password() is None
    assert bridge.exposes_password is False


def test_the_promised_defaults_of_the_policy(folder: Path) -> None:
    bridge = read_right(folder, {"urls": ["mqtts://up.example.com"], "out": [RULE]})
    assert (bridge.resolve_timeout_seconds, bridge.handshake_timeout_seconds) == (10.0, 10.0)
    assert (bridge.max_attempts_per_minute, bridge.arrival_spread_seconds) == (30, 0.0)
    assert (bridge.breaker_failures, bridge.breaker_open_seconds) == (10, 60.0)
    assert msgspec.to_builtins(bridge.failover) == {
        "min_dwell_seconds": 60.0,
        "return_after_seconds": 300.0,
        "probe_interval_seconds": 30.0,
        "eject_after_failures": 3,
        "eject_slow_factor": 5.0,
        "eject_slow_ms": 500,
        "eject_seconds": 60.0,
    }
    assert msgspec.to_builtins(bridge.pacing) == {
        "messages_per_second": 0.0,
        "bytes_per_second": 0.0,
        "drain_messages_per_second": 0.0,
        "drain_bytes_per_second": 0.0,
        "burst_seconds": 1.0,
        "monthly_bytes": 0,
        "month_starts_on": 1,
        "when_month_is_spent": "stop",
    }
    assert msgspec.to_builtins(bridge.envelopes) == {
        "enabled": False,
        "max_messages": 1_000,
        "max_bytes": 256 << 10,
        "delay_ms": 1_000,
        "level": 3,
        "dictionary": None,
        "lease_topic": "edge/ingest/lease",
        "topic_prefix": "edge",
    }
    rule = bridge.out[0]
    assert (rule.max_age_seconds, rule.keep_latest, rule.priority) == (0.0, False, "normal")
    assert (rule.envelope, rule.ingested) == (True, False)
    assert (rule.when_late, rule.late_after_seconds) == ("mark", 60.0)


def test_upstreams_in_full(folder: Path) -> None:
    upstreams = [
        {"url": "mqtts://a", "priority": 1, "weight": 3, "fault_delay_ms": 250, "fault_abort_percent": 5},
        {"url": "mqtts+srv://_mqtt._tcp.example.com"},
    ]
    bridge = read_right(folder, {"upstreams": upstreams, "out": [RULE], "breaker_open_seconds": 5})
    service = Service("_mqtt._tcp.example.com", True)
    assert bridge.places == (Place(Upstream("a", 8883, True), 1, 3, 0.25, 0.05), Place(service, 0, 1))
    assert str(service) == "mqtts+srv://_mqtt._tcp.example.com"
    assert service.domain == "example.com"
    assert bridge.upstreams == (Upstream("a", 8883, True),)
    assert bridge.breaker_open_seconds == 5.0


def test_urls_are_of_one_rank_in_their_order(folder: Path) -> None:
    bridge = read_right(folder, {"urls": ["mqtts://b", "mqtts://a"], "out": [RULE]})
    assert bridge.places == (Place(Upstream("b", 8883, True)), Place(Upstream("a", 8883, True)))


def test_what_the_table_says_counts(folder: Path) -> None:
    bridge = read_right(
        folder,
        {
            "name": "cloud",
            "urls": ["mqtts://a.example.com:443", "mqtts://[2001:db8::1]"],
            "client_id": "pi-1",
            "username": "pi",
            "password_file": "password",
            "ca": "other.crt",
            "certificate": "pi.crt",
            "key": "pi.key",
            "server_name": "mesh.internal",
            "version": "3.1.1",
            "out": [{"filter": "a/#", "local_prefix": "l/", "remote_prefix": "r/", "qos": 2}],
            "in": [{"filter": "commands/+", "remote_prefix": "pi-1/"}],
        },
    )
    assert (bridge.name, bridge.client_id, bridge.server_name) == ("cloud", "pi-1", "mesh.internal")
    assert [str(upstream) for upstream in bridge.upstreams] == [
        "mqtts://a.example.com:443",
        "mqtts://[2001:db8::1]:8883",
    ]
    assert bridge.read_password() == b"secret"
    assert bridge.certificate == folder / "pi.crt"
    assert (bridge.out[0].sides_up, bridge.out[0].qos) == (("l/a/#", "r/a/#"), 2)
    assert bridge.in_[0].sides_down == ("pi-1/commands/+", "commands/+")


def test_a_single_topic_may_get_another_name(folder: Path) -> None:
    rule = {"filter": "", "local_prefix": "temperature", "remote_prefix": "pi/1/temperature"}
    bridge = read_right(folder, {"urls": ["mqtt://h"], "out": [rule]})
    assert bridge.out[0].sides_up == ("temperature", "pi/1/temperature")


@pytest.mark.parametrize(
    ("url", "exposes"),
    [
        ("mqtt://127.0.0.1", False),
        ("mqtt://localhost", False),
        ("mqtts://h", False),
        ("mqtt://h", True),
        ("mqtt+srv://_mqtt._tcp.h", True),
        ("mqtts+srv://_mqtt._tcp.h", False),
    ],
)
def test_a_password_in_the_clear_is_noticed(folder: Path, url: str, exposes: bool) -> None:
    table: dict[str, object] = {"urls": [url], "out": [RULE], "username": "u", "password_file": "password"}
    assert read_right(folder, table).exposes_password is exposes


def test_no_secret_is_in_the_model(folder: Path) -> None:
    table: dict[str, object] = {
        "urls": ["mqtts://h"],
        "out": [RULE],
        "username": "u",
        "password_file": "password",
    }
    assert "secret" not in repr(read_right(folder, table))


@pytest.mark.parametrize(
    ("url", "upstream"),
    [
        ("mqtt://127.0.0.1", Upstream("127.0.0.1", 1883, False)),
        ("mqtt://h:1/", Upstream("h", 1, False)),
        ("MQTTS://Broker.Example.COM", Upstream("broker.example.com", 8883, True)),
        ("mqtts://[::1]:9", Upstream("::1", 9, True)),
    ],
)
def test_urls_are_taken_apart(url: str, upstream: Upstream) -> None:
    assert parse_upstream(url) == upstream


def template(source: str, target: str) -> dict[str, object]:
    return {"from": source, "to": target}


GOOD: dict[str, object] = {"urls": ["mqtts://h"], "out": [RULE]}
WRONG: list[tuple[dict[str, object], str, str, str]] = [
    ({"urls": "mqtts://h"}, "urls", "must be a list", 'urls = ["mqtts://broker.example.com:8883"]'),
    ({"urls": []}, "urls", "is empty", "mqtts://"),
    (
        {"upstreams": [{"url": "mqtts://g"}]},
        "upstreams",
        "says what urls says too",
        "leave one of the two out",
    ),
    ({"urls": [], "upstreams": [{"priority": 1}]}, "upstreams[0].url", "is missing", "mqtts://"),
    (
        {"urls": [], "upstreams": [{"url": "ssl://g"}]},
        "upstreams[0].url",
        "must begin with",
        "write mqtts://g",
    ),
    ({"urls": ["mqtts://h", "mqtts://h"]}, "urls[1]", "is there twice", "weight"),
    ({"urls": ["mqtts+srv://_mqtt._tcp.h:8883"]}, "urls[0]", "has a port", "leave the port out"),
    ({"urls": ["mqtts+srv://h"]}, "urls[0]", "no name of an SRV record", "_mqtt._tcp"),
    ({"urls": ["ssl+srv://_mqtt._tcp.h"]}, "urls[0]", "must begin with", "mqtts"),
    ({"failover": {"eject_seconds": 0}}, "failover.eject_seconds", "out of range", "0.1"),
    ({"pacing": {"month_starts_on": 31}}, "pacing.month_starts_on", "out of range", "1 to 28"),
    ({"pacing": {"when_month_is_spent": "pay"}}, "pacing.when_month_is_spent", "'pay'", '"only_priority"'),
    ({"in": [RULE | {"keep_latest": True}]}, "in[0].keep_latest", "goes up only", "leave it out"),
    ({"in": [RULE | {"max_age_seconds": 5}]}, "in[0].max_age_seconds", "goes up only", "leave it out"),
    ({"out": [RULE | {"priority": "urgent"}]}, "out[0].priority", "'urgent'", '"low"'),
    ({"canary": {"percent": 5}}, "canary.urls", "is empty", "mqtts://"),
    ({"canary": {"urls": ["h:1883"]}}, "canary.urls[0]", "must begin with", "mqtts://"),
    ({"canary": {"urls": ["mqtts://n"], "percent": 101}}, "canary.percent", "out of range", "0 to 100"),
    ({"separate_uplink": True}, "separate_uplink", "nothing to separate", "leave it out"),
    (
        {"separate_uplink": True, "in": [{"filter": "+/x"}]},
        "separate_uplink",
        "two clients",
        "different remote_prefix",
    ),
    ({"second_client_id": ""}, "second_client_id", "1 to 65535 bytes", "leave it out"),
    (
        {"client_id": "me", "second_client_id": "me-canary", "canary": {"urls": ["mqtts://h"]}},
        "canary.client_id",
        "made of it for renewals",
        "expel",
    ),
    (
        {"client_id": "me", "canary": {"urls": ["mqtts://h"], "client_id": "me"}},
        "canary.client_id",
        "the bridge's own at the same upstream",
        "expel",
    ),
    (
        {"out": [], "in": [RULE], "canary": {"urls": ["mqtts://n"]}},
        "canary",
        "no rule in out",
        "leave it out",
    ),
    ({"canary": {"urls": ["mqtts://n"], "ca": "no.pem"}}, "canary.ca", "no.pem", ""),
    ({"in": [RULE | {"priority": "high"}]}, "in[0].priority", "goes up only", "leave it out"),
    ({"in": [RULE | {"envelope": False}]}, "in[0].envelope", "goes up only", "leave it out"),
    ({"in": [RULE | {"ingested": True}]}, "in[0].ingested", "goes up only", "leave it out"),
    ({"out": [RULE | {"ingested": True, "qos": 0}]}, "out[0].ingested", "at QoS 0 nothing is", "qos = 1"),
    ({"origin": False, "envelopes": {"enabled": True}}, "origin", "have numbers of ours", "leave it out"),
    ({"origin": False, "out": [RULE | {"ingested": True}]}, "origin", "have numbers of ours", "leave it out"),
    ({"envelopes": {"delay": 5}}, "envelopes.delay", "not a known key", "delay_ms"),
    ({"envelopes": {"max_messages": 0}}, "envelopes.max_messages", "out of range", "1 to 20000"),
    ({"envelopes": {"max_bytes": 1 << 20}}, "envelopes.max_bytes", "out of range", "1024 to"),
    ({"envelopes": {"topic_prefix": "a/#"}}, "envelopes.topic_prefix", "a wildcard", "edge"),
    ({"envelopes": {"lease_topic": ""}}, "envelopes.lease_topic", "an empty topic", "edge"),
    ({"envelopes": {"dictionary": "gone"}}, "envelopes.dictionary", "No such file", "relative paths"),
    ({"envelopes": {"dictionary": "password"}}, "envelopes.dictionary", "no dictionary of zstd", "--train"),
    ({"out": [RULE | {"when_late": "drop"}]}, "out[0].when_late", "comes down only", "leave it out"),
    (
        {"out": [RULE | {"late_after_seconds": 5}]},
        "out[0].late_after_seconds",
        "comes down only",
        "leave it out",
    ),
    ({"in": [RULE | {"when_late": "keep"}]}, "in[0].when_late", "'keep'", '"drop"'),
    ({"skipped_topic": "edge/+/skipped"}, "skipped_topic", "is no topic", "edge/{gateway}/skipped"),
    ({"urls": ["mqtts://h", 5]}, "urls[1]", "must be text in quotes, not a number", "mqtts://"),
    (
        {"urls": ["mqtts://h", "h:1883"]},
        "urls[1]",
        "must begin with mqtt://, mqtts:// or mqtt+unix://",
        "mqtts://",
    ),
    ({"urls": ["ssl://h:8883"]}, "urls[0]", "must begin with", "write mqtts://h:8883"),
    ({"urls": ["tcp://h"]}, "urls[0]", "must begin with", "write mqtt://h"),
    ({"urls": ["wss://h/mqtt"]}, "urls[0]", "wss is not available yet", "mqtts://"),
    ({"urls": ["mqtts://"]}, "urls[0]", "has no host", "mqtts://"),
    ({"urls": ["mqtts://h:99999"]}, "urls[0]", "is no URL", "mqtts://"),
    ({"urls": ["mqtts://h:0"]}, "urls[0]", "has port 0", "1 to 65535"),
    ({"urls": ["mqtts://h/topic"]}, "urls[0]", "something after its port", "mqtts://"),
    ({"urls": ["mqtts://me:hunter2@h"]}, "urls[0]", "a name or a password", "password_file"),
    ({"name": "a b"}, "name", "letters, digits", "cloud"),
    ({"name": ""}, "name", "letters, digits", "cloud"),
    ({"name": "x" * 65}, "name", "1 to 64", "cloud"),
    ({"client_id": ""}, "client_id", "1 to 65535 bytes", "leave it out"),
    ({"version": 5}, "version", "must be text, not a number", '"5"'),
    ({"version": "4"}, "version", "cannot be '4'", '"3.1.1"'),
    ({"window": 0}, "window", "out of range", "1 to 65535"),
    ({"windw": 5}, "windw", "not a known key", "did you mean window?"),
    ({"password": "hunter2"}, "password", "not a known key", "did you mean password_file?"),
    ({"in_": [RULE]}, "in_", "not a known key", "did you mean in?"),
    ({"backoff_max_seconds": 0.5}, "backoff_max_seconds", "less than backoff_initial_seconds = 1", "as much"),
    ({"out": []}, "out", "has no rule", "filter"),
    ({"out": RULE}, "out", "must be a list of tables", "out = [ {"),
    ({"out": [{}]}, "out[0].filter", "is missing", 'filter = "sensors/#"'),
    ({"out": [{"filter": "a/#/b"}]}, "out[0].filter", "'a/#/b' (here) is no filter: '#' must be", ""),
    ({"out": [{"filter": ""}]}, "out[0].filter", "an empty topic filter", ""),
    (
        {"out": [{"filter": "#", "remote_prefix": "pi"}]},
        "out[0].filter",
        "'pi#' (upstream)",
        "end the prefix with /",
    ),
    (
        {"out": [{"filter": "a", "local_prefix": "+/"}]},
        "out[0].local_prefix",
        "wildcards",
        "belong in filter",
    ),
    ({"out": [{"filter": "$share/g/a"}]}, "out[0].filter", "shared subscription", "leave $share"),
    (
        {"out": [{"filter": "a", "remote_prefix": "$share/g/"}]},
        "out[0].remote_prefix",
        "shared subscription",
        "",
    ),
    ({"in": [{"filter": "a", "qos": 3}]}, "in[0].qos", "3 is out of range", "0 to 2"),
    ({"in": [RULE, {"filter": "a", "prefix": ""}]}, "in[1].prefix", "not a known key", "_prefix"),
    ({"out": [{"from": "a/+x"}]}, "out[0].to", "is missing, and from needs it", "plants"),
    ({"out": [{"to": "a"}]}, "out[0].from", "is missing, and to needs it", "site/+room"),
    ({"out": [{"filter": "a", "from": "a", "to": "b"}]}, "out[0].filter", "go together", "whole topics"),
    ({"out": [{"remote_prefix": "a", "from": "a", "to": "b"}]}, "out[0].remote_prefix", "go together", ""),
    ({"out": [template("a/+x", "b/{y}")]}, "out[0].to", "{y} is not captured", "{gateway}, {x}"),
    ({"out": [template("a/+x", "b")]}, "out[0].to", "does not have {x}", "plain wildcard"),
    ({"out": [template("+x/+x", "{x}")]}, "out[0].from", "'x' is captured twice", "of its own"),
    ({"out": [template("+gateway", "{gateway}")]}, "out[0].from", "the gateway's own name", "of its own"),
    ({"out": [template("a/+x-y", "b")]}, "out[0].from", "'x-y' is no name", "a letter"),
    ({"out": [template("a/#x/b", "b/{x}")]}, "out[0].from", "'a/#/b' is no filter", "site/+room"),
    ({"out": [template("a/b+x", "b")]}, "out[0].from", "'a/b+x' is no filter", ""),
    ({"out": [template("$share/g/a", "b")]}, "out[0].from", "shared subscription", "leave $share"),
    ({"out": [template("a/+", "b/+")]}, "out[0].to", "may not have wildcards", "+room"),
    ({"out": [template("a/+x", "b/{x")]}, "out[0].to", "a brace alone", "{room}"),
    ({"out": [template("a/{x}", "b")]}, "out[0].from", "{x} is not captured", "{gateway}"),
    ({"out": [template("a", "")]}, "out[0].to", "is no topic", "plants"),
    ({"in": [template("a/+x", "b/{y}")]}, "in[0].to", "{y} is not captured", ""),
    ({"out": [{"filter": "a", "except": ["a/#/b"]}]}, "out[0].except", "'a/#/b' is no filter", ""),
    ({"out": [{"filter": "a", "except": "a"}]}, "out[0].except", "must be a list", "debug"),
    ({"out": [{"filter": "a", "characters": {"ab": "_"}}]}, "out[0].characters", "not one character", '"."'),
    ({"out": [{"filter": "a", "characters": {"/": "_"}}]}, "out[0].characters", "not one character", ""),
    ({"out": [{"filter": "a", "characters": {".": "+"}}]}, "out[0].characters", "may not become '+'", ""),
    ({"out": [{"filter": "a", "characters": {".": ",", " ": "."}}]}, "out[0].characters", "' '", "itself"),
    (
        {"out": [{"filter": "a", "characters": ["."]}]},
        "out[0].characters",
        "must be a table",
        '{ "." = "_" }',
    ),
    ({"out": [{"filter": "a", "characters": {".": 5}}]}, "out[0].characters", "text in quotes", '"_"'),
    ({"out": [{"filter": "a", "payload": "cbor"}]}, "out[0].payload", "cannot be 'cbor'", '"cbor_to_json"'),
    ({"out": [{"filter": "a", "retain": "no"}]}, "out[0].retain", "cannot be 'no'", '"clear"'),
    ({"out": [{"filter": "a", "trace_rate": 2}]}, "out[0].trace_rate", "2 is out of range", "0 to 1"),
    ({"out": [{"filter": "a", "trace_rate": "all"}]}, "out[0].trace_rate", "must be a number", "1.5"),
    ({"gateway": ""}, "gateway", "1 to 250 characters", "client_id"),
    ({"gateway": "a/b", "out": [template("a", "{gateway}/a")]}, "gateway", "not one level", "without /"),
    ({"client_id": "a+b", "in": [{"filter": "a", "remote_prefix": "{gateway}/"}]}, "gateway", "'a+b'", ""),
    ({"client_id": "x" * 251}, "gateway", "longer than 250 characters", 'gateway = "'),
    ({"max_hops": 101}, "max_hops", "out of range", "0 to 100"),
    ({"urls": ["mqtt://h"], "ca": "pi.crt"}, "ca", "no meaning without TLS", "mqtts://"),
    ({"urls": ["mqtt://h"], "server_name": "x"}, "server_name", "no meaning without TLS", "mqtts://"),
    ({"ca": "gone.crt"}, "ca", "No such file", "relative paths start at"),
    ({"ca": "password"}, "ca", "no certificate in it", "PEM"),
    ({"certificate": "pi.crt"}, "key", "is missing, and certificate needs it", "key ="),
    ({"key": "pi.key"}, "certificate", "is missing, and key needs it", "certificate ="),
    ({"certificate": "pi.crt", "key": "other.key"}, "key", "is not the key of", "made together"),
    ({"password_file": "password"}, "username", "is missing, and password_file needs it", "username"),
    ({"username": "u", "password_file": "gone"}, "password_file", "No such file", "relative paths"),
    ({"username": "u", "password_file": "empty"}, "password_file", "is empty", "write the password"),
]


@pytest.mark.parametrize(("changes", "key", "problem", "hint"), WRONG)
def test_a_wrong_key_is_explained_and_nothing_else(
    folder: Path, changes: dict[str, object], key: str, problem: str, hint: str
) -> None:
    _, mistakes = read(folder, GOOD | changes)
    (mistake,) = mistakes
    assert mistake.key == f"bridges[0].{key}"
    assert problem in mistake.problem
    assert hint in mistake.hint
    assert "hunter2" not in str(mistake)


def test_two_bridges_need_two_names(folder: Path) -> None:
    _, (mistake,) = read(folder, GOOD, GOOD)
    assert (mistake.key, "another bridge" in mistake.problem) == ("bridges[1].name", True)


def test_two_bridges_to_one_upstream_need_two_client_ids(folder: Path) -> None:
    one, other = GOOD | {"name": "a", "client_id": "x"}, GOOD | {"name": "b", "client_id": "x"}
    _, (mistake,) = read(folder, one, other)
    assert (mistake.key, "bridge 'a'" in mistake.problem) == ("bridges[1].client_id", True)
    assert read(folder, one, other | {"urls": ["mqtts://elsewhere"]})[1] == []
    _, (mistake,) = read(folder, one, other | {"client_id": "y", "second_client_id": "x-b"})
    assert (mistake.key, "bridge 'a'" in mistake.problem) == ("bridges[1].second_client_id", True)


def test_a_separate_uplink_is_a_bridge_without_commands_and_one_without_anything_else(folder: Path) -> None:
    table = GOOD | {
        "name": "cloud",
        "client_id": "pi",
        "separate_uplink": True,
        "in": [{"filter": "commands/#"}],
        "canary": {"urls": ["mqtts://next"]},
        "envelopes": {"enabled": True},
    }
    bridge = read_right(folder, table)
    up, down, canary = bridge.lines
    assert (up.name, down.name, canary.name) == ("cloud", "cloud!commands", "cloud!canary")
    assert (up.client_id, down.client_id, canary.client_id) == ("pi-up", "pi", "pi-canary")
    assert (up.second_client_id, canary.second_client_id) == ("pi-b", "pi-canary-b")
    assert {up.gateway, down.gateway, canary.gateway} == {"pi"}
    assert (up.out, up.in_) == (bridge.out, ())
    assert (down.out, down.in_) == ((), bridge.in_)
    assert (up.envelopes.enabled, down.envelopes.enabled, down.skipped_topic) == (True, False, "")
    assert (up.canary, down.canary) == (bridge.canary, None)


def test_the_client_id_of_a_separate_uplink_is_nobody_elses(folder: Path) -> None:
    one = GOOD | {"name": "a", "client_id": "x-up"}
    other = GOOD | {"name": "b", "client_id": "x", "separate_uplink": True, "in": [{"filter": "commands/#"}]}
    _, (mistake,) = read(folder, one, other)
    assert (mistake.key, "bridge 'a'" in mistake.problem) == ("bridges[1].separate_uplink", True)


def test_a_single_table_is_no_list(folder: Path) -> None:
    reading = Reading(folder)
    parse_bridges(GOOD, reading)
    assert reading.mistakes[0].hint == "write [[bridges]], with two brackets on each side"
