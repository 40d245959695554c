"""The wired node: what may be away, and what still has to work then."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.audit import making
from tests.postgres import Databases
from tests.running_node import wait_for
from tfkt_node.audit.store import Store, upgrade
from tfkt_node.delivery import store_scu
from tfkt_node.delivery.statuses import Receipt
from tfkt_node.node import Node
from tfkt_node.records import DeliveryState, Misconfigured, ObjectState, Permanent, RevisionState
from tfkt_node.settings import (
    Delivery,
    Peer,
    Reception,
    Scoring,
    Series,
    Settings,
    Storage,
    data_folder,
)


def settings_for(tmp_path: Path, database: str = "", **groups: object) -> Settings:
    spool = tmp_path / "spool"
    spool.mkdir(exist_ok=True)
    return Settings(
        reception=Reception(port=0, disk_reserve_mb=0),
        series=Series(quiet_s=0.5),
        storage=Storage(spool=spool, database=database),
        **groups,
    )


def send(node: Node, files: list[Path]) -> None:
    itself = Peer(name="node", ae_title="TFKT_NODE", host="127.0.0.1", port=node.port)
    answers = store_scu.send(itself, Delivery(), files)
    assert [Receipt(0)] * len(files) == list(answers)


@pytest.fixture
def files(shared_data: Path) -> list[Path]:
    return sorted((shared_data / "series" / "LungFCP-01-0001").glob("*.dcm"))[:6]


@pytest.mark.peers
def test_reception_starts_while_the_database_is_away(
    tmp_path: Path, postgresql: Databases, files: list[Path]
) -> None:
    """P7: a node that starts without its database takes images in; their rows follow."""
    url = postgresql()
    upgrade(url)
    postgresql.take_away(url)

    with Node(settings_for(tmp_path, url)) as node:
        send(node, files)
        postgresql.bring_back(url)
        wait_for("a verdict", lambda: states(node) == [RevisionState.ASSESSED])
        assert len(files) == node.store.series_rows()[0].instances


def states(node: Node) -> list[RevisionState]:
    return [row.state for row in node.store.series_rows()]


@pytest.mark.station
def test_reception_starts_with_a_damaged_database(
    tmp_path: Path, files: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    """P7: images are taken in while the audit has to be restored; the log says with what cure."""
    (tmp_path / "audit.db").write_bytes(b"no database" * 1000)

    with Node(settings_for(tmp_path, f"sqlite:///{tmp_path / 'audit.db'}")) as node:
        send(node, files)

    assert "node.database_away" in caplog.text
    assert "cure: stop the node and restore the database from a backup" in caplog.text


@pytest.mark.station
def test_reception_starts_while_the_database_is_silent(tmp_path: Path, files: list[Path]) -> None:
    """P7: a database that takes connections and says nothing keeps no image out."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://user@127.0.0.1:{silent.getsockname()[1]}/name?connect_timeout=2"
        with Node(settings_for(tmp_path, url)) as node:
            send(node, files[:1])


@pytest.mark.station
def test_delivery_revived_without_its_peer_is_given_up_again(owing: Node) -> None:
    """P5: `deliveries retry --all` leaves nothing PENDING that nobody would send."""
    owing._sweep()
    assert 1 == owing.store.retry_deliveries(None, "operator", "all", making.at(40))

    owing._sweep()

    (row,) = owing.store.delivery_rows()
    assert DeliveryState.DEAD is row.state
    assert "no peer named pacs" in row.last_error


@pytest.mark.station
def test_reception_starts_with_a_broken_bundle(tmp_path: Path, files: list[Path]) -> None:
    """P7: a model that cannot be loaded keeps no image out, and scores nothing."""
    bundle = tmp_path / "tfkt-v2-lite"
    shutil.copytree(data_folder("models") / "tfkt-v2-lite", bundle)
    (bundle / "weights.safetensors").write_bytes(b"cut")
    settings = settings_for(tmp_path, scoring=Scoring(bundle=str(bundle)))
    upgrade(settings.storage.database_url)

    with Node(settings) as node:
        send(node, files)
        wait_for("a closed series", lambda: states(node) == [RevisionState.STABLE])


