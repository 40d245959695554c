"""Commands of the operator: database, series, deliveries and the audit, on a real SQLite file."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from tests.audit import making
from tests.audit.test_chain import tamper
from tests.cli.conftest import Ran
from tfkt_node.audit.store import Store, upgrade
from tfkt_node.cli.options import login_name
from tfkt_node.cli.series import state_of
from tfkt_node.records import (
    RETRY_DELIVERIES,
    AssociationEnd,
    ObjectKind,
    Reason,
    RevisionState,
    SeriesRow,
)

pytestmark = pytest.mark.station

Command = Callable[..., Ran]

PEER = '[[peers]]\nname = "pacs"\nae_title = "PACS"\nhost = "127.0.0.1"\ndeliver = true\n'


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """The audit store of the settings that `command` uses."""
    (tmp_path / "spool").mkdir()
    url = f"sqlite:///{tmp_path / 'spool' / 'audit.db'}"
    upgrade(url)
    opened = Store(url)
    yield opened
    opened.close()


@pytest.fixture
def node(command: Command, config: Callable[[str], Path]) -> Command:
    """Run a command with settings that name the store and one destination."""
    path = config(PEER)
    return lambda *arguments: command("--config", path, *arguments)


def assessed_and_open(store: Store) -> None:
    """One series with a verdict and a dead delivery, and one that is open."""
    making.fill(store, 6)
    making.close(store, 40)
    making.decide(store, 45, "00000000-0000-4000-8000-000000000001", (ObjectKind.SR,))
    making.build(store, 46)
    claimed = store.claim_delivery("owner", "pacs", making.at(47), making.LEASE_S)
    assert claimed is not None
    assert store.delivery_dead(claimed.delivery_id, "owner", "refused the class", making.at(48))
    for number in (101, 102):
        header = replace(
            making.header(number, series="1.2.10"),
            accession_number="A2",
            study_date="20260329",
            series_description="[red]\x1b[31mChest",
        )
        instance = replace(making.instance(number, received_s=50), calling_ae="OTHER")
        store.index_instance(instance, header, making.at(50))


def test_database_is_made_and_brought_up_to_date(node: Command) -> None:
    """`db upgrade` makes what is not there, and says when there is nothing to do."""
    assert "from schema none to" in node("db", "upgrade").out
    again = node("db", "upgrade")
    assert (0, True) == (again.code, "newest schema already" in again.out)


def test_series_are_listed(node: Command, store: Store) -> None:
    """Each series shows where it stands: verdict, flag, time to verdict, or how long it waits."""
    assert (0, "no series\n") == (node("series", "list").code, node("series", "list").out)
    assessed_and_open(store)

    out = node("series", "list").out

    assert out.index("open, 2 instances, quiet 30 of 30 s") < out.index("assessed, 6 instances")
    assert "LIMITED" in out
    assert "45 s to verdict" in out


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("--date", "2026-03-28", ["1.2.9"]),
        ("--date", "20260329", ["1.2.10"]),
        ("--accession", "A2", ["1.2.10"]),
        ("--verdict", "limited", ["1.2.9"]),
        ("--verdict", "DIAGNOSTIC", []),
        ("--calling-ae", "SCANNER", ["1.2.9"]),
        ("--limit", "1", ["1.2.10"]),
    ],
)
def test_series_are_filtered(
    node: Command, store: Store, option: str, value: str, expected: list[str]
) -> None:
    """Filters by study date, accession number, verdict and calling AE title."""
    assessed_and_open(store)

    listed = json.loads(node("series", "list", option, value, "--json").out)["series"]

    assert expected == [row["series_uid"] for row in listed]


def test_series_as_json(node: Command, store: Store) -> None:
    """--json gives states, ISO times and the seconds from last instance to verdict."""
    assessed_and_open(store)

    waiting, done = json.loads(node("series", "list", "--json").out)["series"]

    assert ("OPEN", None, None) == (
        waiting["state"], waiting["verdict"], waiting["time_to_verdict_s"],
    )  # fmt: skip
    assert ("ASSESSED", "LIMITED", 45.0, True) == (
        done["state"], done["verdict"], done["time_to_verdict_s"], done["flagged"],
    )  # fmt: skip
    assert making.at(0).isoformat() == done["last_arrival_at"]


def test_wrong_date_is_wrong_usage(node: Command) -> None:
    """A study date that is none is refused by its option."""
    assert 2 == node("series", "list", "--date", "yesterday").code


def test_waiting_is_counted_to_the_quiet_period(store: Store) -> None:
    """An open series tells how long it has been quiet, and of how long."""
    making.fill(store, 1)
    (row,) = store.series_rows()

    def told(row: SeriesRow, seconds: float) -> str:
        return state_of(row, row.quiet_since + timedelta(seconds=seconds), 30.0)

    assert "open, 1 instance, quiet 12 of 30 s" == told(row, 12)
    assert "open, 1 instance, quiet 0 of 30 s" == told(row, -1)
    assert "open, 64 instances, quiet 30 of 30 s" == told(replace(row, instances=64), 31)
    again = replace(row, revision=2, state=RevisionState.FAILED, reason=Reason.SCORER_CRASHED)
    assert "revision 2 failed (SCORER_CRASHED), 1 instance" == state_of(again, making.at(0), 30)


@pytest.mark.parametrize("key", ["1", "1.2.9"])
def test_one_series_is_shown(node: Command, store: Store, key: str) -> None:
    """`series show` by number or UID: verdict, stacks, report, delivery with its error, events."""
    assessed_and_open(store)

    ran = node("series", "show", key)

    assert 0 == ran.code
    for words in ("Series 1: Abdomen", "1.2.9", "ASSESSED", "LIMITED", "SCORED", "BUILT", "DEAD",
                  "refused the class", "REVISION_ASSESSED"):  # fmt: skip
        assert words in ran.out
    assert 1 == json.loads(node("series", "show", key, "--json").out)["id"]


def test_conflicts_of_a_series_are_shown(node: Command, store: Store) -> None:
    """P3: `series show` names the other series of a conflict, and what its instances met with."""
    making.fill(store, 3)
    store.index_instance(making.instance(4), making.header(4, patient="SECRET"), making.at(1))
    for number in (1, 2, 3):
        version = making.instance(number, "replaced", received_s=2)
        store.index_instance(version, making.header(number), making.at(2))

    first, second = (
        [" ".join(line.split()) for line in node("series", "show", key).out.splitlines()]
        for key in ("1", "2")
    )

    assert "series of the same uid 2" in first
    assert "series of the same uid 1" in second
    replaced = [line for line in first if "INSTANCE_CONFLICT" in line]
    assert len(replaced) == 1
    assert "instance:5 and 2 more" in replaced[0]
    assert "other bytes under a known SOP Instance UID" in replaced[0]
    assert any("known series UID: series 1" in line for line in second)
    document = json.loads(node("series", "show", "1", "--json").out)
    assert [2] == document["series_of_the_same_uid"]
    kinds = [event["kind"] for event in document["events"]]
    assert ["REVISION_OPENED", *["INSTANCE_CONFLICT"] * 3] == kinds


def test_evidence_that_a_series_is_not_whole_is_shown(node: Command, store: Store) -> None:
    """P6: a verdict of 6 instances where 64 were expected, over a broken association, shows it."""
    for name, how in {"a": "ABORTED", "b": "LOST", "c": "ABORTED", "d": "RELEASED"}.items():
        store.open_association(name, "SCANNER", "TFKT_NODE", "192.0.2.1", making.at(0))
        store.end_association(name, AssociationEnd(how), making.at(1))
    for number, name in enumerate("abcddd", 1):
        received = making.instance(number, association_id=name)
        store.index_instance(received, making.header(number, expected=64), making.at(0))
    assert "expected" not in node("series", "show", "1").out
    making.close(store, 40)

    shown = [" ".join(line.split()) for line in node("series", "show", "1").out.splitlines()]

    assert {"received 6", "expected 64", "broken associations 2 ABORTED, 1 LOST"} <= set(shown)


def test_what_was_set_aside_is_counted_with_its_reason(node: Command, store: Store) -> None:
    """Design 5: set aside is kept and listed: how many instances, and why."""
    sr = "1.2.840.10008.5.1.4.1.1.88.33"
    for number in (1, 2, 3):
        other = making.instance(number, sop_class_uid=sr)
        store.index_instance(other, making.header(own=number == 3), making.at(0))
    said = "set aside, in no series: 3 instances (2 NOT_CT, 1 OWN_OBJECT)\n"

    assert f"no series\n{said}" == node("series", "list").out
    making.fill(store, 1, first=10)
    assert node("series", "list").out.endswith(f"\n{said}")
    document = json.loads(node("series", "list", "--json").out)
    assert {"NOT_CT": 2, "OWN_OBJECT": 1} == document["set_aside"]


def test_a_long_text_is_cut_for_people_and_whole_for_programs(node: Command, store: Store) -> None:
    """One endless description must not push all other series off the screen."""
    endless = "Abdomen " * 5000
    long = replace(making.header(), series_description=endless)
    store.index_instance(making.instance(1), long, making.at(0))

    listed, shown = node("series", "list").out, node("series", "show", "1").out

    for out in (listed, shown):
        assert endless[:63] + "…" in " ".join(out.split())
        assert len(out.splitlines()) < 25
        assert max(map(len, out.splitlines())) <= 200
    (row,) = json.loads(node("series", "list", "--json").out)["series"]
    assert endless == row["series_description"]
    assert endless == json.loads(node("series", "show", "1", "--json").out)["series_description"]


def test_a_header_cannot_drive_the_terminal(node: Command, store: Store) -> None:
    """Escape sequences in a description are shown as what they are not, in list and show."""
    assessed_and_open(store)

    shown = node("series", "show", "2").out + node("series", "list").out

    assert "[red]�[31mChest" in shown
    assert "\x1b" not in shown


def test_unknown_series_is_wrong_usage(node: Command, store: Store) -> None:
    """A series that is not there is exit 2 and names the command that lists them."""
    ran = node("series", "show", "77")

    assert 2 == ran.code
    assert "series list" in ran.err


def test_deliveries_are_listed(node: Command, store: Store) -> None:
    """Deliveries show destination, state and last error, by state or destination if asked."""
    assert "no deliveries\n" == node("deliveries", "list").out
    assessed_and_open(store)

    assert "refused the class" in node("deliveries", "list").out
    (one,) = json.loads(node("deliveries", "list", "--state", "dead", "--json").out)["deliveries"]
    assert ("pacs", "SR", "DEAD") == (one["destination"], one["kind"], one["state"])
    assert "no deliveries\n" == node("deliveries", "list", "--destination", "other").out


@pytest.mark.parametrize("destinations", [("pacs",), ()])
def test_object_that_could_not_be_made_is_listed(
    node: Command, store: Store, destinations: tuple[str, ...]
) -> None:
    """P5: a FAILED object does not look healthy in the list, whether owed to a peer or to none."""
    making.fill(store, 6)
    making.close(store, 40)
    making.decide(store, 45, "v1", (ObjectKind.SR,), destinations)
    owed = store.claim_object("owner", making.at(46), making.LEASE_S)
    assert owed is not None
    store.object_failed(owed.object_id, "owner", "no space", making.at(47))

    shown = " ".join(node("deliveries", "list").out.split())

    assert "no object: no space" in shown
    assert "PENDING" not in shown
    (one,) = json.loads(node("deliveries", "list", "--json").out)["deliveries"]
    assert ("FAILED", "no space") == (one["object_state"], one["object_error"])
    node("deliveries", "retry", "--all", "--reason", "freed")
    assert "FAILED" not in node("deliveries", "list").out


def test_what_was_sent_is_shown_so_though_its_file_is_lost(node: Command, store: Store) -> None:
    """P5: of two destinations, only the one that still waits for the object shows its loss."""
    making.fill(store, 6)
    making.close(store, 40)
    making.decide(store, 45, "v1", (ObjectKind.SR,), ("archive", "pacs"))
    making.build(store, 46)
    for name in ("archive", "pacs"):
        claimed = store.claim_delivery("owner", name, making.at(47), making.LEASE_S)
        assert claimed is not None
        if name == "archive":
            store.delivery_sent(claimed.delivery_id, "owner", 0, "", making.at(48))
        else:
            store.delivery_lost(claimed.delivery_id, "owner", "gone; cure: retry", making.at(48))

    waits, sent = (line.split() for line in node("deliveries", "list").out.splitlines()[-2:])

    assert "SENT" in sent
    assert "FAILED" in waits
    assert "gone;" in waits


def sent_with_a_warning(store: Store) -> None:
    """Two verdicts on one series: the first is SENT and coerced, its KOS waits; then the second."""
    making.fill(store, 6)
    making.close(store, 40)
    making.decide(store, 45, "v1", (ObjectKind.SR, ObjectKind.KOS))
    making.fill(store, 1, first=7, now_s=100)
    making.close(store, 140)
    making.decide(store, 145, "v2")
    for now_s in (146, 147, 148):
        making.build(store, now_s)
    claimed = store.claim_delivery("owner", "pacs", making.at(149), making.LEASE_S)
    assert claimed is not None
    store.delivery_sent(claimed.delivery_id, "owner", 0xB000, "Patient ID coerced", making.at(150))


def test_what_has_not_arrived_is_listed_first_with_why_it_waits(
    node: Command, store: Store
) -> None:
    """P5: no delivery waits without a word, and the destination's remark is shown."""
    sent_with_a_warning(store)

    first, waits, sent = node("deliveries", "list").out.splitlines()[-3:]

    assert ["2", "pacs", "KOS", "PENDING"] == first.split()[:4]
    assert waits.split()[:4] == ["3", "pacs", "SR", "PENDING"]
    assert "waits for delivery 2, of an earlier revision of the series" in waits
    assert "SENT" in sent
    assert "0xB000: Patient ID coerced" in sent
    assert "Patient ID coerced" in node("series", "show", "1").out
    rows = json.loads(node("deliveries", "list", "--json").out)["deliveries"]
    assert [None, 2, None] == [row["waits_for"] for row in rows]
    assert (0xB000, "Patient ID coerced") == (rows[-1]["status"], rows[-1]["comment"])


