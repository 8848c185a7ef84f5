"""Every error that this project raises on purpose, and what each one means to whoever catches it.

    EdgeBrokerError
    ├── MqttError(reason_code, detail)      the peer broke the protocol or a limit: its connection ends, nobody else's
    │   ├── MalformedPacket                 the bytes are not a packet (0x81)
    │   ├── ProtocolError                   a packet that may not come here or now (0x82)
    │   └── PacketTooLarge                  more bytes than we accept (0x95)
    ├── MessageRefused(reason_code, detail) one message is not taken, and its sender told so; its connection goes on
    │   ├── NotPermitted(kind, detail)      for good: its sender may not publish that (0x87)
    │   └── QueueFull                       for now: a recipient's queue has no room
    ├── ConfigError(key, problem, hint)     the user's file says something that cannot be
    ├── StoreError(operation, problem)      the disk did not keep what it was given: nothing may be acknowledged
    ├── CommandError(problem, hint)         what somebody asked of the running broker cannot be done
    └── UpstreamError(problem, hint)        the bridge's far end
        ├── UpstreamUnavailable             cannot be reached or does not answer: back off and try again
        └── UpstreamRefused                 it answered no: trying the same again will not help

Raised in ``wire`` and ``core``, turned into a packet or a log line at one boundary each; nothing here knows about logging.
"""

from __future__ import annotations

from typing import Final

_MALFORMED_PACKET: Final = 0x81
_PROTOCOL_ERROR: Final = 0x82
_PACKET_TOO_LARGE: Final = 0x95
_NOT_AUTHORIZED: Final = 0x87


class EdgeBrokerError(Exception):
    """The root: catching it catches everything that this project raises on purpose."""


class MqttError(EdgeBrokerError):
    """The peer is at fault. `reason_code` is MQTT 5's [section 2.4]; `detail` is for the log, never for another client."""

    def __init__(self, reason_code: int, detail: str) -> None:
        super().__init__(f"{detail} (reason code 0x{reason_code:02x})")
        self.reason_code = reason_code
        self.detail = detail


class MalformedPacket(MqttError):
    """Bytes that do not parse as the packet they claim to be."""

    def __init__(self, detail: str) -> None:
        super().__init__(_MALFORMED_PACKET, detail)


class ProtocolError(MqttError):
    """A well-formed packet that the protocol forbids here."""

    def __init__(self, detail: str) -> None:
        super().__init__(_PROTOCOL_ERROR, detail)


class PacketTooLarge(MqttError):
    """A packet longer than the receiver's maximum packet size, in bytes."""

    def __init__(self, size_bytes: int, maximum_bytes: int) -> None:
        super().__init__(_PACKET_TOO_LARGE, f"a packet of {size_bytes} bytes, {maximum_bytes} are allowed")


class MessageRefused(EdgeBrokerError):
    """One PUBLISH is not taken. `reason_code` is for its PUBACK or PUBREC, where the sender's version has one."""

    def __init__(self, reason_code: int, detail: str) -> None:
        super().__init__(f"{detail} (reason code 0x{reason_code:02x})")
        self.reason_code = reason_code
        self.detail = detail


class NotPermitted(MessageRefused):
    """Its sender may not publish it. `kind`: what about it is not allowed, for the counters."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(_NOT_AUTHORIZED, detail)
        self.kind = kind


class QueueFull(MessageRefused):
    """It is refused because a recipient's queue is full and rejects more: later it may be taken."""


class ConfigError(EdgeBrokerError):
    """One mistake in the configuration: where it is, what is wrong, what to write instead."""

    def __init__(self, key: str, problem: str, hint: str = "") -> None:
        super().__init__(f"{key}: {problem}" + (f" ({hint})" if hint else ""))
        self.key = key
        self.problem = problem
        self.hint = hint


class StoreError(EdgeBrokerError):
    """The store failed at `operation`; whatever depended on it has not happened."""

    def __init__(self, operation: str, problem: str, hint: str = "") -> None:
        super().__init__(f"{operation}: {problem}" + (f" ({hint})" if hint else ""))
        self.operation = operation
        self.problem = problem
        self.hint = hint


class CommandError(EdgeBrokerError):
    """A command on the control socket that cannot be done, in the words that its client shows."""

    def __init__(self, problem: str, hint: str = "") -> None:
        super().__init__(f"{problem}" + (f" ({hint})" if hint else ""))
        self.problem = problem
        self.hint = hint


class UpstreamError(EdgeBrokerError):
    """The bridge's far end, in the words that status and log show."""

    def __init__(self, problem: str, hint: str = "") -> None:
        super().__init__(f"{problem}" + (f" ({hint})" if hint else ""))
        self.problem = problem
        self.hint = hint


class UpstreamUnavailable(UpstreamError):
    """Not reachable or not answering: worth another try later."""


class UpstreamRefused(UpstreamError):
    """It answered, and the answer was no."""
