"""What can go wrong on the way to the upstream, in words: what happened, and what whoever reads it can do.

Each kind reads differently, because each has another remedy: the name, the port, TLS, our identity, our login. None of
these texts holds a secret; what the upstream said itself is shortened and made printable.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
from typing import Final

from bridge.places import Service, Upstream
from edge_broker.errors import UpstreamRefused, UpstreamUnavailable
from edge_broker.wire import const

_LONGEST_SAID: Final = 200

KINDS: Final = (
    "files",  # our own certificate, key, bundles or password cannot be read, or the agent has none for us
    "resolve",
    "connect",
    "tls",
    "identity",  # one side refused who the other is
    "closed",  # without an answer to CONNECT
    "connack",
    "lost",
    "sent_away",
    "unacknowledged",
    "busy",
    "other",
)
"""What `UpstreamError.kind` can be: the label of a metric, so there are no others."""
_CERTIFICATE_ALERTS: Final = (
    "certificate",
    "unknown ca",
    "access denied",
    "decrypt error",
    "handshake failure",
)
"""What OpenSSL calls the alerts with which the other end refuses a certificate, or the lack of one, in lower case."""

_REFUSAL_HINTS: Final = {
    const.UNSUPPORTED_PROTOCOL_VERSION: 'set version = "auto", or the one that the upstream speaks',
    const.CLIENT_IDENTIFIER_NOT_VALID: "set a client_id that the upstream allows",
    const.BAD_USER_NAME_OR_PASSWORD: "check username and what is in password_file",
    const.NOT_AUTHORIZED: "the upstream has to allow this identity: check username, certificate and its access rules",
    const.BANNED: "the upstream has to lift the ban of this client_id or address",
    const.SERVER_UNAVAILABLE: "it is tried again; look at the upstream if that lasts",
    const.SERVER_BUSY: "it is tried again; look at the load of the upstream if that lasts",
    const.SERVER_SHUTTING_DOWN: "it is tried again; further urls would be tried in turn",
    const.USE_ANOTHER_SERVER: "put the other server into urls",
    const.SERVER_MOVED: "put the new server into urls",
    const.QUOTA_EXCEEDED: "it is tried again; raise the quota at the upstream if that lasts",
    const.CONNECTION_RATE_EXCEEDED: "it is tried again; raise backoff_initial_seconds if that lasts",
    const.SESSION_TAKEN_OVER: "another client uses the same client_id: give each gateway one of its own",
    const.KEEP_ALIVE_TIMEOUT: "the line was silent for too long: lower keep_alive_seconds",
    const.PACKET_TOO_LARGE: "a packet was larger than the other side takes: compare the limits on packets of both",
    const.BAD_AUTHENTICATION_METHOD: "the upstream wants an authentication that this bridge has not",
}


def identity_not_read(timeout_seconds: float) -> UpstreamUnavailable:
    """The files of our identity do not answer: a disk or a network file system that hangs."""
    return UpstreamUnavailable(
        f"certificate, key, ca or password_file cannot be read: no answer within {timeout_seconds:g} s",
        "look at the disk that they are on",
        "files",
    )


def agent_silent(socket_path: str, why: str) -> UpstreamUnavailable:
    """The Workload API has given us no identity yet."""
    if "PERMISSION_DENIED" in why:
        hint = "the agent knows no identity for this process: register it (SPIRE: `entry create`) with its user or unit"
    else:
        hint = "is the agent running, and may the broker's user open its socket? It is tried again"
    return UpstreamUnavailable(
        f"the Workload API at {socket_path} gives no identity: {printable(why)}", hint, "files"
    )


def no_bundle(trust_domain: str, where: str) -> UpstreamUnavailable:
    """Nothing that could vouch for the upstream."""
    return UpstreamUnavailable(
        f"there is no trust bundle for {trust_domain}, the upstream's trust domain, in {where}",
        "federate with it: the agent then gives its bundle too"
        if where == "what the agent gives"
        else "add it to trust_bundles",
        "files",
    )


def not_resolved(upstream: Upstream, error: OSError | None, timeout_seconds: float) -> UpstreamUnavailable:
    """The name has no address; `error` None where no answer came in time."""
    why = f"no answer within {timeout_seconds:g} s" if error is None else _reason_of(error)
    return UpstreamUnavailable(
        f"the name {upstream.host} cannot be resolved: {why}",
        "check its spelling in urls, and this machine's network and DNS",
        "resolve",
    )


def service_not_found(service: Service, why: str) -> UpstreamUnavailable:
    """DNS does not say where the upstreams are."""
    return UpstreamUnavailable(
        f"the SRV records of {service.name} cannot be had: {why}",
        "check its spelling, and this machine's network and DNS",
        "resolve",
    )


def service_elsewhere(service: Service, hosts: list[str]) -> UpstreamUnavailable:
    """All of its records lead out of its domain, where anybody could have a certificate."""
    return UpstreamUnavailable(
        f"the SRV records of {service.name} lead out of its domain: {printable(', '.join(hosts))}",
        "DNS may lie; where this is right, set server_name to a name in the certificates there",
        "resolve",
    )


def month_spent(month_bytes: int) -> UpstreamUnavailable:
    """Nobody is to blame but the configuration, or whoever published so much."""
    return UpstreamUnavailable(
        f"the month's {month_bytes} bytes are spent, and what is to go up waits for the next month",
        "raise monthly_bytes, or see when_month_is_spent",
    )


def drill(upstream: Upstream) -> UpstreamUnavailable:
    """Not a failure of anything: the configuration asks for it."""
    return UpstreamUnavailable(
        f"{upstream} is not tried: a drill (fault_abort_percent)", "take fault_abort_percent out to end it"
    )


def unreachable(upstream: Upstream, error: OSError | None, timeout_seconds: float) -> UpstreamUnavailable:
    """No TCP connection; `error` None where no answer came in time."""
    if error is None:
        return UpstreamUnavailable(
            f"{upstream} does not answer within {timeout_seconds:g} s",
            "check the address, and what lies between: a firewall that drops packets looks like this",
            "connect",
        )
    if upstream.path:
        hint = _socket_hint(error)
    elif error.errno == errno.ECONNREFUSED:
        hint = "is the upstream, or the sidecar, running, and is the port right?"
    else:
        hint = "check this machine's network and the way to the upstream"
    return UpstreamUnavailable(f"{upstream} cannot be reached: {_reason_of(error)}", hint, "connect")


def _socket_hint(error: OSError) -> str:
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return (
            "there is no such socket: is the sidecar running, and is the path in urls that of its listener?"
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return (
            "let the broker's user open the socket: its mode in the sidecar's configuration, and its folder's"
        )
    if error.errno == errno.ECONNREFUSED:
        return "the file is there and nobody listens on it: the sidecar has ended, or it is no socket"
    return "is the sidecar running?"


def tls_failed(upstream: Upstream, error: ssl.SSLError | None, detail: str = "") -> UpstreamUnavailable:
    """The TLS handshake did not succeed; without an `error`, `detail` says what happened instead."""
    if isinstance(error, ssl.SSLCertVerificationError):
        why = f"its certificate is not accepted: {error.verify_message}"
        hint = _verification_hint(error)
    elif error is None:
        why = detail
        hint = f"is there TLS at port {upstream.port}? A mesh or a proxy may refuse us this way too"
    elif refuses_certificate(_tls_reason(error)):
        return identity_refused(upstream, _tls_reason(error))
    else:
        why = _tls_reason(error)
        hint = f"is there TLS, 1.2 or newer, at port {upstream.port}? Without TLS the URL begins with mqtt://"
    return UpstreamUnavailable(f"TLS with {upstream} failed: {why}", hint, "tls")


def refuses_certificate(tls_reason: str) -> bool:
    """Whether what OpenSSL reports is the other end's refusal of our certificate."""
    return "alert" in tls_reason and any(alert in tls_reason for alert in _CERTIFICATE_ALERTS)