def test_lists_end_at_their_limit(node: Command, store: Store) -> None:
    """A list of years does not fill memory or screen, and says that it goes on."""
    sent_with_a_warning(store)
    store.index_instance(making.instance(9), making.header(9, series="1.2.10"), making.at(200))

    for arguments in (["deliveries", "list", "--limit", "1"], ["series", "list", "--limit", "1"]):
        listed = node(*arguments).out
        assert listed.endswith("… and more; see --limit\n")
        assert 4 == len(listed.splitlines())
    assert "and more" not in node("deliveries", "list", "--limit", "3").out


def test_object_that_waits_for_the_disk_says_so(node: Command, store: Store) -> None:
    """P5: a report that is not made yet is listed with why, and when it is tried again."""
    making.fill(store, 6)
    making.close(store, 40)
    making.decide(store, 45, "v1")
    owed = store.claim_object("owner", making.at(46), making.LEASE_S)
    assert owed is not None
    store.object_retry(owed.object_id, "owner", "No space left on device", making.at(600))

    line = node("deliveries", "list").out.splitlines()[-1]

    assert "OWED" in line
    assert making.at(600).strftime("%H:%M:%S") in line
    assert "no object: No space left on device" in line


def test_delivery_to_a_removed_peer_is_tried_again(
    command: Command, config: Callable[[str], Path], store: Store
) -> None:
    """P9: whatever has deliveries can be named, though the settings know it no more."""
    assessed_and_open(store)
    path = config(PEER.replace('"pacs"', '"renamed"'))

    ran = command(
        "--config", path, "deliveries", "retry", "--destination", "pacs", "--reason", "back"
    )

    assert (0, "1 delivery or object to try again\n") == (ran.code, ran.out)
    unknown = command(
        "--config", path, "deliveries", "retry", "--destination", "pasc", "--reason", "back"
    )
    assert 2 == unknown.code
    assert "renamed" in unknown.err


