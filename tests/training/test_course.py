"""A training run from slices to a bundle, small enough for every day."""

from __future__ import annotations

import csv
import dataclasses

import numpy as np
import pytest

from tests.training.some import link_some
from tfkt_node.iqa.engine import open_engine
from tfkt_node.training.recipe import DataRecipe, FitRecipe, NetworkRecipe, Recipe, read
from tfkt_node.training.track import untracked

pytestmark = pytest.mark.station

RECIPE = Recipe(
    data=DataRecipe(
        folds=3,
        doses=(1 / 2, 1 / 4),
        thinned=(1.0,),
        smoothed=(1 / 4,),
        tested_smoothed=(("median", 1 / 4),),
        artefacts=1,
        child_doses=(1 / 2,),
    ),
    network=NetworkRecipe(depths=(1, 1)),
    fit=FitRecipe(seeds=2, epochs=2, slices=1, versions=3),
)
VERSIONS = 10
"""Clean, two doses, smoothed twice, fewer views, three artefacts, a child."""


@pytest.fixture(scope="module")
def data(shared_data, tmp_path_factory):
    """Ten patients of ct-clean, one slice each, beside what `evaluate` reads."""
    folder = tmp_path_factory.mktemp("data")
    for name in ("anchors", "paired-dose", "series"):
        (folder / name).symlink_to(shared_data / name)
    (folder / "ct-clean").mkdir()
    with (shared_data / "ct-clean" / "index.csv").open(newline="", encoding="utf-8") as file:
        rows = list({row["patient"]: row for row in csv.DictReader(file)}.values())[:10]
    link_some(shared_data / "ct-clean", folder / "ct-clean", rows)
    return folder


@pytest.fixture(scope="module")
def run(data, tmp_path_factory, require_module):
    """A finished run: its folders and what it returned."""
    for name in ("torch", "timm", "skimage"):
        require_module(name)
    from tfkt_node.training import course

    out = tmp_path_factory.mktemp("out")
    run = course.Run(course.Folders(data, out / "work", out / "small"), RECIPE, 2, untracked)
    return run, course.train(run)


def test_run_ends_in_a_bundle_that_loads(run):
    """The bundle holds the recipe, its patients, and every figure with its command."""
    from tfkt_node.iqa import bundle

    run, trained = run
    loaded = bundle.load(run.folders.out)

    assert loaded.digest == trained.bundle.digest
    assert read(run.folders.out / bundle.RECIPE) == RECIPE
    assert len(loaded.card["data"]["patients"]) == 10
    assert loaded.card["data"]["versions"] == 10 * VERSIONS
    assert [(f["name"], f["value"]) for f in loaded.card["figures"]] == [
        (figure.name, figure.value) for figure in trained.figures
    ]
    assert all(figure["command"].startswith("tfkt-node ") for figure in loaded.card["figures"])
    assert len({figure.name for figure in trained.figures}) == len(trained.figures)


def test_figures_come_out_the_same_again(run):
    """`evaluate` prints what the card says: slices, noise and engine are the same."""
    from tfkt_node.training.judging.on_real_images import EVALUATE, bundle_figures

    run, trained = run
    again = bundle_figures(trained.bundle, run.folders.data, untracked)

    assert again == [figure for figure in trained.figures if figure.command == EVALUATE]


def test_a_second_run_makes_nothing_anew(run):
    """Versions, maps and fits that lie in the work folder are taken; the bundle is the same."""
    from tfkt_node.training import course

    run, trained = run
    kept = [*run.folders.work.glob("*.[ifj]*"), *run.folders.work.glob("fits/*")]
    before = {path: path.stat().st_mtime_ns for path in kept}
    assert len(before) >= 8  # pixels, table, recipe, three kinds of maps, fits
    again = course.train(dataclasses.replace(run))

    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert again.figures == trained.figures
    assert again.bundle.digest == trained.bundle.digest


def test_a_stopped_simulation_goes_on(run, tmp_path):
    """After a kill in the middle of a slice, that slice is made anew and nothing else."""
    from tfkt_node.training import dataset

    run, _ = run
    for name in (dataset.TABLE, dataset.PIXELS, dataset.MADE_FOR):
        (tmp_path / name).write_bytes((run.folders.work / name).read_bytes())
    whole = (tmp_path / dataset.PIXELS).read_bytes()
    table = (tmp_path / dataset.TABLE).read_text()
    (tmp_path / dataset.TABLE).write_text(table[: table.rindex("\n", 0, -1) + 100])

    found = dataset.prepare(run.folders.data, tmp_path, RECIPE.data, 1, untracked)

    assert len(found.rows) == 10 * VERSIONS
    assert (tmp_path / dataset.PIXELS).read_bytes() == whole
    assert (tmp_path / dataset.TABLE).read_text() == table


def test_a_changed_recipe_takes_nothing_old(run, tmp_path):
    """Maps and noise of other pixels are thrown away with them, whatever their number."""
    from tfkt_node.training import dataset

    run, _ = run
    for path in run.folders.work.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    assert list(tmp_path.glob("maps-*"))

    other = dataclasses.replace(RECIPE.data, seed=7)
    found = dataset.prepare(run.folders.data, tmp_path, other, 2, untracked)

    assert len(found.rows) == 10 * VERSIONS
    assert found.rows != dataset.load(run.folders.work).rows
    assert not [path for derived in dataset.DERIVED for path in tmp_path.glob(derived)]


def test_a_changed_simulation_takes_nothing_old(run, tmp_path, monkeypatch):
    """The same constants are not enough: what the code makes of them has to be the same."""
    from tfkt_node.training import dataset

    run, _ = run
    for path in run.folders.work.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    stored = dataset._stored
    monkeypatch.setattr(dataset, "_stored", lambda hu: stored(hu + 1))

    dataset.prepare(run.folders.data, tmp_path, RECIPE.data, 2, untracked)

    assert not [path for derived in dataset.DERIVED for path in tmp_path.glob(derived)]


