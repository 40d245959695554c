"""A bundle: a folder with a network's weights, its graph, its card and its golden slices.

Loading refuses anything that is not byte for byte what was written: the card lists the SHA-256 of
every file, and its own last line holds the SHA-256 of all lines above it. The golden slices are run
when an engine opens (`iqa.engine`). Nothing here imports an engine.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfkt_node.iqa import feature_distance
from tfkt_node.iqa.uncertainty import HIGHEST, LOWEST, Calibration, Float64Array
from tfkt_node.records import FloatArray, Misconfigured, Permanent
from tfkt_node.settings import data_folder

CARD = "card.toml"
WEIGHTS = "weights.safetensors"
GRAPH = "model.xml"
GRAPH_WEIGHTS = "model.bin"
README = "README.md"
RECIPE = "recipe.toml"
GOLDEN = "golden.npz"
SCOPE = "scope.npz"
FILES = (WEIGHTS, GRAPH, GRAPH_WEIGHTS, README, RECIPE, GOLDEN, SCOPE)
"""What a bundle holds beside its card."""

GRID = 512
"""Rows and columns of a slice as every network takes it."""

WINDOW_HU = (-1000.0, 400.0)
"""What a network sees of a slice, clipped; the coding of the challenge images (LDCTIQAC 2023)."""

INPUT: Mapping[str, Any] = {"grid": GRID, "window_hu": list(WINDOW_HU), "channels": 1}
OUTPUT: Mapping[str, Any] = {"score_range": [LOWEST, HIGHEST]}
"""What this version does with slices and scores, in the card's words: a card that says otherwise
belongs to other code. The card's [output] names the precision as well, see `engine`."""

TABLES = ("architecture", "input", "output", "scope", "calibration", "data", "hashes")
"""Tables that every card has."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle whose files are what its card says.

    digest: SHA-256 of the card; since the card names the hash of each file, of all of them.
    card: the tables of card.toml.
    """

    folder: Path
    name: str
    version: str
    digest: str
    card: Mapping[str, Any]
    calibration: Calibration

    def golden(self) -> tuple[FloatArray, Float64Array]:
        """Return the golden slices, (n, 512, 512) float32 HU, and their raw quality, (n,)."""
        with np.load(self.folder / GOLDEN, allow_pickle=False) as arrays:
            return arrays["hu"].astype(np.float32), arrays["u"].astype(np.float64)

    def feature_distance(self) -> feature_distance.FeatureDistance:
        """Return how far slices may lie from those of the training. Raises Permanent."""
        try:
            return feature_distance.load(self.folder / SCOPE)
        except (KeyError, ValueError) as error:
            raise _unfit(self.folder, f"{SCOPE} is not as this version expects: {error}") from error


def load(folder_or_name: str | Path) -> Bundle:
    """Load a bundle from a folder, or a shipped one by its name.

    Raises Misconfigured when there is no such bundle, Permanent when one of its files is missing
    or changed; both name the file and the cure.
    """
    folder = _folder(folder_or_name)
    content = _read(folder / CARD)
    card = _card(folder, content)
    for name, expected in card["hashes"].items():
        if name != CARD:
            _compare(folder / name, hashlib.sha256(_read(folder / name)).hexdigest(), expected)
    try:
        table = card["calibration"]
        lists = {name: tuple(table.get(name, ())) for name in ("series", "errors")}
        calibration = Calibration(**{**table, **lists})
        name, version = str(card["name"]), str(card["version"])
    except (KeyError, TypeError, ValueError) as error:
        raise _unfit(folder, f"{CARD} is not as this version expects: {error}") from error
    digest = hashlib.sha256(content).hexdigest()
    return Bundle(folder, name, version, digest, card, calibration)


def seal(card: str) -> str:
    """Append to a card's text, which ends in its table [hashes], the hash of all lines so far."""
    return f'{card}"{CARD}" = "{hashlib.sha256(card.encode()).hexdigest()}"\n'


def _folder(folder_or_name: str | Path) -> Path:
    shipped = data_folder("models")
    for folder in (Path(folder_or_name), shipped / folder_or_name):
        if (folder / CARD).is_file():
            return folder
    names = sorted(path.parent.name for path in shipped.glob(f"*/{CARD}"))
    raise Misconfigured(
        f"no bundle {str(folder_or_name)!r}: expected a folder with a {CARD}, or the name of a "
        f"shipped bundle ({', '.join(names) or 'none is shipped'}); set scoring.bundle"
    )


def _card(folder: Path, content: bytes) -> dict[str, Any]:
    """Check the card's own hash, then its tables."""
    above, _, last = content.rstrip(b"\n").rpartition(b"\n")
    expected = last.decode("ascii", "replace").removeprefix(f'"{CARD}" = "').removesuffix('"')
    _compare(folder / CARD, hashlib.sha256(above + b"\n").hexdigest(), expected)
    try:
        card = tomllib.loads(content.decode("utf-8"))
    except ValueError as error:
        raise _unfit(folder, f"{CARD} is not valid TOML: {error}") from error
    missing = [name for name in TABLES if not isinstance(card.get(name), dict)]
    if missing:
        raise _unfit(folder, f"{CARD} has no table [{missing[0]}]")
    for table, wanted in (("input", INPUT), ("output", OUTPUT)):
        for name, value in wanted.items():
            if (said := card[table].get(name)) != value:
                problem = f"{CARD} says [{table}] {name} = {said!r}, this version does {value!r}"
                raise _unfit(folder, problem)
    unlisted = [name for name in FILES if not isinstance(card["hashes"].get(name), str)]
    if unlisted:
        raise _unfit(folder, f"{CARD} lists no hash for {unlisted[0]}")
    return card


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        problem = f"{path.name} cannot be read ({type(error).__name__})"
        raise _unfit(path.parent, problem) from error


def _compare(path: Path, got: str, expected: str) -> None:
    if got != expected:
        raise _unfit(
            path.parent,
            f"{path.name} is not the file that was shipped: expected SHA-256 {expected[:12]}…, "
            f"got {got[:12]}…",
        )


def _unfit(folder: Path, problem: str) -> Permanent:
    return Permanent(
        f"bundle {folder.name}: {problem}",
        cure=f"install the bundle again, into {folder}; files of a bundle are never edited by hand",
    )
