"""Patients are held out whole, and the same ones each time."""

from __future__ import annotations

import csv
from collections import Counter

import pytest

from tfkt_node.records import Misconfigured
from tfkt_node.training.images.collection import clean_slices, folds
from tfkt_node.training.recipe import DataRecipe

RECIPE = DataRecipe(slices_per_patient=2)


@pytest.fixture
def data(tmp_path):
    """An index of 30 patients with three slices each, some of whom must not be used."""
    folder = tmp_path / "ct-clean"
    folder.mkdir()
    with (folder / "index.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["file", "patient", "region", "pixel_mm"])
        writer.writeheader()
        for number in range(90):
            patient = f"{'MIDRC-' if number < 9 else 'P'}{number // 3}"
            region = "abdomen" if number % 9 < 3 else "chest"
            writer.writerow(
                {"file": f"{number}.png", "patient": patient, "region": region, "pixel_mm": 0.7}
            )
    return tmp_path


def test_patients_without_permission_are_left_out(data):
    """Slices whose terms forbid it never reach training; no patient dominates."""
    slices = clean_slices(data, RECIPE)

    assert not [s for s in slices if s.patient.startswith("MIDRC-")]
    assert len(slices) == 27 * 2


def test_slices_are_spread_over_a_patient(data):
    """Of three slices the first and the last are taken, not the first two."""
    slices = clean_slices(data, RECIPE)

    assert [s.path.name for s in slices[:2]] == ["9.png", "11.png"]


def test_folds_are_alike(data):
    """Every patient is in one fold; folds differ by at most one patient, in each region too."""
    slices = clean_slices(data, RECIPE)
    found = folds(slices, RECIPE)
    region = {s.patient: s.region for s in slices}

    assert set(found) == set(region)
    for where in ("abdomen", "chest"):
        sizes = Counter(found[patient] for patient in region if region[patient] == where)
        assert max(sizes.values()) - min(sizes[fold] for fold in range(RECIPE.folds)) <= 1


def test_folds_are_the_same_for_the_same_seed(data):
    """The order of the index does not matter; the seed does."""
    slices = clean_slices(data, RECIPE)

    assert folds(slices, RECIPE) == folds(slices[::-1], RECIPE)
    assert folds(slices, RECIPE) != folds(slices, DataRecipe(seed=7))


def test_too_few_patients_are_told(data):
    """Fewer patients than folds are refused with the cure."""
    with pytest.raises(Misconfigured, match="lower folds"):
        folds(clean_slices(data, RECIPE), DataRecipe(folds=28))


def test_missing_folder_is_told(tmp_path):
    """--data without ct-clean is refused by name."""
    with pytest.raises(Misconfigured, match="ct-clean"):
        clean_slices(tmp_path, RECIPE)