@pytest.fixture
def job(run, tmp_path):
    """A fit of the run that can be repeated with other constants."""
    from tfkt_node.training import dataset
    from tfkt_node.training.fitting import frozen
    from tfkt_node.training.fitting.cross_validation import fitted_places
    from tfkt_node.training.fitting.fit import Job

    run, _ = run
    choice = run.features(RECIPE.network)
    rows = dataset.load(run.folders.work).rows
    maps = frozen.both_maps(run.folders.work, choice, 1, untracked)

    def make(name="job", **constants):
        recipe = dataclasses.replace(RECIPE.fit, **constants)
        places = fitted_places(rows, 0)
        log = tmp_path / "train.log"
        return Job(RECIPE.network, choice, recipe, places, tmp_path / name, log)

    return rows, maps, make


def test_bundle_says_the_mean_of_the_fits(run):
    """What ships is put together of one fit a seed, each to all patients."""
    from tfkt_node.training import dataset
    from tfkt_node.training.fitting import cross_validation, frozen
    from tfkt_node.training.fitting.fit import predict

    run, trained = run
    folds = run.folds(RECIPE.network)
    shipped = [dataclasses.replace(fold, number=None) for fold in (folds[0], folds[-1])]
    assert [fold.fit.seed for fold in shipped] == [1, 2]
    maps = frozen.maps(run.folders.work, folds[0].features, 1, untracked)[:5]
    alone = [predict(cross_validation.fitted(fold), maps) for fold in shipped]
    hu = dataset.load(run.folders.work).hu(0)

    said = predict(cross_validation.together(shipped), maps)

    assert np.abs(alone[0] - alone[1]).max() > 0.01
    assert np.allclose(said, np.mean(alone, axis=0), rtol=0, atol=1e-5)
    assert open_engine(trained.bundle, "openvino").quality(hu[None]) == pytest.approx(
        said[0], abs=0.02
    )


def test_fit_is_repeatable_and_learns(job):
    """The same seed gives the same network; the fit comes nearer to its labels."""
    from tfkt_node.training.fitting.fit import fit, predict

    rows, maps, make = job
    places = make().places
    truth = np.array([rows[place].u for place in places])

    def error(name, epochs):
        network = fit(rows, maps, make(name, epochs=epochs), untracked)
        return np.abs(predict(network, maps.plain[places]) - truth)

    first, again, longer = error("a", 1), error("b", 1), error("c", 12)

    assert np.array_equal(first, again)
    assert longer.mean() < first.mean()


def test_fit_sees_versions_presented_otherwise(job):
    """A share of 0 never shows them, one of 1 nothing else."""
    from tfkt_node.training.fitting.fit import fit, predict
    from tfkt_node.training.fitting.frozen import Maps

    rows, maps, make = job
    unseen = Maps(maps.plain, np.full_like(maps.plain, np.nan))

    never = fit(rows, unseen, make("never", epochs=1, otherwise=0.0), untracked)
    always = fit(rows, unseen, make("always", epochs=1, otherwise=1.0), untracked)

    assert np.isfinite(predict(never, maps.plain)).all()
    assert np.isnan(predict(always, maps.plain)).all()


def test_a_stopped_fit_goes_on(job):
    """A fit that was stopped after an epoch ends with the weights of one that was not."""
    from tfkt_node.training.fitting.fit import fit, predict

    rows, maps, make = job

    class Stopped(Exception):
        pass

    def stop_after_two(items, total, description):
        for number, item in enumerate(items):
            if number == 2:
                raise Stopped
            yield item

    with pytest.raises(Stopped):
        fit(rows, maps, make("stopped", epochs=4), stop_after_two)
    went_on = fit(rows, maps, make("stopped", epochs=4), untracked)
    whole = fit(rows, maps, make("whole", epochs=4), untracked)

    assert np.array_equal(predict(went_on, maps.plain), predict(whole, maps.plain))
    assert make().log.read_text().count("stopped epoch") == 4


def test_rows_that_are_only_tested_are_never_fitted_to(job):
    """The held-out filter, and the fold that is left out, stay away from the fit."""
    rows, _, make = job
    fitted = [rows[place] for place in make().places]

    assert fitted
    assert not [row for row in fitted if row.tested_only or row.fold == 0]
    assert [row for row in rows if row.tested_only]


def test_batches_hold_versions_that_can_be_compared(job):
    """Each share of a batch is of one slice; an epoch meets no row twice."""
    from tfkt_node.training.fitting.fit import Batches

    rows, _, make = job
    places = make().places
    batches = Batches([rows[place].file for place in places], places, RECIPE.fit)
    drawn = list(batches.draw(np.random.default_rng(0)))

    assert len(drawn) == len(batches) > 0
    assert all(len({rows[place].file for place in batch}) == 1 for batch in drawn)
    assert len(np.unique(np.concatenate(drawn))) == sum(map(len, drawn))


def test_ablation_compares_with_the_recipe(run, monkeypatch):
    """Each changed network stands beside the recipe's on the same versions."""
    from tfkt_node.training import ablation

    run, _ = run
    changes = {"no Swin": {"depths": ()}, "ordinal head": {"head": "ordinal"}}
    monkeypatch.setattr(ablation, "CHANGES", changes)

    lines = ablation.ablate(run)

    assert [line.name for line in lines] == ["as in the recipe", *changes]
    assert lines[0].difference == lines[0].low == lines[0].high == 0
    assert all(line.low <= line.difference <= line.high for line in lines)
    assert all(np.isfinite(line.mae) for line in lines)
