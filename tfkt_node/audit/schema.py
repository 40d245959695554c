"""The tables of the audit store, alike on SQLite and PostgreSQL.

Unique constraints do the work that a look before an insert cannot do under concurrency: one row an
instance, one OPEN revision a series, one verdict a revision, one object of a kind a verdict, one
delivery an object and destination, one successor an event. States are CHECKed; reasons are not, for
their list grows.

Databases are made by `migrations/` only, which add the triggers that refuse to change or delete an
event; a test compares what they make with what stands here.
"""

from __future__ import annotations

import sqlalchemy as sa

from tfkt_node.audit.columns import (
    CanonicalJson,
    UtcDateTime,
    index_in_state,
    index_leases,
    lease_columns,
    link_to,
    one_of,
    row_id,
)
from tfkt_node.records import (
    AssociationEnd,
    Confidence,
    DeliveryState,
    InstanceState,
    ObjectKind,
    ObjectState,
    Outcome,
    Population,
    RevisionState,
    Verdict,
)

NEWEST = "0003"
"""The last step of `migrations/versions`, which makes the tables below."""

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


installation = sa.Table(
    "installation",
    metadata,
    row_id(),
    sa.Column("node_uid", sa.Text, nullable=False),
    sa.CheckConstraint("id = 1", name="single"),
)

associations = sa.Table(
    "associations",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("calling_ae", sa.Text, nullable=False),
    sa.Column("called_ae", sa.Text, nullable=False),
    sa.Column("address", sa.Text, nullable=False),
    sa.Column("opened_at", UtcDateTime, nullable=False),
    sa.Column("ended_at", UtcDateTime),
    sa.Column("how", sa.Text),
    one_of("how", AssociationEnd),
)

series = sa.Table(
    "series",
    metadata,
    row_id(),
    sa.Column("patient_id", sa.Text, nullable=False),
    sa.Column("study_uid", sa.Text, nullable=False),
    sa.Column("series_uid", sa.Text, nullable=False),
    sa.Column("modality", sa.Text, nullable=False),
    sa.Column("accession_number", sa.Text, nullable=False),
    sa.Column("study_date", sa.Text, nullable=False),
    sa.Column("series_description", sa.Text, nullable=False),
    sa.Column("calling_ae", sa.Text, nullable=False, comment="of the last arrival"),
    sa.Column(
        "attributes",
        sa.LargeBinary,
        nullable=False,
        comment="of the first instance, or the last corrected",
    ),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.UniqueConstraint("patient_id", "study_uid", "series_uid"),
    sa.Index(None, "series_uid"),
    sa.Index(None, "accession_number"),
)

