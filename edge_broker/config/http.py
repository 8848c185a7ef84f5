"""`[http]`: where health and metrics are, and who may look."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from msgspec import Meta

from edge_broker.config.bind import Bind, parse_bind
from edge_broker.config.section import Section


class HttpConfig(Section, frozen=True):
    """Health and metrics over HTTP."""

    bind: Annotated[
        str,
        Meta(
            description="Address and port, such as `127.0.0.1:8080`; empty is off. Off loopback it needs `certificate`, "
            "`key` and `token_file`."
        ),
    ] = ""
    certificate: Annotated[
        Path | None,
        Meta(
            description="The server's certificate, with its chain, PEM: then it is HTTPS. Read anew when it changes."
        ),
    ] = None
    key: Annotated[
        Path | None,
        Meta(description="The certificate's private key, PEM, without a passphrase."),
    ] = None
    token_file: Annotated[
        Path | None,
        Meta(
            description="Hashed tokens, made by `edge-broker http-token`: whoever looks needs one of them, on loopback "
            "too. Read anew when it changes.",
        ),
    ] = None
    open_health: Annotated[
        bool,
        Meta(
            description="Answer `/livez`, `/readyz` and, in brief, `/healthz` without a token: for probes that cannot send "
            "one.",
        ),
    ] = False

    @property
    def address(self) -> Bind | None:
        """`bind` taken apart; None where HTTP is off."""
        return parse_bind(self.bind) if self.bind else None

    @property
    def missing_off_loopback(self) -> list[str]:
        """The keys without which it may not listen where it shall; empty on loopback and where it is off."""
        if self.address is None or self.address.is_loopback:
            return []
        missing = [] if self.certificate is not None and self.key is not None else ["certificate", "key"]
        return missing if self.token_file is not None or self.open_health else [*missing, "token_file"]
