"""The modules around a content tree, and the finished file.

Written here element by element and not by highdicom's document classes: those take the time from
the clock, decode and re-encode the patient's name, refuse character sets that are in daily use,
and log UIDs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import (
    ComprehensiveSRStorage,
    EnhancedSRStorage,
    ExplicitVRLittleEndian,
    KeyObjectSelectionDocumentStorage,
    SecondaryCaptureImageStorage,
)

from tfkt_node.records import (
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    EvidenceInstance,
    MadeObject,
    ObjectKind,
    ReportRecord,
)
from tfkt_node.report import codes, uids
from tfkt_node.report.content import NODE_NAME, Item, plain
from tfkt_node.report.elements import encoded
from tfkt_node.report.identity import Identity, identity_of


@dataclass(frozen=True, slots=True)
class Form:
    """What distinguishes the kinds of object on the outside. Fixed: a PACS may route by these."""

    kind: ObjectKind
    sop_class_uid: str
    modality: str
    series_number: int


SR_FORM = Form(ObjectKind.SR, str(ComprehensiveSRStorage), "SR", 9901)
ENHANCED_SR_FORM = Form(ObjectKind.ENHANCED_SR, str(EnhancedSRStorage), "SR", 9901)
KOS_FORM = Form(ObjectKind.KOS, str(KeyObjectSelectionDocumentStorage), "KO", 9902)
PICTURE_FORM = Form(ObjectKind.PICTURE, str(SecondaryCaptureImageStorage), "OT", 9903)


def make(
    form: Form,
    record: ReportRecord,
    description: str,
    tree: Item,
    evidence: Sequence[EvidenceInstance],
) -> MadeObject:
    """Put the modules around a tree and encode the file (Part 10, Explicit VR Little Endian).

    description: Series Description. evidence: the instances that the object references.
    Raises Permanent where the stored attributes are damaged.
    """
    identity = identity_of(record)
    ds = _common(form, record, identity, description)
    ds.ReferencedPerformedProcedureStepSequence = []
    ds.CodingSchemeIdentificationSequence = [_coding_scheme()]
    if form.modality == "SR":
        ds.CompletionFlag, ds.VerificationFlag = "COMPLETE", "UNVERIFIED"
        ds.PreliminaryFlag = "FINAL"
        ds.PerformedProcedureCodeSequence = []
        if record.predecessor is not None:
            before = record.predecessor
            previous = EvidenceInstance(before.sop_class_uid, before.sop_uid)
            ds.PredecessorDocumentsSequence = _references(
                identity.study_uid, before.series_uid, [previous]
            )
    if evidence:
        ds.CurrentRequestedProcedureEvidenceSequence = _references(
            identity.study_uid, identity.series_uid, evidence
        )
    return _finished(form, ds, tree, identity.elements | identity.requests)


def make_picture(
    record: ReportRecord,
    description: str,
    pixels: npt.NDArray[np.uint8],
    source: tuple[str, str, int | None],
) -> MadeObject:
    """Put the modules of a Secondary Capture around an RGB picture of shape (rows, columns, 3).

    source: SOP class, SOP Instance UID and frame (1-based, of multi-frame objects) of the image
    that it was derived from. Raises as `make`.
    """
    identity = identity_of(record)
    ds = _common(PICTURE_FORM, record, identity, description)
    ds.ConversionType = "WSD"
    ds.ImageType = ["DERIVED", "SECONDARY"]
    ds.PatientOrientation = ds.Laterality = None  # of a chart: not known
    ds.BurnedInAnnotation = "NO"  # none that identifies the patient (PS3.3 C.7.6.1)
    sop_class_uid, sop_uid, frame = source
    image = _instance(EvidenceInstance(sop_class_uid, sop_uid))
    if frame is not None:
        image.ReferencedFrameNumber = frame
    ds.SourceImageSequence = [image]
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = 3, "RGB", 0
    ds.Rows, ds.Columns, _ = pixels.shape
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
    ds.add_new("PixelData", "OB", np.ascontiguousarray(pixels).tobytes())
    return _finished(PICTURE_FORM, ds, Dataset(), identity.elements)


def _common(form: Form, record: ReportRecord, identity: Identity, description: str) -> Dataset:
    """Write what every object has: series, equipment, times of the decision."""
    ds = Dataset()
    ds.SOPClassUID = form.sop_class_uid
    ds.SOPInstanceUID = uids.derived(form.kind, record.verdict_id)
    ds.SeriesInstanceUID = uids.derived(form.kind, "series", record.verdict_id)
    ds.SeriesNumber, ds.InstanceNumber = form.series_number, 1
    ds.SeriesDescription, ds.Modality = description, form.modality
    ds.Manufacturer = ds.ManufacturerModelName = NODE_NAME
    ds.SoftwareVersions = plain(record.software_version)
    for kind in ("InstanceCreation", "Series", "Content"):
        setattr(ds, f"{kind}Date", identity.made_at.strftime("%Y%m%d"))
        setattr(ds, f"{kind}Time", identity.made_at.strftime("%H%M%S"))
    return ds


def _finished(form: Form, ds: Dataset, tree: Dataset, copied: dict[int, bytes]) -> MadeObject:
    elements = {int(element.tag): encoded(element) for element in (*ds, *tree)}
    content = _file(form, ds.SOPInstanceUID, elements | copied)
    return MadeObject(
        form.kind, form.sop_class_uid, ds.SOPInstanceUID, ds.SeriesInstanceUID, content
    )


def _coding_scheme() -> Dataset:
    """Declare the private scheme (PS3.3 C.12.1.1.7)."""
    item = Dataset()
    item.CodingSchemeDesignator = codes.SCHEME
    item.CodingSchemeUID = uids.CODING_SCHEME_UID
    item.CodingSchemeName = codes.SCHEME_NAME
    item.CodingSchemeVersion = codes.SCHEME_VERSION
    item.CodingSchemeResponsibleOrganization = codes.SCHEME_ORGANIZATION
    return item


def _references(
    study_uid: str, series_uid: str, instances: Iterable[EvidenceInstance]
) -> list[Dataset]:
    """Write study > series > instances (PS3.3 table 10-11 macros)."""
    series = Dataset()
    series.SeriesInstanceUID = series_uid
    series.ReferencedSOPSequence = [_instance(instance) for instance in instances]
    study = Dataset()
    study.StudyInstanceUID = study_uid
    study.ReferencedSeriesSequence = [series]
    return [study]


def _instance(instance: EvidenceInstance) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = instance.sop_class_uid
    item.ReferencedSOPInstanceUID = instance.sop_uid
    return item


def _file(form: Form, sop_uid: str, elements: dict[int, bytes]) -> bytes:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = form.sop_class_uid
    meta.MediaStorageSOPInstanceUID = sop_uid
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = IMPLEMENTATION_CLASS_UID
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    header = BytesIO()
    write_file_meta_info(header, meta, enforce_standard=True)
    body = b"".join(elements[tag] for tag in sorted(elements))
    return b"\x00" * 128 + b"DICM" + header.getvalue() + body
