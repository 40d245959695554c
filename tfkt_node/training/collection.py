"""The clean slices on disk, and which patients are for fitting, calibration and test."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np

from tfkt_node.records import FloatArray, Misconfigured
from tfkt_node.training.recipe import DataRecipe

STORED_OFFSET_HU = 1024
"""The PNG files of ct-clean and paired-dose hold HU + 1024."""


class Part(StrEnum):
    """What a patient's slices are for. No patient is in two parts."""

    TRAIN = "train"
    CALIBRATION = "calibration"
    TEST = "test"


@dataclass(frozen=True, slots=True)
class CleanSlice:
    """One row of ct-clean/index.csv."""

    path: Path
    patient: str
    region: str
    pixel_mm: float


def read_png(path: Path) -> FloatArray:
    """Read a 16-bit PNG that holds HU + 1024; returns float32 HU."""
    import imagecodecs

    stored = imagecodecs.png_decode(path.read_bytes())
    return np.asarray(stored, np.float32) - STORED_OFFSET_HU


def clean_slices(data: Path, recipe: DataRecipe) -> list[CleanSlice]:
    """List the slices of `data`/ct-clean that the recipe uses, in the index's order.

    Raises Misconfigured when the folder or a column of its index is missing.
    """
    index = data / "ct-clean" / "index.csv"
    if not index.is_file():
        raise Misconfigured(f"{index} does not exist: --data must hold the folder ct-clean")
    taken: dict[str, int] = {}
    slices = []
    with index.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            try:
                found = CleanSlice(
                    path=index.parent / row["file"],
                    patient=row["patient"],
                    region=row["region"],
                    pixel_mm=float(row["pixel_mm"]),
                )
            except (KeyError, ValueError) as error:
                raise Misconfigured(f"{index}: a row lacks a usable {error}") from error
            count = taken.get(found.patient, 0)
            if found.patient.startswith(recipe.left_out_prefix) or (
                count >= recipe.slices_per_patient
            ):
                continue
            taken[found.patient] = count + 1
            slices.append(found)
    return slices


def split(slices: list[CleanSlice], recipe: DataRecipe) -> dict[str, Part]:
    """Give each patient one part, regions spread evenly, the same for the same recipe.

    Patients are drawn by the recipe's seed, then dealt out region by region.
    Raises Misconfigured when no patient is left to fit.
    """
    region = {s.patient: s.region for s in reversed(slices)}
    held = recipe.calibration_patients + recipe.test_patients
    if held >= len(region):
        raise Misconfigured(
            f"{len(region)} patients cannot give {held} for calibration and test and leave some "
            "to fit; lower calibration_patients or test_patients"
        )
    names = sorted(region)
    order = np.random.default_rng(recipe.seed).permutation(len(names))
    dealt = sorted((names[i] for i in order), key=region.__getitem__)
    places = np.linspace(0, len(dealt) - 1, held).round().astype(int)
    parts = dict.fromkeys(dealt, Part.TRAIN)
    for number, place in enumerate(places):
        before = number * recipe.test_patients // held
        is_test = (number + 1) * recipe.test_patients // held > before
        parts[dealt[place]] = Part.TEST if is_test else Part.CALIBRATION
    return parts
