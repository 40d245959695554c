"""Each object owed is made once, and each destination gets it once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tfkt_node.audit.outbox import WAITED_FOR_ATTEMPTS
from tfkt_node.audit.schema import objects, verdicts
from tfkt_node.audit.store import Store
from tfkt_node.records import (
    ClaimedObject,
    DeliveryState,
    EarlierVerdict,
    ObjectKind,
    ObjectState,
    Outcome,
    Predecessor,
    Verdict,
)

from .making import LEASE_S, at, build, close, decide, fill, made
from .rows import rows_of, told


@pytest.fixture
def decided(store: Store) -> Store:
    """Give a store with one verdict, v1, that owes an SR to two destinations."""
    fill(store, 2)
    close(store, 30)
    decide(store, 31, "v1", destinations=("pacs", "archive"))
    return store


def revise(
    store: Store,
    now_s: float,
    verdict_id: str,
    kinds: tuple[ObjectKind, ...] = (ObjectKind.SR,),
    **changes: object,
) -> None:
    """Let a late instance come, and its revision be decided, with changes to its assessment."""
    fill(store, 1, first=int(now_s), now_s=now_s)
    close(store, now_s + 30)
    decide(store, now_s + 31, verdict_id, kinds, **changes)


def test_object_is_claimed_with_all_that_its_making_needs(decided: Store) -> None:
    """P5: the report is made from the rows alone."""
    owed = decided.claim_object("owner", at(40), LEASE_S)

    assert owed is not None
    record = owed.record
    assert owed.kind is ObjectKind.SR
    assert record == decided.report_record("v1")
    assert (record.verdict_id, record.decided_at, record.revision_number) == ("v1", at(31), 1)
    assert (record.patient_id, record.study_uid, record.series_uid) == ("patient", "1.2.8", "1.2.9")
    assert record.attributes == b"attributes"
    assert [one.sop_uid for one in record.evidence] == ["1.2.3.1", "1.2.3.2"]
    assert record.predecessor is None
    assert record.node_uid == decided.node_uid()


def test_claimed_object_is_nobody_elses(decided: Store) -> None:
    """P5: an object is made by one process."""
    owed = decided.claim_object("one", at(40), LEASE_S)

    assert owed is not None
    assert decided.claim_object("two", at(41), LEASE_S) is None
    assert not decided.object_built(owed.object_id, "two", made(1), Path("/o"), at(42))
    assert not decided.object_failed(owed.object_id, "two", "no", at(42))
    assert decided.object_built(owed.object_id, "one", made(1), Path("/o"), at(42))
    assert not decided.object_built(owed.object_id, "one", made(1), Path("/o"), at(43))


def test_delivery_waits_for_its_object(decided: Store) -> None:
    """P5: nothing is sent before it is built."""
    assert decided.claim_delivery("owner", "pacs", at(40), LEASE_S) is None

    build(decided, 41)

    delivery = decided.claim_delivery("owner", "pacs", at(42), LEASE_S)
    assert delivery is not None
    assert (delivery.destination, delivery.attempts) == ("pacs", 0)
    assert (delivery.sop_instance_uid, delivery.path) == ("2.25.1", Path("/o"))
    assert decided.claim_delivery("other", "pacs", at(43), LEASE_S) is None
    assert decided.claim_delivery("other", "archive", at(43), LEASE_S) is not None


def test_sent_delivery_is_never_claimed_again(decided: Store) -> None:
    """P5: a destination gets one copy, and the audit keeps what it answered."""
    build(decided, 41)
    delivery = decided.claim_delivery("owner", "pacs", at(42), LEASE_S)
    assert delivery is not None

    assert decided.delivery_sent(delivery.delivery_id, "owner", 0xB000, "coerced", at(43))

    assert not decided.delivery_sent(delivery.delivery_id, "owner", 0, "", at(44))
    assert decided.claim_delivery("owner", "pacs", at(9999), LEASE_S) is None
    row = rows_of(decided, "deliveries")[0]
    assert (row["state"], row["status"], row["comment"]) == ("SENT", 0xB000, "coerced")
    assert (row["sent_at"], row["attempts"]) == (at(43), 1)
    assert told(decided)[-1][:3] == ("DELIVERY_SENT", "delivery:1", {"status": 0xB000})


def test_failed_attempt_waits_for_its_time(decided: Store) -> None:
    """P5: a delivery that failed is due again later, and says why."""
    build(decided, 41)
    first = decided.claim_delivery("owner", "pacs", at(42), LEASE_S)
    assert first is not None

    assert decided.delivery_retry(first.delivery_id, "owner", "no answer", at(60), at(43))

    assert decided.claim_delivery("owner", "pacs", at(59), LEASE_S) is None
    (row,) = decided.delivery_rows(destination="pacs")
    assert (row.state, row.attempts, row.last_error) == ("PENDING", 1, "no answer")
    assert row.next_attempt_at == at(60)
    second = decided.claim_delivery("owner", "pacs", at(60), LEASE_S)
    assert second is not None
    assert second.attempts == 1


def test_destination_gets_the_objects_of_a_series_in_their_order(decided: Store) -> None:
    """P5: a flag that was taken back never arrives as the newest word on the series."""
    build(decided, 40)
    first = decided.claim_delivery("owner", "pacs", at(41), LEASE_S)
    assert first is not None
    assert decided.delivery_retry(first.delivery_id, "owner", "away", at(3600), at(42))
    revise(decided, 100, "v2", (ObjectKind.SR, ObjectKind.KOS))
    assert decided.claim_delivery("owner", "pacs", at(139), LEASE_S) is None

    build(decided, 140)
    build(decided, 141)

    again = decided.claim_delivery("owner", "pacs", at(142), LEASE_S)  # it waits no longer
    assert again is not None
    assert (again.delivery_id, again.attempts) == (first.delivery_id, 1)
    assert decided.claim_delivery("owner", "pacs", at(142), LEASE_S) is None
    assert decided.delivery_sent(again.delivery_id, "owner", 0, "", at(143))
    both = [decided.claim_delivery("owner", "pacs", at(144), LEASE_S) for _ in range(2)]
    assert ["2.25.2", "2.25.3"] == [one.sop_instance_uid for one in both if one is not None]


def test_object_that_is_refused_again_and_again_holds_no_later_one_up(decided: Store) -> None:
    """P5: nothing waits for ever for an answer that may never be another."""
    build(decided, 40)
    for number in range(WAITED_FOR_ATTEMPTS):
        first = decided.claim_delivery("owner", "pacs", at(41 + number), LEASE_S)
        assert first is not None
        waits_until = at(42 + number if number + 1 < WAITED_FOR_ATTEMPTS else 3600)
        assert decided.delivery_retry(first.delivery_id, "owner", "0x0110", waits_until, at(42))
    revise(decided, 100, "v2")
    build(decided, 140)

    later = [decided.claim_delivery("owner", "pacs", at(141), LEASE_S) for _ in range(2)]

    assert "2.25.2" in [one.sop_instance_uid for one in later if one is not None]


@pytest.mark.parametrize("ends", ["dead", "lost"])
def test_object_that_may_never_be_sent_holds_no_later_one_up(decided: Store, ends: str) -> None:
    """P5: what is given up, or has lost its file, is not waited for."""
    build(decided, 40)
    first = decided.claim_delivery("owner", "pacs", at(41), LEASE_S)
    assert first is not None
    end = decided.delivery_dead if ends == "dead" else decided.delivery_lost
    assert end(first.delivery_id, "owner", "no; cure: …", at(42))
    revise(decided, 100, "v2")
    build(decided, 140)

    second = decided.claim_delivery("owner", "pacs", at(141), LEASE_S)

    assert second is not None
    assert second.sop_instance_uid == "2.25.2"


def test_what_waits_with_an_error_is_made_due_by_its_beginning(decided: Store) -> None:
    """P5: only what waited for this destination to answer is due when it does."""
    fill(decided, 1, series="1.2.10", first=50, now_s=100)
    close(decided, 130)
    decide(decided, 131, "v2")
    for now_s, error in ((140, "pacs_1 (host:104) cannot be reached"), (141, "no answer")):
        build(decided, now_s)
        waits = decided.claim_delivery("owner", "pacs", at(142), LEASE_S)
        assert waits is not None
        assert decided.delivery_retry(waits.delivery_id, "owner", error, at(3600), at(143))

    assert decided.deliveries_due("archive", "pacs_1 (host:104)", at(150)) == 0
    assert decided.deliveries_due("pacs", "pacs 1 (host:104)", at(150)) == 0
    assert decided.deliveries_due("pacs", "pacs_1 (host:104)", at(150)) == 1

    assert decided.claim_delivery("owner", "pacs", at(150), LEASE_S) is not None
    assert decided.claim_delivery("owner", "pacs", at(150), LEASE_S) is None


def test_dead_delivery_comes_back_by_command(decided: Store) -> None:
    """P9: what was given up is tried again by an operator with a name and a reason."""
    build(decided, 41)
    for name in ("pacs", "archive"):
        delivery = decided.claim_delivery("owner", name, at(42), LEASE_S)
        assert delivery is not None
        assert decided.delivery_dead(delivery.delivery_id, "owner", "refused; cure: …", at(43))
    assert decided.claim_delivery("owner", "pacs", at(9999), LEASE_S) is None
    assert told(decided)[-1][0] == "DELIVERY_DEAD"

    assert decided.retry_deliveries("pacs", "operator", "PACS was down", at(50)) == 1

    assert [row.state for row in decided.delivery_rows()] == ["PENDING", "DEAD"]
    assert told(decided)[-1] == (
        "DELIVERY_RETRIED",
        "delivery:1",
        {"reason": "PACS was down"},
        "operator",
    )
    again = decided.claim_delivery("owner", "pacs", at(50), LEASE_S)
    assert again is not None
    assert again.attempts == 0
    assert decided.retry_deliveries(2, "operator", "and this", at(51)) == 1
    assert decided.retry_deliveries(None, "operator", "all", at(52)) == 0


def test_delivery_that_waits_is_due_at_once_by_command(decided: Store) -> None:
    """P9: nobody waits an hour for the next attempt after the network was mended."""
    build(decided, 41)
    for name in ("pacs", "archive"):
        delivery = decided.claim_delivery("owner", name, at(42), LEASE_S)
        assert delivery is not None
        if name == "pacs":
            decided.delivery_retry(delivery.delivery_id, "owner", "no answer", at(3600), at(43))

    assert decided.retry_deliveries(None, "operator", "network is back", at(50)) == 1

    assert told(decided)[-1][:2] == ("DELIVERY_RETRIED", "delivery:1")
    again = decided.claim_delivery("owner", "pacs", at(50), LEASE_S)
    assert again is not None
    assert again.attempts == 0
    assert decided.retry_deliveries(None, "operator", "all are on their way", at(51)) == 0


def test_delivery_to_an_unknown_destination_is_given_up_with_the_cure(decided: Store) -> None:
    """P5: what nobody would send for a peer was removed is DEAD, not PENDING for ever."""
    revise(decided, 100, "v2")
    build(decided, 140)
    held = decided.claim_delivery("owner", "archive", at(141), LEASE_S)
    sent = decided.claim_delivery("owner", "pacs", at(141), LEASE_S)
    assert held is not None
    assert sent is not None
    decided.delivery_sent(sent.delivery_id, "owner", 0, "", at(142))

    assert decided.end_orphaned_deliveries(["other", "archive"], at(143)) == 1
    assert decided.end_orphaned_deliveries([], at(144)) == 0

    cure = "no peer named pacs has deliver = true in the settings; cure: add it, restart the node, "
    cure += 'then run `tfkt-node deliveries retry --all --reason "…"`'
    (dead,) = decided.delivery_rows(state=DeliveryState.DEAD)
    assert (dead.destination, dead.verdict_id, dead.last_error) == ("pacs", "v2", cure)
    subject = f"delivery:{dead.delivery_id}"
    assert told(decided)[-1] == ("DELIVERY_DEAD", subject, {"error": cure}, "node")
    decided.delivery_retry(held.delivery_id, "owner", "no answer", at(200), at(145))
    assert decided.end_orphaned_deliveries(["pacs"], at(146)) == 1
    assert decided.retry_deliveries("pacs", "operator", "peer is back", at(150)) == 1


def test_object_whose_file_is_lost_is_made_anew_by_command(decided: Store) -> None:
    """P5: its deliveries wait for it, and a report of a later revision still names it."""
    build(decided, 40)
    (sha256,) = {row["sha256"] for row in rows_of(decided, "objects")}
    lost = decided.claim_delivery("owner", "pacs", at(41), LEASE_S)
    assert lost is not None

    assert decided.delivery_lost(lost.delivery_id, "owner", "gone; cure: …", at(42))

    assert not decided.delivery_lost(lost.delivery_id, "owner", "gone; cure: …", at(42))
    assert told(decided)[-1][:3] == ("OBJECT_FAILED", "object:1", {"error": "gone; cure: …"})
    assert decided.claim_delivery("owner", "archive", at(43), LEASE_S) is None
    revise(decided, 100, "v2")
    named = build(decided, 140).record.predecessor
    assert named is not None
    assert named.sop_uid == "2.25.1"

    assert decided.retry_deliveries("pacs", "operator", "disk mended", at(150)) == 1
    again = decided.claim_object("owner", at(151), LEASE_S)
    assert again is not None
    assert (again.sha256, again.record.verdict_id) == (sha256, "v1")
    assert decided.object_built(again.object_id, "owner", made(1), Path("/o"), at(152))
    found = decided.claim_delivery("owner", "pacs", at(153), LEASE_S)
    assert found is not None
    assert (found.delivery_id, found.attempts) == (lost.delivery_id, 0)


def test_object_made_anew_names_the_report_that_it_named(decided: Store) -> None:
    """P5: the predecessor of each kind stays the one of its first making, whatever came since."""
    both = (ObjectKind.SR, ObjectKind.ENHANCED_SR)
    build(decided, 40)
    revise(decided, 100, "v2", both)
    first = [build(decided, 140), build(decided, 141)]
    with decided.writing() as connection:
        of = objects.c.verdict_id
        connection.execute(objects.update().where(of == "v1").values(built_at=None))
        connection.execute(objects.update().where(of == "v2").values(state=ObjectState.OWED))

    again = [build(decided, now_s) for now_s in (150, 151)]

    assert [True, True] == [one.record.predecessor is not None for one in first]
    assert [one.record for one in first] == [one.record for one in again]
    assert [one.record for one in first] == [decided.report_record("v2", kind) for kind in both]


def test_failed_object_comes_back_by_command(decided: Store) -> None:
    """P5: a report that could not be built is never lost, and its deliveries wait for it."""
    owed = decided.claim_object("owner", at(40), LEASE_S)
    assert owed is not None

    assert decided.object_failed(owed.object_id, "owner", "no space", at(41))

    assert decided.claim_object("owner", at(9999), LEASE_S) is None
    assert rows_of(decided, "objects")[0]["error"] == "no space"
    assert {row.state for row in decided.delivery_rows()} == {DeliveryState.PENDING}
    assert decided.retry_deliveries("elsewhere", "operator", "typo", at(50)) == 0
    assert decided.retry_deliveries("archive", "operator", "disk was full", at(50)) == 1
    assert told(decided)[-1][:2] == ("OBJECT_RETRIED", "object:1")
    build(decided, 51)


def test_report_names_the_newest_earlier_one_that_was_built(decided: Store) -> None:
    """P5: the report of revision n + 1 supersedes that of revision n."""
    build(decided, 40)

    revise(decided, 100, "v2")
    second = build(decided, 140)
    revise(decided, 200, "v3")

    sr = "1.2.840.10008.5.1.4.1.1.88.33"
    assert second.record.predecessor == Predecessor(sr, "2.25.1", "2.25.7")
    assert decided.report_record("v3").predecessor == Predecessor(sr, "2.25.2", "2.25.7")


def test_report_knows_what_the_revision_before_said_though_its_report_failed(
    decided: Store,
) -> None:
    """P5: a Key Object Selection that was delivered is answered, with or without an SR to name."""
    revise(decided, 100, "v2", (ObjectKind.SR, ObjectKind.KOS))
    build(decided, 140)
    broken = decided.claim_object("owner", at(141), LEASE_S)
    assert broken is not None
    decided.object_failed(broken.object_id, "owner", "broken", at(141))
    build(decided, 142)
    revise(decided, 200, "v3")

    third = build(decided, 240).record

    assert third.before == (EarlierVerdict(2, Outcome.ASSESSED, Verdict.LIMITED, flagged=True),)
    assert third.predecessor is not None
    assert third.predecessor.sop_uid == "2.25.1"
    assert decided.report_record("v1").before == ()


def test_report_goes_back_to_the_last_revision_that_was_assessed(decided: Store) -> None:
    """P5: what could not be judged leaves a flag standing, so the next report answers it too."""
    failed = {"outcome": Outcome.FAILED, "verdict": None, "flagged": False, "stacks": ()}
    revise(decided, 100, "v2", **failed)
    revise(decided, 200, "v3")
    revise(decided, 300, "v4")

    assert decided.report_record("v3").before == (
        EarlierVerdict(2, Outcome.FAILED, None, flagged=False),
        EarlierVerdict(1, Outcome.ASSESSED, Verdict.LIMITED, flagged=True),
    )
    (newest,) = decided.report_record("v4").before
    assert newest.revision_number == 3


def test_revision_that_owed_nothing_is_not_what_was_said_before(store: Store) -> None:
    """P5: what nobody was told is not taken back."""
    fill(store, 1)
    close(store, 30)
    decide(store, 31, "v1", ())
    revise(store, 100, "v2")

    assert store.report_record("v2").before == ()


def test_enhanced_report_names_the_enhanced_one_before_it(decided: Store) -> None:
    """P5: beside two reports of one revision, each later one names the one of its own kind."""
    both = (ObjectKind.SR, ObjectKind.ENHANCED_SR)
    build(decided, 40)
    revise(decided, 100, "v2", both)
    second, second_enhanced = build(decided, 140), build(decided, 141)
    revise(decided, 200, "v3", both)
    third, third_enhanced = build(decided, 240), build(decided, 241)

    def named(claimed: ClaimedObject) -> str:
        assert claimed.record.predecessor is not None
        return claimed.record.predecessor.sop_uid

    assert ["2.25.1"] * 2 == [named(second), named(second_enhanced)]
    assert ["2.25.2", "2.25.3"] == [named(third), named(third_enhanced)]


def test_reports_of_a_series_are_made_in_order(decided: Store) -> None:
    """P5: a later report waits while an earlier one is owed, even by a process that is dead."""
    revise(decided, 100, "v2")

    first = decided.claim_object("dead", at(140), LEASE_S)

    assert first is not None
    assert first.record.verdict_id == "v1"
    assert decided.claim_object("owner", at(141), LEASE_S) is None
    decided.release_expired_leases(at(300), "sweeper")
    assert [build(decided, now).record.verdict_id for now in (305, 306)] == ["v1", "v2"]


def fail(store: Store, now_s: float) -> int:
    """Claim the next object, and record that it cannot be made."""
    owed = store.claim_object("owner", at(now_s), LEASE_S)
    assert owed is not None
    assert store.object_failed(owed.object_id, "owner", "broken", at(now_s))
    return owed.object_id


def test_report_that_failed_is_superseded_by_a_later_one(decided: Store) -> None:
    """P5: nothing of revision 1 is made after the report of revision 2, as if it were newer."""
    revise(decided, 100, "v2")
    failed = fail(decided, 140)
    second = build(decided, 141)

    why = "superseded: the report of revision 2 of the series was made before it"
    assert second.record.predecessor is None
    assert decided.retry_deliveries(None, "operator", "mended", at(150)) == 0
    assert decided.claim_object("owner", at(9999), LEASE_S) is None
    first = rows_of(decided, "objects")[0]
    assert (first["state"], first["error"]) == ("SUPERSEDED", why)
    dead = decided.delivery_rows(state=DeliveryState.DEAD)
    assert [(row.verdict_id, row.last_error) for row in dead] == [("v1", why)] * 2
    assert [entry[:3] for entry in told(decided)[-3:]] == [
        ("OBJECT_SUPERSEDED", f"object:{failed}", {"error": why}),
        ("DELIVERY_DEAD", "delivery:1", {"error": why}),
        ("DELIVERY_DEAD", "delivery:2", {"error": why}),
    ]
    assert decided.report_record("v2") == second.record


def test_report_tried_again_while_a_later_one_is_made_is_superseded(decided: Store) -> None:
    """P5: whichever of two reports is finished first, the older one never comes second."""
    revise(decided, 100, "v2")
    fail(decided, 140)
    second = decided.claim_object("owner", at(141), LEASE_S)
    assert second is not None
    assert decided.retry_deliveries(None, "operator", "mended", at(142)) == 1
    first = decided.claim_object("other", at(143), LEASE_S)
    assert first is not None

    decided.object_built(second.object_id, "owner", made(2), Path("/o"), at(144))

    assert not decided.object_built(first.object_id, "other", made(1), Path("/o"), at(145))
    assert [row["state"] for row in rows_of(decided, "objects")] == ["SUPERSEDED", "BUILT"]


def test_later_report_waits_for_a_key_object_selection_that_is_owed(decided: Store) -> None:
    """P5: a flag that waits for the disk does not arrive after the report that takes it back."""
    build(decided, 40)
    revise(decided, 100, "v2", (ObjectKind.SR, ObjectKind.KOS))
    build(decided, 140)
    flag = decided.claim_object("owner", at(141), LEASE_S)
    assert flag is not None
    decided.object_retry(flag.object_id, "owner", "disk full", at(1000))
    revise(decided, 200, "v3")

    assert decided.claim_object("owner", at(999), LEASE_S) is None
    assert [flag.object_id, "v3"] == [
        build(decided, 1000).object_id,
        build(decided, 1001).record.verdict_id,
    ]


def test_report_that_failed_beside_another_of_its_revision_is_tried_again(decided: Store) -> None:
    """P5: only a later revision supersedes; an Enhanced SR is for other destinations."""
    build(decided, 40)
    revise(decided, 100, "v2", (ObjectKind.SR, ObjectKind.ENHANCED_SR))
    failed = fail(decided, 140)
    build(decided, 141)

    assert decided.retry_deliveries(None, "operator", "mended", at(150)) == 1
    assert build(decided, 151).object_id == failed


@pytest.mark.parametrize(
    "values",
    [
        {"stacks": [{"orientation": "SECRET"}]},
        {"stacks": ["SECRET"]},
        {"confidence_reasons": ["SECRET"]},
        {"deciding_stack": None, "stacks": 7},
    ],
)
def test_verdict_that_cannot_be_read_blocks_no_other(
    decided: Store, values: dict[str, object]
) -> None:
    """P5, P10: its object is FAILED without a value of the row, and the next one is taken."""
    fill(decided, 1, series="1.2.10", first=50, now_s=100)
    close(decided, 130)
    decide(decided, 131, "v2")
    with decided.writing() as connection:
        connection.execute(verdicts.update().where(verdicts.c.id == "v1").values(**values))

    owed = decided.claim_object("owner", at(140), LEASE_S)

    assert owed is not None
    assert owed.record.verdict_id == "v2"
    broken = rows_of(decided, "objects")[0]
    assert (broken["state"], broken["lease_owner"]) == ("FAILED", None)
    assert broken["error"].startswith("the rows of its verdict cannot be read (")
    assert "SECRET" not in str(told(decided)) + broken["error"]


def test_unknown_verdict_is_said(store: Store) -> None:
    """A report of a verdict that is not there is an error, never an empty one."""
    with pytest.raises(LookupError):
        store.report_record("none")
