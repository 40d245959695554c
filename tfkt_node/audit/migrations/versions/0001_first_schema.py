"""The first schema: what the node keeps from reception to delivery, and the chain of events."""

import uuid

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

APPEND_ONLY = {
    "sqlite": (
        "CREATE TRIGGER events_no_update BEFORE UPDATE ON events "
        "BEGIN SELECT RAISE(ABORT, 'events are append-only'); END",
        "CREATE TRIGGER events_no_delete BEFORE DELETE ON events "
        "BEGIN SELECT RAISE(ABORT, 'events are append-only'); END",
    ),
    "postgresql": (
        "CREATE FUNCTION events_append_only() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'events are append-only'; END $$",
        "CREATE TRIGGER events_no_change BEFORE UPDATE OR DELETE OR TRUNCATE ON events "
        "FOR EACH STATEMENT EXECUTE FUNCTION events_append_only()",
    ),
}


def upgrade() -> None:
    op.create_table(
        "associations",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("calling_ae", sa.Text(), nullable=False),
        sa.Column("called_ae", sa.Text(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("how", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "how IN ('RELEASED', 'ABORTED', 'LOST')", name=op.f("ck_associations_how")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_associations")),
    )
    op.create_table(
        "bundles",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_bundles")),
        sa.UniqueConstraint("digest", name=op.f("uq_bundles_digest")),
    )
    op.create_table(
        "criteria",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("population", sa.Text(), nullable=False),
        sa.Column("diagnostic_from", sa.Double(), nullable=False),
        sa.Column("limited_from", sa.Double(), nullable=False),
        sa.Column("flag_at", sa.Text(), nullable=False),
        sa.Column("min_slices", sa.Integer(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.CheckConstraint(
            "flag_at IN ('DIAGNOSTIC', 'LIMITED', 'NON_DIAGNOSTIC')",
            name=op.f("ck_criteria_flag_at"),
        ),
        sa.CheckConstraint("population IN ('ADULT', 'CHILD')", name=op.f("ck_criteria_population")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_criteria")),
        sa.UniqueConstraint("digest", "population", name=op.f("uq_criteria_digest_population")),
    )
    op.create_table(
        "events",
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column(
            "detail", sa.Text(), nullable=False, comment="canonical JSON; the text is hashed"
        ),
        sa.Column("prev_hash", sa.Text(), nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_events")),
        sa.UniqueConstraint("hash", name=op.f("uq_events_hash")),
        sa.UniqueConstraint("prev_hash", name=op.f("uq_events_prev_hash")),
    )
    op.create_index(op.f("ix_events_subject"), "events", ["subject"], unique=False)
    op.create_table(
        "installation",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("node_uid", sa.Text(), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_installation_single")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_installation")),
    )
    op.create_table(
        "series",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("patient_id", sa.Text(), nullable=False),
        sa.Column("study_uid", sa.Text(), nullable=False),
        sa.Column("series_uid", sa.Text(), nullable=False),
        sa.Column("modality", sa.Text(), nullable=False),
        sa.Column("accession_number", sa.Text(), nullable=False),
        sa.Column("study_date", sa.Text(), nullable=False),
        sa.Column("series_description", sa.Text(), nullable=False),
        sa.Column("calling_ae", sa.Text(), nullable=False, comment="of the last arrival"),
        sa.Column(
            "attributes",
            sa.LargeBinary(),
            nullable=False,
            comment="of the first instance, or the last corrected",
        ),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_series")),
        sa.UniqueConstraint(
            "patient_id",
            "study_uid",
            "series_uid",
            name=op.f("uq_series_patient_id_study_uid_series_uid"),
        ),
    )
    op.create_index(
        op.f("ix_series_accession_number"), "series", ["accession_number"], unique=False
    )
    op.create_index(op.f("ix_series_series_uid"), "series", ["series_uid"], unique=False)
    op.create_table(
        "instances",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("sop_class_uid", sa.Text(), nullable=False),
        sa.Column("sop_instance_uid", sa.Text(), nullable=False),
        sa.Column("transfer_syntax_uid", sa.Text(), nullable=False),
        sa.Column("calling_ae", sa.Text(), nullable=False),
        sa.Column("association_id", sa.Text(), nullable=True),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("indexed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("series_id", sa.BigInteger(), nullable=True),
        sa.Column("instance_number", sa.BigInteger(), nullable=True),
        sa.Column("expected_count", sa.BigInteger(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("detail", sa.Text(), server_default="", nullable=False),
        sa.Column("missing_since", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "state IN ('INDEXED', 'SCORED', 'NOT_ASSESSED', 'SET_ASIDE')",
            name=op.f("ck_instances_state"),
        ),
        sa.ForeignKeyConstraint(["series_id"], ["series.id"], name=op.f("fk_instances_series_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_instances")),
        sa.UniqueConstraint("digest", name=op.f("uq_instances_digest")),
    )
    op.create_index(
        op.f("ix_instances_series_id_sop_instance_uid"),
        "instances",
        ["series_id", "sop_instance_uid"],
        unique=False,
    )
    op.create_index(
        op.f("ix_instances_sop_instance_uid"), "instances", ["sop_instance_uid"], unique=False
    )
    op.create_table(
        "revisions",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("series_id", sa.BigInteger(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_arrival_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("quiet_since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "evidence", sa.Text(), nullable=True, comment="why the series was judged complete"
        ),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("next_attempt_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("lease_owner", sa.Text(), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "state IN ('OPEN', 'STABLE', 'SCORING', 'ASSESSED', 'NOT_ASSESSED', 'FAILED')",
            name=op.f("ck_revisions_state"),
        ),
        sa.ForeignKeyConstraint(["series_id"], ["series.id"], name=op.f("fk_revisions_series_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_revisions")),
        sa.UniqueConstraint("series_id", "number", name=op.f("uq_revisions_series_id_number")),
    )
    op.create_index(
        "ix_revisions_stable",
        "revisions",
        ["last_arrival_at"],
        unique=False,
        sqlite_where=sa.text("state = 'STABLE'"),
        postgresql_where=sa.text("state = 'STABLE'"),
    )
    op.create_index(
        "uq_revisions_open",
        "revisions",
        ["series_id"],
        unique=True,
        sqlite_where=sa.text("state = 'OPEN'"),
        postgresql_where=sa.text("state = 'OPEN'"),
    )
    op.create_table(
        "revision_instances",
        sa.Column("revision_id", sa.BigInteger(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False, comment="0-based"),
        sa.Column("instance_id", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("detail", sa.Text(), server_default="", nullable=False),
        sa.CheckConstraint(
            "state IN ('INDEXED', 'SCORED', 'NOT_ASSESSED', 'SET_ASIDE')",
            name=op.f("ck_revision_instances_state"),
        ),
        sa.ForeignKeyConstraint(
            ["instance_id"], ["instances.id"], name=op.f("fk_revision_instances_instance_id")
        ),
        sa.ForeignKeyConstraint(
            ["revision_id"], ["revisions.id"], name=op.f("fk_revision_instances_revision_id")
        ),
        sa.PrimaryKeyConstraint("revision_id", "position", name=op.f("pk_revision_instances")),
        sa.UniqueConstraint(
            "revision_id", "instance_id", name=op.f("uq_revision_instances_revision_id_instance_id")
        ),
    )
    op.create_table(
        "verdicts",
        sa.Column(
            "id", sa.Text(), nullable=False, comment="the UIDs of the objects derive from it"
        ),
        sa.Column("revision_id", sa.BigInteger(), nullable=False),
        sa.Column("decided_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("verdict", sa.Text(), nullable=True),
        sa.Column("confidence", sa.Text(), nullable=True),
        sa.Column("confidence_reasons", sa.Text(), nullable=False),
        sa.Column("flagged", sa.Boolean(), nullable=False),
        sa.Column("score", sa.Double(), nullable=True),
        sa.Column("low", sa.Double(), nullable=True),
        sa.Column("high", sa.Double(), nullable=True),
        sa.Column("deciding_stack", sa.Integer(), nullable=True),
        sa.Column("stacks", sa.Text(), nullable=False, comment="summaries, without slices"),
        sa.Column("criteria_id", sa.BigInteger(), nullable=False),
        sa.Column("bundle_id", sa.BigInteger(), nullable=True),
        sa.Column("engine", sa.Text(), nullable=True),
        sa.Column("precision", sa.Text(), nullable=True),
        sa.Column("attributes", sa.LargeBinary(), nullable=False),
        sa.Column("software_version", sa.Text(), nullable=False),
        sa.Column("no_report_because", sa.Text(), nullable=False),
        sa.CheckConstraint(
            "(outcome = 'ASSESSED') = (verdict IS NOT NULL)", name=op.f("ck_verdicts_verdict_if")
        ),
        sa.CheckConstraint(
            "confidence IN ('CONFIDENT', 'LOW_CONFIDENCE')", name=op.f("ck_verdicts_confidence")
        ),
        sa.CheckConstraint(
            "outcome IN ('ASSESSED', 'NOT_ASSESSED', 'FAILED')", name=op.f("ck_verdicts_outcome")
        ),
        sa.CheckConstraint(
            "verdict IN ('DIAGNOSTIC', 'LIMITED', 'NON_DIAGNOSTIC')",
            name=op.f("ck_verdicts_verdict"),
        ),
        sa.ForeignKeyConstraint(["bundle_id"], ["bundles.id"], name=op.f("fk_verdicts_bundle_id")),
        sa.ForeignKeyConstraint(
            ["criteria_id"], ["criteria.id"], name=op.f("fk_verdicts_criteria_id")
        ),
        sa.ForeignKeyConstraint(
            ["revision_id"], ["revisions.id"], name=op.f("fk_verdicts_revision_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_verdicts")),
        sa.UniqueConstraint("revision_id", name=op.f("uq_verdicts_revision_id")),
    )
    op.create_table(
        "objects",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("series_id", sa.BigInteger(), nullable=False),
        sa.Column("verdict_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("sop_class_uid", sa.Text(), nullable=True),
        sa.Column("sop_instance_uid", sa.Text(), nullable=True),
        sa.Column(
            "own_series_uid", sa.Text(), nullable=True, comment="the series that the object is in"
        ),
        sa.Column("path", sa.Text(), nullable=True),
        sa.Column("sha256", sa.Text(), nullable=True, comment="of the whole file"),
        sa.Column("predecessor_id", sa.BigInteger(), nullable=True),
        sa.Column("error", sa.Text(), server_default="", nullable=False),
        sa.Column("built_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("next_attempt_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("lease_owner", sa.Text(), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("kind IN ('SR', 'KOS')", name=op.f("ck_objects_kind")),
        sa.CheckConstraint("state IN ('OWED', 'BUILT', 'FAILED')", name=op.f("ck_objects_state")),
        sa.ForeignKeyConstraint(
            ["predecessor_id"], ["objects.id"], name=op.f("fk_objects_predecessor_id")
        ),
        sa.ForeignKeyConstraint(["series_id"], ["series.id"], name=op.f("fk_objects_series_id")),
        sa.ForeignKeyConstraint(
            ["verdict_id"], ["verdicts.id"], name=op.f("fk_objects_verdict_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_objects")),
        sa.UniqueConstraint("sop_instance_uid", name=op.f("uq_objects_sop_instance_uid")),
        sa.UniqueConstraint("verdict_id", "kind", name=op.f("uq_objects_verdict_id_kind")),
    )
    op.create_index(
        "ix_objects_owed",
        "objects",
        ["id"],
        unique=False,
        sqlite_where=sa.text("state = 'OWED'"),
        postgresql_where=sa.text("state = 'OWED'"),
    )
    op.create_index(op.f("ix_objects_series_id"), "objects", ["series_id"], unique=False)
    op.create_table(
        "slice_scores",
        sa.Column("verdict_id", sa.Text(), nullable=False),
        sa.Column("stack", sa.Integer(), nullable=False, comment="index into verdicts.stacks"),
        sa.Column("position", sa.Integer(), nullable=False, comment="0-based, along the stack"),
        sa.Column("instance_id", sa.BigInteger(), nullable=False),
        sa.Column("frame", sa.Integer(), nullable=True),
        sa.Column("position_mm", sa.Double(), nullable=True),
        sa.Column("score", sa.Double(), nullable=True),
        sa.Column("low", sa.Double(), nullable=True),
        sa.Column("high", sa.Double(), nullable=True),
        sa.Column("in_scope", sa.Boolean(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("outline", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["instance_id"], ["instances.id"], name=op.f("fk_slice_scores_instance_id")
        ),
        sa.ForeignKeyConstraint(
            ["verdict_id"], ["verdicts.id"], name=op.f("fk_slice_scores_verdict_id")
        ),
        sa.PrimaryKeyConstraint("verdict_id", "stack", "position", name=op.f("pk_slice_scores")),
    )
    op.create_table(
        "deliveries",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("object_id", sa.BigInteger(), nullable=False),
        sa.Column("destination", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("owed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("sent_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "status", sa.Integer(), nullable=True, comment="DIMSE status of the C-STORE response"
        ),
        sa.Column("comment", sa.Text(), server_default="", nullable=False),
        sa.Column("last_error", sa.Text(), server_default="", nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("next_attempt_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("lease_owner", sa.Text(), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "state IN ('PENDING', 'SENT', 'COMMITTED', 'DEAD')", name=op.f("ck_deliveries_state")
        ),
        sa.ForeignKeyConstraint(
            ["object_id"], ["objects.id"], name=op.f("fk_deliveries_object_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deliveries")),
        sa.UniqueConstraint(
            "object_id", "destination", name=op.f("uq_deliveries_object_id_destination")
        ),
    )
    op.create_index(
        "ix_deliveries_pending",
        "deliveries",
        ["destination", "next_attempt_at"],
        unique=False,
        sqlite_where=sa.text("state = 'PENDING'"),
        postgresql_where=sa.text("state = 'PENDING'"),
    )
    for table in ("revisions", "objects", "deliveries"):
        op.create_index(
            f"ix_{table}_leased",
            table,
            ["lease_until"],
            unique=False,
            sqlite_where=sa.text("lease_until IS NOT NULL"),
            postgresql_where=sa.text("lease_until IS NOT NULL"),
        )
    # A UID of the node's own (PS3.5 B.2): the device observer of all its reports.
    node = {"id": 1, "node_uid": f"2.25.{uuid.uuid4().int}"}
    op.bulk_insert(sa.table("installation", sa.column("id"), sa.column("node_uid")), [node])
    for statement in APPEND_ONLY[op.get_bind().dialect.name]:
        op.execute(statement)
