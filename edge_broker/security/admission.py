"""Who comes in, by listener: whoever it is where anonymous clients are allowed, else by certificate, password or token.

A certificate's name is the identity wherever there is one, whatever user name comes with it: what the TLS handshake proved
is not put in question by what a client says of itself. A password that can only be a JSON Web Token is taken as one, where
tokens are taken at all. On a listener for anonymous clients nobody's user name is looked
at. An authentication method that a client asks for is its own choice and is run on every listener. It hands out identities
and never looks at topics.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from edge_broker.core.ports import Admission, AuthenticationExchange, Authenticator, Credentials
from edge_broker.wire import const

ANONYMOUS: Final = "anonymous"


class ListenerAdmission:
    """An `Authenticator`. `anonymous`: listener name to whether clients may come in without proving anything.

    `passwords`: who decides about those that have one; None where there is no password file. `tokens`: likewise, and
    `is_token` says which passwords are meant for it.
    """

    def __init__(
        self,
        anonymous: Mapping[str, bool],
        passwords: Authenticator | None = None,
        tokens: Authenticator | None = None,
        is_token: Callable[[bytes | None], bool] = lambda _: False,
    ) -> None:
        self.passwords = passwords
        self.tokens = tokens
        self._is_token = is_token
        self._anonymous = anonymous

    def authenticate(self, credentials: Credentials, answer: Callable[[Admission], None]) -> None:
        """Answers at once, or later where a password has to be checked."""
        names = credentials.certificate_names
        if names:
            answer(Admission(const.SUCCESS, names[0], method="certificate"))
        elif self._anonymous.get(credentials.listener, False):
            answer(Admission(const.SUCCESS, ANONYMOUS, method="anonymous"))
        elif self.tokens is not None and self._is_token(credentials.password):
            self.tokens.authenticate(credentials, answer)
        elif self.passwords is not None and credentials.username is not None:
            self.passwords.authenticate(credentials, answer)
        elif self.passwords is not None:
            detail = "neither a client certificate nor a user name, and no anonymous access on this listener"
            answer(Admission(const.NOT_AUTHORIZED, detail=detail))
        elif self.tokens is not None:
            detail = "neither a client certificate nor a token, and no anonymous access on this listener"
            answer(Admission(const.NOT_AUTHORIZED, detail=detail))
        else:
            detail = "neither a client certificate nor anonymous access on this listener"
            answer(Admission(const.NOT_AUTHORIZED, detail=detail))

    def begin(self, credentials: Credentials, method: str) -> AuthenticationExchange | None:
        """What the password file offers, or the tokens."""
        for authenticator in (self.passwords, self.tokens):
            exchange = None if authenticator is None else authenticator.begin(credentials, method)
            if exchange is not None:
                return exchange
        return None
