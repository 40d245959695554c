"""What the Storage SCP offers: presentation contexts and limits of its associations."""

from __future__ import annotations

from collections.abc import Sequence

from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts
from pynetdicom.sop_class import Verification

from tfkt_node.records import (
    CT_CLASSES,
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
)
from tfkt_node.settings import Reception

MAXIMUM_PDU_BYTES = 128 * 1024
"""Large PDUs cut the receiver's CPU time by a third; a sender may use smaller ones."""

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


def application_entity(settings: Reception, decodable: Sequence[str]) -> AE:
    """Set up the application entity: C-ECHO, the CT classes, and the other classes by setting."""
    ae = AE(ae_title=settings.ae_title)
    ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    ae.maximum_pdu_size = MAXIMUM_PDU_BYTES
    ae.maximum_associations = settings.maximum_associations
    ae.acse_timeout = settings.socket_timeout_s
    ae.network_timeout = settings.network_timeout_s
    ae.add_supported_context(Verification)
    syntaxes = transfer_syntaxes(decodable)
    for sop_class in sorted(CT_CLASSES):
        ae.add_supported_context(sop_class, syntaxes)
    if settings.other_classes == "set_aside":
        for context in AllStoragePresentationContexts:
            if context.abstract_syntax not in CT_CLASSES:
                ae.add_supported_context(context.abstract_syntax, syntaxes)
    return ae
