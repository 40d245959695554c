"""What reception hands over to the index: instances, and the associations that brought them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from tfkt_node.records import AssociationEnd, StoredInstance


@dataclass(frozen=True, slots=True)
class AssociationOpened:
    """A peer has opened an association."""

    association_id: str
    calling_ae: str
    called_ae: str
    address: str
    at: datetime


@dataclass(frozen=True, slots=True)
class AssociationEnded:
    """An association has ended."""

    association_id: str
    how: AssociationEnd
    at: datetime


Arrival = StoredInstance | AssociationOpened | AssociationEnded
