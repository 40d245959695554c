"""What the Storage SCP offers: SOP classes, and the transfer syntaxes of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from pynetdicom import (
    ALL_TRANSFER_SYNTAXES,
    DEFAULT_TRANSFER_SYNTAXES,
    AllStoragePresentationContexts,
)
from pynetdicom.sop_class import Verification

from tfkt_node.records import CT_CLASSES
from tfkt_node.settings import Reception

VERIFICATION = str(Verification)

UNCOMPRESSED = (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
)
"""Accepted in any case, in the order of preference."""

RETIRED_JPEG = tuple(f"1.2.840.10008.1.2.4.{number}" for number in (*range(52, 57), *range(58, 67)))
"""Processes that the standard has dropped, and archives have kept."""


def transfer_syntaxes(decodable: Sequence[str]) -> list[str]:
    """Return the transfer syntaxes to accept, the preferred first: the acceptor's order decides.

    decodable: in the caller's order of preference, which is kept; what it lacks of the uncompressed
    ones follows. Last come all others that the standard knows or knew: a sender that has nothing
    else is not turned away, what it sends is kept, and the scorer says that it cannot decode it.
    """
    kept = (*ALL_TRANSFER_SYNTAXES, *RETIRED_JPEG)
    return list(dict.fromkeys(map(str, (*decodable, *UNCOMPRESSED, *kept))))


def offered(settings: Reception, decodable: Sequence[str]) -> Mapping[str, Sequence[str]]:
    """Return transfer syntaxes by SOP class: C-ECHO, the CT classes, the others by setting."""
    storage = set(CT_CLASSES)
    if settings.other_classes == "set_aside":
        storage.update(str(one.abstract_syntax) for one in AllStoragePresentationContexts)
    return {
        VERIFICATION: [str(syntax) for syntax in DEFAULT_TRANSFER_SYNTAXES],
        **dict.fromkeys(storage, transfer_syntaxes(decodable)),
    }
