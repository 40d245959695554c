"""All versions of all clean slices: their feature maps in one file, what is known in a table.

The features are frozen, so each map is computed once. Both files grow while the run goes on, and
are used again by a later run with the same data recipe.
"""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tfkt_node.training.collection import CleanSlice, Part, clean_slices, split
from tfkt_node.training.recipe import DataRecipe
from tfkt_node.training.track import Track
from tfkt_node.training.versions import Version, versions

TABLE, MAPS, DONE = "table.jsonl", "maps.f16", "recipe.json"
MAP_SHAPE = (176, 32, 32)

HalfArray = npt.NDArray[np.float16]


@dataclass(frozen=True, slots=True)
class Row:
    """What is known of one version; u is the label.

    own, inserted, streaks, transfer: see `label.Known`. source_u: see `versions.Version`.
    """

    file: str
    patient: str
    part: Part
    region: str
    kind: str
    draw: int
    kernel: str
    dose: float
    detail: str
    own: float
    inserted: float
    streaks: float
    transfer: tuple[float, ...]
    u: float
    source_u: float


@dataclass(frozen=True, slots=True)
class Made:
    """All versions of one slice: rows and (n, 176, 32, 32) maps."""

    rows: list[Row]
    maps: HalfArray


@dataclass(frozen=True, slots=True)
class Dataset:
    """rows[i] belongs to maps[i]; maps: (n, 176, 32, 32) float16, mapped from the file."""

    rows: list[Row]
    maps: HalfArray

    def part(self, part: Part) -> npt.NDArray[np.intp]:
        """Return the places of one part's rows."""
        return np.flatnonzero([row.part is part for row in self.rows])


def prepare(data: Path, work: Path, recipe: DataRecipe, workers: int, track: Track) -> Dataset:
    """Make the data set in `work`, or take the one that lies there with this recipe.

    data: folder that holds ct-clean. Raises Misconfigured when it does not.
    """
    wanted = json.dumps(asdict(recipe), sort_keys=True)
    done = work / DONE
    slices = clean_slices(data, recipe)
    parts = split(slices, recipe)
    if not done.is_file() or done.read_text(encoding="utf-8") != wanted:
        work.mkdir(parents=True, exist_ok=True)
        done.unlink(missing_ok=True)
        with (
            (work / TABLE).open("w", encoding="utf-8") as table,
            (work / MAPS).open("wb") as maps,
            closing(_make_all(slices, parts, recipe, workers)) as everything,
        ):
            for made in track(everything, len(slices), "Simulating"):
                maps.write(made.maps.tobytes())
                table.writelines(json.dumps(asdict(row)) + "\n" for row in made.rows)
                table.flush()
        done.write_text(wanted, encoding="utf-8")
    return load(work)


def load(work: Path) -> Dataset:
    """Open a data set that `prepare` made."""
    with (work / TABLE).open(encoding="utf-8") as table:
        rows = [_row(json.loads(line)) for line in table]
    maps = np.memmap(work / MAPS, np.float16, "r", shape=(len(rows), *MAP_SHAPE))
    return Dataset(rows, maps)


def row_of(clean: CleanSlice, part: Part, version: Version) -> Row:
    """Put down what is known of a version."""
    known = version.known
    return Row(
        file=clean.path.name,
        patient=clean.patient,
        part=part,
        region=clean.region,
        kind=str(version.kind),
        draw=version.draw,
        kernel=str(version.kernel),
        dose=version.dose,
        detail=version.detail,
        own=known.own,
        inserted=known.inserted,
        streaks=known.streaks,
        transfer=known.transfer,
        u=version.u,
        source_u=version.source_u,
    )


def _row(values: dict[str, Any]) -> Row:
    return Row(**{**values, "part": Part(values["part"]), "transfer": tuple(values["transfer"])})


def _make_all(
    slices: list[CleanSlice], parts: dict[str, Part], recipe: DataRecipe, workers: int
) -> Generator[Made, None, None]:
    """Yield slice by slice in order. Processes start afresh: torch does not survive a fork."""
    jobs = zip(slices, (parts[s.patient] for s in slices), repeat(recipe))
    with multiprocessing.get_context("spawn").Pool(workers, _open_features) as pool:
        yield from pool.imap(_make, jobs)


_features: Callable[[npt.NDArray[np.float32]], HalfArray]


def _open_features() -> None:
    """Load the frozen features once in a worker."""
    from tfkt_node.training.frozen import open_frozen_features

    global _features  # noqa: PLW0603  a worker of a pool has no other place
    _features = open_frozen_features()


def _make(job: tuple[CleanSlice, Part, DataRecipe]) -> Made:
    clean, part, recipe = job
    rows, maps = [], []
    for version in versions(clean, part, recipe):
        rows.append(row_of(clean, part, version))
        maps.append(_features(np.ascontiguousarray(version.hu, np.float32)))
    return Made(rows, np.stack(maps))
