"""The two series of the demonstration: one body, once at full dose and once at a tenth of it.

The files are ordinary CT Image instances of one study; nothing in them tells the node that this is
a demonstration.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from tfkt_node.cli.demo_phantom import PIXEL_MM, SIZE, SLICE_MM, abdomen
from tfkt_node.records import CT_IMAGE, FloatArray, Misconfigured, SetAside
from tfkt_node.training.simulation.low_dose import LowDose

SLICES = 16
FULL_DOSE_NOISE_HU = 12.0
"""What an abdomen of this size has at full dose, in 3 mm slices and a standard kernel."""
LOW_DOSE = 0.1
TUBE_CURRENT_MA, EXPOSURE_MAS = 300, 150
MOST_INPUT_SLICES = 40
"""Of a series of the user's own the middle is taken: the demonstration ends within two minutes."""

Track = Callable[[Sequence[int], str], Iterable[int]]
"""Passes numbers through and shows how far it is."""


@dataclass(frozen=True, slots=True)
class DemoSeries:
    """One series on disk. name: for people and file names."""

    name: str
    series_uid: str
    paths: tuple[Path, ...]


def phantom_series(folder: Path, at: datetime, track: Track) -> tuple[DemoSeries, DemoSeries]:
    """Write the phantom at full dose and at a tenth of it into two folders under `folder`."""
    clean = abdomen(SLICES)
    study = _study(at)
    full, low = _new_series(study, 1, "Full dose"), _new_series(study, 2, "A tenth of the dose")
    for ds, dose in ((full, 1.0), (low, LOW_DOSE)):
        ds.XRayTubeCurrent, ds.Exposure = int(TUBE_CURRENT_MA * dose), int(EXPOSURE_MAS * dose)
    full_paths: list[Path] = []
    low_paths: list[Path] = []
    random = np.random.default_rng(7)
    for number in track(range(SLICES), "Scanning"):
        scan = LowDose(
            clean[number], pixel_mm=PIXEL_MM, own_noise_hu=FULL_DOSE_NOISE_HU, seed=number
        )
        for ds, dose, paths in ((full, 1.0, full_paths), (low, LOW_DOSE, low_paths)):
            _place(ds, number)
            hu = clean[number] + scan.scan_noise(dose, random)
            paths.append(_write(ds, hu, folder / _folder_name(ds), number))
    return (
        DemoSeries("full dose", full.SeriesInstanceUID, tuple(full_paths)),
        DemoSeries("a tenth of the dose", low.SeriesInstanceUID, tuple(low_paths)),
    )


def input_series(source: Path, folder: Path, track: Track) -> tuple[DemoSeries, DemoSeries]:
    """Take the largest CT series under `source` as it is, and write a copy at a tenth of the dose.

    Raises Misconfigured when there is none that can be simulated.
    """
    from tfkt_node.slices.decoding import decode_hu, read_dataset

    given = _largest_series(source, folder)
    low_uid = generate_uid(prefix=None)
    low_paths: list[Path] = []
    random = np.random.default_rng(7)
    for number in track(range(len(given)), "Taking it again at a tenth of the dose"):
        try:
            ds = read_dataset(given[number], pixels=True)
            hu = decode_hu(ds)
            scan = LowDose(hu, pixel_mm=float(ds.PixelSpacing[0]), seed=number)
        except (SetAside, ValueError, AttributeError) as error:
            raise Misconfigured(
                f"--input: slice {number + 1} of the series cannot be simulated: {error}"
            ) from None
        ds.SeriesInstanceUID, ds.SeriesNumber = low_uid, 999
        ds.SeriesDescription = "A tenth of the dose, simulated"
        ds.ImageType = ["DERIVED", "PRIMARY", "AXIAL"]
        _forget_encoding(ds)
        degraded = hu + scan.inserted(LOW_DOSE, random)
        low_paths.append(_write(ds, degraded, folder / "tenth-dose", number))
    full_uid = str(read_dataset(given[0]).SeriesInstanceUID)
    return (
        DemoSeries("as it is", full_uid, tuple(given)),
        DemoSeries("a tenth of the dose", low_uid, tuple(low_paths)),
    )


