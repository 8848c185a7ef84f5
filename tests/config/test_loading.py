"""What a right configuration becomes: defaults, what is settled from other keys, paths, the environment."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from edge_broker.config.environment import default_data_dir
from edge_broker.config.listeners import ListenerConfig
from edge_broker.config.loading import ConfigMistakes, load
from edge_broker.config.model import Config
from edge_broker.errors import ConfigError
from tests.config.conftest import Load

HOME = {"HOME": "/home/pi"}


def test_without_a_file_everything_has_its_default() -> None:
    config = load(None, environ=HOME)
    assert config == Config(data_dir=Path("/home/pi/.local/state/edge-broker"))
    (listener,) = config.listeners
    assert (listener.url, listener.transport, listener.anonymous) == ("mqtt://127.0.0.1:1883", "tcp", True)
    assert config.http.address is None
    assert config.bridges == ()


def test_an_empty_file_is_no_file(load_text: Load) -> None:
    assert load_text("") == load(None, environ=HOME)


def test_the_promised_defaults() -> None:
    config = load(None, environ=HOME)
    assert msgspec.to_builtins(config.sessions) == {
        "max_queue_messages": 0,
        "max_queue_bytes": 0,
        "max_queue_age_seconds": 0,
        "when_queue_full": "drop_oldest",
        "hold_seconds": 30,
        "max_expiry_seconds": 30 * 24 * 3600,
        "receive_maximum": 1024,
        "send_window": 1024,
        "max_keep_alive_seconds": 0,
        "window_bytes": 256 * 1024,
    }
    assert msgspec.to_builtins(config.store) == {
        "durability": "disk",
        "topics": (),
        "max_messages": 0,
        "max_bytes": 0,
        "commit_delay_ms": 20,
        "removal_delay_ms": 1000,
        "write_budget_bytes_per_day": 0,
        "max_commit_delay_ms": 5000,
        "card_endurance_terabytes": 0.0,
        "early_commit_messages": 64,
        "early_commit_bytes": 64 * 1024,
        "encryption_key_file": None,
        "encryption_key_credential": "",
        "old_encryption_key_files": (),
    }
    assert msgspec.to_builtins(config.dead_letters) == {
        "enabled": False,
        "max_messages": 10_000,
        "max_bytes": 16 << 20,
        "max_age_seconds": 30 * 24 * 3600,
    }
    assert msgspec.to_builtins(config.limits) == {
        "max_packet_bytes": 1 << 20,
        "max_connections": 10_000,
        "max_connections_per_address": 1000,
        "max_unfinished_handshakes": 500,
        "connect_timeout_seconds": 10.0,
        "max_output_bytes": 1 << 20,
        "max_uncommitted_bytes": 32 << 20,
        "max_topic_levels": 128,
        "max_subscriptions_per_client": 1000,
        "max_queue_bytes_in_memory": 4 << 20,
        "topic_alias_maximum": 32,
        "max_connect_bytes": 128 << 10,
        "max_client_id_bytes": 1024,
        "max_topic_bytes": 65_535,
        "max_user_properties": 64,
        "max_sessions": 20_000,
        "max_sessions_per_identity": 0,
        "max_delayed_wills": 10_000,
        "max_retained_messages": 100_000,
        "max_retained_bytes": 64 << 20,
        "retained_memory_bytes": 16 << 20,
        "max_delayed_seconds": 30 * 24 * 3600,
        "max_delayed_messages": 10_000,
        "max_delayed_bytes": 16 << 20,
        "max_inbound_qos_2": 10_000,
        "max_publishes_per_second": 0,
        "max_publish_bytes_per_second": 0,
    }
    assert msgspec.to_builtins(config.protocol) == {
        "maximum_qos": 2,
        "retain_available": True,
        "wildcard_subscriptions_available": True,
        "shared_subscriptions_available": True,
        "subscription_ids_available": True,
        "delayed_available": True,
        "check_payload_format": False,
        "response_information": "",
        "server_reference": "",
    }
    assert msgspec.to_builtins(config.audit) == {"file": None, "max_bytes": 4 << 20, "files": 5}
    assert config.sys_interval_seconds == 10
    assert msgspec.to_builtins(config.http) == {
        "bind": "",
        "certificate": None,
        "key": None,
        "token_file": None,
        "open_health": False,
    }
    tokens = {key: value for key, value in msgspec.to_builtins(config.security).items() if key[:4] == "jwt_"}
    assert tokens == {
        "jwt_keys": (),
        "jwt_audience": "",
        "jwt_issuer": "",
        "jwt_leeway_seconds": 30,
        "jwt_name_claim": "sub",
        "jwt_groups_claim": "groups",
        "jwt_user_name": "must_match",
        "jwt_max_bytes": 8192,
    }
    assert msgspec.to_builtins(config.control) == {"enabled": True, "path": None}
    assert config.control_path == config.data_dir / "control.sock"


def test_what_the_file_says_counts(load_text: Load) -> None:
    config = load_text(
        """
        data_dir = "/srv/mqtt"
        [sessions]
        receive_maximum = 100
        [limits]
        connect_timeout_seconds = 3
        [http]
        bind = "[::1]:8080"
        [log]
        level = "debug"
        format = "json"
        [runtime]
        loop = "asyncio"
        """
    )
    assert config.data_dir == Path("/srv/mqtt")
    assert (config.sessions.receive_maximum, config.sessions.send_window) == (100, 1024)
    assert config.limits.connect_timeout_seconds == 3.0
    assert config.http.address is not None
    assert config.http.address.port == 8080
    assert (config.log.level, config.log.format, config.runtime.loop) == ("debug", "json", "asyncio")


@pytest.mark.parametrize(
    ("bind", "anonymous"), [("127.0.0.1:1883", True), ("[::1]:1883", True), ("localhost:1883", True)]
)
def test_loopback_is_anonymous_unless_it_says_otherwise(load_text: Load, bind: str, anonymous: bool) -> None:
    (listener,) = load_text(f'[[listeners]]\nbind = "{bind}"').listeners
    assert listener.anonymous is anonymous


def test_off_loopback_nobody_is_anonymous_unless_it_is_said() -> None:
    assert ListenerConfig(bind="0.0.0.0:1883").anonymous is False
    assert ListenerConfig(bind="0.0.0.0:1883", anonymous=True).anonymous is True


def test_a_client_ca_makes_certificates_required_unless_it_says_otherwise(load_text: Load) -> None:
    tls = (
        '[[listeners]]\ntransport = "tls"\nbind = "0.0.0.0:8883"\n'
        'certificate = "tls/gateway.crt"\nkey = "tls/gateway.key"\nclient_ca = "tls/other.crt"\n'
    )
    (listener,) = load_text(tls).listeners
    assert (listener.require_client_certificate, listener.anonymous) == (True, False)
    assert (listener.identity_from, listener.allowed_names) == ("common_name", ())
    assert (listener.crl_files, listener.when_crl_expired) == ((), "refuse")
    (listener,) = load_text(tls + "require_client_certificate = false").listeners
    assert listener.require_client_certificate is False


def test_websocket_listeners(load_text: Load) -> None:
    pair = 'certificate = "tls/gateway.crt"\nkey = "tls/gateway.key"\n'
    first, second, tcp = load_text(
        '[[listeners]]\ntransport = "ws"\nbind = "127.0.0.1:9001"\n'
        f'[[listeners]]\ntransport = "wss"\nbind = "[::1]:9002"\n{pair}path = "/broker"\n'
        'origins = ["https://a.example", "http://b.example:8080"]\n'
        "[[listeners]]\n"
    ).listeners
    assert (first.url, first.websocket_paths) == ("ws://127.0.0.1:9001/mqtt", ("/mqtt", "/"))
    assert (first.encrypted, first.anonymous, first.origins) == (False, True, ())
    assert (second.url, second.websocket_paths) == ("wss://[::1]:9002/broker", ("/broker",))
    assert second.encrypted
    assert second.origins == ("https://a.example", "http://b.example:8080")
    assert tcp.websocket_paths == ()


def test_unix_listeners(load_text: Load) -> None:
    first, second = load_text(
        '[[listeners]]\ntransport = "unix"\nbind = "/run/edge-broker/mqtt.sock"\n'
        '[[listeners]]\ntransport = "unix"\nbind = "/run/edge-broker/all.sock"\nmode = "666"\n'
    ).listeners
    assert (first.url, first.permissions) == ("unix:///run/edge-broker/mqtt.sock", 0o660)
    assert first.anonymous, "only this machine can reach it"
    assert second.permissions == 0o666


def test_proxies(load_text: Load) -> None:
    (listener,) = load_text('[[listeners]]\nproxy_protocol_from = ["127.0.0.1", "2001:db8::/32"]').listeners
    assert listener.proxy_protocol_from == ("127.0.0.1", "2001:db8::/32")


def test_tokens_let_clients_in_where_nobody_else_is(load_text: Load, certificates: Path) -> None:
    (certificates / "issuer.json").write_text("{}")
    config = load_text(
        '[[listeners]]\nanonymous = false\n[security]\njwt_keys = ["issuer.json"]\njwt_audience = "mqtt"'
    )
    assert config.security.jwt_keys == (certificates / "issuer.json",)
    assert config.listeners[0].anonymous is False


@pytest.mark.parametrize("more", ['token_file = "tls/password"', "open_health = true"])
def test_http_off_loopback(load_text: Load, more: str) -> None:
    pair = 'certificate = "tls/gateway.crt"\nkey = "tls/gateway.key"'
    config = load_text(f'[http]\nbind = "0.0.0.0:8443"\n{pair}\n{more}')
    assert config.http.missing_off_loopback == []


def test_the_control_socket(load_text: Load, certificates: Path) -> None:
    assert load_text('[control]\npath = "run/c.sock"').control_path == certificates / "run/c.sock"
    assert load_text("[control]\nenabled = false").control_path is None
    assert load_text('data_dir = "/d"\n[control]\nenabled = true').control_path == Path("/d/control.sock")


def test_relative_paths_start_at_the_file(
    load_text: Load, certificates: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    config = load_text(
        'data_dir = "data"\n[[listeners]]\ntransport = "tls"\nbind = "127.0.0.1:8883"\n'
        'certificate = "tls/gateway.crt"\nkey = "tls/gateway.key"'
    )
    assert config.data_dir == certificates / "data"
    assert config.listeners[0].key == certificates / "tls" / "gateway.key"


def test_a_tilde_is_the_home_directory(load_text: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/pi")
    assert load_text('data_dir = "~/mqtt"').data_dir == Path("/home/pi/mqtt")


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "windows.toml"
    path.write_bytes(b'\xef\xbb\xbf[log]\r\nlevel = "error"\r\n')
    assert load(path, environ=HOME).log.level == "error"


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        (
            {"STATE_DIRECTORY": "/var/lib/edge-broker", "XDG_STATE_HOME": "/x", "HOME": "/h"},
            "/var/lib/edge-broker",
        ),
        ({"STATE_DIRECTORY": "/var/lib/a:/var/lib/b"}, "/var/lib/a"),
        ({"XDG_STATE_HOME": "/x", "HOME": "/h"}, "/x/edge-broker"),
        ({"XDG_STATE_HOME": "relative", "HOME": "/h"}, "/h/.local/state/edge-broker"),
        ({"HOME": "/h"}, "/h/.local/state/edge-broker"),
    ],
)
def test_where_data_is_kept_by_default(environ: dict[str, str], expected: str) -> None:
    assert default_data_dir(environ) == Path(expected)
    assert load(None, environ=environ).data_dir == Path(expected)


def test_without_any_home_the_data_directory_must_be_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as for a user without an entry
    with pytest.raises(ConfigError, match="data_dir: there is no home directory"):
        default_data_dir({})
    with pytest.raises(ConfigMistakes, match="data_dir"):
        load(None, environ={})
    assert load(None, environ={"EDGE_BROKER_DATA_DIR": "/d"}).data_dir == Path("/d")


def test_the_environment_wins_over_the_file(load_text: Load) -> None:
    config = load_text(
        'data_dir = "/file"\n[log]\nlevel = "info"\nformat = "json"\n[runtime]\nloop = "uvloop"',
        {"EDGE_BROKER_DATA_DIR": "/environ", "EDGE_BROKER_LOG_LEVEL": "error", "EDGE_BROKER_LOOP": "asyncio"},
    )
    assert config.data_dir == Path("/environ")
    assert (config.log.level, config.log.format) == ("error", "json")
    assert config.runtime.loop == "asyncio"


def test_an_empty_variable_is_none(load_text: Load) -> None:
    config = load_text(
        '[log]\nlevel = "error"', {"EDGE_BROKER_LOG_LEVEL": "", "EDGE_BROKER_LOOP": "", **HOME}
    )
    assert config.log.level == "error"


def test_a_relative_data_directory_of_the_environment_starts_where_the_shell_is(
    load_text: Load, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_text("", {"EDGE_BROKER_DATA_DIR": "here"}).data_dir == tmp_path / "here"


def test_nobody_can_change_a_configuration() -> None:
    config = load(None, environ=HOME)
    with pytest.raises(AttributeError):
        config.limits.max_connections = 1  # type: ignore[misc]
