"""The document of `score --json` (schema 2), made from assessments.

Guarantees that every number is finite or null, and that every path given appears once in `files`.
`score.schema.json` beside this module describes it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfkt_node.cli.intake import FileOutcome, GivenFile, GivenSeries
from tfkt_node.records import (
    Assessment,
    BundleInForce,
    InstanceState,
    SliceScore,
    StackSummary,
)

if TYPE_CHECKING:
    from tfkt_node.iqa.bundle import Bundle
    from tfkt_node.settings import CriteriaByPopulation

SCHEMA_VERSION = 2
"""One more with every change of what the schema admits: it names every field there is."""


@dataclass(frozen=True, slots=True)
class AssessedSeries:
    """One series and its assessment."""

    series: GivenSeries
    assessment: Assessment

    @property
    def paths(self) -> dict[str, Path]:
        """Digest of an instance -> the path given for it."""
        return {
            given.instance.digest: given.path
            for given in self.series.files
            if given.instance is not None
        }


def schema() -> dict[str, Any]:
    """Return the JSON Schema of the document."""
    text = files("tfkt_node.cli").joinpath("score.schema.json").read_text(encoding="utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def settle_outcomes(
    given: Iterable[GivenFile], assessed: Sequence[AssessedSeries]
) -> list[GivenFile]:
    """Give every file that went into an assessment its outcome."""
    came_to = {outcome.digest: outcome for one in assessed for outcome in one.assessment.instances}
    settled = []
    for file in given:
        if file.outcome is None and file.instance is not None:
            outcome = came_to[file.instance.digest]
            was_scored = outcome.state is InstanceState.SCORED
            state = FileOutcome.SCORED if was_scored else FileOutcome.NOT_ASSESSED
            file = replace(file, outcome=state, reason=outcome.reason)  # noqa: PLW2901
        settled.append(file)
    return settled


def document(
    given: Sequence[GivenFile],
    assessed: Sequence[AssessedSeries],
    bundle: Bundle,
    criteria: CriteriaByPopulation,
) -> dict[str, Any]:
    """Return the whole document, ready for JSON."""
    in_force = next((one.assessment.bundle for one in assessed if one.assessment.bundle), None)
    return {
        "schema": SCHEMA_VERSION,
        "bundle": _bundle(bundle, in_force),
        "criteria": _criteria(criteria),
        "files": [_file(file) for file in given],
        "series": [_series(one) for one in assessed],
    }


def _bundle(bundle: Bundle, in_force: BundleInForce | None) -> dict[str, Any]:
    return {
        "name": bundle.name,
        "version": bundle.version,
        "digest": bundle.digest,
        "engine": in_force.engine if in_force else None,
        "precision": in_force.precision if in_force else None,
    }


def _criteria(criteria: CriteriaByPopulation) -> dict[str, Any]:
    from tfkt_node.settings import digest

    populations = {"adult": criteria.adult, "child": criteria.child}
    return {
        "child_below_years": criteria.child_below_years,
        **{
            name: {**group.model_dump(mode="json"), "digest": digest(group)}
            for name, group in populations.items()
        },
    }


def _file(file: GivenFile) -> dict[str, Any]:
    return {
        "path": str(file.path),
        "outcome": file.outcome,
        "sop_uid": file.instance.sop_uid if file.instance else None,
        "reason": file.reason,
        "duplicate_of": str(file.duplicate_of) if file.duplicate_of else None,
    }


def _series(one: AssessedSeries) -> dict[str, Any]:
    assessment, paths = one.assessment, one.paths
    reasons = [assessment.reason] if assessment.reason else assessment.confidence_reasons
    return {
        "study_uid": one.series.study_uid,
        "series_uid": one.series.series_uid,
        "outcome": assessment.outcome,
        "population": assessment.criteria.population,
        "verdict": assessment.verdict,
        "confidence": assessment.confidence,
        "flagged": assessment.flagged,
        "reason": ", ".join(reasons) or None,
        "score": finite(assessment.score),
        "interval": _interval(assessment.interval),
        "deciding_stack": assessment.deciding_stack,
        "stacks": [_stack(stack, paths) for stack in assessment.stacks],
    }


def _stack(stack: StackSummary, paths: Mapping[str, Path]) -> dict[str, Any]:
    return {
        "acquisition": stack.acquisition,
        "orientation": stack.orientation,
        "kernel": stack.kernel,
        "rows": stack.rows,
        "columns": stack.columns,
        "spacing_mm": finite(stack.spacing_mm),
        "gaps": stack.gaps,
        "repeated": stack.repeated,
        "score": finite(stack.score),
        "interval": _interval(stack.interval),
        "p10": finite(stack.p10),
        "minimum": finite(stack.minimum.score) if stack.minimum else None,
        "below_threshold": finite(stack.below_threshold),
        "in_scope": stack.in_scope,
        "out_of_scope": stack.out_of_scope,
        "physics": _physics(stack.physics),
        "slices": [_slice(slice_, paths) for slice_ in stack.slices],
    }


def _slice(slice_: SliceScore, paths: Mapping[str, Path]) -> dict[str, Any]:
    return {
        "path": str(paths[slice_.digest]),
        "sop_uid": slice_.sop_uid,
        "frame": slice_.frame,
        "position_mm": finite(slice_.position_mm),
        "score": finite(slice_.score),
        "interval": _interval(slice_.interval),
        "in_scope": slice_.in_scope,
        "reason": slice_.reason,
    }


def _physics(physics: Mapping[str, float | None]) -> dict[str, float | None]:
    return {name: finite(value) for name, value in physics.items()}


def _interval(interval: tuple[float, float] | None) -> list[float | None] | None:
    return None if interval is None else [finite(bound) for bound in interval]


def finite(value: float | None) -> float | None:
    """Return a number that JSON can hold, else None."""
    return value if value is not None and math.isfinite(value) else None