def test_cure_can_be_run_as_it_is_printed(node: Command, store: Store) -> None:
    """P9: what a person copies from a cure is a whole command, with a reason."""
    assessed_and_open(store)
    program, *arguments = shlex.split(RETRY_DELIVERIES.strip("`"))

    ran = node(*arguments)

    assert ("tfkt-node", 0) == (program, ran.code)
    assert "1 delivery or object to try again" in ran.out


@pytest.mark.parametrize("which", [["1"], ["--destination", "pacs"], ["--all"]])
def test_dead_deliveries_are_tried_again(node: Command, store: Store, which: list[str]) -> None:
    """P9: a retry makes DEAD deliveries PENDING and keeps actor and reason in the audit."""
    assessed_and_open(store)

    ran = node("deliveries", "retry", *which, "--reason", "class enabled", "--actor", "ann")

    assert (0, "1 delivery or object to try again\n") == (ran.code, ran.out)
    assert ["PENDING"] == [row.state for row in store.delivery_rows()]
    event = json.loads(node("series", "show", "1", "--json").out)["events"][-1]
    assert ("DELIVERY_RETRIED", "ann", "class enabled") == (
        event["kind"], event["actor"], event["detail"]["reason"],
    )  # fmt: skip
    assert "nothing to try again" in node("deliveries", "retry", *which, "--reason", "x").out