@pytest.mark.station
def test_schema_that_is_behind_is_refused_before_a_socket_opens(tmp_path: Path) -> None:
    """A database without tables ends the start with the cure in words."""
    with pytest.raises(Misconfigured, match="tfkt-node db upgrade"):
        Node(settings_for(tmp_path))


@pytest.mark.station
def test_taken_port_is_said_with_its_setting(tmp_path: Path) -> None:
    """Wrong settings: the address that cannot be listened on is named, with the cure."""
    settings = settings_for(tmp_path)
    upgrade(settings.storage.database_url)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        node = Node(settings.model_copy(update={"reception": Reception(port=port)}))

        with pytest.raises(Permanent, match=rf"cannot listen on 127\.0\.0\.1:{port}"):
            node.start()


@pytest.mark.station
def test_second_node_on_the_same_spool_is_refused(tmp_path: Path) -> None:
    """P1: two nodes never write into one spool."""
    settings = settings_for(tmp_path)
    upgrade(settings.storage.database_url)

    with Node(settings), pytest.raises(Misconfigured, match="spool"):
        Node(settings)


@pytest.mark.station
# pynetdicom leaves the socket of a failed connect to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_destination_that_is_down_does_not_keep_the_verdict_back(
    tmp_path: Path, files: list[Path]
) -> None:
    """P7: the series is ASSESSED, its report waits and says why, and a stop does not hang."""
    dead = Peer(name="pacs", ae_title="PACS", host="127.0.0.1", port=1, deliver=True)
    settings = settings_for(tmp_path, peers=(dead,))
    upgrade(settings.storage.database_url)

    with Node(settings) as node:
        send(node, files)
        wait_for("a verdict", lambda: states(node) == [RevisionState.ASSESSED])
        wait_for("an attempt", lambda: any(row.last_error for row in node.store.delivery_rows()))

    after = Store(settings.storage.database_url)
    row = after.delivery_rows()[0]
    after.close()
    assert DeliveryState.PENDING is row.state
    assert "cannot be reached" in row.last_error


@pytest.fixture
def owing(tmp_path: Path) -> Iterator[Node]:
    """A node that is not started, and owes a report whose attributes are no data set."""
    settings = settings_for(tmp_path)
    upgrade(settings.storage.database_url)
    node = Node(settings)
    making.fill(node.store, 1)
    making.close(node.store, 30)
    making.decide(node.store, 31, "v1")
    yield node
    node.store.close()
    node.spool.release()


@pytest.mark.station
def test_report_that_cannot_be_made_says_its_cure(owing: Node) -> None:
    """P5: `deliveries list` shows what to do."""
    owing._make_reports()

    (row,) = owing.store.delivery_rows()
    assert ObjectState.FAILED is row.object_state
    assert "; cure: " in row.object_error


@pytest.mark.station
def test_report_waits_while_the_system_refuses_a_process(
    owing: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P5: what the machine lacks is named as such, and the report is made once it is there."""

    def refuse(*_: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr("tfkt_node.node.make", refuse)

    owing._make_reports()

    (row,) = owing.store.delivery_rows()
    assert ObjectState.OWED is row.object_state
    assert "limits on processes" in row.object_error


@pytest.mark.station
def test_unexpected_failure_of_a_report_leaves_no_traceback(
    owing: Node, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """P10: values of the header may stand in the message and in the frames of an exception."""

    def fail(*_: object) -> None:
        raise KeyError("Doe^John")

    monkeypatch.setattr("tfkt_node.node.make", fail)

    owing._make_reports()

    (row,) = owing.store.delivery_rows()
    assert "KeyError while building it" == row.object_error
    (line,) = [record for record in caplog.records if record.name == "tfkt_node.node"]
    assert ("report.failed kind=SR type=KeyError", None) == (line.message, line.exc_info)
