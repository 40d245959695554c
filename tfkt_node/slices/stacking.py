"""Group the slices of a revision into stacks, each in order along its normal.

What cannot be ordered in space follows those that can, by instance number and frame, and claims
nothing about gaps.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import groupby, pairwise
from statistics import median

from tfkt_node.records import SliceGeometry, Stack
from tfkt_node.slices.geometry import Vector, along, normal, plane

SAME_PLANE_DEG = 1.0
"""Slices whose normals differ by less belong to one stack."""

SAME_POSITION_MM = 0.01
"""Decimal strings of one position differ by less than this."""

LEAST_ROTATIONS = 3
"""Fewer acquisitions side by side may as well be runs of their own."""

GAP_FACTOR = 1.5
"""A step longer than this many median steps means a missing slice."""


def stacks(slices: Iterable[SliceGeometry]) -> list[Stack]:
    """Group slices by plane, kind, acquisition, kernel and matrix, in order along the normal.

    Acquisitions that are the rotations of one sequence are one stack. The order of the stacks is
    that of their first slices' instance numbers; it does not depend on the order given. Positions
    held more than once stay, one after the other.
    """
    groups: dict[tuple[object, ...], dict[str | None, list[SliceGeometry]]] = {}
    planes: list[Vector] = []
    for one in sorted(slices, key=_by_number):
        key = (_nearest_plane(one, planes), _kind(one), one.kernel, one.rows, one.columns)
        groups.setdefault(key, {}).setdefault(one.acquisition, []).append(one)
    found = [
        stack
        for acquisitions in groups.values()
        for stack in _sequence(list(acquisitions.values()))
        or [_stack(group) for group in acquisitions.values()]
    ]
    return sorted(found, key=lambda stack: min(map(_by_number, stack.slices)))


def _kind(one: SliceGeometry) -> tuple[bool, bool]:
    """Tell localizers and reformats from the slices among which they were sent."""
    return "LOCALIZER" in one.image_type, "DERIVED" in one.image_type[:1]


def _sequence(acquisitions: list[list[SliceGeometry]]) -> list[Stack]:
    """Return the one stack of a sequence: scan, move the table, scan; [] where it is none.

    Each rotation then has an acquisition number of its own, and equally many slices (the last may
    have fewer), next to those of the rotation before.
    """
    counts = [len(group) for group in acquisitions]
    if len(counts) < LEAST_ROTATIONS or len({*counts[:-1]}) != 1 or counts[-1] > counts[0]:
        return []
    whole = _stack([one for group in acquisitions for one in group])
    if whole.spacing_mm is None or whole.gaps or whole.repeated:
        return []
    runs = [number for number, _ in groupby(one.acquisition for one in whole.slices)]
    if len(runs) != len(counts):
        return []
    first, last = acquisitions[0][0].acquisition, acquisitions[-1][0].acquisition
    return [replace(whole, acquisition=f"{first}-{last}")]


def _by_number(one: SliceGeometry) -> tuple[float, int, str]:
    number = math.inf if one.instance_number is None else one.instance_number
    return number, one.frame or 0, one.instance.sop_uid


def _nearest_plane(one: SliceGeometry, planes: list[Vector]) -> int:
    """Index of the known plane that a slice lies in, a new one where none is near; -1 unknown."""
    if one.orientation is None:
        return -1
    direction = normal(one.orientation)
    limit = math.cos(math.radians(SAME_PLANE_DEG))
    for index, known in enumerate(planes):
        if sum(a * b for a, b in zip(direction, known, strict=True)) >= limit:
            return index
    planes.append(direction)
    return len(planes) - 1


def _stack(group: list[SliceGeometry]) -> Stack:
    first = group[0]
    # One direction for all: single normals differ in the last digits of their decimal strings.
    found = [(along(one.origin_mm, first.orientation), one) for one in group]
    placed = sorted(
        ((place, one) for place, one in found if place is not None), key=lambda pair: pair[0]
    )
    lost = [one for place, one in found if place is None]
    places = [place for place, _ in placed]
    steps = [after - before for before, after in pairwise(places)]
    real = [step for step in steps if step > SAME_POSITION_MM]
    spacing = median(real) if real else None
    return Stack(
        acquisition=first.acquisition,
        orientation=plane(first.orientation),
        kernel=first.kernel,
        slices=(*(one for _, one in placed), *lost),
        spacing_mm=None if spacing is None else round(spacing, 4),
        gaps=sum(step > GAP_FACTOR * spacing for step in real) if spacing else 0,
        repeated=0 if _is_4d(steps) else len(steps) - len(real),
    )


def _is_4d(steps: Sequence[float]) -> bool:
    """Say whether every position is held equally often: phases or times of one volume."""
    held, counts = 1, []
    for step in steps:
        if step > SAME_POSITION_MM:
            counts.append(held)
            held = 0
        held += 1
    return len({*counts, held}) == 1