def _largest_series(source: Path, scratch: Path) -> list[Path]:
    from tfkt_node.cli import intake

    files = [intake.read_file(path, scratch) for path in intake.find_files([source])]
    series = intake.group_series(intake.settle_repeats(files))
    plain = [
        [ref.path for ref in one.instances]
        for one in series
        if all(ref.sop_class_uid == CT_IMAGE for ref in one.instances)
    ]
    if not plain:
        raise Misconfigured(f"--input: there is no series of CT Image instances in {source}")
    largest = max(plain, key=len)
    first = max(0, (len(largest) - MOST_INPUT_SLICES) // 2)
    return largest[first : first + MOST_INPUT_SLICES]


def _forget_encoding(ds: Dataset) -> None:
    """Drop what belonged to the pixels as they were encoded."""
    for keyword in (
        "PixelData", "PixelPaddingValue", "PixelPaddingRangeLimit", "SmallestImagePixelValue",
        "LargestImagePixelValue", "LossyImageCompression", "LossyImageCompressionRatio",
        "LossyImageCompressionMethod", "ExtendedOffsetTable", "ExtendedOffsetTableLengths",
    ):  # fmt: skip
        if keyword in ds:
            delattr(ds, keyword)


def _study(at: datetime) -> Dataset:
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SOPClassUID = CT_IMAGE
    ds.Modality = "CT"
    ds.Manufacturer = "Simulated"
    ds.ManufacturerModelName = "Parallel beam"
    ds.InstitutionName = "Demonstration"
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = at.strftime("%Y%m%d")
    ds.StudyTime = ds.SeriesTime = ds.AcquisitionTime = ds.ContentTime = at.strftime("%H%M%S")
    ds.AccessionNumber = at.strftime("D%y%m%d%H%M%S")
    ds.StudyDescription = "CT upper abdomen (simulated)"
    ds.ReferringPhysicianName = ""
    ds.PatientName = "Demonstration^Simulated"
    ds.PatientID = "DEMO-1"
    ds.PatientBirthDate = ""
    ds.PatientSex = "O"
    ds.PatientAge = "055Y"
    ds.StudyInstanceUID = generate_uid(prefix=None)
    ds.StudyID = "1"
    ds.FrameOfReferenceUID = generate_uid(prefix=None)
    ds.PositionReferenceIndicator = ""
    ds.BodyPartExamined = "ABDOMEN"
    ds.PatientPosition = "HFS"
    ds.KVP = 120
    ds.ConvolutionKernel = "STANDARD"
    ds.SliceThickness = ds.SpacingBetweenSlices = SLICE_MM
    ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    ds.PixelSpacing = [PIXEL_MM, PIXEL_MM]
    ds.AcquisitionNumber = 1
    return ds


def _new_series(study: Dataset, number: int, description: str) -> Dataset:
    ds = copy.deepcopy(study)
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.SeriesInstanceUID = generate_uid(prefix=None)
    ds.SeriesNumber = number
    ds.SeriesDescription = description
    return ds


def _folder_name(ds: Dataset) -> str:
    return "full-dose" if ds.SeriesNumber == 1 else "tenth-dose"


def _place(ds: Dataset, number: int) -> None:
    corner = -(SIZE - 1) / 2 * PIXEL_MM
    height = (number - (SLICES - 1) / 2) * SLICE_MM
    ds.InstanceNumber = number + 1
    ds.ImagePositionPatient = [corner, corner, height]
    ds.SliceLocation = height


def _write(ds: Dataset, hu: FloatArray, folder: Path, number: int) -> Path:
    """Write one slice as signed 16 bit values that are Hounsfield units."""
    ds.SOPInstanceUID = generate_uid(prefix=None)
    ds.Rows, ds.Columns = hu.shape
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = 0, 1, "HU"
    ds.WindowCenter, ds.WindowWidth = 40, 400
    stored = np.clip(np.rint(hu), -1024, 3071).astype("<i2")
    ds.add_new("PixelData", "OW", stored.tobytes())
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"slice-{number + 1:03}.dcm"
    ds.save_as(path, enforce_file_format=True)
    return path
