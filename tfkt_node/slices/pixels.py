"""Cut the stored values of one frame out of its pixel data, exactly (PS3.3 C.7.6.3, PS3.5 8).

Lengths and sizes are checked against the attributes, and against the limits, before anything is
decoded. Where stream and attributes contradict each other the values are in doubt: no guess.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import UID

from tfkt_node.file_bytes import Buffer, FileBytes
from tfkt_node.records import BoolArray, Reason, SetAside
from tfkt_node.settings import Limits
from tfkt_node.slices import codecs
from tfkt_node.slices.attributes import foreign_errors_as, has_value, integer, text
from tfkt_node.slices.codecs import IntArray, Samples
from tfkt_node.slices.files import pixels_in_file
from tfkt_node.slices.frames import FrameIndex
from tfkt_node.slices.structure import EXPLICIT_BE, EXPLICIT_LE

IMPLICIT_LE = "1.2.840.10008.1.2"
DEFLATED_LE = "1.2.840.10008.1.2.1.99"
NATIVE = (EXPLICIT_LE, IMPLICIT_LE, DEFLATED_LE, EXPLICIT_BE)

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


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame, each (rows, columns): stored values, and the cells that they were cut from.

    is_spoiled: values that need more bits than are stored: cut to 12, -3024 would be 1072, and 4500
    would be 404.
    """

    stored: IntArray
    cells: IntArray
    is_spoiled: BoolArray


