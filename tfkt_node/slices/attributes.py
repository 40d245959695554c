"""Read attributes of data sets that may hold anything: typed values out, or None.

pydicom converts a value when it is touched, so a broken one raises (or warns) far from the file.
Every touch goes through here, and every foreign exception becomes SetAside in one place.
"""

from __future__ import annotations

import math
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any

from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import read_dataset as decode_elements
from pydicom.sequence import Sequence

from tfkt_node.records import Reason, SetAside

BINARY_NUMBERS = {
    "FD": "d", "FL": "f", "SL": "i", "SS": "h", "SV": "q", "UL": "I", "US": "H", "UV": "Q",
}  # fmt: skip
"""VRs of binary numbers, and how one of them is packed."""

NUMBER_TEXT = frozenset(b"0123456789+-.eE \\\0")
"""Characters of Decimal and Integer Strings, with padding and what separates them."""

FOREIGN_ERRORS = (
    ArithmeticError,
    AttributeError,
    BytesLengthException,
    EOFError,
    InvalidDicomError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
"""What pydicom and the decoders raise on broken input, seen over the zoo of test files.

MemoryError is none of them: whether there was memory says nothing about the file."""


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


def integer(ds: Dataset, keyword: str | int) -> int | None:
    """Return the single whole number; None where missing, unreadable or not whole."""
    number = decimal(ds, keyword)
    return int(number) if number is not None and number.is_integer() else None


def decimal(ds: Dataset, keyword: str | int) -> float | None:
    """Return the single finite number; None where missing or anything else."""
    found = decimals(ds, keyword, 1)
    return found[0] if found else None


def decimals(ds: Dataset, keyword: str | int, count: int) -> tuple[float, ...] | None:
    """Return exactly `count` finite numbers, or None."""
    value = _value(ds, keyword)
    values = _listed(value) or ([] if value is None else [value])
    if any("_" in str(part) for part in values):  # Python reads 1_0 as 10, and DICOM does not
        return None
    try:
        numbers = tuple(float(part) for part in values)
    except (TypeError, ValueError):
        return None
    return numbers if len(numbers) == count and all(map(math.isfinite, numbers)) else None


def count(ds: Dataset, keyword: str) -> int:
    """Return how many items a sequence has; 0 where it is missing or unreadable."""
    value = _value(ds, keyword)
    return len(value) if isinstance(value, Sequence) else 0


def has_value(ds: Dataset, keyword: str) -> bool:
    """Say whether the attribute is there with a value, readable or not."""
    if keyword not in ds:
        return False
    element = ds.get_item(keyword)  # as it came, where it was not touched
    value = getattr(element, "value", None)
    return value is not None and (not hasattr(value, "__len__") or len(value) > 0)


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


def _value(ds: Dataset, keyword: str | int) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            if keyword not in ds:
                return None
            element = ds[keyword]
            is_text = dictionary_VR(element.tag) in ("DS", "IS")
            return None if is_text and _is_misread(element) else element.value
        except (*FOREIGN_ERRORS, OSError):  # nothing is read from the disk here
            return None


def _is_misread(element: DataElement) -> bool:
    """Tell the text of a number under the VR of a binary one: "0 " would be 8240.

    A binary number under that VR, such as an intercept in FD, holds other bytes than digits.
    """
    if element.VR == "AT":
        return True
    code = BINARY_NUMBERS.get(element.VR)
    if code is None:
        return False
    values = _listed(element.value) or [element.value]
    packed = (struct.pack(f"{order}{len(values)}{code}", *values) for order in "<>")
    return any(set(raw) <= NUMBER_TEXT and raw.strip(b"\0 ") != b"" for raw in packed)


def _listed(value: Any) -> list[Any]:
    is_many = hasattr(value, "__iter__") and not isinstance(value, str | bytes | Dataset)
    return list(value) if is_many else []
