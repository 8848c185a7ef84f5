"""`HOST:PORT`: taken apart, and what it covers."""

from __future__ import annotations

import pytest

from edge_broker.config.bind import Bind, UnixBind, parse_bind, parse_unix_bind
from edge_broker.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "host", "port", "loopback", "shown"),
    [
        ("127.0.0.1:1883", "127.0.0.1", 1883, True, "127.0.0.1:1883"),
        ("127.8.9.1:0", "127.8.9.1", 0, True, "127.8.9.1:0"),
        ("[::1]:1883", "::1", 1883, True, "[::1]:1883"),
        ("[0:0:0:0:0:0:0:1]:1", "0:0:0:0:0:0:0:1", 1, True, "[0:0:0:0:0:0:0:1]:1"),
        ("[::ffff:127.0.0.1]:1", "::ffff:127.0.0.1", 1, True, "[::ffff:127.0.0.1]:1"),
        ("[::ffff:10.0.0.1]:1", "::ffff:10.0.0.1", 1, False, "[::ffff:10.0.0.1]:1"),
        ("localhost:65535", "localhost", 65535, True, "localhost:65535"),
        ("localhost.example.com:1", "localhost.example.com", 1, False, "localhost.example.com:1"),
        ("0.0.0.0:1883", "0.0.0.0", 1883, False, "0.0.0.0:1883"),
        ("[::]:1883", "::", 1883, False, "[::]:1883"),
        ("[fe80::1%eth0]:1883", "fe80::1%eth0", 1883, False, "[fe80::1%eth0]:1883"),
        ("*:1883", "", 1883, False, "*:1883"),
        (":1883", "", 1883, False, "*:1883"),
        ("192.168.1.10:8883", "192.168.1.10", 8883, False, "192.168.1.10:8883"),
    ],
)
def test_a_bind_is_taken_apart(text: str, host: str, port: int, loopback: bool, shown: str) -> None:
    bind = parse_bind(text)
    assert bind == Bind(host, port)
    assert bind.is_loopback is loopback
    assert str(bind) == shown


@pytest.mark.parametrize(
    ("text", "problem", "hint"),
    [
        ("", "is empty", "127.0.0.1:1883"),
        ("1883", "has no port", ":1883"),
        ("localhost", "has no port", "127.0.0.1:1883"),
        ("mqtt://localhost:1883", "is a URL", "an address and a port"),
        ("/run/mqtt.sock", "is a path", 'transport = "unix"'),
        ("127.0.0.1:", "'' is no port", "from 0 (any free port) to 65535"),
        ("127.0.0.1:65536", "'65536' is no port", "65535"),
        ("127.0.0.1:-1", "'-1' is no port", "65535"),
        ("127.0.0.1:١", "is no port", "65535"),
        ("::1:1883", "without brackets", '"[::1]:1883"'),
        ("[localhost]:1", "'localhost' is no IPv6 address", "[::1]"),
        ("[127.0.0.1]:1", "no IPv6 address", "[::1]"),
        ("my host:1", "is no address", "127.0.0.1"),
        ("user@host:1", "is no address", "127.0.0.1"),
    ],
)
def test_what_is_no_bind_is_explained(text: str, problem: str, hint: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_bind(text)
    assert raised.value.key == "bind"
    assert problem in raised.value.problem
    assert hint in raised.value.hint


@pytest.mark.parametrize(
    ("one", "other", "overlap"),
    [
        ("127.0.0.1:1883", "127.0.0.1:1883", True),
        ("127.0.0.1:1883", "127.0.0.1:1884", False),
        ("127.0.0.1:1883", "127.0.0.2:1883", False),
        ("127.0.0.1:0", "127.0.0.1:0", False),
        ("localhost:1883", "127.0.0.1:1883", True),
        ("0.0.0.0:1883", "127.0.0.1:1883", True),
        ("0.0.0.0:1883", "localhost:1883", True),
        ("0.0.0.0:1883", "[::1]:1883", False),
        ("[::]:1883", "[::1]:1883", True),
        ("[::]:1883", "10.0.0.1:1883", True),
        ("*:1883", ":1883", True),
        (":1883", "[::1]:1883", True),
    ],
)
def test_overlaps(one: str, other: str, overlap: bool) -> None:
    assert parse_bind(one).overlaps(parse_bind(other)) is overlap
    assert parse_bind(other).overlaps(parse_bind(one)) is overlap


def test_the_path_of_a_unix_socket() -> None:
    bind = parse_unix_bind("/run/edge-broker/mqtt.sock")
    assert bind == UnixBind("/run/edge-broker/mqtt.sock")
    assert bind.is_loopback
    assert str(bind) == "/run/edge-broker/mqtt.sock"
    assert bind.overlaps(UnixBind("/run/edge-broker/mqtt.sock"))
    assert not bind.overlaps(UnixBind("/run/other.sock"))
    tcp = parse_bind("127.0.0.1:1883")
    assert not bind.overlaps(tcp)
    assert not tcp.overlaps(bind)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is no path"),
        ("127.0.0.1:1883", "is no path"),
        ("mqtt.sock", "is no path"),
        ("/run/", "is no path"),
        ("/run/\0", "is no path"),
        ("/" + "ü" * 54, "is too long"),
    ],
)
def test_what_is_no_unix_socket_is_explained(text: str, problem: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_unix_bind(text)
    assert raised.value.key == "bind"
    assert problem in raised.value.problem
    assert raised.value.hint


def test_the_longest_path() -> None:
    assert parse_unix_bind("/" + "x" * 106).path == "/" + "x" * 106
