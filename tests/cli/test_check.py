"""`check`: one line for each thing that the settings name, with the cure where one fails."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Ran
from tests.delivery.destination import CT, Destination
from tfkt_node.audit.store import upgrade
from tfkt_node.cli import check
from tfkt_node.cli.check import Finding
from tfkt_node.settings import Peer, load

pytestmark = pytest.mark.station

drops_socket = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
"""pynetdicom 3.0.4 drops the socket of a call that was not answered without closing it."""

Command = Callable[..., Ran]
Config = Callable[[str], Path]
QUICK = "[delivery]\nconnection_timeout_s = 2\nresponse_timeout_s = 2\n"


def peer_table(peer: Peer) -> str:
    return (
        f'[[peers]]\nname = "{peer.name}"\nae_title = "{peer.ae_title}"\nhost = "127.0.0.1"\n'
        f"port = {peer.port}\ndeliver = true\n"
    )


def destination(config: Config, peer: Peer) -> Finding:
    """Check one destination as the command does."""
    settings = load(config(QUICK + peer_table(peer)))
    return list(check.run_checks(settings))[-1]


@pytest.fixture
def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def test_all_is_well(
    command: Command, scoring_config: Path, tmp_path: Path, free_port: int
) -> None:
    """Where everything works each line says ok, the exit code is 0, and nothing was sent."""
    (tmp_path / "spool").mkdir()
    upgrade(f"sqlite:///{tmp_path / 'spool' / 'audit.db'}")
    with Destination() as pacs:
        text = scoring_config.read_text(encoding="utf-8")
        scoring_config.write_text(
            f"[reception]\nport = {free_port}\n{text}{peer_table(pacs.peer)}", encoding="utf-8"
        )
        ran = command("--config", scoring_config, "check")

    assert (0, "") == (ran.code, ran.err)
    lines = [line.split() for line in ran.out.splitlines()]
    names = ["settings", "spool", "database", "bundle", "decoded", "kept", "port", "pacs"]
    assert [["ok", name] for name in names] == [line[:2] for line in lines]
    assert max(map(len, ran.out.splitlines())) < 240  # none pushes the others off the screen
    assert [] == pacs.received


def test_transfer_syntaxes_of_both_kinds_are_listed() -> None:
    """What is decoded, and what is accepted and kept without a decoder, each by its name."""
    decoded, kept = check.check_transfer_syntaxes()

    for name in ("JPEG 2000 Image Compression", "RLE Lossless", "JPEG XL Lossless"):
        assert name in decoded.names
        assert name not in kept.names
    for name in ("JPIP Referenced", "JPEG Lossless, Hierarchical (Process 28)", "MPEG2 Main"):
        assert any(one.startswith(name) for one in kept.names)
        assert not any(one.startswith(name) for one in decoded.names)
    assert "unknown" not in str((decoded.names, kept.names))
    for found in (decoded, kept):
        assert f"{len(found.names)} transfer syntaxes" in found.said
        assert len(found.said) < 80


def test_failures_name_the_cure(command: Command, config: Config, free_port: int) -> None:
    """Every failed check tells what is wrong and what to do; the others are made all the same."""
    path = config(f'[reception]\nport = {free_port}\n[scoring]\nbundle = "none"')

    ran = command("--config", path, "check")

    assert 1 == ran.code
    failed = [line for line in ran.out.splitlines() if line.startswith("FAILED")]
    assert ["database", "bundle"] == [line.split()[1] for line in failed]
    assert "tfkt-node db upgrade" in failed[0]
    assert "scoring.bundle" in failed[1]
    assert "is free" in ran.out


def test_check_as_json(command: Command, config: Config, free_port: int) -> None:
    """--json tells the same in one document."""
    ran = command("--config", config(f"[reception]\nport = {free_port}"), "check", "--json")

    document = json.loads(ran.out)
    assert (1, False) == (ran.code, document["ok"])
    assert {"check", "ok", "said", "cure", "names"} == set(document["checks"][0])
    (decoded,) = (one for one in document["checks"] if one["check"] == "decoded")
    assert "RLE Lossless" in decoded["names"]


def test_check_changes_nothing(command: Command, config: Config, tmp_path: Path) -> None:
    """A check makes no folder and no database."""
    path = config("[reception]\nport = 0")

    command("--config", path, "check")

    assert [path] == list(tmp_path.iterdir())


def test_taken_port(config: Config) -> None:
    """A port that another program holds is failed; one that a node answers on is not."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = load(config(f"{QUICK}[reception]\nport = {other.getsockname()[1]}"))
        found = check.check_port(taken)
    assert (False, True) == (found.ok, "taken by another program" in found.said)

    with Destination(ae_title="TFKT_NODE") as node:
        found = check.check_port(load(config(f"[reception]\nport = {node.peer.port}")))
    assert (True, True) == (found.ok, "a node answers there already" in found.said)


@pytest.mark.parametrize("host", ["192.0.2.7", "no-such-host.invalid"])
def test_address_of_another_machine(config: Config, host: str) -> None:
    """A host that is no address of this machine is failed, with the cure."""
    peer = '[[peers]]\nname = "a"\nae_title = "A"\nnetwork = "10.0.0.0/8"\nsend = true\n'
    settings = load(config(f'[reception]\nhost = "{host}"\nport = 0\n{peer}'))

    found = check.check_port(settings)

    assert not found.ok
    assert "reception.host" in found.cure


def test_destination_that_takes_no_reports(config: Config) -> None:
    """A destination that answers but does not take SR is failed, and the class is named."""
    with Destination(classes=[CT]) as pacs:
        found = destination(config, pacs.peer)

    assert not found.ok
    assert "does not take Comprehensive SR Storage" in found.said
    assert "TFKT_NODE" in found.cure


@drops_socket
def test_destination_that_is_away(config: Config, free_port: int) -> None:
    """A destination that cannot be reached is failed, with where to look."""
    peer = Peer(name="pacs", ae_title="PACS", host="127.0.0.1", port=free_port, deliver=True)

    found = destination(config, peer)

    assert not found.ok
    assert "cannot be reached" in found.said
    assert "[[peers]]" in found.cure


def test_destination_with_another_title(config: Config) -> None:
    """A wrong called AE title is told as such."""
    with Destination() as pacs:
        found = destination(config, pacs.peer.model_copy(update={"ae_title": "OTHER"}))

    assert not found.ok
    assert "'OTHER'" in found.said


def test_spool_in_the_way(config: Config, tmp_path: Path) -> None:
    """A file where the spool belongs is failed."""
    settings = load(config(""))
    (tmp_path / "spool").touch()

    assert not check.check_spool(settings).ok


def test_spool_without_room(config: Config) -> None:
    """A disk that is full up to the reserve is failed before the node refuses instances."""
    settings = load(config(f"[reception]\ndisk_reserve_mb = {10**9}"))

    found = check.check_spool(settings)

    assert not found.ok
    assert "make room" in found.cure
