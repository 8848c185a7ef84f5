"""SCRAM-SHA-256 as an authentication method of MQTT 5: the exchange's messages in AUTH packets, its end as an admission.

The client's first message comes in CONNECT's authentication data or, where that has none, in the first AUTH. Success says
the server's final message, so that the client knows that it is the right server. A password that was changed while the
exchange was under way is a wrong one. Wrong proofs count as guesses, and who guessed too often is not heard further.
"""

from __future__ import annotations

from collections.abc import Callable

from edge_broker.core.ports import Admission, AuthenticationExchange, Challenge, Credentials
from edge_broker.security.guessing import Guessing
from edge_broker.security.passwords import Passwords
from edge_broker.security.scram import Decoys, ScramError, ScramExchange, ScramVerifier
from edge_broker.wire import const

_WRONG_PROOF = "invalid-proof"


class ScramAdmission(AuthenticationExchange):
    """One client's attempt. `passwords` gives the password file of now; `clock` monotonic seconds.

    A client certificate's name stays the identity: the proof comes on top of it.
    """

    __slots__ = ("_clock", "_credentials", "_exchange", "_guessing", "_passwords", "_started", "_verifier")

    def __init__(
        self,
        credentials: Credentials,
        passwords: Callable[[], Passwords],
        guessing: Guessing,
        clock: Callable[[], float],
        nonce: Callable[[], str],
        decoys: Decoys,
    ) -> None:
        self._credentials = credentials
        self._passwords = passwords
        self._guessing = guessing
        self._clock = clock
        self._exchange = ScramExchange(self._look_up, nonce, decoys)
        self._verifier: ScramVerifier | None = None
        self._started = False

    def _look_up(self, name: str) -> ScramVerifier | None:
        self._verifier = self._passwords().scram(name)
        return self._verifier

    def step(self, data: bytes) -> Challenge | Admission:
        """Take the client's next message; an empty one before the first asks for it."""
        if not self._started and not data:
            self._started = True
            return Challenge(b"")
        self._started = True
        try:
            return self._start(data) if not self._exchange.claimed_name else self._finish(data)
        except ScramError as error:
            if error.reason == _WRONG_PROOF:
                self._guessing.fail(
                    self._credentials.address, self._exchange.claimed_name, None, self._clock()
                )
            return Admission(const.NOT_AUTHORIZED, detail=str(error))

    def _start(self, client_first: bytes) -> Challenge | Admission:
        challenge = Challenge(self._exchange.start(client_first))
        return self._banned() or challenge

    def _finish(self, client_final: bytes) -> Admission:
        banned = self._banned()
        if banned is not None:
            return banned
        server_final = self._exchange.finish(client_final)
        name = self._exchange.username
        if self._passwords().scram(name) != self._verifier:
            return Admission(const.NOT_AUTHORIZED, detail="its password was changed meanwhile")
        names = self._credentials.certificate_names
        return Admission(const.SUCCESS, names[0] if names else name, data=server_final, method="scram")

    def _banned(self) -> Admission | None:
        """0x87: this may be an authentication anew, whose DISCONNECT has no code for banned [3.14.2.1]."""
        name = self._exchange.claimed_name
        if not self._guessing.refuses(self._credentials.address, name, self._clock()):
            return None
        return Admission(const.NOT_AUTHORIZED, detail="too many wrong passwords before this one")
