"""`train` and `evaluate` say in one sentence what is wrong with how they were called."""

from __future__ import annotations

import pytest

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


def test_evaluate_names_a_bundle_that_is_not_there(run, tmp_path, capsys):
    """A bundle that does not exist is an error of use."""
    code = run(["evaluate", "--bundle", "no-such", "--data", str(tmp_path)])

    assert code == 2
    assert "no bundle 'no-such'" in capsys.readouterr().err
