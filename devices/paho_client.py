"""A paho client made for one connection, and what it puts into CONNECT and PUBLISH.

Two habits of paho are turned off here: it would reconnect on its own, stepping down to MQTT 3.1 when 3.1.1 is refused,
and it would acknowledge a command before anybody dealt with it.
"""

import ssl
from dataclasses import dataclass
from typing import Final

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from devices.address import BrokerAddress
from devices.encoding import JSON_CONTENT_TYPE
from devices.protocol_choice import MqttVersion
from devices.spool_rows import SpooledReading

_COMMANDS_IN_FLIGHT: Final = 20


@dataclass(frozen=True)
class SessionSettings:
    """What every connection of a device has in common."""

    address: BrokerAddress
    client_id: str
    keepalive_seconds: int
    connect_timeout_seconds: float
    keep_commands_seconds: int


def new_client(settings: SessionSettings, version: MqttVersion) -> paho.Client:
    """A client that has not connected yet."""
    client = paho.Client(
        CallbackAPIVersion.VERSION2,
        client_id=settings.client_id,
        clean_session=None if version == "5" else settings.keep_commands_seconds == 0,
        protocol=MQTTProtocolVersion.MQTTv5 if version == "5" else MQTTProtocolVersion.MQTTv311,
        reconnect_on_failure=False,
        manual_ack=True,
    )
    client.connect_timeout = settings.connect_timeout_seconds
    client.max_inflight_messages = 0  # unlimited: the window is kept by the one who publishes
    if settings.address.username is not None:
        client.username_pw_set(settings.address.username, settings.address.password)
    return client


def connect(client: paho.Client, settings: SessionSettings, takes_commands: bool) -> None:
    """Resolve, connect, shake hands and send CONNECT. Blocks; OSError or ValueError when it comes to nothing."""
    address = settings.address
    context = address.tls_context()
    if context is not None:
        client.tls_set_context(context)
    if client.protocol != MQTTProtocolVersion.MQTTv5:
        client.connect(address.host, address.port, settings.keepalive_seconds)
        return
    client.connect(
        address.host,
        address.port,
        settings.keepalive_seconds,
        clean_start=settings.keep_commands_seconds == 0,
        properties=_connect_properties(settings, takes_commands),
    )


def _connect_properties(settings: SessionSettings, takes_commands: bool) -> Properties | None:
    """None where nothing need be said: an old broker takes properties for a client identifier and waits for more."""
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    if takes_commands:
        properties.ReceiveMaximum = _COMMANDS_IN_FLIGHT
    if settings.keep_commands_seconds:
        properties.SessionExpiryInterval = settings.keep_commands_seconds
    return None if properties.isEmpty() else properties  # type: ignore[no-untyped-call]


def reading_properties(spooled: SpooledReading, user_properties: list[tuple[str, str]]) -> Properties:
    """The MQTT 5 properties of a reading: who, which one, and how its payload is to be read."""
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    properties.UserProperty = [*user_properties, ("sequence", str(spooled.sequence))]
    properties.ContentType = spooled.reading.content_type
    if spooled.reading.content_type == JSON_CONTENT_TYPE:
        properties.PayloadFormatIndicator = 1
    return properties


def why_unreachable(error: Exception) -> str:
    """What to tell the person when connecting raised."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the broker's certificate is not trusted: {error.verify_message}; is the right CA given?"
    if isinstance(error, OSError):
        return error.strerror or str(error) or type(error).__name__
    return str(error)
