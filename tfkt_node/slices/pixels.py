"""Cut the stored values of one frame out of its pixel data, exactly (PS3.3 C.7.6.3, PS3.5 8).

Lengths and sizes are checked against the attributes, and against the limits, before anything is
decoded. Where stream and attributes contradict each other the values are in doubt: no guess.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import UID

from tfkt_node.records import Reason, SetAside
from tfkt_node.settings import Limits
from tfkt_node.slices import codecs
from tfkt_node.slices.attributes import PixelsInFile, foreign_errors_as, integer, text
from tfkt_node.slices.codecs import IntArray, Samples
from tfkt_node.slices.frames import FileSlice, frame_bytes
from tfkt_node.slices.structure import Buffer

IMPLICIT_LE = "1.2.840.10008.1.2"
EXPLICIT_LE = "1.2.840.10008.1.2.1"
DEFLATED_LE = "1.2.840.10008.1.2.1.99"
EXPLICIT_BE = "1.2.840.10008.1.2.2"
NATIVE = (EXPLICIT_LE, IMPLICIT_LE, DEFLATED_LE, EXPLICIT_BE)

DEFAULT_LIMITS = Limits()

OVERSHOOT = 0.25
"""Share of the range of stored values by which lossy compression may miss it; clipped. More is no
loss, but other data in the unused bits."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The Image Pixel attributes of a monochrome image, checked."""

    rows: int
    columns: int
    frames: int
    bits_allocated: int
    bits_stored: int
    shift: int
    is_signed: bool

    @property
    def frame_bytes(self) -> int:
        """Bytes of one frame without compression."""
        return self.rows * self.columns * self.bits_allocated // 8

    @property
    def span(self) -> tuple[int, int]:
        """Lowest and highest stored value."""
        low = -(1 << (self.bits_stored - 1)) if self.is_signed else 0
        return low, low + (1 << self.bits_stored) - 1

    def value(self, cells: IntArray) -> IntArray:
        """Cut stored values out of their cells and extend the sign (PS3.5 8.1.1)."""
        wide = cells.astype("i4" if self.bits_allocated <= 16 else "i8")
        kept: IntArray = (wide >> self.shift) & ((1 << self.bits_stored) - 1)
        if self.is_signed:
            kept -= (kept >> (self.bits_stored - 1)) << self.bits_stored
        return kept


def stored_values(
    ds: Dataset, frame: int | None, limits: Limits
) -> tuple[Layout, IntArray, IntArray]:
    """Return the layout, and of one frame the stored values and the cells that they were cut from.

    frame: 1-based for multi-frame objects, None otherwise. Raises SetAside: NO_PIXELS, or
    UNDECODABLE with the transfer syntax or the odd attribute in the detail.
    """
    if "PixelData" not in ds and not hasattr(ds, "pixels_in_file"):
        is_float = "FloatPixelData" in ds or "DoubleFloatPixelData" in ds
        detail = "floating-point pixel data instead of whole numbers" if is_float else ""
        raise SetAside(Reason.NO_PIXELS, detail)
    layout = _layout(ds)
    _check_limits(layout, limits)
    index = (frame or 1) - 1
    if index >= layout.frames or (frame is None and layout.frames != 1):
        raise SetAside(Reason.UNDECODABLE, "Number of Frames does not fit the object")
    syntax = str(ds.file_meta.get("TransferSyntaxUID", ""))
    with (
        foreign_errors_as(Reason.UNDECODABLE, f"{name_of(syntax)} could not be decoded"),
        _pixel_data(ds) as data,
    ):
        if syntax in NATIVE:
            cells = _native(data, layout, index, _byte_order(ds, layout, syntax))
            return layout, layout.value(cells), cells
        if syntax not in codecs.available():
            raise SetAside(Reason.UNDECODABLE, f"no decoder for {name_of(syntax)}")
        samples = codecs.decode(
            syntax,
            frame_bytes(data, index, layout.frames, syntax, ds.get("ExtendedOffsetTable") or b""),
            rows=layout.rows,
            columns=layout.columns,
            bits_allocated=layout.bits_allocated,
        )
        if syntax in codecs.WHOLE_CELLS:
            return layout, layout.value(samples.values), samples.values
        is_exact = syntax in codecs.LOSSLESS and not samples.is_dct
        return layout, _of_samples(layout, samples, is_exact), samples.values


@contextmanager
def _pixel_data(ds: Dataset) -> Iterator[Buffer]:
    """Give the value of Pixel Data: from memory, or as it lies in the file."""
    where: PixelsInFile | None = getattr(ds, "pixels_in_file", None)
    if where is None:
        yield ds.PixelData or b""
    else:
        with where.path.open("rb") as file:
            yield FileSlice(file, where.start, where.end)