def identity_refused(upstream: Upstream, alert: str) -> UpstreamUnavailable:
    """They do not take us for whom our certificate says: `alert` is TLS's word for why."""
    return UpstreamUnavailable(
        f"{upstream} refused our identity: {printable(alert)}",
        "check certificate and key, and that the upstream or its mesh trusts the CA that signed them and lets this "
        "identity in",
        "identity",
    )


def upstream_identity_refused(upstream: Upstream, why: str) -> UpstreamUnavailable:
    """We do not take them for whom they say: nothing of MQTT was sent to them."""
    return UpstreamUnavailable(
        f"the identity of {upstream} is refused: {printable(why)}",
        "check upstream_identity and the trust bundles; if they are right, somebody else answers at this address",
        "identity",
    )


def _verification_hint(error: ssl.SSLCertVerificationError) -> str:
    message = error.verify_message.lower()
    if "hostname" in message or "ip address" in message:
        return "set server_name to a name in the certificate, or write that name in urls"
    if "expired" in message or "not yet valid" in message:
        return "renew it; if it is valid, this machine's clock is wrong"
    return "set ca to the certificate of the CA that signed it"


def closed_before_connack(upstream: Upstream, tls_version: str, detail: str) -> UpstreamUnavailable:
    """The transport stood and ended before the upstream answered CONNECT. `tls_version`: empty without TLS."""
    if tls_version and refuses_certificate(detail):
        return identity_refused(upstream, detail.removeprefix("TLS: "))
    problem = f"{upstream} closed the connection before it answered CONNECT"
    if detail:
        problem += f" ({printable(detail)})"
    if tls_version == "TLSv1.3":
        hint = (
            "identity refused? With TLS 1.3 the upstream may refuse a certificate only after our handshake succeeded: "
            "check certificate and key, and that the upstream or its mesh lets this identity in. If it was let in before: "
            "a cluster behind the mesh that has no quorum looks like this too"
        )
    elif tls_version:
        hint = "is it an MQTT broker, and does a mesh or a proxy before it let us through?"
    else:
        hint = "is it an MQTT broker without TLS? Behind a sidecar: can it reach the upstream?"
    return UpstreamUnavailable(problem, hint, "closed")