class Pixels:
    """The pixel data of one object: its attributes are checked, its frames cut out when asked for.

    Raises SetAside: NO_PIXELS, or UNDECODABLE with the transfer syntax or the odd attribute in the
    detail.
    """

    def __init__(self, ds: Dataset, limits: Limits) -> None:
        self._ds = ds
        self._syntax = str(ds.file_meta.get("TransferSyntaxUID", ""))
        with self._foreign_errors():
            is_empty = pixels_in_file(ds) is None and not ds.get("PixelData")
        if is_empty:
            is_float = "FloatPixelData" in ds or "DoubleFloatPixelData" in ds
            detail = "floating-point pixel data instead of whole numbers" if is_float else ""
            raise SetAside(Reason.NO_PIXELS, detail)
        self.layout = _layout(ds)
        _check_limits(self.layout, limits)
        self._has_overlay = _has_overlay_in_cells(ds)
        self._index: FrameIndex | SetAside | None = None

    def frame(self, number: int | None) -> Frame:
        """Cut one frame out. number: 1-based for multi-frame objects, None otherwise."""
        index = (number or 1) - 1
        if index >= self.layout.frames or (number is None and self.layout.frames != 1):
            raise SetAside(Reason.UNDECODABLE, "Number of Frames does not fit the object")
        with self._foreign_errors(), self._data() as data:
            if self._syntax in NATIVE:
                cells = _native(data, self.layout, index, self._byte_order())
                return self._of_cells(cells)
            if self._syntax not in codecs.available():
                raise SetAside(Reason.UNDECODABLE, f"no decoder for {name_of(self._syntax)}")
            samples = codecs.decode(
                self._syntax,
                self._frame_index(data).read(data, index),
                rows=self.layout.rows,
                columns=self.layout.columns,
                bits_allocated=self.layout.bits_allocated,
            )
            if self._syntax in codecs.WHOLE_CELLS:
                return self._of_cells(samples.values)
            is_exact = self._syntax in codecs.LOSSLESS and not samples.is_lossy
            return self._of_samples(samples, is_exact)

    def _foreign_errors(self) -> AbstractContextManager[None]:
        detail = f"{name_of(self._syntax)} could not be decoded"
        return foreign_errors_as(Reason.UNDECODABLE, detail)

    @contextmanager
    def _data(self) -> Iterator[Buffer]:
        """Give the value of Pixel Data: from memory, or as it lies in the file."""
        where = pixels_in_file(self._ds)
        if where is None:
            yield self._ds.PixelData
        else:
            with where.path.open("rb") as file:
                yield FileBytes(file, where.start, where.end)

    def _frame_index(self, data: Buffer) -> FrameIndex:
        """Look through the fragments once, whatever comes of it: there may be thousands."""
        if self._index is None:
            table = self._ds.get("ExtendedOffsetTable") or b""
            try:
                with self._foreign_errors():
                    self._index = FrameIndex(data, self.layout.frames, self._syntax, table)
            except SetAside as error:
                self._index = error
        if isinstance(self._index, SetAside):
            raise self._index
        return self._index

    def _byte_order(self) -> str:
        """Return how cells lie in the bytes: '<', '>', or 'w' for bytes swapped in pairs.

        Explicit VR Big Endian swaps the two bytes of each word of OW, whatever a cell has (PS3.5
        8.1.1); for 32 bits writers disagree on which word comes first.
        """
        if self._syntax != EXPLICIT_BE:
            return "<"
        if self.layout.bits_allocated == 32:
            detail = "32 bits in big endian: the order of words is not known"
            raise SetAside(Reason.UNDECODABLE, detail)
        is_swapped = self.layout.bits_allocated == 8 and self._ds["PixelData"].VR == "OW"
        return "w" if is_swapped else ">"

    def _of_cells(self, cells: IntArray) -> Frame:
        stored = self.layout.value(cells)
        return Frame(stored, cells, self._spoiled(cells, stored))

    def _spoiled(self, cells: IntArray, stored: IntArray) -> BoolArray:
        """Mark values beyond Bits Stored, where the writer lets whole values run into unused bits.

        It does where the unused bits hold the sign wherever they hold anything (PS3.5 8.1.1), where
        those of unsigned values are clean in most cells, and where values were left shifted to the
        top of their cells. Else they hold zeros, an overlay or whatever, and are not asked.
        """
        none = np.zeros(stored.shape, dtype=bool)
        width = 8 * cells.dtype.itemsize
        spare = width - self.layout.shift - self.layout.bits_stored
        if spare <= 0 or self._has_overlay:
            return none
        whole = cells.astype("i4" if width < 32 else "i8")
        if self.layout.is_signed and cells.dtype.kind == "u":
            whole -= (whole >> (width - 1)) << width
        whole >>= self.layout.shift
        unused = whole >> self.layout.bits_stored
        used = unused[unused != 0]
        if self.layout.is_signed:
            are_values = used.size > 0 and (used == -1).mean() > 0.5
        else:
            are_values = used.size < 0.5 * unused.size or not (whole & ((1 << spare) - 1)).any()
        is_spoiled: BoolArray = whole != stored
        return is_spoiled if are_values else none

    def _of_samples(self, samples: Samples, is_exact: bool) -> Frame:
        """Turn the samples of a stream into stored values.

        Encoders differ: samples may be as wide as the cell, as the values, or as the widest value
        that occurs; and signed values are mostly written as two's complement into unsigned samples.
        """
        layout, values, bits = self.layout, samples.values, samples.bits
        lowest, highest = int(values.min()), int(values.max())
        needed = layout.shift + layout.bits_stored
        may_have_lost_its_sign = layout.is_signed and values.dtype.kind == "u" and bits < needed
        contradictions = (
            lowest < 0 and not layout.is_signed,
            may_have_lost_its_sign and highest >= 1 << (bits - 1),
            bits < needed and (layout.shift > 0 or samples.is_dct),
        )
        if any(contradictions):
            raise doubt()
        if is_exact or bits <= needed:
            return self._of_cells(values)
        # Loss may carry values a little beyond their range: masking would turn bone into air.
        wide = values.astype("i8")
        if layout.is_signed and values.dtype.kind == "u":  # the sign fills the whole sample
            wide -= (wide >> (bits - 1)) << bits
        low, high = layout.span
        reach = OVERSHOOT * (high - low)
        if layout.shift:
            raise doubt()
        return Frame(wide.clip(low, high), values, (wide < low - reach) | (wide > high + reach))


def _has_overlay_in_cells(ds: Dataset) -> bool:
    """Say whether an overlay lies in unused bits: its Bit Position is not 0 (PS3.3 C.9.2)."""
    tags = ds.keys()  # the data set itself would give its elements, each converted
    positions = (tag for tag in tags if tag & 0xFF01FFFF == 0x60000102)
    return any(integer(ds, int(tag)) not in (None, 0) for tag in positions)


def number_of_frames(ds: Dataset) -> int | None:
    """Read Number of Frames (0028,0008): 1 where absent or empty, None where it makes no sense."""
    if not has_value(ds, "NumberOfFrames"):
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


def doubt() -> SetAside:
    """Return what is said where the pixels contradict the attributes."""
    return SetAside(
        Reason.UNDECODABLE,
        "the pixel data contradict Bits Stored, High Bit or Pixel Representation",
    )


def name_of(syntax: str) -> str:
    """Name a transfer syntax in words; the UID of an unknown one is not repeated."""
    uid = UID(syntax)
    known = codecs.NAMES.get(syntax, uid.name)
    return known if known != syntax and not uid.is_private else "an unknown transfer syntax"
