"""The clean slices on disk, and which fold each patient is in."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tfkt_node.records import FloatArray, Misconfigured
from tfkt_node.training.recipe import DataRecipe

STORED_OFFSET_HU = 1024
"""The PNG files of ct-clean and paired-dose hold HU + 1024."""


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
    """List the slices of `data`/ct-clean that the recipe uses, patient by patient.

    Raises Misconfigured when the folder or a column of its index is missing.
    """
    index = data / "ct-clean" / "index.csv"
    if not index.is_file():
        raise Misconfigured(f"{index} does not exist: --data must hold the folder ct-clean")
    found: dict[str, list[CleanSlice]] = {}
    with index.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            try:
                clean = CleanSlice(
                    path=index.parent / row["file"],
                    patient=row["patient"],
                    region=row["region"],
                    pixel_mm=float(row["pixel_mm"]),
                )
            except (KeyError, ValueError) as error:
                raise Misconfigured(f"{index}: a row lacks a usable {error}") from error
            if not clean.patient.startswith(recipe.left_out_prefix):
                found.setdefault(clean.patient, []).append(clean)
    return [s for slices in found.values() for s in _spread(slices, recipe.slices_per_patient)]


def _spread(slices: list[CleanSlice], most: int) -> list[CleanSlice]:
    """Take at most so many of one patient's slices, evenly over all regions."""
    places = np.linspace(0, len(slices) - 1, min(most, len(slices))).round().astype(int)
    return [slices[place] for place in places]


def folds(slices: list[CleanSlice], recipe: DataRecipe) -> dict[str, int]:
    """Give each patient one of the recipe's folds, regions spread evenly; the same each time.

    Patients are drawn by the recipe's seed, then dealt out region by region.
    Raises Misconfigured when there are fewer patients than folds.
    """
    region = {s.patient: s.region for s in reversed(slices)}
    if len(region) < recipe.folds:
        raise Misconfigured(
            f"{len(region)} patients cannot make {recipe.folds} folds; lower folds in the recipe"
        )
    names = sorted(region)
    order = np.random.default_rng(recipe.seed).permutation(len(names))
    dealt = sorted((names[i] for i in order), key=region.__getitem__)
    return {patient: place % recipe.folds for place, patient in enumerate(dealt)}
