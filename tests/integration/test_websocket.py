"""paho-mqtt over WebSocket, plain and secured, against a broker process; and what a browser's person or curl would see."""

from __future__ import annotations

import http.client
import os
import ssl
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from tests.integration.broker_process import until
from tests.integration.foreign import V3, V5, Paho
from tests.integration.serving import Serving

BOTH = pytest.mark.parametrize("version", [V3, V5], ids=["3.1.1", "5"])


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory, pki: Path) -> Iterator[Serving]:
    """ws, wss, and tcp as the other end."""
    keys = f'certificate = "{pki}/server.crt"\nkey = "{pki}/server.key"\n'
    serving = Serving(
        tmp_path_factory.mktemp("websocket"),
        'transport = "ws"\nbind = "127.0.0.1:0"',
        f'transport = "wss"\nbind = "127.0.0.1:0"\n{keys}client_ca = "{pki}/ca.crt"\nanonymous = false',
        'bind = "127.0.0.1:0"',
        settings="[limits]\nmax_packet_bytes = 4194304\n",
    ).start()
    yield serving
    assert serving.stop() == 0


def secured(pki: Path, who: str = "client") -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(pki / "ca.crt"))
    context.load_cert_chain(pki / f"{who}.crt", pki / f"{who}.key")
    return context


@BOTH
@pytest.mark.parametrize("over", ["ws", "wss"])
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_messages_between_websocket_and_tcp(
    serving: Serving, pki: Path, version: MQTTProtocolVersion, over: str, qos: int
) -> None:
    topic = f"t/{uuid4().hex}"
    options = {"tls": secured(pki)} if over == "wss" else {}
    port = serving.port_of(1 if over == "wss" else 0)
    web = Paho(port, version=version, transport="websockets", **options).connected().subscribe(topic, qos)
    plain = Paho(serving.port_of(2), version=version).connected().subscribe(topic, qos)
    large = os.urandom(3_000_000)
    payloads = [*(b"%d" % number for number in range(200)), large]
    for payload in payloads:
        web.client.publish(topic, payload, qos)
    assert [message.payload for message in plain.wait_for(201)] == payloads
    assert [message.payload for message in web.wait_for(201)] == payloads
    plain.publish(topic, b"back", qos)
    assert web.wait_for(202)[-1].payload == b"back"
    web.leave()
    plain.leave()
    until(lambda: web.losses, "no goodbye")


def test_the_path_may_be_left_out(serving: Serving) -> None:
    """As many clients do that know mosquitto."""
    plain = paho.Client(CallbackAPIVersion.VERSION2, transport="websockets")
    plain.ws_set_options(path="/")
    plain.connect("127.0.0.1", serving.port_of(0))
    plain.loop_start()
    until(plain.is_connected, "not connected")
    plain.disconnect()
    plain.loop_stop()


def test_a_certificate_of_somebody_else_is_refused(serving: Serving, pki: Path) -> None:
    with pytest.raises((ssl.SSLError, ConnectionError)):
        Paho(serving.port_of(1), transport="websockets", tls=secured(pki, "stranger"))


def test_who_asks_by_http(serving: Serving) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", serving.port_of(0), timeout=20)
    connection.request("GET", "/mqtt")
    response = connection.getresponse()
    assert (response.status, response.headers["Upgrade"]) == (426, "websocket")
    assert b"WebSocket" in response.read()
    connection.close()


def test_a_session_is_kept_over_websocket(serving: Serving) -> None:
    topic, client_id = f"t/{uuid4().hex}", uuid4().hex
    web = Paho(serving.port_of(0), client_id, expiry=3600, clean=False, transport="websockets").connected()
    web.subscribe(topic, 1)
    web.leave()
    publisher = Paho(serving.port_of(2)).connected()
    publisher.publish(topic, b"kept", 1)
    again = Paho(serving.port_of(0), client_id, expiry=3600, clean=False, transport="websockets").connected()
    assert again.session_present
    assert again.wait_for(1)[0].payload == b"kept"
    again.leave()
    publisher.leave()


def test_the_broker_stops_while_clients_are_connected(tmp_path: Path) -> None:
    serving = Serving(tmp_path, 'transport = "ws"\nbind = "127.0.0.1:0"').start()
    client = Paho(serving.port_of(0), transport="websockets", comes_back=False).connected()
    assert serving.stop() == 0
    until(lambda: client.losses, "it notices nothing")
