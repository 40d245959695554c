"""Say where each slice of an instance lies, and what kind of slice it is.

Patient coordinates (PS3.3 C.7.6.2.1.1), mm. A header that does not tell gives None, never a guess.
"""

from __future__ import annotations

import math

from pydicom.dataset import Dataset

from tfkt_node.records import (
    AXIAL_LIMIT_DEG,
    CT_CLASSES,
    CT_IMAGE,
    InstanceRef,
    Reason,
    SetAside,
    SliceGeometry,
)
from tfkt_node.settings import Limits
from tfkt_node.slices.attributes import (
    count,
    decimal,
    decimals,
    functional_group,
    integer,
    item,
    text,
    texts,
)
from tfkt_node.slices.pixels import number_of_frames
from tfkt_node.slices.structure import DEFAULT_LIMITS

Vector = tuple[float, float, float]


CTDI_PHANTOMS_MM = {"113690": 160.0, "113691": 320.0}
"""IEC Head and Body Dosimetry Phantom (PS3.16 CID 4052), all codes of DCM."""

STEP_AND_SHOOT = ("AXIAL", "AXIAL MODE")
"""Scan Options of Philips and GE where the table stands still in each rotation."""

COLOUR = ("RGB", "YBR", "PALETTE", "HSV", "ARGB", "CMYK")
"""Photometric Interpretations of screens, renderings and maps, how ever they go on."""


def slices_of(
    ref: InstanceRef, ds: Dataset, limits: Limits = DEFAULT_LIMITS
) -> list[SliceGeometry]:
    """Describe every slice of an instance: one, or one a frame for the enhanced classes.

    Raises SetAside: NOT_CT where Modality or SOP Class of the data set contradicts the class,
    IDENTITY where its SOP Instance UID is not the one it was sent as, DERIVED_SECONDARY for colour,
    UNDECODABLE where Rows, Columns or Number of Frames make no sense, NO_GEOMETRY where a
    multi-frame object does not describe each of its frames.
    """
    _check_identity(ds)
    if text(ds, "PhotometricInterpretation").startswith(COLOUR):
        raise SetAside(Reason.DERIVED_SECONDARY, "a colour image")
    rows, columns, frames = integer(ds, "Rows"), integer(ds, "Columns"), number_of_frames(ds)
    if rows is None or columns is None or frames is None or rows < 1 or columns < 1:
        raise SetAside(Reason.UNDECODABLE, "Rows, Columns or Number of Frames is not usable")
    if frames > limits.frames:
        raise SetAside(Reason.UNDECODABLE, f"more than {limits.frames} frames (limits.frames)")
    if ref.sop_class_uid == CT_IMAGE:
        return [_slice(ref, ds, None, rows, columns)]
    described = count(ds, "PerFrameFunctionalGroupsSequence")
    if described != frames:
        raise SetAside(Reason.NO_GEOMETRY, f"{frames} frames, of which {described} are described")
    return [_slice(ref, ds, frame, rows, columns) for frame in range(1, frames + 1)]


def plane(orientation: tuple[float, ...] | None) -> str:
    """Name the plane: AXIAL, CORONAL, SAGITTAL, OBLIQUE, or UNKNOWN without orientation.

    AXIAL: the normal lies within 35 degrees of the table axis, so that tilted gantries stay in.
    """
    if orientation is None:
        return "UNKNOWN"
    along = [abs(part) for part in normal(orientation)]
    limit = math.cos(math.radians(AXIAL_LIMIT_DEG))
    for name, part in zip(("SAGITTAL", "CORONAL", "AXIAL"), along, strict=True):
        if part >= limit:
            return name
    return "OBLIQUE"


def normal(orientation: tuple[float, ...]) -> Vector:
    """Return the unit normal, row direction x column direction, of six direction cosines."""
    (rx, ry, rz), (cx, cy, cz) = orientation[:3], orientation[3:]
    cross = (ry * cz - rz * cy, rz * cx - rx * cz, rx * cy - ry * cx)
    length = math.hypot(*cross)
    return (cross[0] / length, cross[1] / length, cross[2] / length)


# --------------------------------------------------------------------------- one slice


def _check_identity(ds: Dataset) -> None:
    """Compare the data set with the file meta information: what it was sent or stored as."""
    if text(ds, "Modality") not in ("", "CT"):
        raise SetAside(Reason.NOT_CT, "Modality and SOP class disagree")
    meta = getattr(ds, "file_meta", Dataset())
    sop_class, sent_as = text(ds, "SOPClassUID"), text(meta, "MediaStorageSOPClassUID")
    if sop_class and sent_as and sop_class != sent_as:
        reason = Reason.IDENTITY if sop_class in CT_CLASSES else Reason.NOT_CT
        raise SetAside(reason, "the data set names another SOP class")
    sop_uid, sent_as = text(ds, "SOPInstanceUID"), text(meta, "MediaStorageSOPInstanceUID")
    if sop_uid and sent_as and sop_uid != sent_as:
        raise SetAside(Reason.IDENTITY)


