"""The table of the zoo notices what would be wrong by a little: faults that are planted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.zoo import outcomes
from tfkt_node.records import CT_CLASSES, FloatArray, InstanceRef
from tfkt_node.slices import decoding, pixels

pytestmark = pytest.mark.station

FILES = (
    "made/ok-explicit.dcm",
    "made/ok-bigendian.dcm",
    "made/rle-good.dcm",
    "made/unsigned-12of16-intercept-1024.dcm",
    "made/signed-12of16-upper-nibble-zero.dcm",
    "made/enhanced-3.dcm",
    "made/enhanced-slopes.dcm",
    "made/padding-minus-2000-tagged.dcm",
    "made/padding-range.dcm",
    "one-slice/nema-ct1/CT1_JPLL",
)
"""A few of the table's rows, so that this takes seconds."""


def wrong(zoo: Path) -> set[str]:
    """The files whose Hounsfield units are no longer those of the table."""
    rows = {row.path: row for row in outcomes.read_table().values()}
    ct = sorted(CT_CLASSES)
    found = {
        name: [outcomes.hounsfield(InstanceRef(zoo / name, "", one, "")) for one in ct]
        for name in FILES
    }
    return {name for name, said in found.items() if rows[name].hu not in said}


def test_without_a_fault_the_table_holds(shared_data: Path) -> None:
    """Else the faults below would prove nothing."""
    assert set() == wrong(shared_data / "zoo")


def test_rescale_that_is_off_by_one_is_noticed(
    shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P6: one Hounsfield unit, in every file."""
    rescale = decoding._rescale

    def off(*args: object) -> tuple[float, float]:
        slope, intercept = rescale(*args)  # type: ignore[arg-type]
        return slope, intercept + 1

    monkeypatch.setattr(decoding, "_rescale", off)

    assert set(FILES) == wrong(shared_data / "zoo")


def test_sign_that_is_not_read_is_noticed(
    shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P6: every file with signed values."""
    layout = pixels._layout

    def unsigned(ds: object) -> pixels.Layout:
        found = layout(ds)  # type: ignore[arg-type]
        return pixels.Layout(
            found.rows, found.columns, found.frames,
            found.bits_allocated, found.bits_stored, found.shift, is_signed=False,
        )  # fmt: skip

    monkeypatch.setattr(pixels, "_layout", unsigned)

    assert {"made/ok-explicit.dcm", "made/enhanced-3.dcm", "made/rle-good.dcm"} <= wrong(
        shared_data / "zoo"
    )


def test_frames_in_another_order_are_noticed(
    shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P6: the files of more than one frame, and no others."""
    stacks = outcomes.stacks

    def reversed_stacks(slices: object) -> list[object]:
        found = stacks(slices)  # type: ignore[arg-type]
        return [replace(one, slices=one.slices[::-1]) for one in found]

    monkeypatch.setattr(outcomes, "stacks", reversed_stacks)

    assert {"made/enhanced-3.dcm", "made/enhanced-slopes.dcm"} == wrong(shared_data / "zoo")


def test_padding_that_is_not_found_is_noticed(
    shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P6: the files that have some, and no others."""

    def nowhere(_ds: object, _layout: object, _frame: object, hu: FloatArray) -> object:
        return np.zeros(hu.shape, dtype=bool)

    monkeypatch.setattr(decoding, "_is_padding", nowhere)

    found = wrong(shared_data / "zoo")
    assert {"made/padding-minus-2000-tagged.dcm", "made/padding-range.dcm"} <= found
    assert "made/ok-explicit.dcm" not in found
