"""Who comes in, by listener: whoever it is where anonymous clients are allowed, else by client certificate.

A certificate's name is the identity wherever there is one. It hands out identities and never looks at topics.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from edge_broker.core.ports import Admission, AuthenticationExchange, Credentials
from edge_broker.wire import const

ANONYMOUS: Final = "anonymous"


class ListenerAdmission:
    """An `Authenticator`. `anonymous`: listener name to whether clients may come in without proving anything."""

    def __init__(self, anonymous: Mapping[str, bool]) -> None:
        self._anonymous = anonymous

    def authenticate(self, credentials: Credentials, answer: Callable[[Admission], None]) -> None:
        """Answers at once."""
        names = credentials.certificate_names
        if names:
            answer(Admission(const.SUCCESS, names[0]))
        elif self._anonymous.get(credentials.listener, False):
            answer(Admission(const.SUCCESS, ANONYMOUS))
        else:
            detail = "neither a client certificate nor anonymous access on this listener"
            answer(Admission(const.NOT_AUTHORIZED, detail=detail))

    def begin(self, credentials: Credentials, method: str) -> AuthenticationExchange | None:
        """No authentication method is offered yet."""
        return None
