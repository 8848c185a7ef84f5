"""What a wrong configuration is told: the key, what is wrong, what to write instead, and all of it at once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edge_broker.config.loading import ConfigMistakes, load
from edge_broker.errors import ConfigError
from tests.config.conftest import Load

TLS = '[[listeners]]\ntransport = "tls"\nbind = "127.0.0.1:8883"\n'
WSS = TLS.replace('"tls"', '"wss"')
WS = '[[listeners]]\ntransport = "ws"\n'
UNIX = '[[listeners]]\ntransport = "unix"\nbind = "/run/edge-broker/mqtt.sock"\n'
PAIR = 'certificate = "tls/gateway.crt"\nkey = "tls/gateway.key"\n'


def mistakes_in(load_text: Load, text: str, environ: dict[str, str] | None = None) -> tuple[ConfigError, ...]:
    with pytest.raises(ConfigMistakes) as raised:
        load_text(text, environ)
    return raised.value.mistakes


SYNTAX = [
    ("level = info", "line 1, column 12", "not TOML: expected newline", 'level = "info"'),
    ("[log]\nlevel = True", "line 2, column 9", "not TOML: invalid value", "true and false"),
    ('a = "x', "end of the file", "unterminated string", "closing quote"),
    ("a = 1\na = 2\n", "line 2, column 6", "cannot overwrite", "twice"),
    ("[log]\n[store]\n[log]\n", "line 3, column 5", "cannot declare", "[[listeners]]"),
    ("level: 1", "line 1, column 6", "expected '='", "key = value"),
    ('data_dir = "c:\\users"', "line 1, column 17", "invalid hex", "single quotes"),
]


@pytest.mark.parametrize(("text", "key", "problem", "hint"), SYNTAX)
def test_bad_toml_says_where(load_text: Load, text: str, key: str, problem: str, hint: str) -> None:
    (mistake,) = mistakes_in(load_text, text)
    assert mistake.key == key
    assert problem in mistake.problem
    assert hint in mistake.hint


KEYS = [
    # encryption
    (
        "[store]\nencryption_key_file = '/nowhere/key'",
        "store.encryption_key_file",
        "cannot be read",
        "",
    ),
    (
        "[store]\nold_encryption_key_files = ['/nowhere/key']",
        "store.old_encryption_key_files[0]",
        "cannot be read",
        "",
    ),
    (
        "[store]\nencryption_key_credential = 'a/b'",
        "store.encryption_key_credential",
        "is not a credential's name",
        "without a directory",
    ),
    (
        "[store]\nencryption_key_file = '/dev/null'\nencryption_key_credential = 'x'",
        "store.encryption_key_credential",
        "there is encryption_key_file too",
        "leave one of them out",
    ),
    # unknown keys
    ("dat_dir = '/x'", "dat_dir", "not a known key", "did you mean data_dir?"),
    ("[session]", "session", "not a known key", "did you mean sessions?"),
    ("[sessions]\nreceive-maximum = 1", "sessions.receive-maximum", "not a known", "receive_maximum"),
    ("[sessions]\nRECEIVE_MAXIMUM = 1", "sessions.RECEIVE_MAXIMUM", "not a known", "receive_maximum"),
    ("[log]\nxyz = 1", "log.xyz", "not a known key", "there are level, format"),
    ("receive_maximum = 1", "receive_maximum", "does not belong here", "in [sessions]"),
    ("[log]\nmax_connections = 1", "log.max_connections", "does not belong here", "in [limits]"),
    ("anonymous = true", "anonymous", "does not belong here", "in [[listeners]]"),
    ("[[listeners]]\ndata_dir = '/x'", "listeners[0].data_dir", "does not belong", "top of the file"),
    # kinds
    ("data_dir = 5", "data_dir", "must be a path in quotes, not a number", "write data_dir = "),
    ("data_dir = ''", "data_dir", "is empty", "leave it out"),
    ("log = 'debug'", "log", "must be one table", ""),
    ("[[log]]\nlevel = 'debug'", "log", "must be one table", "write [log], with single brackets"),
    ("[listeners]\nbind = ':1'", "listeners", "must be a list of tables", "write [[listeners]]"),
    ("listeners = [5]", "listeners[0]", "must be one table", ""),
    (
        "[sessions]\nreceive_maximum = '9'",
        "sessions.receive_maximum",
        "not text",
        "without quotes: receive_maximum = 9",
    ),
    (
        "[sessions]\nreceive_maximum = 'many'",
        "sessions.receive_maximum",
        "a whole number, not text",
        "receive_maximum = 1",
    ),
    ("[sessions]\nreceive_maximum = 1.5", "sessions.receive_maximum", "not a number with a point", ""),
    ("[sessions]\nreceive_maximum = true", "sessions.receive_maximum", "not true or false", ""),
    ("[sessions]\nreceive_maximum = [1]", "sessions.receive_maximum", "not a list", ""),
    ("[sessions]\nreceive_maximum = {}", "sessions.receive_maximum", "not a table", ""),
    ("[sessions]\nreceive_maximum = 2025-01-01", "sessions.receive_maximum", "not a date", ""),
    (
        "[[listeners]]\nanonymous = 'true'",
        "listeners[0].anonymous",
        "not text",
        "without quotes: anonymous = true",
    ),
    (
        "[[listeners]]\nanonymous = 'yes'",
        "listeners[0].anonymous",
        "must be true or false",
        "anonymous = true",
    ),
    (
        "[[listeners]]\nbind = 1883",
        "listeners[0].bind",
        "text in quotes, not a number",
        'bind = "127.0.0.1:1883"',
    ),
    # ranges and words
    ("[sessions]\nreceive_maximum = 0", "sessions.receive_maximum", "0 is out of range", "from 1 to 65535"),
    ("[sessions]\nreceive_maximum = 65536", "sessions.receive_maximum", "65536 is out", "from 1 to 65535"),
    ("[sessions]\nmax_expiry_seconds = -1", "sessions.max_expiry_seconds", "-1 is out", "0 to 4294967295"),
    (f"[sessions]\nreceive_maximum = {1 << 70}", "sessions.receive_maximum", "out of range", "65535"),
    (
        "[limits]\nconnect_timeout_seconds = 0",
        "limits.connect_timeout_seconds",
        "0 is out",
        "a number from 0.1",
    ),
    ("[limits]\nconnect_timeout_seconds = inf", "limits.connect_timeout_seconds", "inf is out", "to 3600"),
    ("[limits]\nconnect_timeout_seconds = nan", "limits.connect_timeout_seconds", "nan is out", "to 3600"),
    ("[log]\nlevel = 'loud'", "log.level", "cannot be 'loud'", '"debug" or "info" or "warning" or "error"'),
    ("[log]\nlevel = 1", "log.level", "must be text, not a number", '"debug"'),
    # listeners
    ("listeners = []", "listeners", "nobody could connect", "leave it out"),
    (
        "[[listeners]]\ntransport = 'udp'",
        "listeners[0].transport",
        "cannot be 'udp'",
        '"tcp" or "tls" or "ws" or "wss" or "unix"',
    ),
    ("[[listeners]]\nbind = '1883'", "listeners[0].bind", "has no port", '":1883"'),
    ("[[listeners]]\nbind = '::1:1883'", "listeners[0].bind", "without brackets", '"[::1]:1883"'),
    (
        "[[listeners]]\nbind = '0.0.0.0:1'",
        "listeners[0].anonymous",
        "nobody could connect",
        'transport = "tls"',
    ),
    (
        "[[listeners]]\nbind = ':1'\nanonymous = false",
        "listeners[0].anonymous",
        "nobody could",
        "everybody in that reaches :1",
    ),
    (
        "[[listeners]]\nanonymous = false",
        "listeners[0].anonymous",
        "nobody could",
        "on this machine, and nobody else",
    ),
    (
        TLS + PAIR + "anonymous = false",
        "listeners[0].anonymous",
        "nobody could connect",
        "client_ca lets those",
    ),
    (
        "[[listeners]]\n[[listeners]]",
        "listeners[1].bind",
        "is taken by the listener on 127.0.0.1:1883",
        "of its own",
    ),
    (
        "[[listeners]]\nbind = ':1'\nanonymous = true\n[[listeners]]\nbind = '[::1]:1'",
        "listeners[1].bind",
        "[::1]:1 is taken by the listener on :1",
        "of its own",
    ),
    # tls
    (
        "[[listeners]]\ncertificate = 'x'",
        "listeners[0].certificate",
        "no meaning for tcp",
        'transport = "tls"',
    ),
    (
        TLS + "key = 'tls/gateway.key'",
        "listeners[0].certificate",
        "is missing, and tls needs it",
        "certificate = ",
    ),
    (TLS + "certificate = 'tls/gateway.crt'", "listeners[0].key", "is missing, and tls needs it", "key = "),
    (
        TLS + PAIR.replace("gateway.crt", "gone.crt"),
        "listeners[0].certificate",
        "No such file",
        "relative paths start at",
    ),
    (
        TLS + PAIR.replace("gateway.crt", "nothing.pem"),
        "listeners[0].certificate",
        "no certificate in it",
        "PEM",
    ),
    (
        TLS + PAIR.replace("gateway.key", "other.key"),
        "listeners[0].key",
        "is not the key of",
        "made together",
    ),
    (
        TLS + PAIR.replace("gateway.key", "nothing.pem"),
        "listeners[0].key",
        "cannot be used as a private key",
        "PEM",
    ),
    (
        TLS + PAIR.replace("gateway", "locked"),
        "listeners[0].key",
        "protected by a passphrase",
        "openssl pkey",
    ),
    (TLS + PAIR + "client_ca = 'tls/nothing.pem'", "listeners[0].client_ca", "no certificate in it", "PEM"),
    (TLS + PAIR + "client_ca = 'tls'", "listeners[0].client_ca", "Is a directory", ""),
    (
        TLS + PAIR + "require_client_certificate = true",
        "listeners[0].require_client_certificate",
        "needs client_ca",
        "ca.pem",
    ),
    (WSS + "key = 'tls/gateway.key'", "listeners[0].certificate", "is missing, and wss needs it", "= "),
    (WSS + PAIR + "anonymous = false", "listeners[0].anonymous", "nobody could connect", "client_ca lets"),
    # websocket
    (
        "[[listeners]]\ntransport = 'ws'\nbind = ':9001'",
        "listeners[0].anonymous",
        "nobody could connect",
        'transport = "wss"',
    ),
    ("[[listeners]]\npath = '/mqtt'", "listeners[0].path", "no meaning for tcp", 'transport = "ws"'),
    (
        "[[listeners]]\norigins = ['http://x']",
        "listeners[0].origins",
        "no meaning for tcp",
        'transport = "ws"',
    ),
    (WS + "certificate = 'x'", "listeners[0].certificate", "no meaning for ws", 'transport = "wss"'),
    (WS + "path = 'mqtt'", "listeners[0].path", "'mqtt' is no path of a URL", 'path = "/mqtt"'),
    (WS + "path = '/mqtt?x'", "listeners[0].path", "no path of a URL", "slash"),
    (WS + "path = ''", "listeners[0].path", "no path of a URL", "slash"),
    (WS + "origins = 'http://x'", "listeners[0].origins", "must be a list", "origins = ["),
    (WS + "origins = ['*']", "listeners[0].origins[0]", "'*' is no origin", '"https://example.com"'),
    (WS + "origins = ['https://a.b/']", "listeners[0].origins[0]", "is no origin", "scheme and host"),
    # unix
    (
        "[[listeners]]\nbind = '/run/mqtt.sock'",
        "listeners[0].bind",
        "'/run/mqtt.sock' is a path",
        'transport = "unix"',
    ),
    ("[[listeners]]\ntransport = 'unix'", "listeners[0].bind", "no path of a Unix socket", "mqtt.sock"),
    (UNIX.replace("/run/", "run/"), "listeners[0].bind", "no path of a Unix socket", "from the root on"),
    (UNIX.replace("mqtt", "m" * 100), "listeners[0].bind", "is too long", "107 bytes"),
    (UNIX + "mode = '0999'", "listeners[0].mode", "'0999' is no octal mode", 'mode = "0660"'),
    (UNIX + "mode = ''", "listeners[0].mode", "'' is no octal mode", 'mode = "0660"'),
    (UNIX + "mode = 660", "listeners[0].mode", "text in quotes, not a number", 'mode = "0660"'),
    (UNIX + "anonymous = false", "listeners[0].anonymous", "nobody could", "on this machine"),
    (
        UNIX + "proxy_protocol_from = ['127.0.0.1']",
        "listeners[0].proxy_protocol_from",
        "no meaning for unix",
        "leave it out",
    ),
    ("[[listeners]]\nmode = '0660'", "listeners[0].mode", "no meaning for tcp", 'transport = "unix"'),
    (UNIX + UNIX, "listeners[1].bind", "is taken by the listener on /run/edge-broker/mqtt.sock", "its own"),
    # proxies
    (
        "[[listeners]]\nproxy_protocol_from = ['10.0.0.1', 'proxy.local']",
        "listeners[0].proxy_protocol_from[1]",
        "'proxy.local' is neither an address nor a network",
        '"10.0.0.0/8"',
    ),
    (
        "[[listeners]]\nproxy_protocol_from = ['10.0.0.1/8']",
        "listeners[0].proxy_protocol_from[0]",
        "'10.0.0.1/8' is neither an address nor a network",
        'the network is "10.0.0.0/8"',
    ),
    # limits
    (
        "[limits]\nmax_connections_per_address = -1",
        "limits.max_connections_per_address",
        "-1 is out of range",
        "from 0 to",
    ),
    (
        "[limits]\nmax_unfinished_handshakes = 0",
        "limits.max_unfinished_handshakes",
        "0 is out of range",
        "from 1 to",
    ),
    # the rest
    ("data_dir = 'edge-broker.toml'", "data_dir", "is not a folder", "folder"),
    (
        "[http]\nbind = '0.0.0.0:8080'",
        "http.bind",
        "can be reached from elsewhere",
        'bind = "127.0.0.1:8080"',
    ),
    ("[http]\nbind = '8080'", "http.bind", "has no port", "127.0.0.1"),
    (
        "[http]\nbind = '0.0.0.0:8443'\ncertificate = 'tls/gateway.crt'\nkey = 'tls/gateway.key'",
        "http.bind",
        "without token_file anybody could look",
        "edge-broker http-token add",
    ),
    (
        "[http]\nbind = '0.0.0.0:8443'\nopen_health = true",
        "http.bind",
        "without certificate and key",
        "write certificate and key",
    ),
    (
        "[http]\nbind = '127.0.0.1:8443'\nkey = 'tls/gateway.key'",
        "http.certificate",
        "HTTPS needs both",
        "write certificate",
    ),
    (
        "[http]\nbind = '127.0.0.1:8443'\ncertificate = 'tls/gateway.crt'\nkey = 'tls/other.key'",
        "http.key",
        "is not the key of",
        "made together",
    ),
    ("[http]\ntoken_file = 'nothing'", "http.token_file", "cannot be read", "relative paths"),
    # tokens
    ("[security]\njwt_keys = ['tls/gateway.crt']", "security.jwt_audience", "is missing", "jwt_audience ="),
    ("[security]\njwt_audience = 'mqtt'", "security.jwt_keys", "no token could be verified", "jwt_keys ="),
    (
        "[security]\njwt_audience = 'mqtt'\njwt_keys = ['nothing']",
        "security.jwt_keys[0]",
        "cannot be read",
        "relative paths",
    ),
    ("[security]\njwt_keys = 'a.pem'", "security.jwt_keys", "must be a list", "jwt_keys = ["),
    ("[security]\njwt_user_name = 'maybe'", "security.jwt_user_name", "cannot be 'maybe'", '"ignored"'),
    ("[security]\njwt_max_bytes = 100", "security.jwt_max_bytes", "out of range", "256 to 32768"),
]


@pytest.mark.parametrize(("text", "key", "problem", "hint"), KEYS)
def test_a_wrong_key_is_explained_and_nothing_else(
    load_text: Load, text: str, key: str, problem: str, hint: str
) -> None:
    (mistake,) = mistakes_in(load_text, text)
    assert mistake.key == key
    assert problem in mistake.problem
    assert hint in mistake.hint


TLS = (
    '[[listeners]]\ntransport = "tls"\nbind = "0.0.0.0:8883"\nanonymous = true\n'
    'certificate = "tls/gateway.crt"\nkey = "tls/gateway.key"\n'
)
OF_CERTIFICATES = [
    (TLS + 'crl_files = ["tls/empty"]', "listeners[0].crl_files", "needs client_ca", "whose clients"),
    (TLS + 'allowed_names = ["a"]', "listeners[0].allowed_names", "needs client_ca", "whose clients"),
    (
        TLS + 'client_ca = "tls/other.crt"\ncrl_files = ["tls/empty", "tls/gone"]',
        "listeners[0].crl_files[1]",
        "cannot be read",
        "relative paths",
    ),
    (TLS + 'when_crl_expired = "ignore"', "listeners[0].when_crl_expired", "cannot be", '"refuse" or "warn"'),
    ('[[listeners]]\ncrl_files = ["tls/empty"]', "listeners[0].crl_files", "no meaning for tcp", "tls"),
    ('[[listeners]]\nallowed_names = ["a"]', "listeners[0].allowed_names", "no meaning for tcp", "tls"),
    ('[security]\ndeny_file = "gone"', "security.deny_file", "cannot be read", "relative paths"),
]


@pytest.mark.parametrize(("text", "key", "problem", "hint"), OF_CERTIFICATES)
def test_what_is_demanded_of_certificates(
    load_text: Load, text: str, key: str, problem: str, hint: str
) -> None:
    (mistake,) = mistakes_in(load_text, text)
    assert mistake.key == key
    assert problem in mistake.problem
    assert hint in mistake.hint


def test_all_mistakes_come_at_once(load_text: Load) -> None:
    text = """
        dat_dir = "/x"
        [[listeners]]
        transport = "tls"
        bind = "1883"
        identity_from = "cn"
        [[listeners]]
        transport = "wsx"
        bind = "0.0.0.0:8883"
        certificate = 5
        [sessions]
        receive_maximum = 0
        send_window = "x"
        [http]
        bind = "0.0.0.0:80"
        [[bridges]]
        urls = []
        """
    found = {mistake.key for mistake in mistakes_in(load_text, text, {"EDGE_BROKER_LOOP": "trio"})}
    assert found == {
        "dat_dir",
        "listeners[0].bind",
        "listeners[0].identity_from",
        "listeners[0].certificate",
        "listeners[0].key",
        "listeners[1].transport",
        "listeners[1].certificate",
        "listeners[1].anonymous",
        "sessions.receive_maximum",
        "sessions.send_window",
        "http.bind",
        "bridges[0].urls",
        "bridges[0].out",
        "EDGE_BROKER_LOOP",
    }


def test_what_is_wrong_is_not_repeated_where_it_might_be_a_secret(load_text: Load) -> None:
    (mistake,) = mistakes_in(load_text, '[sessions]\nreceive_maximum = "hunter2"')
    assert "hunter2" not in str(mistake)
    (mistake,) = mistakes_in(load_text, 'password = "hunter2"')
    assert "hunter2" not in str(mistake)


@pytest.mark.parametrize(
    ("environ", "key", "problem", "hint"),
    [
        (
            {"EDGE_BROKER_LOOP": "trio"},
            "EDGE_BROKER_LOOP",
            "cannot be 'trio'",
            '"auto" or "uvloop" or "asyncio"',
        ),
        ({"EDGE_BROKER_LOG_LEVEL": "INFO"}, "EDGE_BROKER_LOG_LEVEL", "cannot be 'INFO'", '"info"'),
    ],
)
def test_a_wrong_variable_is_named(
    load_text: Load, environ: dict[str, str], key: str, problem: str, hint: str
) -> None:
    (mistake,) = mistakes_in(load_text, "", environ | {"HOME": "/h"})
    assert (mistake.key, problem in mistake.problem, hint in mistake.hint) == (key, True, True)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "gone.toml"
    with pytest.raises(ConfigMistakes, match=r"gone\.toml: cannot be read: No such file") as raised:
        load(path, environ={})
    assert "give the path of a TOML file" in raised.value.mistakes[0].hint


def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = tmp_path / "secret.toml"
    path.touch(mode=0o000)
    user = os.geteuid()
    if user == 0:  # who may read everything, so be somebody else for a moment
        os.seteuid(65534)
    try:
        with pytest.raises(ConfigMistakes, match="let the user that runs the broker read it"):
            load(path, environ={})
    finally:
        os.seteuid(user)


def test_a_file_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "latin1.toml"
    path.write_bytes(b"# a\n# gr\xfc\xdfe\n")
    with pytest.raises(ConfigMistakes) as raised:
        load(path, environ={})
    (mistake,) = raised.value.mistakes
    assert (mistake.key, mistake.problem) == ("line 2", "is not UTF-8")


def test_a_section_that_nobody_registered_for(tmp_path: Path) -> None:
    path = tmp_path / "bridges.toml"
    path.write_text('[[bridges]]\nurls = ["mqtt://h"]\n')
    with pytest.raises(ConfigMistakes, match="bridges: cannot be read by this program"):
        load(path, environ={"HOME": "/h"})


def test_how_mistakes_are_shown(tmp_path: Path) -> None:
    path = tmp_path / "two.toml"
    path.write_text("[sessions]\nreceive_maximum = 0\n[log]\nformat = 5\n")
    with pytest.raises(ConfigMistakes) as raised:
        load(path, environ={"HOME": "/h"})
    assert str(raised.value) == (
        f"{path}: 2 mistakes\n"
        "  sessions.receive_maximum: 0 is out of range\n"
        "      a whole number from 1 to 65535\n"
        "  log.format: must be text, not a number\n"
        '      write "text" or "json"'
    )
    assert isinstance(raised.value, ConfigError)
