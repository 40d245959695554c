"""Who called: the rows of associations, from their beginning to their end."""

from __future__ import annotations

from datetime import datetime, timedelta

from tfkt_node.audit.database import Database, insert_once, storable
from tfkt_node.audit.schema import associations
from tfkt_node.records import AssociationEnd

LONGEST_ASSOCIATION = timedelta(days=1)
"""An association that another node opened longer ago is held to be lost."""


class Associations(Database):
    """Transitions of associations."""

    def open_association(
        self, association_id: str, calling_ae: str, called_ae: str, address: str, at: datetime
    ) -> bool:
        """Record an association that was accepted."""
        with self.writing() as connection:
            return insert_once(
                connection,
                associations,
                id=association_id,
                calling_ae=storable(calling_ae),
                called_ae=storable(called_ae),
                address=address,
                opened_at=at,
            )

    def end_association(self, association_id: str, how: AssociationEnd, at: datetime) -> bool:
        """Record how an association ended, once."""
        with self.writing() as connection:
            ended = connection.execute(
                associations.update()
                .where(associations.c.id == association_id, associations.c.ended_at.is_(None))
                .values(ended_at=at, how=how)
            )
            return ended.rowcount == 1

    def end_lost_associations(self, started_at: datetime, at: datetime) -> int:
        """Record as LOST the associations that a node left open when it died; return how many.

        started_at: when this node started. SQLite is one node's own, so that all opened before are
        lost. On PostgreSQL another node may hold them: there, those opened a day before it.
        """
        with self.writing() as connection:
            alone = connection.dialect.name == "sqlite"
            before = started_at if alone else started_at - LONGEST_ASSOCIATION
            lost = connection.execute(
                associations.update()
                .where(associations.c.ended_at.is_(None), associations.c.opened_at < before)
                .values(ended_at=at, how=AssociationEnd.LOST)
            )
            return lost.rowcount