def test_actor_is_the_login_name(node: Command, store: Store) -> None:
    """Without --actor the login name stands in the audit."""
    assessed_and_open(store)

    node("deliveries", "retry", "--all", "--reason", "again")

    event = json.loads(node("series", "show", "1", "--json").out)["events"][-1]
    assert login_name() == event["actor"] != ""


@pytest.mark.parametrize(
    "arguments",
    [
        ["--reason", "x"],
        ["1", "--all", "--reason", "x"],
        ["--all", "--reason", " "],
        ["--all"],
        ["--destination", "nobody", "--reason", "x"],
    ],
)
def test_retry_wants_one_target_and_a_reason(
    node: Command, store: Store, arguments: list[str]
) -> None:
    """P9: no retry without a reason, and none of something unclear."""
    assessed_and_open(store)

    assert node("deliveries", "retry", *arguments).code in (1, 2)
    assert ["DEAD"] == [row.state for row in store.delivery_rows()]


def test_audit_verifies(node: Command, store: Store) -> None:
    """P9: a whole chain is told with its head, which is good as an anchor."""
    assessed_and_open(store)

    ran = node("audit", "verify")

    assert (0, "") == (ran.code, ran.err)
    head = ran.out.split()[-1]
    assert 0 == node("audit", "verify", "--anchor", head).code
    assert True is json.loads(node("audit", "verify", "--json").out)["holds"]