instances = sa.Table(
    "instances",
    metadata,
    row_id(),
    sa.Column("digest", sa.Text, nullable=False, unique=True),
    sa.Column("path", sa.Text, nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("sop_class_uid", sa.Text, nullable=False),
    sa.Column("sop_instance_uid", sa.Text, nullable=False),
    sa.Column("transfer_syntax_uid", sa.Text, nullable=False),
    sa.Column("calling_ae", sa.Text, nullable=False),
    # No foreign key: an instance is indexed even if the database was away at its association.
    sa.Column("association_id", sa.Text),
    sa.Column("received_at", UtcDateTime, nullable=False),
    sa.Column("indexed_at", UtcDateTime, nullable=False),
    link_to("series_id", "series.id", nullable=True),
    sa.Column("instance_number", sa.BigInteger),
    sa.Column("expected_count", sa.BigInteger),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("reason", sa.Text),
    sa.Column("detail", sa.Text, nullable=False, server_default=""),
    sa.Column("missing_since", UtcDateTime),
    one_of("state", InstanceState),
    sa.Index(None, "series_id", "sop_instance_uid"),
    sa.Index(None, "sop_instance_uid"),
)

revisions = sa.Table(
    "revisions",
    metadata,
    row_id(),
    link_to("series_id", "series.id"),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("opened_at", UtcDateTime, nullable=False),
    sa.Column("last_arrival_at", UtcDateTime, nullable=False),
    sa.Column("quiet_since", UtcDateTime, nullable=False),
    sa.Column("closed_at", UtcDateTime),
    sa.Column("evidence", CanonicalJson, comment="why the series was judged complete"),
    *lease_columns(),
    one_of("state", RevisionState),
    sa.UniqueConstraint("series_id", "number"),
)
index_in_state("uq_revisions_open", RevisionState.OPEN, revisions.c.series_id, unique=True)
index_in_state(
    "ix_revisions_stable", RevisionState.STABLE, revisions.c.last_arrival_at, unique=False
)
index_leases("ix_revisions_leased", revisions)

revision_instances = sa.Table(
    "revision_instances",
    metadata,
    sa.Column("revision_id", sa.BigInteger, sa.ForeignKey("revisions.id"), primary_key=True),
    sa.Column("position", sa.Integer, primary_key=True, comment="0-based"),
    link_to("instance_id", "instances.id"),
    sa.Column("state", sa.Text),
    sa.Column("reason", sa.Text),
    sa.Column("detail", sa.Text, nullable=False, server_default=""),
    one_of("state", InstanceState),
    sa.UniqueConstraint("revision_id", "instance_id"),
)

criteria = sa.Table(
    "criteria",
    metadata,
    row_id(),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("population", sa.Text, nullable=False),
    sa.Column("diagnostic_from", sa.Double, nullable=False),
    sa.Column("limited_from", sa.Double, nullable=False),
    sa.Column("flag_at", sa.Text, nullable=False),
    sa.Column("min_slices", sa.Integer, nullable=False),
    sa.Column("owner", sa.Text, nullable=False),
    one_of("population", Population),
    one_of("flag_at", Verdict),
    # Adults and children may share their thresholds, and so the digest.
    sa.UniqueConstraint("digest", "population"),
)

bundles = sa.Table(
    "bundles",
    metadata,
    row_id(),
    sa.Column("digest", sa.Text, nullable=False, unique=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("version", sa.Text, nullable=False),
)

verdicts = sa.Table(
    "verdicts",
    metadata,
    sa.Column("id", sa.Text, primary_key=True, comment="the UIDs of the objects derive from it"),
    sa.Column(
        "revision_id", sa.BigInteger, sa.ForeignKey("revisions.id"), nullable=False, unique=True
    ),
    sa.Column("decided_at", UtcDateTime, nullable=False),
    sa.Column("outcome", sa.Text, nullable=False),
    sa.Column("reason", sa.Text),
    sa.Column("detail", sa.Text, nullable=False),
    sa.Column("verdict", sa.Text),
    sa.Column("confidence", sa.Text),
    sa.Column("confidence_reasons", CanonicalJson, nullable=False),
    sa.Column("flagged", sa.Boolean(create_constraint=False), nullable=False),
    sa.Column("score", sa.Double),
    sa.Column("low", sa.Double),
    sa.Column("high", sa.Double),
    sa.Column("deciding_stack", sa.Integer),
    sa.Column("stacks", CanonicalJson, nullable=False, comment="summaries, without slices"),
    link_to("criteria_id", "criteria.id"),
    link_to("bundle_id", "bundles.id", nullable=True),
    sa.Column("engine", sa.Text),
    sa.Column("precision", sa.Text),
    sa.Column("attributes", sa.LargeBinary, nullable=False),
    sa.Column("software_version", sa.Text, nullable=False),
    sa.Column("no_report_because", sa.Text, nullable=False),
    one_of("outcome", Outcome),
    one_of("verdict", Verdict),
    one_of("confidence", Confidence),
    sa.CheckConstraint("(outcome = 'ASSESSED') = (verdict IS NOT NULL)", name="verdict_if"),
)

slice_scores = sa.Table(
    "slice_scores",
    metadata,
    sa.Column("verdict_id", sa.Text, sa.ForeignKey("verdicts.id"), primary_key=True),
    sa.Column("stack", sa.Integer, primary_key=True, comment="index into verdicts.stacks"),
    sa.Column("position", sa.Integer, primary_key=True, comment="0-based, along the stack"),
    link_to("instance_id", "instances.id"),
    sa.Column("frame", sa.Integer),
    sa.Column("position_mm", sa.Double),
    sa.Column("score", sa.Double),
    sa.Column("low", sa.Double),
    sa.Column("high", sa.Double),
    sa.Column("in_scope", sa.Boolean(create_constraint=False), nullable=False),
    sa.Column("reason", sa.Text),
    sa.Column("outline", CanonicalJson),
)

objects = sa.Table(
    "objects",
    metadata,
    row_id(),
    link_to("series_id", "series.id"),
    sa.Column("verdict_id", sa.Text, sa.ForeignKey("verdicts.id"), nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("sop_class_uid", sa.Text),
    sa.Column("sop_instance_uid", sa.Text, unique=True),
    sa.Column("own_series_uid", sa.Text, comment="the series that the object is in"),
    sa.Column("path", sa.Text),
    sa.Column("sha256", sa.Text, comment="of the whole file"),
    # Kept once the object was made, so that it names the same predecessor when it is made anew.
    link_to("predecessor_id", "objects.id", nullable=True),
    sa.Column("error", sa.Text, nullable=False, server_default=""),
    sa.Column("built_at", UtcDateTime),
    *lease_columns(),
    one_of("kind", ObjectKind),
    one_of("state", ObjectState),
    sa.UniqueConstraint("verdict_id", "kind"),
    sa.Index(None, "series_id"),
)
index_in_state("ix_objects_owed", ObjectState.OWED, objects.c.id, unique=False)
index_leases("ix_objects_leased", objects)

deliveries = sa.Table(
    "deliveries",
    metadata,
    row_id(),
    link_to("object_id", "objects.id"),
    sa.Column("destination", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("owed_at", UtcDateTime, nullable=False),
    sa.Column("sent_at", UtcDateTime),
    sa.Column("status", sa.Integer, comment="DIMSE status of the C-STORE response"),
    sa.Column("comment", sa.Text, nullable=False, server_default=""),
    sa.Column("last_error", sa.Text, nullable=False, server_default=""),
    *lease_columns(),
    one_of("state", DeliveryState),
    sa.UniqueConstraint("object_id", "destination"),
)
index_in_state(
    "ix_deliveries_pending",
    DeliveryState.PENDING,
    deliveries.c.destination,
    deliveries.c.next_attempt_at,
    unique=False,
)
index_leases("ix_deliveries_leased", deliveries)

events = sa.Table(
    "events",
    metadata,
    sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("at", UtcDateTime, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("detail", sa.Text, nullable=False, comment="canonical JSON; the text is hashed"),
    sa.Column("prev_hash", sa.Text, nullable=False, unique=True),
    sa.Column("hash", sa.Text, nullable=False, unique=True),
    sa.Index(None, "subject"),
)
