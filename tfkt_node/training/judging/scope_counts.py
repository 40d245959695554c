"""Count what the scope lets in and what it withholds, on files whose content is known.

Counts, and no more: what should be withheld is too little of too few kinds for a curve.
"""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tfkt_node.assess import Assessor
from tfkt_node.iqa.bundle import Bundle
from tfkt_node.iqa.engine import Engine
from tfkt_node.iqa.scope import find_body, pixel_reason
from tfkt_node.records import InstanceRef, Misconfigured, Reason, SetAside
from tfkt_node.settings import Settings
from tfkt_node.slices import attributes as dicom
from tfkt_node.slices.files import read_dataset
from tfkt_node.training.images.collection import read_png
from tfkt_node.training.images.real_images import SERIES
from tfkt_node.training.track import Track

HEAD_PHANTOM = "dcm_qa_ct-PLASTIC-head-phantom"
"""A series of a head, with its localizer and its dose screen."""

ZOO_HEADS = (
    "dcm4che/CT-JPEGLosslessSV1.dcm",
    "dcm_qa_ct/I10",
    "fo-dicom/IM-0001-0001-0001.dcm",
    "pydicom-data/693_UNCR.dcm",
)
"""Heads among the single slices of the zoo, found by eye: a face, a phantom, two skulls."""

ZOO_KINDS = ("localizer", "secondary-capture", "pet")
"""Kinds of the zoo's manifest that show no axial CT slice."""


@dataclass(frozen=True, slots=True)
class ScopeCount:
    """One group. belongs: whether it should be in scope. reasons: why slices were withheld.

    patients: how many people, 0 where that is not told; refused: those with a slice withheld.
    """

    group: str
    belongs: bool
    slices: int
    reasons: Mapping[Reason, int]
    patients: int = 0
    refused: int = 0

    @property
    def withheld(self) -> int:
        """Slices without a score."""
        return sum(self.reasons.values())


def scope_counts(data: Path, bundle: Bundle, engine: Engine, track: Track) -> list[ScopeCount]:
    """Put every group to the scope, each slice by itself.

    data: holds ct-clean (in which the training lies, judged without headers), series and zoo.
    Raises Misconfigured where an index is missing.
    """
    series, zoo = data / "series", data / "zoo"
    kinds = defaultdict(list)
    for row in _rows(zoo / "MANIFEST.csv"):
        kinds[row["kind"]].append(zoo / row["path"])
    groups = {
        **{name: sorted((series / name).glob("*.dcm")) for name in SERIES},
        HEAD_PHANTOM: sorted(p for p in (series / HEAD_PHANTOM).rglob("*") if p.is_file()),
        "zoo: head": [zoo / name for name in ZOO_HEADS],
        **{f"zoo: {kind}": kinds[kind] for kind in ZOO_KINDS},
    }
    assessor = Assessor(Settings(), bundle, engine)
    counts = [_clean(data / "ct-clean", bundle, engine, track)]
    for name, paths in groups.items():
        found = [_reasons(assessor, path) for path in track(paths, len(paths), f"Scope of {name}")]
        slices = [reason for reasons in found for reason in reasons]
        counts.append(ScopeCount(name, name in SERIES, len(slices), _tally(slices)))
    return counts


def _clean(folder: Path, bundle: Bundle, engine: Engine, track: Track) -> ScopeCount:
    distance = bundle.feature_distance()
    reasons: dict[str, list[Reason | None]] = defaultdict(list)
    rows = _rows(folder / "index.csv")
    for row in track(rows, len(rows), "Scope of ct-clean"):
        hu = read_png(folder / row["file"])
        reason = pixel_reason(find_body(hu), (float(row["pixel_mm"]),) * 2)
        if reason is None and distance.is_outside(engine.read(hu[None]).pooled)[0]:
            reason = Reason.UNFAMILIAR
        reasons[row["patient"]].append(reason)
    refused = sum(any(slices) for slices in reasons.values())
    slices = [reason for found in reasons.values() for reason in found]
    return ScopeCount("ct-clean", True, len(slices), _tally(slices), len(reasons), refused)


def _reasons(assessor: Assessor, path: Path) -> list[Reason | None]:
    """Assess one file by itself; return why each of its slices is withheld, None where none is."""
    try:
        ds = read_dataset(path)
    except SetAside as error:
        return [error.reason]
    ref = InstanceRef(path, path.name, dicom.text(ds, "SOPClassUID"), "1.2.3")
    found = assessor.assess([ref], b"")
    slices = [one.reason for stack in found.stacks for one in stack.slices]
    return slices or [found.reason]


def _tally(reasons: Iterable[Reason | None]) -> Counter[Reason]:
    return Counter(reason for reason in reasons if reason is not None)


def _rows(index: Path) -> list[dict[str, str]]:
    if not index.is_file():
        folder = index.parent.name
        raise Misconfigured(f"{index} does not exist: --data must hold the folder {folder}")
    with index.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
