"""`edge-broker pki`: a small CA: certificates for the broker and for each device, and taking them back."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import click

from edge_broker.errors import ConfigError
from edge_broker.security.pki import MQTTS_PORT, Pki
from edge_broker.security.pki_files import Issued, write_new

_SOON: Final = timedelta(days=30)
_ARCHIVES: Final = (".tar.gz", ".tgz", ".zip")
_EPILOG: Final = """\b
Examples:
  edge-broker pki init
  edge-broker pki issue-server gateway.local 192.168.1.20 --config edge-broker.toml
  edge-broker pki issue-device sensor-1
  edge-broker pki revoke sensor-1
  edge-broker pki status
"""


@click.group(epilog=_EPILOG)
@click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("pki"),
    show_default=True,
    help="The CA's folder. Whoever can read it can make devices: keep it and its backups safe.",
)
@click.pass_context
def pki(context: click.Context, folder: Path) -> None:
    """A small CA: certificates for the broker and for each device, and taking them back."""
    context.obj = Pki(folder)


def _days(default: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    return click.option(
        "--days",
        type=click.IntRange(1, 36_500),
        default=default,
        show_default=True,
        help="How long the certificate holds.",
    )


_renew: Final = click.option(
    "--renew", is_flag=True, help="Issue another certificate beside one that still holds."
)


@pki.command()
@click.option(
    "--trust-domain",
    default="edge-broker.local",
    show_default=True,
    help="Of the SPIFFE names that devices get: spiffe://TRUST-DOMAIN/device/NAME.",
)
@_days(3650)
@click.pass_obj
def init(pki: Pki, trust_domain: str, days: int) -> None:
    """Make the CA."""
    with _mistakes_told():
        pki.init(trust_domain, _now(), timedelta(days=days))
    click.echo(
        f"{pki.folder.ca} is the new CA's certificate; {pki.folder.ca_key} stays here and is backed up."
    )
    click.echo(
        "Next: edge-broker pki issue-server HOST, with each name and address that devices reach it by."
    )


@pki.command("issue-server")
@click.argument("hosts", metavar="HOST...", nargs=-1, required=True)
@click.option(
    "--config",
    "config",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Also write a configuration file that uses the certificate; one that is there is left alone.",
)
@_days(365)
@_renew
@click.pass_obj
def issue_server(pki: Pki, hosts: tuple[str, ...], config: Path | None, days: int, renew: bool) -> None:
    """A certificate for the broker that devices reach as HOST..., names and addresses.

    The first is also what devices issued later are told to connect to.
    """
    with _mistakes_told():
        if config is not None and config.exists() and not renew:
            raise ConfigError(str(config), "is there already", "leave --config out, or name another file")
        issued, folder = pki.issue_server(hosts, _now(), timedelta(days=days), renew)
        _tell(issued, folder)
        table = _listener_table(pki, folder)
        if config is None or config.exists():
            click.echo(f"In the broker's configuration:\n\n{table}")
            return
        write_new(
            config,
            f"# The broker, for devices with a certificate of {pki.folder.ca}\n\n{table}".encode(),
            0o644,
        )
    click.echo(f"{config} uses it: edge-broker run --config {config}")


@pki.command("issue-device")
@click.argument("name")
@click.option(
    "--host", help="Where the device finds the broker; else the HOST that a server was issued for last."
)
@click.option("--port", type=click.IntRange(1, 65_535), default=MQTTS_PORT, show_default=True)
@click.option(
    "--archive",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Also pack all that the device needs into one file: .tar.gz or .zip.",
)
@_days(365)
@_renew
@click.pass_obj
def issue_device(
    pki: Pki, name: str, host: str | None, port: int, archive: Path | None, days: int, renew: bool
) -> None:
    """A certificate for the device NAME, and all that it needs in one folder."""
    with _mistakes_told():
        if archive is not None and not archive.name.endswith(_ARCHIVES):
            raise ConfigError("--archive", f"{archive} ends in neither .tar.gz nor .zip")
        if archive is not None and archive.exists():
            raise ConfigError("--archive", f"{archive} is there already", "name another file")
        issued, folder = pki.issue_device(
            name, _now(), timedelta(days=days), host=host, port=port, renew=renew
        )
        _tell(issued, folder)
        if archive is not None:
            write_new(archive, _packed(folder, archive.name), 0o600)
            click.echo(
                f"{archive} has it in one file, key included: hand it over on a safe way, then delete it."
            )


@pki.command()
@click.argument("name")
@click.pass_obj
def revoke(pki: Pki, name: str) -> None:
    """Take back every certificate of NAME.

    A broker with crl_files = ["…/crl.pem"] reads the new list within seconds and ends the connection of NAME.
    """
    with _mistakes_told():
        revoked = pki.revoke(name, _now())
    if revoked:
        click.echo(f"{name} is revoked: {', '.join(issued.serial for issued in revoked)}")
    else:
        click.echo(f"{name} had nothing that was still good")
    click.echo(f"{pki.folder.crl} is written anew; copy it to the broker if that reads another one")


@pki.command()
@click.pass_obj
def status(pki: Pki) -> None:
    """What was issued, when it expires, what is revoked."""
    now = _now()
    with _mistakes_told():
        book, expires_at, is_crl_whole = pki.status()
    click.echo(f"CA of {book.trust_domain} in {pki.folder.path}, {_until(expires_at, now)}")
    if not is_crl_whole:
        click.echo(
            f"WARNING: {pki.folder.crl} does not have all that is revoked: run edge-broker pki revoke NAME again"
        )
    rows = [("kind", "name", "state", "serial")]
    rows += [(found.kind, found.name, _state(found, now), found.serial) for found in book.certificates]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row[:3], widths, strict=True)]
        click.echo("  ".join([*cells, row[3]]))


def _state(issued: Issued, now: datetime) -> str:
    if issued.revoked_at is not None:
        return f"REVOKED on {issued.revoked_at:%Y-%m-%d}"
    return _until(issued.expires_at, now)


def _until(moment: datetime, now: datetime) -> str:
    if moment <= now:
        return f"EXPIRED on {moment:%Y-%m-%d}"
    days = (moment - now).days
    return f"expires on {moment:%Y-%m-%d}" + (f", in {days} days" if moment - now < _SOON else "")


def _tell(issued: Issued, folder: Path) -> None:
    click.echo(
        f"{folder} has the certificate and the key of {issued.name}, good until {issued.expires_at:%Y-%m-%d}"
    )


def _listener_table(pki: Pki, server: Path) -> str:
    folder = pki.folder
    return f"""[[listeners]]
transport = "tls"
bind = "*:{MQTTS_PORT}"
certificate = "{(server / "certificate.pem").absolute()}"
key = "{(server / "key.pem").absolute()}"
client_ca = "{folder.ca.absolute()}"
crl_files = ["{folder.crl.absolute()}"]
"""


def _packed(folder: Path, name: str) -> bytes:
    """The folder's files in one, for their owner only when they are unpacked."""
    buffer = io.BytesIO()
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    if name.endswith(".zip"):
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
            for path in files:
                entry = zipfile.ZipInfo(f"{folder.name}/{path.name}")
                entry.external_attr = 0o100600 << 16
                packed.writestr(entry, path.read_bytes())
        return buffer.getvalue()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for path in files:
            item = tarfile.TarInfo(f"{folder.name}/{path.name}")
            item.size, item.mode = path.stat().st_size, 0o600
            tar.addfile(item, io.BytesIO(path.read_bytes()))
    return buffer.getvalue()


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


@contextmanager
def _mistakes_told() -> Iterator[None]:
    try:
        yield
    except ConfigError as error:
        raise click.ClickException(str(error)) from None
    except OSError as error:
        raise click.ClickException(f"{error.filename}: {error.strerror}") from None
