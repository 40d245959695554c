"""The challenge's folder is read as it ships, and its images are grouped by what they show."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import scipy.ndimage as ndi

from tfkt_node.iqa.uncertainty import squash
from tfkt_node.records import Misconfigured
from tfkt_node.training.images.collection import folds
from tfkt_node.training.images.slice_files import read_slice
from tfkt_node.training.ldctiqac import against_readers, row_of, same_slice, scored_slices
from tfkt_node.training.recipe import DataRecipe

SCORES = {"0000.tif": 4.0, "0001.tif": 1.2, "0002.tif": 0.0, "0003.tif": 2.6}
SIDE = 256


def bodies() -> list[np.ndarray]:
    """Four images, 0..1, of two slices: the second and the fourth are the first with noise."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    body = np.hypot((rows - 128) / 90, (columns - 128) / 120) < 1
    one, other = (
        np.where(body, 0.72 + 4 * ndi.gaussian_filter(rng.normal(size=(SIDE, SIDE)), 12), 0.0)
        for _ in range(2)
    )
    noise = 0.05 * rng.normal(size=(3, SIDE, SIDE))
    return [np.clip(hu, 0, 1) for hu in (one, one + noise[0], other + noise[1], one + noise[2])]


@pytest.fixture
def data(tmp_path: Path, require_module) -> Path:
    require_module("skimage")
    from skimage.io import imsave

    folder = tmp_path / "LDCTIQAG2023_train"
    (folder / "image").mkdir(parents=True)
    for name, image in zip(SCORES, bodies(), strict=True):
        imsave(folder / "image" / name, image.astype(np.float32), check_contrast=False)
    (folder / "train.json").write_text(json.dumps(SCORES))
    return tmp_path


def test_images_of_one_slice_belong_together():
    """Noise does not make another slice; another anatomy does."""
    found = same_slice([1400 * image - 1000 for image in bodies()])

    assert found[0] == found[1] == found[3] != found[2]
    assert same_slice(bodies()[:1]) == [0]


@pytest.mark.station
def test_folder_is_read_as_it_ships(data):
    """Each name in train.json is a slice in HU with its score; one fold holds all of its kind."""
    found = scored_slices(data)

    assert {one.slice.path.name: one.score for one in found} == SCORES
    hu = read_slice(found[0].slice.path)
    assert hu == pytest.approx(1400 * bodies()[0] - 1000, abs=1e-3)
    in_fold = folds([one.slice for one in found], DataRecipe(folds=2))
    assert sorted(in_fold.values()) == [0, 1]


@pytest.mark.station
def test_a_score_becomes_a_label(data):
    """The label stands for the readers' score; at the ends of their scale it goes on a little."""
    found = scored_slices(data)
    rows = [row_of(one, read_slice(one.slice.path), fold=3) for one in found]

    assert [row.u for row in rows][::2] == [5, -1]
    assert squash([row.u for row in rows]) == pytest.approx(list(SCORES.values()), abs=0.02)
    assert rows[1].noise == pytest.approx(0.05 * 1400, rel=0.1)
    assert {(row.kind, row.fold, row.region) for row in rows} == {("readers", 3, "abdomen")}


@pytest.mark.station
def test_names_without_suffix_are_the_same_images(data):
    """Some copies of train.json leave the suffix away."""
    bare = {name.removesuffix(".tif"): score for name, score in SCORES.items()}
    (data / "LDCTIQAG2023_train" / "train.json").write_text(json.dumps(bare))

    assert [one.score for one in scored_slices(data)] == list(SCORES.values())


def test_without_the_folder_there_are_no_images(tmp_path):
    """Most sites do not have the challenge's data."""
    assert scored_slices(tmp_path) == []


@pytest.mark.parametrize(
    ("table", "problem"),
    [(None, "train.json"), ("[1, 2]", "JSON table"), ('{"7.tif": 1.0}', "7.tif does not exist")],
)
def test_a_broken_folder_is_named(tmp_path, table, problem):
    """A missing or odd table, or a missing image, is said before anything is fitted."""
    folder = tmp_path / "LDCTIQAG2023_train"
    folder.mkdir()
    if table is not None:
        (folder / "train.json").write_text(table)

    with pytest.raises(Misconfigured, match=problem):
        scored_slices(tmp_path)


@pytest.mark.station
def test_published_pairs_give_the_published_figures(shared_data):
    """Figures of the released network, worked out from its 296 published scores."""
    pairs = np.loadtxt(shared_data / "anchors" / "published_pairs.csv", delimiter=",", skiprows=1)

    found = against_readers(pairs[:, 0], pairs[:, 1])

    assert (found.plcc, found.srocc, found.krocc) == pytest.approx(
        (0.9456, 0.9435, 0.8066), abs=1e-4
    )
    assert (found.mae, found.bias) == pytest.approx((0.331, 0.199), abs=1e-3)
