import pytest

from devices.address import parse_broker_url
from devices.errors import BrokerUrlError


@pytest.mark.parametrize(
    ("url", "host", "port", "tls", "username", "password"),
    [
        ("mqtt://127.0.0.1", "127.0.0.1", 1883, False, None, None),
        ("mqtt://broker.example:2883", "broker.example", 2883, False, None, None),
        ("mqtts://broker.example", "broker.example", 8883, True, None, None),
        ("mqtts://broker.example:443/", "broker.example", 443, True, None, None),
        ("mqtt://[::1]:1884", "::1", 1884, False, None, None),
        ("mqtt://porch:p%40ss%2Fword@host", "host", 1883, False, "porch", "p@ss/word"),
        ("mqtt://porch@host", "host", 1883, False, "porch", None),
    ],
)
def test_urls(url: str, host: str, port: int, tls: bool, username: str | None, password: str | None) -> None:
    address = parse_broker_url(url)
    assert (address.host, address.port, address.tls) == (host, port, tls)
    assert (address.username, address.password) == (username, password)


def test_what_is_given_beside_the_url_wins() -> None:
    address = parse_broker_url("mqtt://a:b@host", username="c", password="d")
    assert (address.username, address.password) == ("c", "d")


@pytest.mark.parametrize(
    ("url", "options", "problem"),
    [
        ("127.0.0.1:1883", {}, "mqtt://"),
        ("http://host", {}, "mqtt://"),
        ("", {}, "mqtt://"),
        ("mqtt://", {}, "no host"),
        ("mqtt://host:0", {}, "port 0"),
        ("mqtt://host:99999", {}, "port"),
        ("mqtt://host:port", {}, "port"),
        ("mqtt://host/topic", {}, "ends after the port"),
        ("mqtt://host?x=1", {}, "ends after the port"),
        ("mqtt://host", {"ca": "ca.pem"}, "mqtts://"),
        ("mqtt://host", {"certificate": "c.pem", "key": "k.pem"}, "mqtts://"),
        ("mqtts://host", {"key": "k.pem"}, "without its certificate"),
        ("mqtt://host", {"password": "p"}, "without a username"),
    ],
)
def test_what_is_wrong_is_said(url: str, options: dict[str, str], problem: str) -> None:
    with pytest.raises(BrokerUrlError, match=problem):
        parse_broker_url(url, **options)


def test_the_password_shows_nowhere() -> None:
    address = parse_broker_url("mqtt://porch:secret-word@broker.example")
    assert "secret-word" not in f"{address} {address!r}"
    assert str(address) == "mqtt://broker.example:1883"
    assert str(parse_broker_url("mqtts://[::1]")) == "mqtts://[::1]:8883"
    with pytest.raises(BrokerUrlError) as error:
        parse_broker_url("mqtt://porch:secret-word@broker.example/topic")
    assert "secret-word" not in str(error.value)


@pytest.mark.parametrize(
    ("url", "shows"),
    [
        ("mqtt://a:b@broker.example", True),
        ("mqtt://a:b@127.0.0.1", False),
        ("mqtt://a:b@localhost", False),
        ("mqtts://a:b@broker.example", False),
        ("mqtt://broker.example", False),
    ],
)
def test_a_password_on_an_open_line(url: str, shows: bool) -> None:
    assert parse_broker_url(url).shows_password is shows


def test_certificates_are_always_verified() -> None:
    import ssl

    context = parse_broker_url("mqtts://broker.example").tls_context()
    assert context is not None
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert parse_broker_url("mqtt://broker.example").tls_context() is None
