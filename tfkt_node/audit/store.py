"""The audit store: every transition of every record, each one transaction.

A transition is a conditional INSERT or UPDATE that returns whether it happened; its event joins
the chain in the same transaction. Nothing here reads a clock or makes an id: both are arguments.
Errors of the database leave as Retriable, Permanent or Misconfigured.
"""

from __future__ import annotations

import sqlalchemy as sa

from tfkt_node.audit.arrivals import Arrivals, IndexResult
from tfkt_node.audit.associations import Associations
from tfkt_node.audit.closing import Closing, QuietRevision
from tfkt_node.audit.database import upgrade, without_password
from tfkt_node.audit.leases import Leases
from tfkt_node.audit.listings import Listings
from tfkt_node.audit.objects import Objects
from tfkt_node.audit.outbox import Outbox
from tfkt_node.audit.reading import Reports
from tfkt_node.audit.schema import installation
from tfkt_node.audit.scoring import Scoring

__all__ = ["IndexResult", "QuietRevision", "Store", "upgrade", "without_password"]


class Store(Associations, Arrivals, Closing, Scoring, Objects, Outbox, Reports, Leases, Listings):
    """The whole store, by the stations of an image's path. Safe for threads; one a process."""

    def node_uid(self) -> str:
        """Return the UID of this installation (2.25.…), made once with its database."""
        with self.reading() as connection:
            return str(connection.execute(sa.select(installation.c.node_uid)).scalar_one())
