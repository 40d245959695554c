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
    code = run(["train", "--data", str(tmp_path), "--out", str(tmp_path / "out")])

    assert code == 2
    assert "must hold the folder anchors" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


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