def test_a_changed_audit_is_found(node: Command, store: Store) -> None:
    """P9: a changed event is exit 1 with its number; so is a head that was noted and is gone."""
    assessed_and_open(store)
    assert 1 == node("audit", "verify", "--anchor", f"99:{'0' * 64}").code
    tamper(store, "UPDATE events SET actor = 'nobody' WHERE seq = 2")

    ran = node("audit", "verify")

    assert 1 == ran.code
    assert "event 2" in ran.err


def test_a_changed_verdict_is_found(node: Command, store: Store) -> None:
    """P9: the chain is whole, and the verdict that people see is not the one that it tells."""
    assessed_and_open(store)
    with store.writing() as connection:
        connection.exec_driver_sql("UPDATE verdicts SET verdict = 'DIAGNOSTIC'")

    ran = node("audit", "verify")

    assert 1 == ran.code
    assert "CONTRADICTED" in ran.err
    assert "verdict LIMITED; its row has verdict DIAGNOSTIC" in ran.err


@pytest.mark.parametrize(
    "anchor", ["3:abc", f"0:{'a' * 64}", f"3:{'x' * 64}", f"3:{'a' * 63}g", f"-1:{'a' * 64}"]
)
def test_a_wrong_anchor_is_wrong_usage(node: Command, store: Store, anchor: str) -> None:
    """An anchor that is none is refused: neither ignored, nor an alarm about the audit."""
    assert 2 == node("audit", "verify", "--anchor", anchor).code


def test_a_database_of_another_schema_is_named(node: Command, tmp_path: Path) -> None:
    """A database without the newest schema says how to get it: exit 2."""
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool" / "audit.db").touch()

    ran = node("series", "list")

    assert 2 == ran.code
    assert "tfkt-node db upgrade" in ran.err
