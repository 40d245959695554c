"""`train` and `evaluate` say in one sentence what is wrong with how they were called."""

from __future__ import annotations

import csv
from itertools import islice

import pytest

from tests.training.some import link_some

pytestmark = pytest.mark.station


@pytest.fixture
def run(require_module):
    for name in ("torch", "timm", "skimage"):
        require_module(name)
    from tfkt_node.cli.app import run

    return run


def test_train_names_the_missing_data(run, tmp_path, capsys):
    """Without its data nothing is started: exit code 2 and the folder that is missing."""
    folders = ["--work", str(tmp_path / "work"), "--out", str(tmp_path / "out")]

    code = run(["train", "--data", str(tmp_path), *folders])

    assert code == 2
    assert "must hold the folder anchors" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_train_needs_a_place_for_its_bundle(run, tmp_path, capsys):
    """Without --out nothing is begun."""
    code = run(["train", "--data", str(tmp_path), "--work", str(tmp_path / "work")])

    assert code == 2
    assert "--out is missing" in capsys.readouterr().err
    assert not (tmp_path / "work").exists()


def test_two_runs_do_not_share_a_work_folder(run, tmp_path, capsys):
    """The second is told in one sentence, before it touches what the first is writing."""
    from tfkt_node.cli.train import alone_in

    work = tmp_path / "work"
    arguments = [
        "train",
        "--data",
        str(tmp_path),
        "--out",
        str(tmp_path / "out"),
        "--work",
        str(work),
    ]
    with alone_in(work):
        before = list(work.iterdir())
        assert run(arguments) == 2
        assert list(work.iterdir()) == before
    told = capsys.readouterr().err
    assert f"--work {work}: another train is running there" in told

    assert run(arguments) == 2  # the first has ended: now it is the data that are missing
    assert "must hold the folder anchors" in capsys.readouterr().err


def test_work_folder_that_cannot_be_made_is_named(run, tmp_path, capsys):
    """A file in its place is an error of use, not a traceback."""
    (tmp_path / "work").touch()
    folders = ["--work", str(tmp_path / "work" / "deeper"), "--out", str(tmp_path / "out")]

    assert run(["train", "--data", str(tmp_path), *folders]) == 2
    assert "deeper: cannot be written" in capsys.readouterr().err


def test_train_refuses_a_recipe_it_does_not_know(run, tmp_path, capsys):
    """A mistyped constant is named before hours are spent."""
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("[fit]\nepoch = 3\n")

    code = run(["train", "--data", str(tmp_path), "--out", str(tmp_path), "--recipe", str(recipe)])

    assert code == 2
    assert "epoch is not a constant of a recipe" in capsys.readouterr().err


def test_evaluate_names_the_missing_images(run, tmp_path, capsys):
    """Without the images that readers scored there is nothing to be judged by."""
    code = run(["evaluate", "--data", str(tmp_path)])

    assert code == 2
    assert "must hold the folder anchors" in capsys.readouterr().err


def test_evaluate_opens_its_bundle_once(run, tmp_path, shared_data, capsys, monkeypatch):
    """All tables come from one engine: it is held to the golden slices once, not twice."""
    from tfkt_node.iqa import engine
    from tfkt_node.training.images import real_images
    from tfkt_node.training.judging import on_real_images, scope_counts
    from tfkt_node.training.simulation.versions import versions

    opened, open_engine = [], engine.open_engine
    for module in (engine, on_real_images):
        monkeypatch.setattr(
            module, "open_engine", lambda *given: opened.append(open_engine(*given)) or opened[-1]
        )
    # Less of everything: one slice a series, its first versions, one body for the scope.
    monkeypatch.setattr(real_images, "SLICES_PER_SERIES", 1)
    monkeypatch.setattr(scope_counts, "SERIES", ())
    monkeypatch.setattr(scope_counts, "ZOO_HEADS", ())
    monkeypatch.setattr(
        on_real_images, "versions", lambda clean, recipe: islice(versions(clean, recipe), 3)
    )
    for name in ("anchors", "paired-dose"):
        (tmp_path / name).symlink_to(shared_data / name)
    (tmp_path / "series").mkdir()
    for name in ("index.csv", *real_images.SERIES):
        (tmp_path / "series" / name).symlink_to(shared_data / "series" / name)
    (tmp_path / "zoo").mkdir()
    (tmp_path / "zoo" / "MANIFEST.csv").write_text("path,kind\n")
    (tmp_path / "ct-clean").mkdir()
    with (shared_data / "ct-clean" / "index.csv").open(newline="", encoding="utf-8") as file:
        link_some(shared_data / "ct-clean", tmp_path / "ct-clean", list(csv.DictReader(file))[:1])

    assert run(["evaluate", "--data", str(tmp_path), "--plot", str(tmp_path / "plot.png")]) == 0

    said = capsys.readouterr().out
    for title in (
        "anchors: MAE of the score",
        "Images that readers scored",
        "Real pairs of doses",
        "A quarter of the dose, simulated beside the real one",
        "Slices that the scope withholds",
    ):
        assert title in said
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    assert len(opened) == 1


def test_evaluate_names_a_bundle_that_is_not_there(run, tmp_path, capsys):
    """A bundle that does not exist is an error of use."""
    code = run(["evaluate", "--bundle", "no-such", "--data", str(tmp_path)])

    assert code == 2
    assert "no bundle 'no-such'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"swinv2b.norm.bias": 1024}, "effnetv2l.features.0.0.weight is missing, and "),
        ({"epoch": None}, "must hold a state_dict"),
        ({"state_dict": None}, "it may stand under 'state_dict'"),
        ([1.0, 2.0], "must hold a state_dict"),
        (b"weights", "is no checkpoint of plain tensors"),
        (b"hello\n", "is no checkpoint of plain tensors"),
        (b"", "is no checkpoint of plain tensors (EOFError)"),
    ],
)
def test_convert_names_what_is_wrong_with_a_checkpoint(run, tmp_path, capsys, content, told):
    """A missing tensor, other values, or any other file: one sentence, and no bundle is begun."""
    import torch

    checkpoint = tmp_path / "checkpoint"
    if isinstance(content, bytes):
        checkpoint.write_bytes(content)
    elif isinstance(content, list):
        torch.save(torch.tensor(content), checkpoint)
    else:
        values = {name: 3 if size is None else torch.ones(size) for name, size in content.items()}
        torch.save(values, checkpoint)

    code = run(["convert", str(checkpoint), "--out", str(tmp_path / "out")])

    assert code == 2
    said = capsys.readouterr().err
    assert told in said
    assert "expected the state dict of a whole TFKT V2" in said
    assert not (tmp_path / "out").exists()
