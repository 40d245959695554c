"""P9: what the chain of events tells is compared with the rows that people look at."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from tfkt_node.audit import chain, proof
from tfkt_node.audit.chain import ChainFault
from tfkt_node.audit.store import Store
from tfkt_node.records import ObjectKind

from .making import LEASE_S, at, build, claimed, close, decide, failed, fill


@pytest.fixture
def audit(store: Store) -> Store:
    """Give a store that went through every end: outcomes, objects and deliveries."""
    fill(store, 2)
    close(store, 30)
    decide(store, 31, "v1", (ObjectKind.SR, ObjectKind.KOS), ("pacs", "archive"))
    build(store, 40)
    build(store, 41)
    for name in ("pacs", "archive"):
        delivery = store.claim_delivery("owner", name, at(42), LEASE_S)
        assert delivery is not None
        if name == "pacs":
            store.delivery_sent(delivery.delivery_id, "owner", 0xB000, "coerced", at(43))
        else:
            store.delivery_dead(delivery.delivery_id, "owner", "refused", at(43))
            store.retry_deliveries("archive", "operator", "mended", at(44))
    store.end_orphaned_deliveries(["pacs"], at(45))
    fill(store, 1, first=3, now_s=100)
    close(store, 130)
    revision = claimed(store, 131)
    assert store.commit_assessment(
        revision.revision_id, "owner", failed(revision.instances), "v2", {}, "", at(132)
    )
    return store


def test_rows_that_nobody_changed_are_as_the_chain_tells(audit: Store) -> None:
    """P9: the proof holds on rows of every end, also while work goes on."""
    report = proof.verify(audit)

    assert report.holds, report.message
    assert report == chain.verify(audit)
    audit.retry_deliveries(None, "operator", "again", at(200))
    assert proof.verify(audit).holds


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("UPDATE verdicts SET verdict = 'DIAGNOSTIC' WHERE id = 'v1'", "verdict LIMITED"),
        ("UPDATE verdicts SET score = 3.9 WHERE id = 'v1'", "score 2.0; its row has score 3.9"),
        ("UPDATE verdicts SET flagged = false WHERE id = 'v1'", "flagged True"),
        ("UPDATE verdicts SET confidence = 'CONFIDENT' WHERE id = 'v1'", "LOW_CONFIDENCE"),
        ("UPDATE verdicts SET reason = 'LOCALIZER' WHERE id = 'v2'", "SCORER_CRASHED"),
        ("UPDATE verdicts SET outcome = 'NOT_ASSESSED' WHERE id = 'v2'", "outcome FAILED"),
        ("UPDATE criteria SET digest = 'other'", "criteria cccc"),
        ("UPDATE bundles SET digest = 'other'", "bundle bbbb"),
        ("UPDATE objects SET sha256 = 'other' WHERE id = 1", "object:1 sha256"),
        ("UPDATE deliveries SET status = 0 WHERE state = 'SENT'", "status 45056"),
        ("UPDATE deliveries SET state = 'PENDING' WHERE state = 'SENT'", "state SENT"),
        ("UPDATE deliveries SET state = 'SENT' WHERE state = 'DEAD'", "state DEAD"),
        ("UPDATE deliveries SET state = 'SENT' WHERE state = 'PENDING'", "no event tells"),
        ("DELETE FROM deliveries WHERE state = 'SENT'", "no row has it"),
        ("DELETE FROM verdicts WHERE id = 'v2'", "no row has it"),
    ],
)
def test_changed_row_is_found(audit: Store, statement: str, words: str) -> None:
    """P9: a verdict, an object or a delivery that was changed is named, and not believed."""
    with audit.writing() as connection:
        connection.execute(sa.text(statement))

    report = proof.verify(audit)

    assert report.fault is ChainFault.CONTRADICTED
    assert words in report.message
    assert chain.verify(audit).holds


def test_verdict_that_no_event_tells_of_is_found(audit: Store) -> None:
    """P9: nobody adds a verdict beside the chain."""
    fill(audit, 1, series="1.2.10", first=50, now_s=300)
    close(audit, 330)
    with audit.writing() as connection:
        connection.execute(
            sa.text("UPDATE verdicts SET id = 'v3', revision_id = 3 WHERE id = 'v2'")
        )

    assert proof.verify(audit).fault is ChainFault.CONTRADICTED
