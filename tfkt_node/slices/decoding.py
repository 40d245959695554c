"""Decode a CT frame to exact Hounsfield units.

A value is given only where header and pixels leave no doubt; everything else is SetAside with its
reason. Lengths are checked against the attributes before anything is decoded.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO

import numpy as np
from pydicom.dataset import Dataset
from pydicom.encaps import generate_fragments, get_frame, parse_basic_offsets
from pydicom.uid import UID

from tfkt_node.records import FloatArray, Reason, SetAside
from tfkt_node.slices import codecs
from tfkt_node.slices.attributes import (
    decimal,
    foreign_errors_as,
    functional_group,
    integer,
    read_dataset,
    text,
)
from tfkt_node.slices.codecs import IntArray

__all__ = ["decodable_syntaxes", "decode_hu", "number_of_frames", "raw_hu", "read_dataset"]

IMPLICIT_LE = "1.2.840.10008.1.2"
EXPLICIT_LE = "1.2.840.10008.1.2.1"
DEFLATED_LE = "1.2.840.10008.1.2.1.99"
EXPLICIT_BE = "1.2.840.10008.1.2.2"
NATIVE = (EXPLICIT_LE, IMPLICIT_LE, DEFLATED_LE, EXPLICIT_BE)

AIR_HU = -1000.0
OUTSIDE_BELOW_HU = -1500.0
"""Below this lies no tissue and no air, only what scanners write outside the field of view
(-2000, -2048, -3024, …); noise in air stays well above."""

REACH_HU = (-900.0, 200.0)
"""Stored values that cannot reach from air to soft tissue are not Hounsfield units, whatever the
rescale says: 8-bit screens, counts without intercept, slopes that are negative, zero or 1e-300."""

WIDEST_HU = 200_000.0
"""No header of a scanner lets 16 bits span more: slopes are 0.25 to 2.5, or larger with fewer bits
(10 with 12 for metal, 32 with 8 after lossy JPEG). Nor has any value been measured above it."""


@dataclass(frozen=True, slots=True)
class _Layout:
    """The Image Pixel attributes (PS3.3 C.7.6.3) of a monochrome image, checked."""

    rows: int
    columns: int
    frames: int
    bits_allocated: int
    bits_stored: int
    shift: int
    is_signed: bool

    @property
    def frame_bytes(self) -> int:
        return self.rows * self.columns * self.bits_allocated // 8

    @property
    def span(self) -> tuple[int, int]:
        """Lowest and highest stored value."""
        low = -(1 << (self.bits_stored - 1)) if self.is_signed else 0
        return low, low + (1 << self.bits_stored) - 1

    def value(self, bits: IntArray) -> IntArray:
        """Cut stored values out of their container and extend the sign (PS3.5 8.1.1)."""
        wide = bits.astype("i4" if self.bits_allocated <= 16 else "i8")
        kept: IntArray = (wide >> self.shift) & ((1 << self.bits_stored) - 1)
        if self.is_signed:
            kept -= (kept >> (self.bits_stored - 1)) << self.bits_stored
        return kept


def decodable_syntaxes() -> tuple[str, ...]:
    """Transfer syntaxes that can be decoded here, in the order an acceptor should prefer.

    Lossless compressed ones first, so that compressed data stay as they are; then the native ones,
    explicit before implicit VR; lossy ones last, so that no sender with a choice loses anything.
    """
    lossless = [uid for uid in codecs.available() if uid in codecs.LOSSLESS]
    lossy = [uid for uid in codecs.available() if uid not in codecs.LOSSLESS]
    return (*lossless, *NATIVE, *lossy)


def decode_hu(ds: Dataset, frame: int | None = None) -> FloatArray:
    """Decode one frame to the image that is scored: padding and out-of-field become air.

    ds: read with pixels. frame: 1-based for multi-frame objects, None otherwise.
    Returns (rows, columns) float32, HU. Pixel Padding Value with its Range Limit
    (PS3.3 C.7.5.1.1.2), and values no scanner measures, are -1000.
    Raises SetAside as `raw_hu`.
    """
    layout, stored = _stored_values(ds, frame)
    hu = _rescaled(ds, frame, layout, stored)
    padding = _padding(ds, layout)
    if padding is not None:
        is_padding = (stored >= padding[0]) & (stored <= padding[1])
        # Some headers name 0 where 0 is water: such a value counts only where the corners hold it.
        is_at_corners = is_padding[[0, 0, -1, -1], [0, -1, 0, -1]].all()
        if is_at_corners or not (hu[is_padding] > REACH_HU[0]).any():
            hu[is_padding] = AIR_HU
    hu[hu < OUTSIDE_BELOW_HU] = AIR_HU
    return hu


def raw_hu(ds: Dataset, frame: int | None = None) -> FloatArray:
    """Decode one frame to stored value x slope + intercept, with nothing masked.

    Returns (rows, columns) float32, HU. MONOCHROME1 changes the display, not the values.
    Raises SetAside: NO_PIXELS, UNDECODABLE (with the transfer syntax or the odd attribute in the
    detail), NO_RESCALE, or NOT_HU.
    """
    layout, stored = _stored_values(ds, frame)
    return _rescaled(ds, frame, layout, stored)


def number_of_frames(ds: Dataset) -> int | None:
    """Read Number of Frames (0028,0008): 1 where absent, None where it makes no sense."""
    if "NumberOfFrames" not in ds:
        return 1
    frames = integer(ds, "NumberOfFrames")
    return frames if frames is not None and frames >= 1 else None


# --------------------------------------------------------------------------- stored values


def _stored_values(ds: Dataset, frame: int | None) -> tuple[_Layout, IntArray]:
    if "PixelData" not in ds:
        is_float = "FloatPixelData" in ds or "DoubleFloatPixelData" in ds
        detail = "floating-point pixel data instead of whole numbers" if is_float else ""
        raise SetAside(Reason.NO_PIXELS, detail)
    layout = _layout(ds)
    index = (frame or 1) - 1
    if index >= layout.frames or (frame is None and layout.frames != 1):
        raise SetAside(Reason.UNDECODABLE, "Number of Frames does not fit the object")
    syntax = str(ds.file_meta.get("TransferSyntaxUID", ""))
    with foreign_errors_as(Reason.UNDECODABLE, f"{_name(syntax)} could not be decoded"):
        data = ds.PixelData or b""
        if syntax in NATIVE:
            bits = _native(data, layout, index, "big" if syntax == EXPLICIT_BE else "little")
        elif syntax in codecs.available():
            bits = codecs.decode(
                syntax,
                _compressed(ds, data, layout, index),
                rows=layout.rows,
                columns=layout.columns,
                bits_allocated=layout.bits_allocated,
            )
        else:
            raise SetAside(Reason.UNDECODABLE, f"no decoder for {_name(syntax)}")
        return layout, layout.value(bits)


def _layout(ds: Dataset) -> _Layout:
    rows, columns = integer(ds, "Rows"), integer(ds, "Columns")
    frames, allocated = number_of_frames(ds), integer(ds, "BitsAllocated")
    stored, sign = integer(ds, "BitsStored"), integer(ds, "PixelRepresentation")
    high_bit = integer(ds, "HighBit")
    if high_bit is None and stored is not None:
        high_bit = stored - 1
    photometric = text(ds, "PhotometricInterpretation")
    problems = {
        "Rows or Columns": rows is None or columns is None or rows < 1 or columns < 1,
        "Number of Frames": frames is None,
        "Samples per Pixel other than 1": integer(ds, "SamplesPerPixel") not in (None, 1),
        "Photometric Interpretation": photometric not in ("MONOCHROME1", "MONOCHROME2"),
        "Bits Allocated": allocated not in (8, 16, 32),
        "Bits Stored": not 1 <= (stored or 0) <= (allocated or 0),
        "High Bit": not (stored or 0) - 1 <= (high_bit or 0) < (allocated or 0),
        "Pixel Representation": sign not in (0, 1),
    }
    wrong = [name for name, is_wrong in problems.items() if is_wrong]
    if wrong or None in (rows, columns, frames, allocated, stored, high_bit):
        raise SetAside(Reason.UNDECODABLE, f"missing or not usable: {', '.join(wrong)}")
    return _Layout(
        rows=rows or 0,
        columns=columns or 0,
        frames=frames or 0,
        bits_allocated=allocated or 0,
        bits_stored=stored or 0,
        shift=(high_bit or 0) + 1 - (stored or 0),
        is_signed=sign == 1,
    )


def _native(data: bytes, layout: _Layout, index: int, order: str) -> IntArray:
    expected = layout.frame_bytes * layout.frames
    if len(data) not in (expected, expected + expected % 2):
        raise SetAside(
            Reason.UNDECODABLE,
            f"pixel data of {len(data)} bytes where the attributes say {expected}",
        )
    byte_order = ">" if order == "big" else "<"
    bits = np.frombuffer(
        data,
        dtype=f"{byte_order}u{layout.bits_allocated // 8}",
        count=layout.rows * layout.columns,
        offset=index * layout.frame_bytes,
    )
    return bits.reshape(layout.rows, layout.columns)


def _compressed(ds: Dataset, data: bytes, layout: _Layout, index: int) -> bytes:
    if layout.frames == 1:  # all fragments are its own; offset tables of single frames can be wrong
        fragments = BytesIO(data)
        parse_basic_offsets(fragments)
        return b"".join(generate_fragments(fragments))
    offsets = ds.get("ExtendedOffsetTable"), ds.get("ExtendedOffsetTableLengths")
    extended = offsets if all(offsets) else None
    frame: bytes = get_frame(data, index, number_of_frames=layout.frames, extended_offsets=extended)
    return frame


def _name(syntax: str) -> str:
    uid = UID(syntax)
    known = codecs.NAMES.get(syntax, uid.name)
    return known if known != syntax and not uid.is_private else "an unknown transfer syntax"


# --------------------------------------------------------------------------- Hounsfield units


def _rescaled(ds: Dataset, frame: int | None, layout: _Layout, stored: IntArray) -> FloatArray:
    slope, intercept = _rescale(ds, frame)
    reach = [value * slope + intercept for value in layout.span]
    span = slope * min(layout.span[1] - layout.span[0], 0xFFFF)  # nobody fills 32 bits
    is_possible = reach[0] <= REACH_HU[0] and REACH_HU[1] <= reach[1] and span <= WIDEST_HU
    if not is_possible or stored.max() * slope + intercept > WIDEST_HU:
        raise SetAside(Reason.NO_RESCALE, "the rescaled values cannot hold Hounsfield units")
    return (stored * slope + intercept).astype(np.float32)


def _rescale(ds: Dataset, frame: int | None) -> tuple[float, float]:
    """Slope and intercept of the Modality LUT or of Pixel Value Transformation."""
    source = functional_group(ds, frame, "PixelValueTransformationSequence") or ds
    unit = text(source, "RescaleType").upper()
    if unit not in ("", "HU"):
        raise SetAside(Reason.NOT_HU, "Rescale Type is not HU")
    slope, intercept = decimal(source, "RescaleSlope"), decimal(source, "RescaleIntercept")
    if slope is None or intercept is None:
        raise SetAside(Reason.NO_RESCALE)
    return slope, intercept


def _padding(ds: Dataset, layout: _Layout) -> tuple[int, int] | None:
    """Lowest and highest stored value that is padding; its VR may have the wrong sign."""
    value = integer(ds, "PixelPaddingValue")
    if value is None:
        return None
    limit = integer(ds, "PixelPaddingRangeLimit")
    ends = [value, value if limit is None else limit]
    low, high = layout.span
    size = 1 << layout.bits_stored
    ends = [end if low <= end <= high else (end - low) % size + low for end in ends]
    return min(ends), max(ends)