def number_of_frames(ds: Dataset) -> int | None:
    """Read Number of Frames (0028,0008): 1 where absent, None where it makes no sense."""
    if "NumberOfFrames" not in ds:
        return 1
    frames = integer(ds, "NumberOfFrames")
    return frames if frames is not None and frames >= 1 else None


def _layout(ds: Dataset) -> Layout:
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
    return Layout(
        rows=rows or 0,
        columns=columns or 0,
        frames=frames or 0,
        bits_allocated=allocated or 0,
        bits_stored=stored or 0,
        shift=(high_bit or 0) + 1 - (stored or 0),
        is_signed=sign == 1,
    )


def _check_limits(layout: Layout, limits: Limits) -> None:
    if layout.frames > limits.frames:
        raise SetAside(Reason.UNDECODABLE, f"more than {limits.frames} frames (limits.frames)")
    if layout.frame_bytes > limits.decoded_mb << 20:
        raise SetAside(
            Reason.UNDECODABLE, f"a frame of more than {limits.decoded_mb} MB (limits.decoded_mb)"
        )


# --------------------------------------------------------------------------- native


def _byte_order(ds: Dataset, layout: Layout, syntax: str) -> str:
    """Return how cells lie in the bytes: '<', '>', or 'w' for bytes swapped in pairs.

    Explicit VR Big Endian swaps the two bytes of each word of OW, whatever a cell has (PS3.5
    8.1.1); for 32 bits writers disagree on which word comes first.
    """
    if syntax != EXPLICIT_BE:
        return "<"
    if layout.bits_allocated == 32:
        raise SetAside(Reason.UNDECODABLE, "32 bits in big endian: the order of words is not known")
    return "w" if layout.bits_allocated == 8 and ds["PixelData"].VR == "OW" else ">"


def _native(data: Buffer, layout: Layout, index: int, order: str) -> IntArray:
    expected = layout.frame_bytes * layout.frames
    if len(data) not in (expected, expected + expected % 2):
        raise SetAside(
            Reason.UNDECODABLE,
            f"pixel data of {len(data)} bytes where the attributes say {expected}",
        )
    first = index * layout.frame_bytes
    if order == "w":  # pairs go across frames of an odd size
        data = np.frombuffer(bytes(data[:]), dtype=">u2").astype("<u2").tobytes()
    cells = np.frombuffer(
        data[first : first + layout.frame_bytes],
        dtype=f"{order.replace('w', '<')}u{layout.bits_allocated // 8}",
    )
    return cells.reshape(layout.rows, layout.columns)


# --------------------------------------------------------------------------- compressed


def _of_samples(layout: Layout, samples: Samples, is_exact: bool) -> IntArray:
    """Turn the samples of a stream into stored values.

    Encoders differ: samples may be as wide as the cell, as the values, or as the widest value that
    occurs; and signed values are mostly written as two's complement into unsigned samples.
    """
    values, bits = samples.values, samples.bits
    lowest, highest = int(values.min()), int(values.max())
    needed = layout.shift + layout.bits_stored
    may_have_lost_its_sign = layout.is_signed and values.dtype.kind == "u" and bits < needed
    contradictions = (
        lowest < 0 and not layout.is_signed,
        may_have_lost_its_sign and highest >= 1 << (bits - 1),
        bits < needed and (layout.shift > 0 or samples.is_dct),
    )
    if any(contradictions):
        raise _doubt()
    if is_exact or bits <= needed:
        return layout.value(values)
    # Loss may carry values a little beyond their range: masking would turn bone into air.
    wide = values.astype("i8")
    if layout.is_signed and values.dtype.kind == "u":  # the sign fills the whole sample
        wide -= (wide >> (bits - 1)) << bits
    low, high = layout.span
    reach = OVERSHOOT * (high - low)
    if layout.shift or not low - reach <= wide.min() <= wide.max() <= high + reach:
        raise _doubt()
    clipped: IntArray = wide.clip(low, high)
    return clipped


def _doubt() -> SetAside:
    return SetAside(
        Reason.UNDECODABLE,
        "the compressed stream contradicts Bits Stored, High Bit or Pixel Representation",
    )


def name_of(syntax: str) -> str:
    """Name a transfer syntax in words; the UID of an unknown one is not repeated."""
    uid = UID(syntax)
    known = codecs.NAMES.get(syntax, uid.name)
    return known if known != syntax and not uid.is_private else "an unknown transfer syntax"
