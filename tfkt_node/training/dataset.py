"""All versions of all clean slices: their pixels in one file, what is known of each in a table.

Slices that readers scored stand beside them where a site has some: each is one version.

Both files grow slice by slice while the run goes on. A run that was stopped goes on after the last
whole slice; a later run with the same data recipe finds everything made.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from tfkt_node.iqa.engine import fit_to_grid
from tfkt_node.records import FloatArray
from tfkt_node.training.images.collection import CleanSlice, clean_slices, folds
from tfkt_node.training.images.slice_files import read_slice
from tfkt_node.training.recipe import DataRecipe
from tfkt_node.training.simulation import label
from tfkt_node.training.simulation.versions import Version, versions
from tfkt_node.training.track import Track

TABLE, PIXELS, MADE_FOR = "table.jsonl", "slices.i16", "data.json"
DERIVED = ("maps-*.f16", "noise-numbers.npy")
"""Files in the work folder that others make of the pixels, as patterns."""

SIDE = 512
_BYTES = SIDE * SIDE * 2

StoredArray = npt.NDArray[np.int16]
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Row:
    """What is known of one version; u is the label.

    fold: which fifth of the patients it belongs to. kind: see `versions.Kind`. detail: filter,
    views and geometry, or artefact. tested_only: never fitted to. own, inserted, streaks,
    transfer: see `label.Known`. source_u: label of what a smoothed version was made from, else u.
    noise: of the version itself, as `tissue.noise_hu` measures it, NaN where it cannot.
    """

    file: str
    patient: str
    fold: int
    region: str
    kind: str
    kernel: str
    dose: float
    detail: str
    tested_only: bool
    own: float
    inserted: float
    streaks: float
    transfer: tuple[float, ...]
    u: float
    source_u: float
    noise: float


@dataclass(frozen=True, slots=True)
class Dataset:
    """rows[i] belongs to pixels[i]; pixels: (n, 512, 512) int16, HU, mapped from the file."""

    rows: list[Row]
    pixels: StoredArray

    def hu(self, place: int) -> FloatArray:
        """Return one version, (512, 512) float32, HU."""
        return np.asarray(self.pixels[place], np.float32)


def prepare(data: Path, work: Path, recipe: DataRecipe, workers: int, track: Track) -> Dataset:
    """Make the data set in `work`, or what of it is missing there.

    data: folder that holds ct-clean. What is there is kept if it was made of the same slices with
    the same constants, and the first slice still comes out the same: a changed simulation shows
    there, be the change in this code or in a library. Raises Misconfigured without ct-clean.
    """
    from tfkt_node.training.ldctiqac import scored_slices

    jobs = [_Job(clean, recipe) for clean in clean_slices(data, recipe)]
    jobs += [_Job(scored.slice, recipe, scored.score) for scored in scored_slices(data)]
    in_fold = folds([job.slice for job in jobs], recipe)
    known = [[job.slice.path.name, job.slice.region, job.readers] for job in jobs]
    first = hashlib.sha256(_make((jobs[0], 0)).pixels.tobytes()).hexdigest()
    wanted = json.dumps([asdict(recipe), label.constants(), known, first], sort_keys=True)
    work.mkdir(parents=True, exist_ok=True)
    made_for = work / MADE_FOR
    if not made_for.is_file() or made_for.read_text(encoding="utf-8") != wanted:
        for stale in (TABLE, PIXELS, *DERIVED):
            for path in work.glob(stale):
                path.unlink()
        made_for.write_text(wanted, encoding="utf-8")
    done = _whole_slices(work)
    left = [(job, in_fold[job.slice.patient]) for job in jobs[done:]]
    if not left:
        return load(work)
    with (
        (work / TABLE).open("a", encoding="utf-8") as table,
        (work / PIXELS).open("ab") as pixels,
        closing(_make_all(left, workers)) as everything,
    ):
        for made in track(everything, len(left), "Simulating"):
            pixels.write(made.pixels.tobytes())
            pixels.flush()
            table.write(json.dumps([asdict(row) for row in made.rows]) + "\n")
            table.flush()
    return load(work)


def load(work: Path) -> Dataset:
    """Open a data set that `prepare` made."""
    with (work / TABLE).open(encoding="utf-8") as table:
        rows = [_row(values) for line in table for values in json.loads(line)]
    pixels = np.memmap(work / PIXELS, np.int16, "r", shape=(len(rows), SIDE, SIDE))
    return Dataset(rows, pixels)


def each(
    work: Path,
    places: Sequence[int],
    workers: int,
    opener: Callable[..., Callable[[FloatArray], Result]],
    *arguments: object,
) -> Iterator[Result]:
    """Yield what a function makes of each version in `work`, in order, several at once.

    opener: called with the arguments once in each process; returns the function, which takes a
    version, (512, 512) float32 HU. All must be known by name, since processes start afresh.
    """
    begin = (work, opener, arguments)
    with multiprocessing.get_context("spawn").Pool(workers, _begin, begin) as pool:
        yield from pool.imap(_work_on, places, chunksize=8)


_function: Callable[[FloatArray], object]
_versions: Dataset


def _begin(
    work: Path, opener: Callable[..., Callable[[FloatArray], object]], arguments: tuple[object, ...]
) -> None:
    global _function, _versions
    _function, _versions = opener(*arguments), load(work)


def _work_on(place: int) -> Any:
    return _function(_versions.hu(place))


def row_of(clean: CleanSlice, fold: int, version: Version) -> Row:
    """Put down what is known of a version."""
    known = version.known
    return Row(
        file=clean.path.name,
        patient=clean.patient,
        fold=fold,
        region=clean.region,
        kind=str(version.kind),
        kernel=str(version.kernel),
        dose=version.dose,
        detail=version.detail,
        tested_only=version.tested_only,
        own=known.own,
        inserted=known.inserted,
        streaks=known.streaks,
        transfer=known.transfer,
        u=version.u,
        source_u=version.source_u,
        noise=version.noise,
    )


@dataclass(frozen=True, slots=True)
class _Job:
    """One slice to make versions of, or, with the score that readers gave, to take as it is."""

    slice: CleanSlice
    recipe: DataRecipe
    readers: float | None = None


@dataclass(frozen=True, slots=True)
class _Made:
    """All versions of one slice: rows and (n, 512, 512) pixels."""

    rows: list[Row]
    pixels: StoredArray


def _whole_slices(work: Path) -> int:
    """Cut both files back to the slices that are whole in both; returns how many these are."""
    table, pixels = work / TABLE, work / PIXELS
    if not table.is_file() or not pixels.is_file():
        table.unlink(missing_ok=True)
        pixels.unlink(missing_ok=True)
        return 0
    whole, size = [], 0
    for line in table.read_text(encoding="utf-8").splitlines(keepends=True):
        if not line.endswith("\n"):
            break  # the run was stopped while it wrote this
        grown = size + len(json.loads(line)) * _BYTES
        if grown > pixels.stat().st_size:
            break  # what the table tells of never reached the disk
        whole.append(line)
        size = grown
    _cut(table, sum(len(line.encode()) for line in whole))
    _cut(pixels, size)
    return len(whole)


def _cut(path: Path, size: int) -> None:
    if path.stat().st_size > size:
        os.truncate(path, size)


def _row(values: dict[str, Any]) -> Row:
    return Row(**{**values, "transfer": tuple(values["transfer"])})


def _make_all(jobs: Sequence[tuple[_Job, int]], workers: int) -> Generator[_Made, None, None]:
    """Yield slice by slice in order. Processes start afresh: torch does not survive a fork."""
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        yield from pool.imap(_make, jobs)


def _make(job_in_fold: tuple[_Job, int]) -> _Made:
    job, fold = job_in_fold
    if job.readers is not None:
        return _scored(job.slice, job.readers, fold)
    rows, pixels = [], []
    for version in versions(job.slice, job.recipe):
        rows.append(row_of(job.slice, fold, version))
        pixels.append(_stored(version.hu))
    return _Made(rows, np.stack(pixels))


def _scored(clean: CleanSlice, readers: float, fold: int) -> _Made:
    from tfkt_node.training import ldctiqac

    hu = fit_to_grid(read_slice(clean.path))
    row = ldctiqac.row_of(ldctiqac.ScoredSlice(clean, readers), hu, fold)
    return _Made([row], _stored(hu)[None])


def _stored(hu: FloatArray) -> StoredArray:
    return np.clip(np.round(hu), -2000, 4000).astype(np.int16)
