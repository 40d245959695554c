"""Turn a CT frame into exact Hounsfield units.

A value is given only where header and pixels leave no doubt; everything else is SetAside with its
reason.
"""

from __future__ import annotations

import numpy as np
from pydicom.dataset import Dataset

from tfkt_node.records import BoolArray, FloatArray, Reason, SetAside
from tfkt_node.settings import Limits
from tfkt_node.slices import codecs
from tfkt_node.slices.attributes import (
    decimal,
    functional_group,
    has_value,
    integer,
    item,
    text,
    texts,
)
from tfkt_node.slices.files import read_dataset
from tfkt_node.slices.pixels import NATIVE, Frame, Layout, Pixels, doubt, number_of_frames
from tfkt_node.slices.structure import DEFAULT_LIMITS

__all__ = [
    "Image",
    "decodable_syntaxes",
    "decode_hu",
    "number_of_frames",
    "padding_mask",
    "raw_hu",
    "read_dataset",
    "scored",
]

AIR_HU = -1000.0
OUTSIDE_BELOW_HU = -1500.0
"""Below this lies no tissue and no air, only what scanners write outside the field of view
(-2000, -2048, -3024, …); noise in air stays well above."""

REACH_HU = (-900.0, 200.0)
"""Stored values that cannot reach from air to soft tissue are not Hounsfield units, whatever the
rescale says: 8-bit screens, counts without intercept, slopes that are negative, zero or 1e-300."""

WIDEST_HU = 200_000.0
"""No header of a scanner lets 16 bits span more: slopes are 0.25 to 2.5, or larger with fewer bits
(10 with 12 for metal, 32 with 8 after lossy JPEG)."""

HIGHEST_HU = 32_768.0
"""Nor is any value measured above it: the extended scale for metal ends at 30,710. Negative values
of 16 bits that are read as unsigned lie above."""

HU_TYPES = frozenset({"", "HU", "H.U.", "HOUNSFIELD UNIT", "HOUNSFIELD UNITS"})
"""Rescale Types that leave no doubt: HU is the term of the standard, the others occur."""

HU_UNITS = frozenset({"", "[hnsf'U]", "HU"})
"""Codes of Hounsfield units in Real World Value Mapping: of UCUM (PS3.16 CID 82), and HU."""


def decodable_syntaxes() -> tuple[str, ...]:
    """Transfer syntaxes that can be decoded here, in the order an acceptor should prefer.

    Lossless compressed ones first, so that compressed data stay as they are; then the native ones,
    explicit before implicit VR; lossy ones last, so that no sender with a choice loses anything.
    """
    lossless = [uid for uid in codecs.available() if uid in codecs.LOSSLESS]
    lossy = [uid for uid in codecs.available() if uid not in codecs.LOSSLESS]
    return (*lossless, *NATIVE, *lossy)


class Image:
    """One object read with its pixels, whose frames are turned into Hounsfield units one by one.

    frame: 1-based for multi-frame objects, None otherwise. Raises SetAside: NO_PIXELS, UNDECODABLE
    (with the transfer syntax or the odd attribute in the detail), NO_RESCALE, or NOT_HU.
    """

    def __init__(self, ds: Dataset, limits: Limits = DEFAULT_LIMITS) -> None:
        self._ds = ds
        self._pixels = Pixels(ds, limits)

    def hu(self, frame: int | None = None) -> tuple[FloatArray, BoolArray]:
        """Return stored value x slope + intercept, and what the header calls padding.

        Each (rows, columns); HU in float32. Padding is not judged: it may be any value.
        """
        layout, found = self._pixels.layout, self._pixels.frame(frame)
        slope, intercept = _rescale(self._ds, frame)
        reach = [value * slope + intercept for value in layout.span]
        span = slope * min(layout.span[1] - layout.span[0], 0xFFFF)  # nobody fills 32 bits
        if not (reach[0] <= REACH_HU[0] and REACH_HU[1] <= reach[1] and span <= WIDEST_HU):
            raise _no_rescale()
        hu = (found.stored * slope + intercept).astype(np.float32)
        padding = _is_padding(self._ds, layout, found, hu)
        if (found.is_spoiled & ~padding).any():
            raise doubt()
        if (hu > HIGHEST_HU)[~padding].any():
            raise _no_rescale()
        return hu, padding


def decode_hu(ds: Dataset, frame: int | None = None, limits: Limits = DEFAULT_LIMITS) -> FloatArray:
    """Decode one frame to the image that is scored, see `scored`.

    ds: read with pixels. frame: 1-based for multi-frame objects, None otherwise. limits: what is
    decoded at most. Raises SetAside as `Image`.
    """
    return scored(Image(ds, limits), frame)