def not_answered(upstream: Upstream, timeout_seconds: float) -> UpstreamUnavailable:
    """CONNECT went out and nothing came back."""
    return UpstreamUnavailable(
        f"{upstream} does not answer CONNECT within {timeout_seconds:g} s",
        "is it an MQTT broker? A cluster without a quorum looks like this too",
        "connack",
    )


def refused(upstream: Upstream, reason_code: int, said: str) -> UpstreamRefused:
    """CONNACK with a refusal."""
    return UpstreamRefused(
        f"{upstream} refused us: {describe(reason_code, said)}",
        _REFUSAL_HINTS.get(reason_code, ""),
        "connack",
    )


def lost(upstream: Upstream, detail: str) -> UpstreamUnavailable:
    """A connection that was in use was cut, went silent or broke the protocol."""
    return UpstreamUnavailable(f"the connection to {upstream} was lost: {printable(detail)}", "", "lost")


def sent_away(upstream: Upstream, reason_code: int, said: str) -> UpstreamUnavailable:
    """The upstream ended a connection that was in use, with DISCONNECT."""
    return UpstreamUnavailable(
        f"{upstream} ended the connection: {describe(reason_code, said)}",
        _REFUSAL_HINTS.get(reason_code, ""),
        "sent_away",
    )


def not_acknowledged(upstream: Upstream, timeout_seconds: float) -> UpstreamUnavailable:
    """A message went out and no acknowledgement came."""
    return UpstreamUnavailable(
        f"{upstream} did not acknowledge a message within {timeout_seconds:g} s",
        "it is sent again on a new connection; look at the upstream's load and storage if that lasts",
        "unacknowledged",
    )


def cannot_take(upstream: Upstream, reason_code: int) -> UpstreamUnavailable:
    """The upstream answered a message with a refusal that may be over later."""
    return UpstreamUnavailable(
        f"{upstream} does not take a message now: {describe(reason_code, '')}",
        "it is kept and sent again; look at the upstream's limits if that lasts",
        "busy",
    )


def takes_no_acknowledged(upstream: Upstream) -> UpstreamRefused:
    """The upstream allows QoS 0 only."""
    return UpstreamRefused(
        f"{upstream} takes messages at QoS 0 only, so it would never acknowledge one",
        "set qos = 0 in each rule of out, which keeps nothing while the upstream is away, or let it take QoS 1",
        "connack",
    )


def strange_session(upstream: Upstream) -> UpstreamUnavailable:
    """The upstream remembers us, and we have nothing of what it remembers."""
    return UpstreamUnavailable(
        f"{upstream} has a session for this client_id, and this bridge's store is new: the session is wiped",
        "commands that waited in it are gone; if another gateway uses this client_id, give each one of its own",
    )


def session_wiped(upstream: Upstream) -> UpstreamUnavailable:
    """MQTT 3.1.1: that was the connection that wiped the session; the next one begins one that is kept."""
    return UpstreamUnavailable(
        f"{upstream} has wiped the old session: connecting once more, to begin a new one"
    )


def describe(reason_code: int, said: str) -> str:
    """A reason code in words, with what the other side added."""
    name = const.REASON_NAMES.get(reason_code, "unknown reason")
    return f"{name} (0x{reason_code:02x})" + (f": {printable(said)}" if said else "")


def printable(said: str) -> str:
    """What the other side said, fit for a log: short, and without control characters."""
    return "".join(c if c.isprintable() else "?" for c in said[:_LONGEST_SAID])


def _reason_of(error: OSError) -> str:
    """An OS error as the system words it, without the numbers that Python puts before it."""
    if isinstance(error, socket.gaierror) or error.errno is None:
        return error.strerror or str(error)
    return os.strerror(error.errno)


def _tls_reason(error: ssl.SSLError) -> str:
    return (error.reason or str(error)).replace("_", " ").lower()
