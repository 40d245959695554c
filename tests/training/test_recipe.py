"""A recipe can be written, read and repeated."""

from __future__ import annotations

import pytest

from tfkt_node.records import Misconfigured
from tfkt_node.settings import data_folder
from tfkt_node.training.recipe import (
    DataRecipe,
    FitRecipe,
    NaturalRecipe,
    NetworkRecipe,
    Recipe,
    read,
)


def test_recipe_reads_what_a_bundle_wrote(tmp_path):
    """Values other than the defaults come back; tables that tell how it went are passed over."""
    path = tmp_path / "recipe.toml"
    path.write_text(
        'coverage = 0.8\n[data]\nseed = 5\ntested_smoothed = [["median", 0.5]]\n'
        '[network]\nfeed_forward = "mlp"\nratio = 2.0\n[fit]\nepochs = 3\n'
        '[natural]\nenrich = false\n[ran_with]\ntorch = "2.13"\n'
    )

    expected = Recipe(
        0.8,
        DataRecipe(seed=5, tested_smoothed=(("median", 0.5),)),
        NetworkRecipe(feed_forward="mlp", ratio=2.0),
        FitRecipe(epochs=3),
        NaturalRecipe(enrich=False),
    )
    assert read(path) == expected


def test_unknown_constants_are_refused(tmp_path):
    """A mistyped name is named, not passed over."""
    path = tmp_path / "recipe.toml"
    path.write_text("[fit]\nepoch = 3\n")

    with pytest.raises(Misconfigured, match="epoch"):
        read(path)


@pytest.mark.parametrize("content", ["[fit", "\x00"])
def test_unreadable_recipes_are_refused(tmp_path, content):
    """A file that is not TOML is an error of use."""
    path = tmp_path / "recipe.toml"
    path.write_text(content)

    with pytest.raises(Misconfigured, match="cannot be read"):
        read(path)


def test_shipped_recipe_is_what_the_program_does():
    """The recipe of the shipped bundle reads back; what it leaves out would be a default."""
    shipped = read(data_folder("models") / "tfkt-v2-lite" / "recipe.toml")

    assert shipped == Recipe()
