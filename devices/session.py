"""One MQTT connection, from CONNECT to its end, over a paho client.

A paho client is used for one connection and thrown away. So paho never has anything to send again on its own (it would
do so after the connect callback, behind whatever that had published, and from a memory that a kill -9 wipes): what is
sent again, and in which order, is decided by the spool alone, and what paho holds is bounded by the window.

Other habits of paho that are dealt with here:
- `connect()` blocks, so it runs in another thread; the callbacks are set afterwards, on the network thread, and from
  then on only that thread touches the client.
- It calls back from inside `publish()` and `loop_read()` with a lock held. Nothing is published, and no user's code
  runs, inside a callback.
- It leaves Nagle's algorithm on, which holds small packets back for up to 40 ms.
- `loop_read()` looks at the socket, not at what TLS has already decrypted, and reads one packet where nothing is in
  flight.
- It takes a PUBACK that refuses the message for success; here the reason code decides.

Every session starts clean unless commands are to be kept (`keep_commands_seconds`). Then the broker knows the device
from before, and this session still sends unacknowledged readings as new messages with new packet identifiers: to the
broker that is a duplicate at most, which QoS 1 allows.
"""

import asyncio
import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal, Protocol

import paho.mqtt.client as paho
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from devices.network import NetworkThread
from devices.paho_client import SessionSettings, connect, new_client, reading_properties, why_unreachable
from devices.protocol_choice import MqttVersion
from devices.spool_rows import SpooledReading

_log = logging.getLogger("devices")

_UNSUPPORTED_PROTOCOL_VERSION: Final = 0x84
_PACKET_OVERHEAD_BYTES: Final = 16  # fixed header, topic length, packet identifier, with room to spare

FailureKind = Literal["unreachable", "unanswered", "unsupported_version", "refused"]


class ConnectFailed(Exception):
    """An attempt to connect came to nothing; `kind` says how, the message says why."""

    def __init__(self, kind: FailureKind, why: str) -> None:
        self.kind = kind
        super().__init__(why)


@dataclass(frozen=True)
class ServerLimits:
    """What the broker said in its CONNACK; None where it set no limit (an MQTT 3.1.1 broker never does)."""

    receive_maximum: int | None = None
    maximum_packet_size: int | None = None


class SessionOwner(Protocol):
    """Whom a session tells what happens. All calls come on the network thread."""

    def on_acknowledged(self, packet_id: int, reason_code: int, reason: str) -> None: ...

    def on_command(self, session: "Session", message: paho.MQTTMessage) -> None: ...

    def on_writable(self) -> None: ...


