"""The matrix: every kind of client, in every version and over every transport that it does not leave out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tests.foreign.port import TRANSPORTS, VERSIONS, ForeignClient
from tests.foreign.with_aiomqtt import AiomqttClient
from tests.foreign.with_amqtt import AmqttClient
from tests.foreign.with_gmqtt import GmqttClient
from tests.foreign.with_mosquitto import MosquittoClient
from tests.foreign.with_mqttjs import MqttjsClient
from tests.foreign.with_paho import PahoClient

CLIENTS: Final[tuple[type[ForeignClient], ...]] = (
    PahoClient,
    AiomqttClient,
    GmqttClient,
    AmqttClient,
    MosquittoClient,
    MqttjsClient,
)


@dataclass(frozen=True, slots=True)
class Cell:
    """One client in one version over one transport."""

    client: type[ForeignClient]
    version: str
    transport: str

    def __str__(self) -> str:
        return f"{self.client.name}-{self.version}-{self.transport}"


CELLS: Final = tuple(
    Cell(client, version, transport)
    for client in CLIENTS
    for version in VERSIONS
    for transport in TRANSPORTS
    if version not in client.left_out and transport not in client.left_out
)
