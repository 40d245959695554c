"""Patients are held out whole, and the same ones each time."""

from __future__ import annotations

import csv

import pytest

from tfkt_node.records import Misconfigured
from tfkt_node.training.collection import Part, clean_slices, split
from tfkt_node.training.recipe import DataRecipe

RECIPE = DataRecipe(calibration_patients=5, test_patients=4, slices_per_patient=2)


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


def test_split_holds_out_as_many_patients_as_asked(data):
    """Parts have the sizes of the recipe, and each region is in each part."""
    slices = clean_slices(data, RECIPE)
    parts = split(slices, RECIPE)

    sizes = {part: sum(p is part for p in parts.values()) for part in Part}
    assert sizes == {Part.TRAIN: 18, Part.CALIBRATION: 5, Part.TEST: 4}
    for part in Part:
        assert {s.region for s in slices if parts[s.patient] is part} == {"abdomen", "chest"}


def test_split_is_the_same_for_the_same_seed(data):
    """The order of the index does not matter; the seed does."""
    slices = clean_slices(data, RECIPE)

    assert split(slices, RECIPE) == split(slices[::-1], RECIPE)
    assert split(slices, RECIPE) != split(slices, DataRecipe(7, "MIDRC-", 2, 5, 4))


def test_too_few_patients_are_told(data):
    """A split that leaves nobody to fit is refused with the cure."""
    with pytest.raises(Misconfigured, match="leave some"):
        split(clean_slices(data, RECIPE), DataRecipe(calibration_patients=20, test_patients=20))


def test_missing_folder_is_told(tmp_path):
    """--data without ct-clean is refused by name."""
    with pytest.raises(Misconfigured, match="ct-clean"):
        clean_slices(tmp_path, RECIPE)
