"""`tfkt-node check`: try everything that the settings name, here and now."""

from __future__ import annotations

import errno
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING

import typer

from tfkt_node.cli.options import Json, load_settings, refuse_absent_database, settings_file
from tfkt_node.cli.output import print_json, printable
from tfkt_node.records import NodeError, Permanent

if TYPE_CHECKING:
    from tfkt_node.settings import Peer, Settings


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the check.

    cure: what to do, '' when all is well. names: what was counted; too many for a line, --json has
    them.
    """

    check: str
    ok: bool
    said: str
    cure: str = ""
    names: tuple[str, ...] = ()


def check(context: typer.Context, as_json: Json = False) -> None:
    """Check that everything works here, one line each.

    Settings, spool, database, bundle, decoders, port and destinations are tried. Nothing is
    changed and nothing is sent. Exit code 1 when a check failed.
    """
    settings = load_settings(context)
    file = settings_file(context)
    said = str(file) if file else "no file: defaults and environment"
    findings = [Finding("settings", True, said)]
    if not as_json:
        _print(findings[0])
    for finding in run_checks(settings):
        findings.append(finding)
        if not as_json:
            _print(finding)
    if as_json:
        failed = [finding for finding in findings if not finding.ok]
        print_json({"ok": not failed, "checks": [asdict(finding) for finding in findings]})
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


def _print(finding: Finding) -> None:
    verdict = "ok    " if finding.ok else "FAILED"
    cure = f" – {finding.cure}" if finding.cure else ""
    typer.echo(printable(f"{verdict}  {finding.check:<12} {finding.said}{cure}"))


def run_checks(settings: Settings) -> Iterator[Finding]:
    """Yield a finding for each thing the settings name, as soon as it is known."""
    yield _guarded("spool", lambda: check_spool(settings))
    yield _guarded("database", lambda: check_database(settings), "see storage.database")
    yield _guarded("bundle", lambda: check_bundle(settings))
    yield from check_transfer_syntaxes()
    yield _guarded("port", lambda: check_port(settings))
    for peer in settings.destinations:
        yield _guarded(peer.name, partial(check_destination, settings, peer), _PEER_CURE)
    if not settings.destinations:
        yield Finding("destinations", True, "none: reports stay in the spool")


def _guarded(name: str, look: Callable[[], Finding], cure: str = "") -> Finding:
    """Turn an error of the node into a finding. cure: where the error names none."""
    try:
        return look()
    except Permanent as error:
        return Finding(name, False, str(error), error.cure)
    except NodeError as error:
        return Finding(name, False, str(error), cure)


def check_spool(settings: Settings) -> Finding:
    """Look whether the spool can be written, is a local disk and has room above the reserve."""
    from tfkt_node.audit.database import NETWORK_FILE_SYSTEMS, file_system_of

    spool = settings.storage.spool.absolute()
    place = next(folder for folder in (spool, *spool.parents) if folder.exists())
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        return Finding(
            "spool", False, f"{place} is no folder that this user may write",
            "give the node's user the folder, or set storage.spool",
        )  # fmt: skip
    kind = file_system_of(place)
    if any(name in kind for name in NETWORK_FILE_SYSTEMS):
        return Finding(
            "spool", False, f"{spool} lies on a network file system ({kind})",
            "set storage.spool to a local disk: a network may lose what was answered as stored",
        )  # fmt: skip
    free_mb = shutil.disk_usage(place).free // 2**20
    reserve_mb = settings.reception.disk_reserve_mb
    said = f"{spool}, {free_mb} MB free, {reserve_mb} MB of it in reserve"
    if free_mb <= reserve_mb:
        return Finding("spool", False, said, "make room, or lower reception.disk_reserve_mb")
    return Finding("spool", True, said if place == spool else f"{said}; it will be made")


def check_database(settings: Settings) -> Finding:
    """Ask the audit database for its schema, and whether it can be written."""
    from tfkt_node.audit.store import Store

    refuse_absent_database(settings)
    store = Store(settings.storage.database_url)
    try:
        store.check_schema()
        store.check_writable()
    finally:
        store.close()
    kind = settings.storage.database_url.partition(":")[0].partition("+")[0]
    return Finding("database", True, f"{kind}, schema is the newest")


def check_bundle(settings: Settings) -> Finding:
    """Hash the bundle's files and let the engine score its golden slices."""
    from tfkt_node.iqa.bundle import load
    from tfkt_node.iqa.engine import open_engine

    scoring = settings.scoring
    bundle = load(scoring.bundle)
    engine = open_engine(bundle, scoring.engine, scoring.device, scoring.streams)
    said = f"{bundle.name} {bundle.version}, {engine.name} {engine.precision}, golden slices agree"
    return Finding("bundle", True, said)


