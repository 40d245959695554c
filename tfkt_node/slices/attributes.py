"""Read attributes of data sets that may hold anything: typed values out, or None.

pydicom converts a value when it is touched, so a broken one raises (or warns) far from the file.
Every touch goes through here, and every foreign exception becomes SetAside in one place.
"""

from __future__ import annotations

import math
import mmap
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import read_dataset as decode_elements
from pydicom.filereader import read_file_meta_info, read_partial
from pydicom.sequence import Sequence

from tfkt_node.records import Reason, SetAside
from tfkt_node.settings import Limits
from tfkt_node.slices.structure import Buffer, PixelElement, file_meta_end, look_over

DEFAULT_LIMITS = Limits()

EXPLICIT_LE = "1.2.840.10008.1.2.1"
EXPLICIT_BE = "1.2.840.10008.1.2.2"
DEFLATED = frozenset(
    {"1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"}
)
"""Syntaxes whose data set is deflated as a whole: plain, and JPIP referenced."""

BINARY_NUMBERS = frozenset({"AT", "FD", "FL", "SL", "SS", "SV", "UL", "US", "UV"})
"""VRs under which the text of a number, such as "0 ", is another number: 8240."""

FIRST_PIXEL_TAG, LAST_TABLE, LAST_PIXEL_TAG = 0x7FE00001, 0x7FE00003, 0x7FE00010
"""Extended Offset Table, the last that is about it, and Pixel Data."""

LARGE_BYTES = 32 << 20
"""Pixel data up to this are read whole: single slices."""


class PixelsInFile(NamedTuple):
    """Where the value of Pixel Data lies in a file."""

    path: Path
    start: int
    end: int


