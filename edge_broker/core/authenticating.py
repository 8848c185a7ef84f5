"""Enhanced authentication: AUTH packets to and fro before CONNACK, and again whenever the client wants [MQTT 5 4.12].

The method itself is the authenticator's (``ports.AuthenticationExchange``). Here is its place in the protocol: which
packet may come when, that the method stays the one that CONNECT named [MQTT-4.12.0-5], and what success and failure mean.
"""

from __future__ import annotations

from collections.abc import Callable

from edge_broker.core.output import Output
from edge_broker.core.ports import Admission, AuthenticationExchange, Authenticator, Challenge, Credentials
from edge_broker.errors import MqttError, ProtocolError
from edge_broker.wire import const
from edge_broker.wire.encoder import encode_auth
from edge_broker.wire.packets import Auth
from edge_broker.wire.properties import Properties


class Authentication:
    """What one connection authenticates with. `on_admission` is told the outcome of the first run and of each later one."""

    __slots__ = ("_authenticator", "_connection", "_credentials", "_exchange", "_on_admission", "method")

    def __init__(
        self,
        connection: Output,
        authenticator: Authenticator,
        credentials: Credentials,
        method: str,
        on_admission: Callable[[Admission], None],
    ) -> None:
        self._connection = connection
        self._authenticator = authenticator
        self._credentials = credentials
        self._on_admission = on_admission
        self._exchange: AuthenticationExchange | None = None
        self.method = method

    def begin(self, data: bytes) -> None:
        """CONNECT came with the method, or AUTH to authenticate anew."""
        self._exchange = self._authenticator.begin(self._credentials, self.method)
        if self._exchange is None:
            raise MqttError(const.BAD_AUTHENTICATION_METHOD, "an authentication method that is not offered")
        self._step(self._exchange, data)

    def handle_auth(self, packet: Auth) -> None:
        """The client goes on with what is under way, or begins anew."""
        if packet.properties.get(const.AUTHENTICATION_METHOD) != self.method:
            raise ProtocolError("another authentication method than that of CONNECT")
        data: bytes = packet.properties.get(const.AUTHENTICATION_DATA, b"")
        if packet.reason_code == const.CONTINUE_AUTHENTICATION and self._exchange is not None:
            self._step(self._exchange, data)
        elif packet.reason_code == const.REAUTHENTICATE and self._connection.session is not None:
            self.begin(data)  # [MQTT-4.12.1-1]
        else:
            raise ProtocolError(f"AUTH with reason code 0x{packet.reason_code:02x} here")

    def properties(self, data: bytes) -> Properties:
        """What AUTH and CONNACK carry."""
        properties: Properties = {const.AUTHENTICATION_METHOD: self.method}
        if data:
            properties[const.AUTHENTICATION_DATA] = data
        return properties

    def _step(self, exchange: AuthenticationExchange, data: bytes) -> None:
        result = exchange.step(data)
        if isinstance(result, Challenge):  # [MQTT-4.12.0-2, -3]
            question = encode_auth(const.CONTINUE_AUTHENTICATION, self.properties(result.data))
            if not self._connection.fits(question):
                raise MqttError(const.PACKET_TOO_LARGE, "its maximum packet size leaves no room for AUTH")
            self._connection.send(question)
            return
        self._exchange = None
        self._on_admission(result)
