"""Natural images with the scores that people gave them, in whichever layout a site has them.

Three layouts are told apart by the file that holds the scores:

- `index.csv`: this project's own set of small grey crops in several subsets, split as it says.
- `dmos.csv` beside `images`: KADID-10k (Lin, Hosu, Saupe 2019), 81 references, scores 1..5.
- `koniq10k_scores_and_distributions.csv` beside `512x384` or `1024x768`: KonIQ-10k (Hosu et al.
  2020), photographs as they are, without references, scores 1..5.

In all three a higher score is better.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np

from tfkt_node.records import FloatArray, Misconfigured

CROP_PX = 288
"""Side of what is seen of each image, its centre. Nothing is resized: that would change noise and
sharpness, which are what was scored."""

HELD_OUT = 0.1
"""Share of the scenes for validation, and again for test, where the layout does not say."""

KONIQ_FOLDERS = ("512x384", "1024x768")
"""The first that exists is read: of the smaller images a crop shows more of what was scored."""

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""ITU-R BT.601, by which the crops of `index.csv` were made grey."""


class Split(StrEnum):
    """What an image is for. All images of a scene are in one split."""

    TRAIN = "train"
    VAL = "val"
    TEST = "test"


@dataclass(frozen=True, slots=True)
class Opinion:
    """One image and the mean opinion on it: score 0..1, comparable only within its subset."""

    path: Path
    subset: str
    scene: str
    split: Split
    score: float


@dataclass(frozen=True, slots=True)
class Reference:
    """An undistorted image, on which distortions can be simulated."""

    path: Path
    scene: str
    split: Split


@dataclass(frozen=True, slots=True)
class Natural:
    """All that a folder holds. KonIQ-10k has no references."""

    opinions: list[Opinion]
    references: list[Reference]


def read(folder: Path) -> Natural:
    """List the images of a folder; raises Misconfigured where it is none of the three layouts.

    Also where a column, an image or a usable score is missing.
    """
    for name, reader in _LAYOUTS.items():
        if (folder / name).is_file():
            try:
                found = reader(folder, folder / name)
            except (KeyError, ValueError) as error:
                raise Misconfigured(
                    f"{folder / name}: a row lacks a usable column ({error})"
                ) from error
            _check(folder, found)
            return found
    raise Misconfigured(
        f"{folder}: no natural images with scores found; expected one of "
        f"{', '.join(_LAYOUTS)} in it: give the folder that holds that file and its images"
    )


def read_grey(path: Path) -> FloatArray:
    """Read the centre of a JPEG or PNG image: (288, 288) float32, luminance 0..255.

    Raises Misconfigured for an image that cannot be read or is smaller.
    """
    import imagecodecs

    decode = imagecodecs.png_decode if path.suffix.lower() == ".png" else imagecodecs.jpeg8_decode
    try:
        stored = np.asarray(decode(path.read_bytes()), np.float32)
    except (OSError, RuntimeError) as error:
        raise Misconfigured(f"{path}: not a JPEG or PNG that can be read ({error})") from error
    grey = stored[..., :3] @ _LUMA if stored.ndim == 3 else stored
    rows, columns = grey.shape
    if min(rows, columns) < CROP_PX:
        raise Misconfigured(
            f"{path}: {columns} x {rows} pixels; at least {CROP_PX} x {CROP_PX} are needed"
        )
    top, left = (rows - CROP_PX) // 2, (columns - CROP_PX) // 2
    return np.ascontiguousarray(grey[top : top + CROP_PX, left : left + CROP_PX])


def _read_index(folder: Path, index: Path) -> Natural:
    found = Natural([], [])
    for row in _rows(index):
        path, split = folder / row["file"], Split(row["split"])
        score = float(row["mos01"])
        found.opinions.append(Opinion(path, row["subset"], row["scene"], split, score))
        if row["distortion"] == "reference":
            found.references.append(Reference(path, row["scene"], split))
    return found


def _read_kadid(folder: Path, scores: Path) -> Natural:
    rows = list(_rows(scores))
    splits = _dealt(row["ref_img"] for row in rows)
    opinions = [
        Opinion(
            folder / "images" / row["dist_img"],
            "kadid10k",
            row["ref_img"],
            splits[row["ref_img"]],
            # Named DMOS, but 5 is the best: "difference from the reference imperceptible".
            (float(row["dmos"]) - 1) / 4,
        )
        for row in rows
    ]
    references = [Reference(folder / "images" / name, name, s) for name, s in splits.items()]
    return Natural(opinions, references)


def _read_koniq(folder: Path, scores: Path) -> Natural:
    images = next((folder / n for n in KONIQ_FOLDERS if (folder / n).is_dir()), None)
    if images is None:
        raise Misconfigured(f"{folder}: expected the folder {' or '.join(KONIQ_FOLDERS)} in it")
    rows = list(_rows(scores))
    splits = _dealt(row["image_name"] for row in rows)
    opinions = []
    for row in rows:
        name = row["image_name"]
        score = (float(row["MOS"]) - 1) / 4
        opinions.append(Opinion(images / name, "koniq10k", name, splits[name], score))
    return Natural(opinions, [])


_LAYOUTS: dict[str, Callable[[Path, Path], Natural]] = {
    "index.csv": _read_index,
    "dmos.csv": _read_kadid,
    "koniq10k_scores_and_distributions.csv": _read_koniq,
}


def _rows(path: Path) -> Iterable[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        yield from csv.DictReader(file)


def _dealt(scenes: Iterable[str]) -> dict[str, Split]:
    """Give each scene a split at random, the same at any time and in any order."""
    names = sorted(set(scenes))
    order = [names[place] for place in np.random.default_rng(0).permutation(len(names))]
    held = max(1, round(HELD_OUT * len(order)))
    return {
        name: Split.TEST if place < held else Split.VAL if place < 2 * held else Split.TRAIN
        for place, name in enumerate(order)
    }


def _check(folder: Path, found: Natural) -> None:
    listed: list[Opinion | Reference] = [*found.opinions, *found.references]
    missing = [item.path.name for item in listed if not item.path.is_file()]
    if missing:
        raise Misconfigured(
            f"{folder}: {len(missing)} of the {len(listed)} images listed are not there, the first "
            f"is {missing[0]}; unpack the whole set"
        )
    # NaN is outside as well.
    odd = [item for item in found.opinions if not 0 <= item.score <= 1]
    if odd:
        raise Misconfigured(
            f"{folder}: {len(odd)} scores lie outside their scale, the first is that of "
            f"{odd[0].path.name}; use the scores as they were published"
        )
