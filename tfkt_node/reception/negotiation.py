"""What the Storage SCP offers: SOP classes, and the transfer syntaxes of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence

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

from tfkt_node.reception.incoming import is_uid
from tfkt_node.records import CT_CLASSES
from tfkt_node.settings import Reception

VERIFICATION = str(Verification)

STANDARD = "1.2.840.10008."
"""The root of all UIDs of the standard: PS3.5 section 9."""
STORAGE = "1.2.840.10008.5.1.4.1.1."
"""The root of its storage classes, retired ones too: PS3.6 table A-1."""
STORAGE_ELSEWHERE = frozenset(str(one.abstract_syntax) for one in AllStoragePresentationContexts)
"""Some of radiotherapy lie beside that root."""

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


Offered = Callable[[str], Sequence[str] | None]
"""The transfer syntaxes of an abstract syntax, the preferred first; None where it is rejected."""


def is_storage(abstract_syntax: str) -> bool:
    """Tell, by its UID, whether an abstract syntax is a storage class: of today, retired, private.

    What lies outside the root of the standard is private, and taken for storage: a scanner sends
    its private objects among the images, and many fail the whole study where one is not taken.
    """
    if abstract_syntax.startswith(STANDARD):
        return abstract_syntax.startswith(STORAGE) or abstract_syntax in STORAGE_ELSEWHERE
    return is_uid(abstract_syntax)


def offered(settings: Reception, decodable: Sequence[str]) -> Offered:
    """Return what to offer: C-ECHO, the CT classes, and by setting all other storage classes."""
    for_echo = [str(syntax) for syntax in DEFAULT_TRANSFER_SYNTAXES]
    for_storage = transfer_syntaxes(decodable)

    def of(abstract_syntax: str) -> Sequence[str] | None:
        if abstract_syntax == VERIFICATION:
            return for_echo
        if abstract_syntax in CT_CLASSES:
            return for_storage
        others = settings.other_classes == "set_aside"
        return for_storage if others and is_storage(abstract_syntax) else None

    return of