FOREIGN_ERRORS = (
    ArithmeticError,
    AttributeError,
    BytesLengthException,
    EOFError,
    InvalidDicomError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
"""What pydicom and the decoders raise on broken input, seen over the zoo of test files."""


@contextmanager
def foreign_errors_as(reason: Reason, detail: str) -> Iterator[None]:
    """Map what libraries raise on broken input to SetAside, and keep their warnings quiet.

    The library's own text is dropped: it may quote values of the data set. Errors of the file
    system pass through.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (*FOREIGN_ERRORS, OSError) as error:
        if isinstance(error, OSError) and _is_of_the_disk(error):
            raise
        raise SetAside(reason, f"{detail} ({type(error).__name__})") from error


def _is_of_the_disk(error: OSError) -> bool:
    """Tell an error of the system, which has a number, from pydicom's for a sequence cut off.

    pydicom raises its own over any error inside a sequence, so the one beneath is looked at too.
    """
    beneath = error.__context__
    return error.errno is not None or (isinstance(beneath, OSError) and beneath.errno is not None)


def read_dataset(path: Path, *, pixels: bool = False, limits: Limits = DEFAULT_LIMITS) -> Dataset:
    """Read a Part 10 file, without its pixel data unless asked for.

    Large pixel data stay in the file, and the data set says where, by an attribute `pixels_in_file`
    (PixelsInFile): a frame at a time is read of them later.
    Raises SetAside: FILE_MISSING; UNREADABLE where the bytes are no sound data set, or hold more
    than the limits; UNDECODABLE where the pixel data break off. Other errors of the file system
    pass through: they say nothing about the file.
    """
    with foreign_errors_as(Reason.UNREADABLE, "not a sound DICOM file"):
        try:
            file = path.open("rb")
        except FileNotFoundError:
            raise SetAside(Reason.FILE_MISSING) from None
        with file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            start, syntax = file_meta_end(data)
            if syntax in DEFLATED:
                inflated = _inflated(data[start:], limits)
                _check_structure(inflated, 0, EXPLICIT_LE, limits)
                ds = decode_elements(BytesIO(inflated), False, True, stop_when=_behind(pixels))
                ds.file_meta = read_file_meta_info(path)
            else:
                found = _check_structure(data, start, syntax, limits)
                stays = pixels and syntax != EXPLICIT_BE and _is_large(found)
                ds = read_partial(file, stop_when=_behind(pixels, LAST_TABLE if stays else None))
                if found is not None and stays:
                    ds.pixels_in_file = PixelsInFile(path, found.start, found.end)
    # pydicom logs and returns an empty data set where a closing delimiter is missing.
    if len(ds) == 0:
        raise SetAside(Reason.UNREADABLE, "the data set breaks off before its first element")
    return ds


def _is_large(found: PixelElement | None) -> bool:
    is_plain = found is not None and found.tag == LAST_PIXEL_TAG
    return found is not None and is_plain and found.end - found.start > LARGE_BYTES


def _behind(pixels: bool, last: int | None = None) -> Callable[[int, str | None, int], bool]:
    """Tell where to stop reading: at the pixel data, or behind them, where junk may follow."""
    wanted = last or (LAST_PIXEL_TAG if pixels else FIRST_PIXEL_TAG - 1)
    return lambda tag, _vr, _length: tag > wanted


def _inflated(deflated: bytes, limits: Limits) -> bytes:
    """Inflate up to the limit, and no further: a small file may hold a thousand times its size."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    inflated = inflater.decompress(deflated, limits.inflated_mb << 20)
    if inflater.unconsumed_tail:
        raise SetAside(
            Reason.UNREADABLE,
            f"inflates to more than {limits.inflated_mb} MB (limits.inflated_mb)",
        )
    if not inflater.eof:
        raise SetAside(Reason.UNREADABLE, "the deflated data set breaks off")
    return inflated


def _check_structure(data: Buffer, start: int, syntax: str, limits: Limits) -> PixelElement | None:
    """Raise SetAside for what the library would pass over; say where the pixel data are."""
    found = look_over(data, start, big_endian=syntax == EXPLICIT_BE, limits=limits)
    if found is not None and not found.is_whole:
        there = len(data) - found.start
        said = f" of {found.end - found.start}" if found.has_length else ""
        raise SetAside(Reason.UNDECODABLE, f"the pixel data break off after {there}{said} bytes")
    return found


def from_bytes(attributes: bytes) -> Dataset:
    """Decode the attributes of an InstanceHeader: Explicit VR Little Endian, without file meta.

    Raises SetAside(UNREADABLE) where the bytes are no data set.
    """
    with foreign_errors_as(Reason.UNREADABLE, "not a sound data set"):
        return decode_elements(BytesIO(attributes), is_implicit_VR=False, is_little_endian=True)


def text(ds: Dataset, keyword: str) -> str:
    """Return the value as text without padding; '' where missing, unreadable or multi-valued."""
    value = _value(ds, keyword)
    return value.strip(" \0") if isinstance(value, str) else ""


def texts(ds: Dataset, keyword: str) -> tuple[str, ...]:
    """Return all values as text without padding; () where missing or unreadable."""
    value = _value(ds, keyword)
    values = [value] if isinstance(value, str) else _listed(value)
    return tuple(str(part).strip(" \0") for part in values)


def integer(ds: Dataset, keyword: str) -> int | None:
    """Return the single whole number; None where missing, unreadable or not whole."""
    number = decimal(ds, keyword)
    return int(number) if number is not None and number.is_integer() else None


def decimal(ds: Dataset, keyword: str) -> float | None:
    """Return the single finite number; None where missing or anything else."""
    found = decimals(ds, keyword, 1)
    return found[0] if found else None


def decimals(ds: Dataset, keyword: str, count: int) -> tuple[float, ...] | None:
    """Return exactly `count` finite numbers, or None."""
    value = _value(ds, keyword)
    values = _listed(value) or ([] if value is None else [value])
    try:
        numbers = tuple(float(part) for part in values)
    except (TypeError, ValueError):
        return None
    return numbers if len(numbers) == count and all(map(math.isfinite, numbers)) else None


def count(ds: Dataset, keyword: str) -> int:
    """Return how many items a sequence has; 0 where it is missing or unreadable."""
    value = _value(ds, keyword)
    return len(value) if isinstance(value, Sequence) else 0


def item(ds: Dataset, keyword: str, index: int = 0) -> Dataset | None:
    """Return one item of a sequence; None where it is missing or unreadable."""
    value = _value(ds, keyword)
    return value[index] if isinstance(value, Sequence) and index < len(value) else None


def functional_group(ds: Dataset, frame: int | None, keyword: str) -> Dataset | None:
    """Return the item of a functional group macro that holds for a frame (PS3.3 C.7.6.16).

    frame: 1-based. The frame's own group wins over the shared one. None for single-frame objects.
    """
    if frame is None:
        return None
    own = item(ds, "PerFrameFunctionalGroupsSequence", frame - 1)
    shared = item(ds, "SharedFunctionalGroupsSequence")
    for group in (own, shared):
        found = item(group, keyword) if group is not None else None
        if found is not None:
            return found
    return None


def _value(ds: Dataset, keyword: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            if keyword not in ds:
                return None
            element = ds[keyword]
            is_misread = element.VR in BINARY_NUMBERS and dictionary_VR(element.tag) in ("DS", "IS")
            return None if is_misread else element.value
        except (*FOREIGN_ERRORS, OSError):  # nothing is read from the disk here
            return None


def _listed(value: Any) -> list[Any]:
    is_many = hasattr(value, "__iter__") and not isinstance(value, str | bytes | Dataset)
    return list(value) if is_many else []
