"""CONNECT to CONNACK: who it is, which session, under what terms [3.1, 3.2].

The connection handles no further input meanwhile: the authenticator may answer later, and the CONNACK of a durable
session waits until the session is on disk. CONNACK is the first packet that a client gets [MQTT-3.2.0-1].
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from edge_broker.core.aliases import TopicAliases
from edge_broker.core.authenticating import Authentication
from edge_broker.core.delayed import target_of
from edge_broker.core.message import Message, build_message
from edge_broker.core.permitting import may_publish, recognise
from edge_broker.core.ports import Admission, Credentials, Principal
from edge_broker.core.session import Session
from edge_broker.core.settings import Settings
from edge_broker.errors import MqttError
from edge_broker.wire import const
from edge_broker.wire.encoder import encode_auth, encode_connack
from edge_broker.wire.packets import Connect, Will
from edge_broker.wire.properties import Properties, encode_properties
from edge_broker.wire.topics import is_own

if TYPE_CHECKING:
    from edge_broker.core.connection import Connection
    from edge_broker.core.router import Router


def handle_connect(connection: Connection, packet: Connect) -> None:
    """Check what can be checked at once, then ask the authenticator."""
    connection.wants_reasons = packet.properties.get(const.REQUEST_PROBLEM_INFORMATION, 1) == 1
    connection.max_packet_bytes = packet.properties.get(const.MAXIMUM_PACKET_SIZE, 0)
    if not packet.client_id and (
        packet.version == const.MQTT_3_1 or (packet.version == const.MQTT_3_1_1 and not packet.clean_start)
    ):
        raise MqttError(const.CLIENT_IDENTIFIER_NOT_VALID, "no client identifier")  # [MQTT-3.1.3-8] of 3.1.1
    if connection.router.is_overloaded:
        raise MqttError(const.SERVER_BUSY, "the store is too far behind for one more client")
    if len(packet.client_id.encode()) > connection.router.settings.max_client_id_bytes:
        raise MqttError(const.CLIENT_IDENTIFIER_NOT_VALID, "a longer client identifier than we allow")
    if packet.will is not None:
        _check_will(connection.router, packet.will)
    connection.client_id = packet.client_id or connection.router.new_client_id()
    credentials = Credentials(
        connection.client_id,
        packet.username,
        packet.password,
        connection.address,
        connection.listener,
        connection.certificate_names,
    )
    authenticator = connection.router.authenticator
    method = packet.properties.get(const.AUTHENTICATION_METHOD)
    on_admission = partial(_on_admission, connection, packet)
    if method is None:
        connection.pause()
        authenticator.authenticate(credentials, on_admission)
    else:
        connection.authentication = Authentication(
            connection, authenticator, credentials, method, on_admission
        )
        connection.authentication.begin(packet.properties.get(const.AUTHENTICATION_DATA, b""))


def _check_will(router: Router, will: Will) -> None:
    """What can be said of a will before it is known whose it is."""
    settings = router.settings
    if will.topic.count("/") >= settings.max_topic_levels or is_own(target_of(will.topic)):
        raise MqttError(const.TOPIC_NAME_INVALID, "a will for a topic that we do not allow")
    if len(will.topic.encode()) > settings.max_topic_bytes:
        raise MqttError(const.TOPIC_NAME_INVALID, "a will for a longer topic than we allow")
    if will.qos > settings.maximum_qos:
        raise MqttError(const.QOS_NOT_SUPPORTED, "a will of a higher QoS than we offer")  # [MQTT-3.2.2-12]
    if will.retain and not settings.retain_available:
        raise MqttError(const.RETAIN_NOT_SUPPORTED, "a retained will")  # [MQTT-3.2.2-13]
    if will.delay_interval and router.delayed_wills() >= settings.max_delayed_wills:
        raise MqttError(const.QUOTA_EXCEEDED, "as many delayed wills as there may be")


def _on_admission(connection: Connection, packet: Connect, admission: Admission) -> None:
    if connection.end is not None:
        return
    if admission.reason_code:
        connection.fail(admission.reason_code, admission.detail or "refused", tell=False)
    elif connection.session is not None:
        _go_on_authenticated(
            connection, connection.session, _principal(connection, packet, admission), admission
        )
    elif "\0" in admission.identity:  # of a certificate; what is kept with the identity stands behind a NUL
        connection.fail(const.NOT_AUTHORIZED, "an identity with U+0000")
    elif packet.will is not None and not _may_leave_will(
        connection.router, packet.will, _principal(connection, packet, admission)
    ):
        connection.router.deny(connection, "will", packet.will.topic, admission.identity)
        connection.fail(const.NOT_AUTHORIZED, "its will is one that it may not publish")
    else:
        connection.pause()
        connection.authenticated_by = admission.method
        _take_proof(connection, admission)
        try:
            _open(connection, packet, admission)
        except MqttError as error:
            connection.fail(error.reason_code, error.detail)


def _take_proof(connection: Connection, admission: Admission) -> None:
    """How long the connection may last, and on what that rests: the latest word counts, also where it is a shorter one."""
    connection.expires_at = admission.expires_at
    connection.proof = admission.proof


def _go_on_authenticated(
    connection: Connection, session: Session, principal: Principal, admission: Admission
) -> None:
    """A client that is connected has authenticated itself anew."""
    assert connection.authentication is not None
    if admission.identity != session.identity:
        connection.fail(const.NOT_AUTHORIZED, "authenticated anew as somebody else")
        return
    answer = encode_auth(const.SUCCESS, connection.authentication.properties(admission.data))
    if not connection.fits(answer):
        raise MqttError(const.PACKET_TOO_LARGE, "its maximum packet size leaves no room for AUTH")
    _take_proof(connection, admission)
    is_same = (session.username, session.groups) == (principal.username, principal.groups)
    recognise(connection.router, session, principal)
    if session.durable and not is_same:
        connection.router.pending.save_session(session.record())
    connection.send(answer)


def _open(connection: Connection, packet: Connect, admission: Admission) -> None:
    """The client is admitted: give it its session, and CONNACK when that is on disk where it must be."""
    router = connection.router
    expiry_interval = _session_expiry(packet, router.settings.max_session_expiry_seconds)
    principal = _principal(connection, packet, admission)
    session, present = router.open_session(connection, principal, packet.clean_start, expiry_interval)
    accept = partial(_accept, connection, packet, session, present, admission.data)
    session.will = None if packet.will is None else will_message(packet.will)
    session.will_delay = 0 if packet.will is None else packet.will.delay_interval
    _take_terms(connection, packet)
    if session.durable:
        router.pending.save_session(session.record())
    if session.durable or router.pending.removals:
        router.connects_waiting += 1
        router.pending.after_commit(partial(_accept_kept, connection, accept))
    else:
        accept()


def _principal(connection: Connection, packet: Connect, admission: Admission) -> Principal:
    """Who was admitted. A user name counts where it is the identity: any other one is only said."""
    username = admission.identity if packet.username == admission.identity else ""
    groups = tuple(group for group in admission.groups if "\0" not in group)
    return Principal(admission.identity, connection.client_id, username, groups)


def _may_leave_will(router: Router, will: Will, principal: Principal) -> bool:
    authorizer = router.authorizer
    if authorizer is None:
        return True
    return may_publish(authorizer.permissions_of(principal), will.topic, will.qos, will.retain)


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
    alias_maximum = packet.properties.get(const.TOPIC_ALIAS_MAXIMUM, 0)
    if alias_maximum and settings.topic_alias_maximum:
        connection.aliases = TopicAliases(min(alias_maximum, settings.topic_alias_maximum))


def _accept_kept(connection: Connection, accept: Callable[[], None]) -> None:
    connection.router.connects_waiting -= 1
    accept()


def _accept(
    connection: Connection, packet: Connect, session: Session, present: bool, authentication_data: bytes
) -> None:
    """Everything is in place, and on disk where it must be: answer, and let the session's deliveries go."""
    if session.claimed_by is not connection:
        return
    properties: Properties = {}
    if packet.version >= const.MQTT_5:
        properties = _connack_properties(connection, packet, session)
    if connection.authentication is not None:
        properties |= connection.authentication.properties(authentication_data)  # [MQTT-4.12.0-2]
    connack = encode_connack(connection.version, present, const.SUCCESS, properties)
    if not connection.fits(connack):  # it says what the client must know
        connection.fail(const.PACKET_TOO_LARGE, "its maximum packet size leaves no room for CONNACK")
    if connection.end is not None:
        session.will = None  # of a connection that was never accepted
        connection.router.leave(session, None)
        return
    router = connection.router
    router.counters.connects += 1
    connection.session = session
    connection.permit(session.permissions)
    connection.will = session.will
    connection.send(connack)
    session.attach(connection)
    if router.observer is not None:
        router.observer.on_connect(connection, session)
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
    properties |= _availability(settings)
    if settings.response_information and packet.properties.get(const.REQUEST_RESPONSE_INFORMATION):
        properties[const.RESPONSE_INFORMATION] = settings.response_information.replace(
            "{client_id}", connection.client_id
        )
    if not packet.client_id:
        properties[const.ASSIGNED_CLIENT_IDENTIFIER] = connection.client_id
    if connection.keep_alive != packet.keep_alive:
        properties[const.SERVER_KEEP_ALIVE] = connection.keep_alive
    if session.expiry_interval != packet.properties.get(const.SESSION_EXPIRY_INTERVAL, 0):
        properties[const.SESSION_EXPIRY_INTERVAL] = session.expiry_interval
    return properties


def _availability(settings: Settings) -> Properties:
    """What we do not offer, although MQTT 5 knows it."""
    properties: Properties = {}
    if settings.maximum_qos < 2:
        properties[const.MAXIMUM_QOS] = settings.maximum_qos
    for property_id, is_available in (
        (const.RETAIN_AVAILABLE, settings.retain_available),
        (const.WILDCARD_SUBSCRIPTION_AVAILABLE, settings.wildcard_subscriptions_available),
        (const.SUBSCRIPTION_IDENTIFIER_AVAILABLE, settings.subscription_ids_available),
        (const.SHARED_SUBSCRIPTION_AVAILABLE, settings.shared_subscriptions_available),
    ):
        if not is_available:
            properties[property_id] = 0
    return properties
