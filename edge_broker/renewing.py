"""What the running broker takes anew without a restart: certificates, revocation lists, the deny list, passwords, keys.

One line for each says which files belong together and who takes them (`Watching.add`). Whoever is connected and would
not be let in by the new files any more is ended; all others stay. It also keeps book of when certificates expire.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edge_broker.config.http import HttpConfig
from edge_broker.config.listeners import ListenerConfig
from edge_broker.config.model import Config
from edge_broker.core.ports import Authenticator
from edge_broker.core.router import Router
from edge_broker.net.listeners import Listener
from edge_broker.ops.expiring import Expiring
from edge_broker.ops.watching import Watching
from edge_broker.security.denied import Denied, DenyingAdmission, DenyList, end_denied, read_denied
from edge_broker.security.der import first_expiry
from edge_broker.security.revoking import end_connections, end_unproved

if TYPE_CHECKING:
    from edge_broker.ops.http import HttpServer
    from edge_broker.security.password_admission import PasswordAdmission
    from edge_broker.security.token_admission import TokenAdmission

log: Final = logging.getLogger("edge_broker.broker")

_Files = tuple[str, str, tuple[Path, ...]]


class Renewing:
    """The files of one running broker, as the configuration of its start names them.

    `prepare`, then `watch_listener` for each listener before it reads its files, then `start`.
    """

    def __init__(
        self,
        config: Config,
        request_tick: Callable[[], None],
        on_taken: Callable[[str, str], None] = lambda what, refusal: None,
    ) -> None:
        self._config = config
        self._request_tick = request_tick
        self.watching = Watching(on_taken=on_taken)
        self.expiring = Expiring(first_expiry)
        self.deny_list = DenyList(Denied())
        self._listeners: list[Listener] = []
        self._router: Router
        self._passwords: PasswordAdmission | None = None
        self._tokens: TokenAdmission | None = None
        self._http: HttpServer | None = None

    def prepare(self) -> None:
        """Before anything is read for the first time, so that no change is missed. `ConfigError` for a wrong deny list."""
        security = self._config.security
        self.watching.add("passwords", [security.password_file], self._reload_passwords)
        self.watching.add("deny list", [security.deny_file], self._reload_deny_list)
        self.watching.add("keys of tokens", security.jwt_keys, self._reload_token_keys)
        self._prepare_http(self._config.http)
        if security.deny_file is not None:
            self.deny_list.replace(read_denied(security.deny_file))
        # A bridge reads them at each connect; here they are only looked at.
        for bridge in (line for each in self._config.bridges for line in each.lines):
            bundles = tuple((bridge.trust_bundles or {}).values())
            for kind, owner, paths in _expiring(
                f"bridge {bridge.name}", bridge.certificate, bridge.ca, bundles=bundles
            ):
                self.expiring.put(kind, owner, paths)
                self.watching.add(f"{kind} of {owner}", paths, partial(self.expiring.put, kind, owner, paths))

    def _prepare_http(self, http: HttpConfig) -> None:
        self.watching.add("tokens of http", [http.token_file], self._reload_http_tokens)
        self.watching.add("certificate of http", [http.certificate, http.key], self._reload_http_certificate)
        for kind, owner, paths in _expiring("http", http.certificate, None):
            self.expiring.put(kind, owner, paths)

    def watch_listener(self, config: ListenerConfig, listener: Listener) -> None:
        """Its certificate and key, CA and revocation lists are one: they are taken together or not at all."""
        self._listeners.append(listener)
        paths = [config.certificate, config.key, config.client_ca, *config.crl_files]
        self.watching.add(
            f"certificates of {config.url}", paths, partial(self._reload_certificates, config, listener)
        )
        self._note_expiry(config)

    def denying(self, admission: Authenticator) -> Authenticator:
        """`admission`, with the deny list behind it where there is one."""
        return (
            admission
            if self._config.security.deny_file is None
            else DenyingAdmission(admission, self.deny_list)
        )

    def start(
        self,
        router: Router,
        passwords: PasswordAdmission | None,
        tokens: TokenAdmission | None,
        http: HttpServer | None,
    ) -> None:
        """Look for changes from now on."""
        self._router = router
        self._passwords = passwords
        self._tokens = tokens
        self._http = http
        self.watching.start()

    async def _reload_certificates(self, config: ListenerConfig, listener: Listener) -> None:
        ended = await listener.load_certificates()
        self._note_expiry(config)
        self._request_tick()
        log.info("%s: certificates taken anew; %d connections of refused ones ended", listener.url, ended)

    def _note_expiry(self, config: ListenerConfig) -> None:
        for kind, owner, paths in _expiring(
            config.url, config.certificate, config.client_ca, config.crl_files
        ):
            self.expiring.put(kind, owner, paths)

    async def _reload_deny_list(self) -> None:
        file = self._config.security.deny_file
        assert file is not None
        denied = await asyncio.to_thread(read_denied, file)
        self.deny_list.replace(denied)
        ended = end_denied(self._router, denied) + sum(listener.judge_again() for listener in self._listeners)
        self._request_tick()
        counts = len(denied.identities), len(denied.serials), ended
        log.info("%d identities and %d certificates are denied; %d connections of theirs ended", *counts)

    async def _reload_passwords(self) -> None:
        file = self._config.security.password_file
        assert file is not None
        assert self._passwords is not None
        from edge_broker.security.passwords import read_passwords

        passwords = await asyncio.to_thread(read_passwords, file)
        ended = end_connections(self._router, self._passwords.replace(passwords))
        self._request_tick()
        log.info(
            "%d names have a password; %d connections of changed ones ended", len(passwords.users), ended
        )

    async def _reload_token_keys(self) -> None:
        assert self._tokens is not None
        from edge_broker.security.token_keys import read_token_keys

        keys = await asyncio.to_thread(read_token_keys, self._config.security.jwt_keys)
        ended = end_unproved(self._router, self._tokens.replace(keys))
        self._request_tick()
        log.info("%d keys verify tokens; %d connections of keys that are gone ended", len(keys.keys), ended)

    async def _reload_http_tokens(self) -> None:
        file = self._config.http.token_file
        assert file is not None
        if self._http is None:
            return
        from edge_broker.security.http_tokens import read_http_tokens

        tokens = await asyncio.to_thread(read_http_tokens, file)
        self._http.access.tokens = tokens
        log.info("%d tokens of HTTP", len(tokens.tokens))

    async def _reload_http_certificate(self) -> None:
        if self._http is None:
            return
        await self._http.load_certificate()
        for kind, owner, paths in _expiring("http", self._config.http.certificate, None):
            self.expiring.put(kind, owner, paths)
        log.info("%s: certificate taken anew", self._http.url)


def _expiring(
    owner: str,
    certificate: Path | None,
    ca: Path | None,
    crls: tuple[Path, ...] = (),
    bundles: tuple[Path, ...] = (),
) -> Iterator[_Files]:
    """Kind, owner and files of what expires."""
    for kind, paths in (("certificate", (certificate,)), ("ca", (ca, *bundles)), ("crl", crls)):
        files = tuple(path for path in paths if path is not None)
        if files:
            yield kind, owner, files
