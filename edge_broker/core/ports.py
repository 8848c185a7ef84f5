"""What the core asks of others: a transport to write to (``net``), who may come in and what they may do (``security``).

Authentication may take its time (a slow hash, a key set to fetch), so it answers through a callback; permission is asked
on the way of a message and answers at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

if TYPE_CHECKING:
    from edge_broker.core.connection import Connection
    from edge_broker.core.output import Output
    from edge_broker.core.router import Router
    from edge_broker.core.session import Session

NEVER: Final = -1
"""Below every QoS: what is not allowed at any."""


@dataclass(slots=True)
class Credentials:
    """What a CONNECT brought, and what its transport knows. `certificate_names`: of a verified client certificate."""

    client_id: str
    username: str | None
    password: bytes | None = field(repr=False)
    address: str
    listener: str
    certificate_names: tuple[str, ...] = ()


@dataclass(slots=True)
class Admission:
    """The answer: `reason_code` 0 admits as `identity`; any other refuses, with `detail` for the log.

    `data`: what enhanced authentication says last, for the client. `method`: how it proved who it is, in a word.
    `groups`: what the identity belongs to, as whoever proved it says. `expires_at`: when the connection ends unless it
    authenticates anew by then, on the router's clock. `proof`: what the admission rests on, where that can be taken back:
    the thumbprint of a key.
    """

    reason_code: int
    identity: str = ""
    detail: str = ""
    data: bytes = b""
    method: str = ""
    groups: tuple[str, ...] = ()
    expires_at: float | None = None
    proof: str = ""


@dataclass(slots=True)
class Challenge:
    """Enhanced authentication goes on: `data` is for the client, which answers it."""

    data: bytes


class PeerCertificate(NamedTuple):
    """A certificate that the transport's handshake verified.

    `names` by kind: ``common_name``, ``san_dns``, ``uri``, and of these ``spiffe``. `chain`: DER, its own first and what it
    leads to last; its own alone where a handshake was cut short because an earlier one counts (TLS session resumption).
    """

    names: Mapping[str, tuple[str, ...]]
    chain: tuple[bytes, ...]


class Judgement(NamedTuple):
    """What a certificate is worth: `names` of whoever showed it, or why it is refused, in words for the log."""

    names: tuple[str, ...] = ()
    refusal: str = ""


class Vetting(Protocol):
    """What a listener demands of clients' certificates, beside that the handshake verified them."""

    def judge(self, peer: PeerCertificate) -> Judgement:
        """For one who has just shown it."""

    def judge_again(self, peer: PeerCertificate) -> Judgement:
        """For one who is connected, when what is demanded has changed: whether it would still be let in."""


class AuthenticationExchange(Protocol):
    """One run of an authentication method with one client [MQTT 5 section 4.12]."""

    def step(self, data: bytes) -> Challenge | Admission:
        """Take what the client says; to be called again after a `Challenge` only."""


class Outlet(Protocol):
    """The transport under a connection, as the core sees it."""

    def write(self, data: bytes) -> None:
        """Send `data`, whole and in order; never blocks."""

    def close(self) -> None:
        """Close once everything written is sent."""

    def wake(self) -> None:
        """The connection can go on with the input that it left unread."""

    def encryption(self) -> tuple[str, str] | None:
        """TLS version and cipher agreed on, as OpenSSL calls them; None where nothing is encrypted."""


class Authenticator(Protocol):
    """Decides who comes in."""

    def authenticate(self, credentials: Credentials, answer: Callable[[Admission], None]) -> None:
        """Call `answer` exactly once, now or later, on the event loop's thread."""

    def begin(self, credentials: Credentials, method: str) -> AuthenticationExchange | None:
        """An exchange by the authentication method `method`; None where that is not offered."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Whose permissions are asked for. `username`: only where it was proved, empty else. `groups`: proved too.

    `bridge`: of the broker's own bridges the name, empty for everybody who comes in from outside.
    """

    identity: str
    client_id: str
    username: str = ""
    groups: tuple[str, ...] = ()
    bridge: str = ""


class Permissions(Protocol):
    """What one principal may do. The same question has the same answer for ever, and most are asked again and again."""

    def publish_right(self, topic: str) -> tuple[int, bool]:
        """The highest QoS that may be published to `topic`, `NEVER` if none; and whether it may be retained there."""

    def granted_qos(self, topic_filter: str, shared: bool) -> int:
        """The highest QoS of a subscription to `topic_filter` (without `$share`); `NEVER` where it is refused."""

    def delivered_qos(self, topic: str, shared: bool) -> int:
        """The highest QoS at which a message of `topic` is delivered; `NEVER` where it is not."""


class Authorizer(Protocol):
    """Decides what somebody may do, once an ACL exists."""

    def permissions_of(self, principal: Principal) -> Permissions | None:
        """What `principal` may do from now on; None where that is everything."""

    def on_removed(self, principal: Principal, topic_filters: list[str]) -> None:
        """Subscriptions of `principal`, whole with `$share`, were removed since they are not allowed any more."""


class Observer(Protocol):
    """Told who comes, who goes, who is not let in and what is denied, for whoever keeps an account of it (the audit log).

    Nothing is told per message. What it is told happened already; it must be quick and raise nothing.
    """

    def on_connect(self, connection: Connection, session: Session) -> None:
        """A client was let in."""

    def on_end(self, connection: Connection, session: Session | None) -> None:
        """A connection is at its end, for `connection.end`. `session`: the client's; None of one that was never let in."""

    def on_refused(self, address: str, listener: str, reason: str) -> None:
        """A connection was turned away before anything of it was read, or before its client's address was known."""

    def on_denied(self, connection: Output, action: str, topic: str, identity: str) -> None:
        """A client may not `action` (publish, qos, retain, subscribe, share, will) that topic or topic filter."""

    def on_removed(self, principal: Principal, topic_filters: list[str]) -> None:
        """Subscriptions of `principal`, whole with `$share`, were removed since they are not allowed any more."""


class Host(Protocol):
    """The broker, as whoever rides along in it sees it: a bridge."""

    router: Router

    def request_tick(self) -> None:
        """Have output flushed and the store told at the end of this turn; after anything done to the router."""
