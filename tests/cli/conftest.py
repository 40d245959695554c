"""CT files small enough to write by the dozen, a command run in this process, and its settings."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from tests.conftest import skip_or_fail
from tfkt_node.cli.app import run
from tfkt_node.records import CT_IMAGE
from tfkt_node.settings import data_folder


@pytest.fixture(autouse=True)
def _clean_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test sees the settings of this machine, by environment or by the current folder."""
    for name in [name for name in os.environ if name.upper().startswith("TFKT_NODE_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """No command's log handler outlives its test: it would write to a stream that is closed."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@dataclass(frozen=True)
class Ran:
    """What a command came to."""

    code: int
    out: str
    err: str


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Run `tfkt-node` in this process: `command("score", folder)`; no traceback may show.

    What its scoring process writes is captured as well.
    """

    def run_it(*arguments: object) -> Ran:
        capfd.readouterr()
        code = run([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        assert "Traceback" not in out + err
        return Ran(code, out, err)

    return run_it


@pytest.fixture
def config(tmp_path: Path) -> Callable[[str], Path]:
    """Write a settings file whose spool lies in the test's folder."""

    def write(text: str = "") -> Path:
        path = tmp_path / "node.toml"
        path.write_text(f'{text}\n[storage]\nspool = "{tmp_path / "spool"}"\n', encoding="utf-8")
        return path

    return write


@pytest.fixture
def scoring_config(config: Callable[[str], Path]) -> Path:
    """Settings with the shipped bundle, on one core."""
    if not (data_folder("models") / "tfkt-v2-lite" / "card.toml").is_file():
        skip_or_fail("the shipped bundle is not there; see `tfkt-node train`")
    return config("[scoring]\nstreams = 1")


def ct(number: int = 1, *, size: int = 16, **attributes: Any) -> Dataset:
    """Make a CT image: fat, muscle and bone in air. Those of one number differ only as told."""
    ds = Dataset()
    ds.SOPClassUID = CT_IMAGE
    ds.SOPInstanceUID = f"2.25.1000{number}"
    ds.Modality = "CT"
    ds.PatientID = "P1"
    ds.PatientAge = "050Y"
    ds.StudyInstanceUID = "2.25.1"
    ds.SeriesInstanceUID = "2.25.2"
    ds.InstanceNumber = number
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    ds.ImagePositionPatient = [0, 0, 5 * number]
    ds.PixelSpacing = [0.75, 0.75]
    ds.SliceThickness = 5
    ds.Rows = ds.Columns = size
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
    ds.RescaleIntercept, ds.RescaleSlope = 0, 1
    line = np.linspace(-1, 1, size)
    radius = np.hypot(line[:, None] / 0.6, line[None, :] / 0.85)
    tissue = np.select([radius < 0.15, radius < 0.8, radius < 1], [400, 60, -100], -1000)
    noise = np.random.default_rng(number).normal(0, 15, (size, size)) * (radius < 1)
    ds.PixelData = (tissue + noise).astype("<i2").tobytes()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return ds


def save(ds: Dataset, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(path, enforce_file_format=True)
    return path
