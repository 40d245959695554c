"""What becomes of each file of the zoo, and the table that says so.

`python -m tests.zoo.outcomes` makes the table anew from this code, to be reviewed line by line
against design 5 before it is committed: `git diff` shows what a change did.
"""

from __future__ import annotations

import csv
import hashlib
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np

from tests.zoo.sending import stored_by_dcmtk, stored_by_pynetdicom
from tfkt_node.cli import document, intake
from tfkt_node.cli.intake import GivenFile
from tfkt_node.records import CT_CLASSES, InstanceRef, SetAside
from tfkt_node.scorer import Scorer, ScoringFailed
from tfkt_node.settings import Scoring, Settings
from tfkt_node.slices import codecs, decoding
from tfkt_node.slices.geometry import slices_of
from tfkt_node.slices.pixels import NATIVE
from tfkt_node.slices.stacking import stacks

TABLE = Path(__file__).parent / "outcomes.tsv"
ABOUT_THE_ZOO = {"MANIFEST.csv", "README.md", "INDEX.csv", "make_broken.py"}
LOSSY_TOLERANCE_HU = 0.3


@dataclass(frozen=True)
class Row:
    """One file. score, pynetdicom, dcmtk: outcome and reason on each way in.

    hu: digest of its slices in order, as they would be scored, with what of them is padding; or
    why there are none. "~" and the mean after lossy compression, where decoders may differ in the
    last digit; "-" where it is no CT image.
    """

    sha256: str
    path: str
    score: str
    pynetdicom: str
    dcmtk: str
    hu: str


def read_table() -> dict[str, Row]:
    """SHA-256 of a file -> its row."""
    with TABLE.open(newline="", encoding="utf-8") as file:
        rows = [Row(**row) for row in csv.DictReader(file, delimiter="\t")]
    return {row.sha256: row for row in rows}


def zoo_files(zoo: Path) -> dict[str, Path]:
    """SHA-256 -> a file with these bytes, all that the zoo holds."""
    files = (path for path in sorted(zoo.rglob("*")) if path.is_file())
    found = {sha256(path): path for path in files if path.name not in ABOUT_THE_ZOO}
    return dict(sorted(found.items(), key=lambda entry: str(entry[1])))


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def scored(given: Iterable[GivenFile]) -> Iterator[str]:
    """Yield what `score` says of each file, given by itself."""
    with Scorer(Settings(scoring=Scoring(streams=1))) as scorer:
        for one in given:
            series = intake.group_series([one])
            if not series:
                yield outcome(one)
                continue
            try:
                assessment = scorer.submit(series[0].instances, series[0].attributes)
            except ScoringFailed as failure:
                yield f"failed {failure.reason}"
                continue
            assessed = [document.AssessedSeries(series[0], assessment)]
            [settled] = document.settle_outcomes([one], assessed)
            yield outcome(settled)


def outcome(one: GivenFile) -> str:
    return " ".join(str(word) for word in (one.outcome, one.reason) if word is not None)


def hounsfield(ref: InstanceRef | None) -> str:
    """Say what the slices of a CT instance are, whatever the scope of the model."""
    if ref is None or ref.sop_class_uid not in CT_CLASSES:
        return "-"
    sha, means = hashlib.sha256(), []
    try:
        ds = decoding.read_dataset(ref.path, pixels=True)
        for stack in stacks(slices_of(ref, ds)):
            for one in stack.slices:
                hu = decoding.decode_hu(ds, one.frame)
                sha.update(hu.astype("<f4").tobytes())
                sha.update(decoding.padding_mask(ds, one.frame).tobytes())
                means.append(float(hu.mean()))
    except SetAside as error:
        return str(error.reason)
    exact = {*NATIVE, *codecs.LOSSLESS}
    is_exact = str(ds.file_meta.TransferSyntaxUID) in exact
    return sha.hexdigest()[:16] if is_exact else f"~{np.mean(means):.2f}"


def same_hounsfield(expected: str, found: str) -> bool:
    if expected.startswith("~") and found.startswith("~"):
        return abs(float(expected[1:]) - float(found[1:])) <= LOSSY_TOLERANCE_HU
    return expected == found


def main(zoo: Path) -> None:
    """Write the table anew."""
    files = zoo_files(zoo)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder, "scratch")
        scratch.mkdir()
        given = [intake.read_file(path, scratch) for path in files.values()]
        pynetdicom = stored_by_pynetdicom(given, Path(folder, "pynetdicom"))
        dcmtk = stored_by_dcmtk(given, Path(folder, "dcmtk"), "storescu")
        rows = [
            Row(
                sha,
                str(one.path.relative_to(zoo)),
                said,
                pynetdicom[one.path],
                dcmtk[one.path],
                hounsfield(one.instance),
            )
            for sha, one, said in zip(files, given, scored(given), strict=True)
        ]
    with TABLE.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow([field.name for field in fields(Row)])
        writer.writerows(map(astuple, rows))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
