"""Where the upstream may be reached, and how a URL says so: a host, a Unix socket, a service that DNS knows. Pure."""

from __future__ import annotations

from typing import Final, NamedTuple
from urllib.parse import urlsplit

from edge_broker.config.bind import Bind
from edge_broker.errors import ConfigError

_DEFAULT_PORTS: Final = {"mqtt": 1883, "mqtts": 8883}
_OTHER_SCHEMES: Final = {
    "tcp": "mqtt",
    "ssl": "mqtts",
    "tls": "mqtts",
    "http": "mqtt",
    "https": "mqtts",
    "unix": "mqtt+unix",
}
_UNIX: Final = "mqtt+unix"
_LONGEST_SOCKET_PATH_BYTES: Final = 107  # what the kernel takes
_SERVICE: Final = "+srv"
URL_HINT: Final = '"mqtts://broker.example.com:8883", or "mqtt://127.0.0.1:1883" where a sidecar encrypts'


class Upstream(NamedTuple):
    """One place where the upstream may be reached."""

    host: str
    port: int
    tls: bool
    path: str = ""
    """Of a Unix socket; host and port are empty then."""

    def __str__(self) -> str:
        if self.path:
            return f"{_UNIX}://{self.path}"
        return f"{'mqtts' if self.tls else 'mqtt'}://{Bind(self.host, self.port)}"


class Service(NamedTuple):
    """Upstreams that DNS names: SRV records at `name`, such as ``_mqtt._tcp.example.com``."""

    name: str
    tls: bool

    def __str__(self) -> str:
        return f"{'mqtts' if self.tls else 'mqtt'}{_SERVICE}://{self.name}"

    @property
    def domain(self) -> str:
        """What stands behind the service's own labels, those that begin with `_`."""
        labels = self.name.rstrip(".").split(".")
        return ".".join(label for label in labels if not label.startswith("_"))


class Place(NamedTuple):
    """An upstream, or a service that names some, and how it ranks. The faults are for drills."""

    where: Upstream | Service
    priority: int = 0
    weight: int = 0
    fault_delay_seconds: float = 0.0
    fault_abort_share: float = 0.0


def parse_place(url: str) -> Upstream | Service:
    """`mqtts+srv://_mqtt._tcp.DOMAIN`, or what `parse_upstream` takes; `ConfigError` without a key says what is wrong."""
    scheme, _, rest = url.partition("://")
    if not scheme.endswith(_SERVICE):
        return parse_upstream(url)
    upstream = parse_upstream(f"{scheme.removesuffix(_SERVICE)}://{rest}")
    if ":" in rest:
        raise ConfigError("", "has a port, and SRV records bring theirs", "leave the port out")
    service = Service(upstream.host, upstream.tls)
    if not upstream.host.startswith("_") or not service.domain:
        raise ConfigError("", "is no name of an SRV record", '"mqtts+srv://_mqtt._tcp.example.com"')
    return service


def parse_upstream(url: str) -> Upstream:
    """Take `mqtt://HOST[:PORT]`, `mqtts://HOST[:PORT]` or `mqtt+unix:///PATH` apart.

    `ConfigError` without a key says what is wrong.
    """
    if url.startswith(f"{_UNIX}:"):
        return _parse_socket(url)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ConfigError("", f"is no URL: {error}", URL_HINT) from None
    if parts.username is not None or parts.password is not None:
        raise ConfigError("", "has a name or a password in it", "use username and password_file")
    if parts.scheme in ("ws", "wss"):
        raise ConfigError("", f"{parts.scheme} is not available yet", URL_HINT)
    if parts.scheme not in _DEFAULT_PORTS:
        meant = _OTHER_SCHEMES.get(parts.scheme)
        hint = f"write {meant}://{parts.netloc or parts.path}" if meant else URL_HINT
        raise ConfigError("", "must begin with mqtt://, mqtts:// or mqtt+unix://", hint)
    if not parts.hostname:
        raise ConfigError("", "has no host", URL_HINT)
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise ConfigError("", "has something after its port", URL_HINT)
    if port == 0:
        raise ConfigError("", "has port 0", "a whole number from 1 to 65535")
    return Upstream(parts.hostname, port or _DEFAULT_PORTS[parts.scheme], parts.scheme == "mqtts")


def _parse_socket(url: str) -> Upstream:
    path = url.removeprefix(f"{_UNIX}:").removeprefix("//")
    if not path.startswith("/") or path.endswith("/"):
        raise ConfigError(
            "", "has no path from the root on", "mqtt+unix:///run/envoy/upstream.sock, with three slashes"
        )
    if len(path.encode()) > _LONGEST_SOCKET_PATH_BYTES or "\0" in path:
        raise ConfigError(
            "",
            f"has a path of more than {_LONGEST_SOCKET_PATH_BYTES} bytes",
            "no Unix socket can have it: use a shorter one",
        )
    return Upstream("", 0, False, path)