def _slice(
    ref: InstanceRef, ds: Dataset, frame: int | None, rows: int, columns: int
) -> SliceGeometry:
    orientation = _orientation(functional_group(ds, frame, "PlaneOrientationSequence") or ds)
    place = functional_group(ds, frame, "PlanePositionSequence") or ds
    origin = decimals(place, "ImagePositionPatient", 3)
    measures = functional_group(ds, frame, "PixelMeasuresSequence") or ds
    spacing = decimals(measures, "PixelSpacing", 2)
    if spacing is not None and min(spacing) <= 0:
        spacing = None
    content = functional_group(ds, frame, "FrameContentSequence")
    exposure = functional_group(ds, frame, "CTExposureSequence") or ds
    tube = functional_group(ds, frame, "CTXRayDetailsSequence") or ds
    return SliceGeometry(
        instance=ref,
        frame=frame,
        rows=rows,
        columns=columns,
        origin_mm=(origin[0], origin[1], origin[2]) if origin else None,
        orientation=orientation,
        position_mm=along(origin, orientation),
        pixel_spacing_mm=(spacing[0], spacing[1]) if spacing else None,
        slice_thickness_mm=decimal(measures, "SliceThickness"),
        acquisition=_acquisition(ds, content),
        kernel=_kernel(ds, frame),
        image_type=_image_type(ds, frame),
        instance_number=integer(ds, "InstanceNumber"),
        body_part=_body_part(ds, frame),
        ctdi_vol_mgy=_positive(decimal(exposure, "CTDIvol")),
        ctdi_phantom_mm=_ctdi_phantom_mm(exposure),
        frame_of_reference=text(ds, "FrameOfReferenceUID") or None,
        kvp=_positive(decimal(tube, "KVP")),
        stack_id=(text(content, "StackID") or None) if content is not None else None,
        temporal_position=_temporal_position(ds, content),
        is_stepped=_is_stepped(ds, frame),
    )


def _orientation(source: Dataset) -> tuple[float, ...] | None:
    """Six direction cosines, if they span a plane: unit vectors, square to each other."""
    cosines = decimals(source, "ImageOrientationPatient", 6)
    if cosines is None:
        return None
    row, column = cosines[:3], cosines[3:]
    skew = sum(a * b for a, b in zip(row, column, strict=True))
    is_sound = all(abs(math.hypot(*axis) - 1) < 0.01 for axis in (row, column)) and abs(skew) < 0.01
    return cosines if is_sound else None


def along(origin: tuple[float, ...] | None, orientation: tuple[float, ...] | None) -> float | None:
    """Return the distance of a place along the normal of an orientation; None where one lacks."""
    if origin is None or orientation is None:
        return None
    return sum(a * b for a, b in zip(origin, normal(orientation), strict=True))


def _acquisition(ds: Dataset, content: Dataset | None) -> str | None:
    number = integer(content, "FrameAcquisitionNumber") if content is not None else None
    if number is None:
        number = integer(ds, "AcquisitionNumber")
    return None if number is None else str(number)


def _temporal_position(ds: Dataset, content: Dataset | None) -> int | None:
    index = integer(content, "TemporalPositionIndex") if content is not None else None
    return integer(ds, "TemporalPositionIdentifier") if index is None else index


def _is_stepped(ds: Dataset, frame: int | None) -> bool:
    """Say whether the header tells of step and shoot: scan, move the table, scan.

    Acquisition Type, which single-frame images seldom have; Scan Options; Siemens: CT_SOM5 SEQ.
    """
    source = functional_group(ds, frame, "CTAcquisitionTypeSequence") or ds
    return (
        text(source, "AcquisitionType") == "SEQUENCED"
        or any(option.upper() in STEP_AND_SHOOT for option in texts(ds, "ScanOptions"))
        or any(value.endswith(" SEQ") for value in _image_type(ds, frame))
    )


def _kernel(ds: Dataset, frame: int | None) -> str | None:
    source = functional_group(ds, frame, "CTReconstructionSequence") or ds
    return "\\".join(texts(source, "ConvolutionKernel")) or None


def _image_type(ds: Dataset, frame: int | None) -> tuple[str, ...]:
    """Frame Type with the technique of a volume calculation (0008,9207), else Image Type."""
    kind = functional_group(ds, frame, "CTImageFrameTypeSequence") or Dataset()
    types = texts(kind, "FrameType") or texts(ds, "ImageType")
    technique = text(kind, "VolumeBasedCalculationTechnique")
    return tuple(value.upper() for value in (*types, technique) if value)


def _body_part(ds: Dataset, frame: int | None) -> str:
    anatomy = functional_group(ds, frame, "FrameAnatomySequence")
    region = item(anatomy, "AnatomicRegionSequence") if anatomy is not None else None
    meaning = text(region, "CodeMeaning") if region is not None else ""
    return (meaning or text(ds, "BodyPartExamined")).upper()


def _positive(value: float | None) -> float | None:
    return value if value is not None and value > 0 else None


def _ctdi_phantom_mm(exposure: Dataset) -> float | None:
    """Diameter of the phantom that CTDIvol is given for: the wrong one is a factor of 2."""
    phantom = item(exposure, "CTDIPhantomTypeCodeSequence")
    return None if phantom is None else CTDI_PHANTOMS_MM.get(text(phantom, "CodeValue"))