class Session:
    """A connection that is used once: `open`, publish and be told, until `closed` says why it ended."""

    def __init__(
        self,
        network: NetworkThread,
        settings: SessionSettings,
        version: MqttVersion,
        user_properties: list[tuple[str, str]],
        takes_commands: bool,
        owner: SessionOwner,
    ) -> None:
        self.version = version
        self.closed: asyncio.Future[str] = network.loop.create_future()
        self._network = network
        self._settings = settings
        self._user_properties = user_properties
        self._takes_commands = takes_commands
        self._owner = owner
        self._connack: asyncio.Future[ServerLimits] = network.loop.create_future()
        self._client = new_client(settings, version)
        self._attached = False
        self._is_reading = False
        self._watches_writes = False

    # ------------------------------------------------------------------ from CONNECT to the end

    async def open(self) -> ServerLimits:
        """Connect and wait for the CONNACK; ConnectFailed says what came instead."""
        try:
            await self._network.run_blocking(
                partial(connect, self._client, self._settings, self._takes_commands), undo=self._close_socket
            )
        except (OSError, ValueError) as error:
            raise ConnectFailed("unreachable", why_unreachable(error)) from error
        self._attach()
        try:
            async with asyncio.timeout(self._settings.connect_timeout_seconds):
                return await self._connack
        except TimeoutError:
            seconds = self._settings.connect_timeout_seconds
            raise ConnectFailed("unanswered", f"no CONNACK within {seconds:g} s") from None

    def _attach(self) -> None:
        """From here on the client belongs to the network thread."""
        self._attached = True
        client = self._client
        connection = client.socket()
        if connection is None:
            self._end("the connection was closed at once")
            return
        if isinstance(connection, socket.socket):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.on_connect = self._on_connack
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_puback
        client.on_message = self._on_message
        client.on_subscribe = self._on_suback
        client.on_socket_close = self._on_socket_close
        self._network.loop.add_reader(connection.fileno(), self._on_readable)
        self._watch_writes()

    def close(self, why: str = "closed by the device") -> None:
        """Say DISCONNECT, as far as the socket takes it at once, and close."""
        if self._attached and not self.closed.done() and self._client.socket() is not None:
            self._client.on_disconnect = None
            self._client.disconnect()
        self._end(why)

    def abort(self, why: str) -> None:
        """Close without a word."""
        self._end(why)

    def _end(self, why: str) -> None:
        if self.closed.done():
            return
        self.closed.set_result(why)
        if self._attached:
            client = self._client
            client.on_connect = client.on_disconnect = client.on_publish = None
            client.on_message = client.on_subscribe = client.on_socket_close = None
            self._close_socket()
        # else the thread that connects still has the client, and closes it when it is done

        # With TLS 1.3 a client whose certificate is refused learns it only by the connection's end.
        hint = "; is the device's certificate accepted there?" if self._settings.address.certificate else ""
        self._connect_failed("unanswered", f"{why} before a CONNACK{hint}")

    def _close_socket(self) -> None:
        connection = self._client.socket()
        if connection is not None:
            self._forget_socket(connection.fileno())
            connection.close()

    def _forget_socket(self, descriptor: int) -> None:
        if descriptor >= 0:
            self._network.loop.remove_reader(descriptor)
            self._network.loop.remove_writer(descriptor)

    # ------------------------------------------------------------------ what the owner asks for

    def publish(self, spooled: SpooledReading) -> int:
        """Send a reading; the packet identifier comes back in `on_acknowledged`. A failure ends the session."""
        reading = spooled.reading
        info = self._client.publish(
            reading.topic, reading.payload, reading.qos, False, self._properties_of(spooled)
        )
        self._watch_writes()
        if info.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
            self._end(f"publishing failed: {paho.error_string(info.rc)}")
        return info.mid

    def packet_bytes(self, spooled: SpooledReading) -> int:
        """About how large the reading's PUBLISH is, never less than it is."""
        properties = self._properties_of(spooled)
        packed = len(properties.pack()) if properties is not None else 0  # type: ignore[no-untyped-call]
        return len(spooled.reading.topic.encode()) + packed + spooled.size_bytes + _PACKET_OVERHEAD_BYTES

    def _properties_of(self, spooled: SpooledReading) -> Properties | None:
        return reading_properties(spooled, self._user_properties) if self.version == "5" else None

    @property
    def congested(self) -> bool:
        """Whether the socket takes nothing more for now; `on_writable` follows."""
        return self._client.want_write()

    def subscribe(self, topic_filter: str) -> None:
        """Subscribe at QoS 1; a refusal is logged."""
        self._client.subscribe(topic_filter, qos=1)
        self._watch_writes()

    def acknowledge_command(self, packet_id: int, qos: int) -> None:
        """The command was dealt with; nothing happens when the connection it came on is gone."""
        if not self.closed.done() and qos > 0:
            self._client.ack(packet_id, qos)
            self._watch_writes()

    def tick(self) -> None:
        """Once a second or so: the keep-alive."""
        if not self.closed.done():
            self._guarded(self._client.loop_misc)

    # ------------------------------------------------------------------ the socket

    def _on_readable(self) -> None:
        self._is_reading = True
        self._guarded(self._client.loop_read)
        while not self.closed.done() and self._decrypted_bytes():
            self._guarded(self._client.loop_read)
        self._is_reading = False

    def _decrypted_bytes(self) -> int:
        pending: Callable[[], int] | None = getattr(self._client.socket(), "pending", None)
        return pending() if pending is not None else 0

    def _on_writable(self) -> None:
        self._guarded(self._client.loop_write)
        if not self.closed.done() and not self.congested:
            self._owner.on_writable()

    def _guarded(self, step: Callable[[], MQTTErrorCode]) -> None:
        try:
            step()
        except Exception as error:  # noqa: BLE001  paho raises what a malformed packet makes it raise
            self._end(f"the broker sent something unreadable ({error!r})")
            return
        if self._client.socket() is None:
            self._end("the connection was lost")
        self._watch_writes()

    def _watch_writes(self) -> None:
        connection = self._client.socket()
        if connection is None or self.closed.done() or self._client.want_write() == self._watches_writes:
            return
        self._watches_writes = not self._watches_writes
        if self._watches_writes:
            self._network.loop.add_writer(connection.fileno(), self._on_writable)
        else:
            self._network.loop.remove_writer(connection.fileno())

    # ------------------------------------------------------------------ what paho tells

    def _on_connack(
        self,
        client: paho.Client,
        userdata: object,
        flags: paho.ConnectFlags,
        reason_code: ReasonCode,
        properties: Properties | None,
    ) -> None:
        if self._connack.done():
            return
        if reason_code.value == _UNSUPPORTED_PROTOCOL_VERSION:
            self._connect_failed("unsupported_version", f"the broker does not speak MQTT {self.version}")
        elif reason_code.is_failure:
            self._connect_failed("refused", f"the broker refused: {reason_code}")
        elif getattr(properties, "MaximumQoS", 2) == 0:
            self._connect_failed("refused", "the broker takes QoS 0 only and acknowledges nothing")
        else:
            receive_maximum = getattr(properties, "ReceiveMaximum", None)
            maximum_packet_size = getattr(properties, "MaximumPacketSize", None)
            self._connack.set_result(ServerLimits(receive_maximum, maximum_packet_size))

    def _connect_failed(self, kind: FailureKind, why: str) -> None:
        if not self._connack.done():
            self._connack.set_exception(ConnectFailed(kind, why))
            self._connack.exception()  # looked at: nobody need be waiting for it

    def _on_disconnect(
        self,
        client: paho.Client,
        userdata: object,
        flags: paho.DisconnectFlags,
        reason_code: ReasonCode,
        properties: Properties | None,
    ) -> None:
        if flags.is_disconnect_packet_from_server:
            self._end(f"the broker ended the connection ({reason_code})")
        else:
            self._end(f"the connection was lost ({reason_code})")

    def _on_puback(
        self,
        client: paho.Client,
        userdata: object,
        packet_id: int,
        reason_code: ReasonCode,
        properties: Properties | None,
    ) -> None:
        # paho calls this, too, when a QoS 0 message is written, whose number may be that of one in flight.
        if self._is_reading:
            self._owner.on_acknowledged(packet_id, reason_code.value, str(reason_code))

    def _on_message(self, client: paho.Client, userdata: object, message: paho.MQTTMessage) -> None:
        self._owner.on_command(self, message)

    def _on_suback(
        self,
        client: paho.Client,
        userdata: object,
        packet_id: int,
        reason_codes: list[ReasonCode],
        properties: Properties | None,
    ) -> None:
        for reason_code in reason_codes:
            if reason_code.is_failure:
                _log.warning(
                    "%s: the broker refused the subscription to commands: %s",
                    self._settings.client_id,
                    reason_code,
                )

    def _on_socket_close(self, client: paho.Client, userdata: object, connection: "paho.SocketLike") -> None:
        self._forget_socket(connection.fileno())
