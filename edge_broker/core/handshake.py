"""CONNECT to CONNACK: who it is, which session, under what terms [3.1, 3.2].

The connection handles no further input meanwhile: the authenticator may answer later, and the CONNACK of a durable
session waits until the session is on disk. CONNACK is the first packet that a client gets [MQTT-3.2.0-1].
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from edge_broker.core.message import Message, build_message
from edge_broker.core.ports import Admission, Credentials
from edge_broker.core.session import Session
from edge_broker.errors import MqttError
from edge_broker.wire import const
from edge_broker.wire.encoder import encode_connack
from edge_broker.wire.packets import Connect, Will
from edge_broker.wire.properties import Properties, encode_properties

if TYPE_CHECKING:
    from edge_broker.core.connection import Connection


def handle_connect(connection: Connection, packet: Connect) -> None:
    """Check what can be checked at once, then ask the authenticator."""
    if const.AUTHENTICATION_METHOD in packet.properties:
        raise MqttError(const.BAD_AUTHENTICATION_METHOD, "enhanced authentication is not offered")
    if not packet.client_id and packet.version < const.MQTT_5 and not packet.clean_start:
        raise MqttError(const.CLIENT_IDENTIFIER_NOT_VALID, "no client identifier")  # [MQTT-3.1.3-8] of 3.1.1
    if connection.router.is_overloaded:
        raise MqttError(const.SERVER_BUSY, "the store is too far behind for one more client")
    will, settings = packet.will, connection.router.settings
    if will is not None and will.topic.count("/") >= settings.max_topic_levels:
        raise MqttError(const.TOPIC_NAME_INVALID, "a will for a topic of more levels than we allow")
    connection.client_id = packet.client_id or connection.router.new_client_id()
    connection.pause()
    credentials = Credentials(
        connection.client_id,
        packet.username,
        packet.password,
        connection.address,
        connection.listener,
        connection.certificate_names,
    )
    connection.router.authenticator.authenticate(credentials, partial(_on_admission, connection, packet))


def _on_admission(connection: Connection, packet: Connect, admission: Admission) -> None:
    if connection.end is not None:
        return
    if admission.reason_code:
        connection.fail(admission.reason_code, admission.detail or "refused")
        return
    router = connection.router
    settings = router.settings
    if not _may_leave_will(connection, packet, admission.identity):
        router.counters.denied += 1
        connection.fail(const.NOT_AUTHORIZED, "its will is for a topic that it may not publish to")
        return
    expiry_interval = _session_expiry(packet, settings.max_session_expiry_seconds)
    opened = router.open_session(
        connection, connection.client_id, admission.identity, packet.clean_start, expiry_interval
    )
    if opened is None:
        connection.fail(
            const.CLIENT_IDENTIFIER_NOT_VALID, "this client identifier belongs to another identity"
        )
        return
    session, present = opened
    session.will = None if packet.will is None else will_message(packet.will)
    session.will_delay = 0 if packet.will is None else packet.will.delay_interval
    _take_terms(connection, packet)
    if session.durable:
        router.pending.save_session(session.record())
    if session.durable or router.pending.batch.removed_sessions:
        router.connects_waiting += 1
        router.pending.after_commit(partial(_accept_kept, connection, packet, session, present))
    else:
        _accept(connection, packet, session, present)


def _may_leave_will(connection: Connection, packet: Connect, identity: str) -> bool:
    will, authorizer = packet.will, connection.router.authorizer
    if will is None or authorizer is None:
        return True
    return authorizer.may_publish(identity, connection.client_id, will.topic)


def _session_expiry(packet: Connect, maximum: int) -> int:
    """Seconds that the session outlives its connection; 3.1.1's persistent session as long as we allow."""
    if packet.version >= const.MQTT_5:
        wanted: int = packet.properties.get(const.SESSION_EXPIRY_INTERVAL, 0)
        return min(wanted, maximum)
    return 0 if packet.clean_start else maximum


def will_message(will: Will) -> Message:
    """The will of a CONNECT as the message that it becomes."""
    properties = dict(will.properties)
    expiry_interval = properties.pop(const.MESSAGE_EXPIRY_INTERVAL, None)
    block = encode_properties(properties)
    message = build_message(will.topic, will.payload, qos=will.qos, retain=will.retain, property_block=block)
    if expiry_interval is not None:
        message.expiry_interval = expiry_interval
        message.expires_at = message.received_at + expiry_interval  # what the store keeps; anew later
    return message


def _take_terms(connection: Connection, packet: Connect) -> None:
    """What the client asks for: keep alive, how much it takes at a time."""
    settings = connection.router.settings
    keep_alive = packet.keep_alive
    limit = settings.max_keep_alive_seconds
    if limit and packet.version >= const.MQTT_5 and (not keep_alive or keep_alive > limit):
        keep_alive = limit
    connection.keep_alive = keep_alive
    connection.send_window = min(
        settings.send_window, packet.properties.get(const.RECEIVE_MAXIMUM, const.MAX_PACKET_ID)
    )
    connection.max_packet_bytes = packet.properties.get(const.MAXIMUM_PACKET_SIZE, 0)


def _accept_kept(connection: Connection, packet: Connect, session: Session, present: bool) -> None:
    connection.router.connects_waiting -= 1
    _accept(connection, packet, session, present)


def _accept(connection: Connection, packet: Connect, session: Session, present: bool) -> None:
    """Everything is in place, and on disk where it must be: answer, and let the session's deliveries go."""
    if session.claimed_by is not connection:
        return
    if connection.end is not None:
        session.will = None  # of a connection that was never accepted
        connection.router.leave(session, None)
        return
    connection.session = session
    connection.will = session.will
    properties = _connack_properties(connection, packet, session) if packet.version >= const.MQTT_5 else {}
    connection.send(encode_connack(connection.version, present, const.SUCCESS, properties))
    session.attach(connection)
    session.pump()
    connection.go_on()


def _connack_properties(connection: Connection, packet: Connect, session: Session) -> Properties:
    """Where we differ from what the client asked for or from the defaults [3.2.2.3]."""
    settings = connection.router.settings
    properties: Properties = {
        const.RECEIVE_MAXIMUM: settings.receive_maximum,
        const.MAXIMUM_PACKET_SIZE: settings.max_packet_bytes,
        const.TOPIC_ALIAS_MAXIMUM: settings.topic_alias_maximum,
    }
    if not packet.client_id:
        properties[const.ASSIGNED_CLIENT_IDENTIFIER] = connection.client_id
    if connection.keep_alive != packet.keep_alive:
        properties[const.SERVER_KEEP_ALIVE] = connection.keep_alive
    if session.expiry_interval != packet.properties.get(const.SESSION_EXPIRY_INTERVAL, 0):
        properties[const.SESSION_EXPIRY_INTERVAL] = session.expiry_interval
    return properties
