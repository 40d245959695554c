"""CT data sets made in memory: plain, sound, and changed attribute by attribute."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import ExplicitVRLittleEndian

from tfkt_node.records import CT_IMAGE, ENHANCED_CT_IMAGE, InstanceRef, Reason, SetAside
from tfkt_node.slices.decoding import decode_hu


def ct(values: np.ndarray | None = None, **attributes: Any) -> Dataset:
    """A single-frame CT of 16-bit stored values; None as a value deletes the attribute."""
    values = np.zeros((4, 4), dtype=np.int16) if values is None else values
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID, ds.SOPInstanceUID = CT_IMAGE, "1.2.3"
    ds.Modality, ds.ImageType = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.Rows, ds.Columns = values.shape[-2:]
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated = ds.BitsStored = 8 * values.dtype.itemsize
    ds.HighBit = ds.BitsStored - 1
    ds.PixelRepresentation = int(values.dtype.kind == "i")
    ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = 1, 0 if values.min() < 0 else -1024, "HU"
    ds.PixelSpacing, ds.SliceThickness = [0.7, 0.7], 5
    ds.ImageOrientationPatient, ds.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, 0]
    ds.PixelData = values.tobytes()
    return changed(ds, **attributes)


def enhanced(
    values: np.ndarray,
    rescales: Sequence[tuple[float, float]],
    positions_mm: Sequence[float],
    **attributes: Any,
) -> Dataset:
    """An Enhanced CT, (frames, rows, columns), with a rescale and a position for each frame."""
    ds = ct(values, SOPClassUID=ENHANCED_CT_IMAGE, NumberOfFrames=len(values))
    for keyword in ("RescaleSlope", "RescaleIntercept", "RescaleType", "PixelSpacing"):
        del ds[keyword]
    del ds.ImageOrientationPatient, ds.ImagePositionPatient
    shared = Dataset()
    shared.PlaneOrientationSequence = Items([Dataset()])
    shared.PlaneOrientationSequence[0].ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    shared.PixelMeasuresSequence = Items([Dataset()])
    shared.PixelMeasuresSequence[0].PixelSpacing = [0.7, 0.8]
    frames = []
    for (slope, intercept), position in zip(rescales, positions_mm, strict=True):
        frame, value, place = Dataset(), Dataset(), Dataset()
        value.RescaleSlope, value.RescaleIntercept, value.RescaleType = slope, intercept, "HU"
        place.ImagePositionPatient = [0, 0, position]
        frame.PixelValueTransformationSequence = Items([value])
        frame.PlanePositionSequence = Items([place])
        frames.append(frame)
    ds.SharedFunctionalGroupsSequence = Items([shared])
    ds.PerFrameFunctionalGroupsSequence = Items(frames)
    return changed(ds, **attributes)


def changed(ds: Dataset, **attributes: Any) -> Dataset:
    for keyword, value in attributes.items():
        if value is None:
            del ds[keyword]
        else:
            setattr(ds, keyword, value)
    return ds


def ref(name: str = "1.2.3", sop_class: str = CT_IMAGE, path: Path | None = None) -> InstanceRef:
    return InstanceRef(path or Path(name), f"digest of {name}", sop_class, name)


def stored(*values: int, dtype: str = "i2") -> np.ndarray:
    return np.array([values], dtype=dtype)


def reason_of(ds: Dataset, frame: int | None = None) -> tuple[Reason, str]:
    """Why an image gives no HU, with the detail."""
    with pytest.raises(SetAside) as caught:
        decode_hu(ds, frame)
    return caught.value.reason, caught.value.detail
