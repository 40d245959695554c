"""A training run from slices to a bundle, small enough for every day."""

from __future__ import annotations

import csv
import dataclasses

import numpy as np
import pytest

from tfkt_node.training.collection import Part
from tfkt_node.training.recipe import DataRecipe, FitRecipe, Recipe, read
from tfkt_node.training.track import untracked

pytestmark = pytest.mark.station

RECIPE = Recipe(
    data=DataRecipe(
        calibration_patients=1,
        test_patients=2,
        draws=1,
        doses=(1 / 2, 1 / 4, 1 / 10),
        thinned=((180, 1.0),),
        smoothed=(1 / 4,),
    ),
    fit=FitRecipe(epochs=2, batch=4),
)


@pytest.fixture(scope="module")
def data(shared_data, tmp_path_factory):
    """Five patients of ct-clean, one slice each, beside the real anchors and pairs."""
    folder = tmp_path_factory.mktemp("data")
    for name in ("anchors", "paired-dose"):
        (folder / name).symlink_to(shared_data / name)
    (folder / "ct-clean").mkdir()
    with (shared_data / "ct-clean" / "index.csv").open(newline="", encoding="utf-8") as file:
        rows = list({row["patient"]: row for row in csv.DictReader(file)}.values())[:5]
    for row in rows:
        (folder / "ct-clean" / row["file"]).symlink_to(shared_data / "ct-clean" / row["file"])
    with (folder / "ct-clean" / "index.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return folder


@pytest.fixture(scope="module")
def run(data, tmp_path_factory, require_module):
    """A finished run: its folders and what it returned."""
    for name in ("torch", "timm", "skimage"):
        require_module(name)
    from tfkt_node.training import course

    out = tmp_path_factory.mktemp("out")
    folders = course.Folders(data, out / "work", out / "small")
    return folders, course.train(folders, RECIPE, 1, untracked)


def test_run_ends_in_a_bundle_that_loads(run):
    """The bundle holds the recipe, the held-out patients, and a figure for each promise."""
    from tfkt_node.iqa import bundle

    folders, trained = run
    loaded = bundle.load(folders.out)

    assert loaded.digest == trained.bundle.digest
    assert read(folders.out / bundle.RECIPE) == RECIPE
    assert len(loaded.card["data"]["test_patients"]) == 2
    assert not {*loaded.card["data"]["test_patients"]} & {*loaded.card["data"]["train_patients"]}
    assert loaded.card["calibration"]["below"] == 4.0  # one patient gives no interval
    names = [figure["name"] for figure in loaded.card["figures"]]
    assert names == [figure.name for figure in trained.figures]
    assert (folders.out / bundle.CARD).read_text().startswith("summary = ")


def test_figures_come_out_the_same_again(run):
    """`evaluate` prints what the card says: patients, noise and engine are the same."""
    from tfkt_node.training import course

    folders, trained = run
    again = course.evaluate(trained.bundle, folders.data, untracked).figures()

    assert again == trained.figures[: len(again)]


def test_maps_are_made_once(run):
    """A second run with the same data recipe takes the maps that lie in the work folder."""
    from tfkt_node.training import dataset

    folders, _ = run
    before = (folders.work / dataset.MAPS).stat().st_mtime_ns
    found = dataset.prepare(folders.data, folders.work, RECIPE.data, 1, untracked)

    assert (folders.work / dataset.MAPS).stat().st_mtime_ns == before
    assert len(found.rows) == len(found.maps) == 5 * 6
    assert len(found.part(Part.TRAIN)) == 2 * 6


def test_fit_is_repeatable_and_learns(run):
    """The same seed gives the same network; the fit comes nearer to its labels."""
    from tfkt_node.training import dataset
    from tfkt_node.training.fit import fit, predict

    folders, _ = run
    found = dataset.load(folders.work)
    train = found.part(Part.TRAIN)
    truth = np.array([found.rows[place].u for place in train])

    def error(epochs):
        recipe = dataclasses.replace(RECIPE.fit, epochs=epochs)
        return np.abs(predict(fit(found, recipe, untracked), found.maps[train]) - truth)

    first, again, longer = error(1), error(1), error(12)

    assert np.array_equal(first, again)
    assert longer.mean() < first.mean()