def scored(image: Image, frame: int | None) -> FloatArray:
    """Decode one frame to the image that is scored: padding and out-of-field become air.

    Returns (rows, columns) float32, HU. Pixel Padding Value with its Range Limit
    (PS3.3 C.7.5.1.1.2), and values no scanner measures, are -1000. Raises SetAside as `Image`.
    """
    hu, padding = image.hu(frame)
    hu[padding] = AIR_HU
    hu[hu < OUTSIDE_BELOW_HU] = AIR_HU
    return hu


def padding_mask(
    ds: Dataset, frame: int | None = None, limits: Limits = DEFAULT_LIMITS
) -> BoolArray:
    """Mark the pixels of one frame that the header calls padding: (rows, columns)."""
    return Image(ds, limits).hu(frame)[1]


def raw_hu(ds: Dataset, frame: int | None = None, limits: Limits = DEFAULT_LIMITS) -> FloatArray:
    """Decode one frame to stored value x slope + intercept, with nothing masked.

    Returns (rows, columns) float32, HU. MONOCHROME1 changes the display, not the values.
    Raises SetAside as `Image`.
    """
    return Image(ds, limits).hu(frame)[0]


# --------------------------------------------------------------------------- Hounsfield units


def _no_rescale() -> SetAside:
    return SetAside(Reason.NO_RESCALE, "the rescaled values cannot hold Hounsfield units")


def _rescale(ds: Dataset, frame: int | None) -> tuple[float, float]:
    """Slope and intercept of the CT Image module or of Pixel Value Transformation."""
    source = functional_group(ds, frame, "PixelValueTransformationSequence") or ds
    types = {one.strip().upper() for one in texts(source, "RescaleType")}
    if not types <= HU_TYPES or (not types and has_value(source, "RescaleType")):
        raise SetAside(Reason.NOT_HU, "Rescale Type is not HU")
    if types <= {""} and _is_mapped_to_other_units(ds, frame):
        raise SetAside(Reason.NOT_HU, "Real World Value Mapping names other units")
    slope, intercept = decimal(source, "RescaleSlope"), decimal(source, "RescaleIntercept")
    if has_value(ds, "ModalityLUTSequence"):  # its output is unsigned: it holds no air
        raise SetAside(Reason.NO_RESCALE, "a Modality LUT stands in place of the rescale")
    if slope is None or intercept is None:
        raise SetAside(Reason.NO_RESCALE)
    return slope, intercept


def _is_mapped_to_other_units(ds: Dataset, frame: int | None) -> bool:
    """Say whether Real World Value Mapping is there, and never in Hounsfield units."""
    keyword = "RealWorldValueMappingSequence"
    first = functional_group(ds, frame, keyword) or item(ds, keyword)
    if first is None:
        return False
    units = item(first, "MeasurementUnitsCodeSequence")
    return units is not None and text(units, "CodeValue") not in HU_UNITS


def _is_padding(ds: Dataset, layout: Layout, frame: Frame, hu: FloatArray) -> BoolArray:
    """Mark the pixels that are padding; the value's VR may give it the wrong sign.

    A value that needs more bits than are stored is found in the whole cell only.
    """
    stored, cells = frame.stored, frame.cells
    value = integer(ds, "PixelPaddingValue")
    if value is None:
        return np.zeros(stored.shape, dtype=bool)
    limit = integer(ds, "PixelPaddingRangeLimit")
    ends = [_with_sign(end, layout) for end in (value, value if limit is None else limit)]
    low, high = layout.span
    if limit is None and not low <= ends[0] <= high:
        cell = 1 << layout.bits_allocated
        is_whole_cell: BoolArray = cells.astype("i8") % cell == value % cell
        return is_whole_cell
    is_padding: BoolArray = (stored >= min(ends)) & (stored <= max(ends))
    may_be_measured = (hu > REACH_HU[0]) & (hu <= HIGHEST_HU)
    if not may_be_measured[is_padding].any():
        return is_padding
    return _around_the_field(is_padding)


CORNERS = ([0, 0, -1, -1], [0, -1, 0, -1])


def _around_the_field(is_padding: BoolArray) -> BoolArray:
    """Keep what hangs together with the corners, and nothing unless all of them hold it.

    Some headers name 0 where 0 is water as well.
    """
    from scipy import ndimage

    numbers, _ = ndimage.label(is_padding, structure=np.ones((3, 3)))
    corners = numbers[CORNERS]
    around: BoolArray = np.isin(numbers, corners) & is_padding & bool(corners.all())
    return around


def _with_sign(value: int, layout: Layout) -> int:
    """Read a number of the header, US or SS, with the sign that stored values have."""
    cell = 1 << layout.bits_allocated
    value %= cell
    return value - cell if layout.is_signed and value >= cell // 2 else value