def check_transfer_syntaxes() -> Iterator[Finding]:
    """Count the transfer syntaxes that are decoded, and those that are accepted and only kept."""
    from tfkt_node.reception.negotiation import transfer_syntaxes
    from tfkt_node.slices.decoding import decodable_syntaxes
    from tfkt_node.slices.pixels import name_of

    decoded = decodable_syntaxes()
    kept = [syntax for syntax in transfer_syntaxes(decoded) if syntax not in decoded]
    for check, syntaxes, reason in (
        ("decoded", decoded, ""),
        ("kept only", kept, ", whose reason is UNDECODABLE"),
    ):
        said = f"{len(syntaxes)} transfer syntaxes{reason}; --json names them"
        yield Finding(check, True, said, names=tuple(map(name_of, syntaxes)))


def check_port(settings: Settings) -> Finding:
    """Try to listen on the port; where it is taken, ask whether it is by the node itself."""
    from tfkt_node.delivery import store_scu
    from tfkt_node.settings import Peer, is_loopback

    host, port = settings.reception.host, settings.reception.port
    said = f"{host}:{port}"
    try:
        _bind(host, port)
    except PermissionError:
        cure = "use a port from 1024 on, or give the node CAP_NET_BIND_SERVICE"
        return Finding("port", False, f"{said} needs a privilege", cure)
    except socket.gaierror:
        return Finding("port", False, f"{host} is no address of this machine", _HOST_CURE)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            return Finding("port", False, f"{said}: {error.strerror}", _HOST_CURE)
        itself = Peer(
            name="itself", ae_title=settings.reception.ae_title, port=port,
            host=host if is_loopback(host) else "127.0.0.1",
        )  # fmt: skip
        try:
            store_scu.echo(itself, settings.delivery)
        except NodeError:
            cure = "stop what listens there, or set reception.port"
            return Finding("port", False, f"{said} is taken by another program", cure)
        return Finding("port", True, f"{said}, a node answers there already")
    return Finding("port", True, f"{said} is free")


_PEER_CURE = "start it, or correct its host, port and ae_title under [[peers]]"
_HOST_CURE = "set reception.host to an address of this machine, or to 0.0.0.0"


def _bind(host: str, port: int) -> None:
    family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))


def check_destination(settings: Settings, peer: Peer) -> Finding:
    """Verify a destination by C-ECHO, and ask whether it takes what this node makes."""
    from tfkt_node.delivery import store_scu

    store_scu.echo(peer, settings.delivery)
    taken = store_scu.probe(peer, settings.delivery)
    wanted = store_scu.objects_for(peer, settings.report)
    names = [store_scu.OBJECTS[one] for one in wanted if one not in taken]
    place = f"{peer.ae_title} at {peer.host}:{peer.port}"
    if names:
        cure = f"enable it there for calling AE title {settings.delivery.ae_title}"
        other = store_scu.ENHANCED_SR
        if store_scu.COMPREHENSIVE_SR in wanted and other in taken:
            cure += f', or set sr_class = "enhanced" for the peer {peer.name}'
        return Finding(
            peer.name, False, f"{place} answers, but does not take {' or '.join(names)}", cure
        )
    said = "a picture, SR and KOS" if store_scu.PICTURE in wanted else "SR and KOS"
    return Finding(peer.name, True, f"{place} answers C-ECHO and takes {said}")
