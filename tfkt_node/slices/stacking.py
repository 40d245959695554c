"""Group the slices of a revision into stacks, each in order along its normal.

What cannot be ordered in space follows those that can, by instance number and frame, and claims
nothing about gaps.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from itertools import pairwise
from statistics import median, median_low
from typing import NamedTuple, TypeVar

from tfkt_node.records import SliceGeometry, Stack
from tfkt_node.slices.geometry import Vector, along, normal, plane

SAME_PLANE_DEG = 1.0
"""Slices whose normals differ by less belong to one stack."""

SAME_POSITION_MM = 0.01
"""Decimal strings of one position differ by less than this."""

SAME_SIZE = 0.02
"""Pixel spacings, thicknesses and tube voltages that differ by a smaller share are one value."""

GAP_FACTOR = 1.5
"""A step longer than this many median steps means a missing slice."""

LEAST_ROTATIONS = 3
"""Fewer acquisitions side by side may as well be runs of their own, if the header does not tell."""

WIDEST_DETECTOR_MM = 160.0
"""No rotation is longer: what is, was scanned with the table moving."""

MOST_LOST = 10
"""After more rotations whose numbers lack in one place, what follows is a scan of its own."""

T = TypeVar("T", bound=Hashable)


def stacks(slices: Iterable[SliceGeometry]) -> list[Stack]:
    """Group slices into the volumes that were scanned or made at once, each in order.

    A stack has one plane, kind, matrix, Frame of Reference, pixel spacing, slice thickness, tube
    voltage, kernel, Stack ID and temporal position, and one acquisition or the rotations of one
    sequence. Where it would hold each position several times it is as many phases. The order of
    the stacks is that of their first slices' instance numbers; it does not depend on the order
    given. Positions that only some slices share stay, one after the other, and are counted.
    """
    alike: dict[tuple[object, ...], list[SliceGeometry]] = {}
    planes: list[Vector] = []
    for one in sorted(slices, key=_by_number):
        key = (_nearest_plane(one, planes), _kind(one), one.rows, one.columns)
        alike.setdefault(key, []).append(one)
    found = [
        _stack(phase, acquisition)
        for group in alike.values()
        for made_at_once in _by_marks(group)
        for acquisition, scan in _scans(made_at_once)
        for phase in _phases(scan)
    ]
    return sorted(found, key=lambda stack: min(map(_by_number, stack.slices)))


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


def _kind(one: SliceGeometry) -> tuple[bool, bool]:
    """Tell localizers and reformats from the slices among which they were sent."""
    return "LOCALIZER" in one.image_type, "DERIVED" in one.image_type[:1]


# --------------------------------------------------------------------------- marks of the header


def _by_marks(group: list[SliceGeometry]) -> list[list[SliceGeometry]]:
    """Set apart what the header says was not scanned, or not made, as one volume."""
    spacings = [one.pixel_spacing_mm or (None, None) for one in group]
    marks = zip(
        _filled([one.frame_of_reference for one in group]),
        _filled([one.kernel.upper() if one.kernel else None for one in group]),
        _filled(_alike([rows for rows, _ in spacings])),
        _filled(_alike([columns for _, columns in spacings])),
        _filled(_alike([one.slice_thickness_mm for one in group])),
        _filled(_alike([one.kvp for one in group])),
        _filled(_unless_counted([one.stack_id for one in group])),
        _filled(_unless_counted([one.temporal_position for one in group])),
        strict=True,
    )
    apart: dict[tuple[object, ...], list[SliceGeometry]] = {}
    for mark, one in zip(marks, group, strict=True):
        apart.setdefault(mark, []).append(one)
    return list(apart.values())


def _filled(values: Sequence[T | None]) -> list[T | None]:
    """Give slices without a value that of their neighbours by number, where both have the same."""
    filled = list(values)
    stated = [index for index, value in enumerate(values) if value is not None]
    for before, after in pairwise(stated):
        if values[before] == values[after]:
            filled[before:after] = [values[before]] * (after - before)
    return filled


def _alike(sizes: Sequence[float | None]) -> list[float | None]:
    """Write sizes that differ by their rounding as one: the first of them."""
    known: list[float] = []
    alike: list[float | None] = []
    for size in sizes:
        near = (other for other in known if math.isclose(other, size or 0, rel_tol=SAME_SIZE))
        found = size if size is None else next(near, size)
        if found is not None and found not in known:
            known.append(found)
        alike.append(found)
    return alike


def _unless_counted(values: Sequence[T | None]) -> Sequence[T | None]:
    """Pass over a mark that is another on every slice: it counts them, and tells nothing apart."""
    return [None] * len(values) if len({*values}) == len(values) else values


# --------------------------------------------------------------------------- acquisitions


class _Acquisition(NamedTuple):
    """The slices of one Acquisition Number, from `low` to `high` along the normal, mm."""

    number: int
    slices: list[SliceGeometry]
    low: float
    high: float

    @property
    def length(self) -> float:
        return self.high - self.low


def _scans(group: list[SliceGeometry]) -> list[tuple[str | None, list[SliceGeometry]]]:
    """Take a group apart by acquisition, but leave the rotations of a sequence together.

    Scan, move the table, scan: each rotation has an acquisition number of its own. They are one
    sequence where each lies next to the one before, ever in one direction, and shares one place
    with it at most. Helical runs may lie so too, and a bad one must not vanish in the median of
    all: so the header must say that the table stood still, or there must be three acquisitions or
    more, each in its place on one grid of equal table steps. A slice or a rotation that lacks
    changes nothing of this, and is a gap.
    """
    numbers = _filled([one.acquisition for one in group])
    scans: dict[str | None, list[SliceGeometry]] = {}
    for number, one in zip(numbers, group, strict=True):
        scans.setdefault(number, []).append(one)
    found = [
        _Acquisition(int(number), scan, min(places), max(places))
        for number, scan in scans.items()
        if number is not None and (places := _places(scan, group[0]))
    ]
    step = _slice_step(found, group[0])
    chains: list[list[_Acquisition]] = []
    for acquisition in sorted(found):
        if chains and _follows(chains[-1], acquisition, step):
            chains[-1].append(acquisition)
        else:
            chains.append([acquisition])
    for chain in chains:
        if len(chain) > 1 and (_is_stepped(chain) or _is_on_a_grid(chain, step)):
            whole = [one for part in chain for one in scans.pop(str(part.number))]
            scans[f"{chain[0].number}-{chain[-1].number}"] = sorted(whole, key=_by_number)
    return list(scans.items())


def _slice_step(acquisitions: Sequence[_Acquisition], first: SliceGeometry) -> float:
    """Return the usual step from slice to slice, mm: within acquisitions, if they hold several."""
    within = [step for one in acquisitions for step in _steps(_places(one.slices, first))]
    steps = within or _steps([one.low for one in acquisitions])
    return median(steps) if steps else 0.0


def _follows(chain: Sequence[_Acquisition], one: _Acquisition, step: float) -> bool:
    """Say whether an acquisition lies where the next rotation would.

    No farther off than if the slices of one, and the rotations whose numbers lack, were lost.
    """
    last = chain[-1]
    is_upwards = one.low > last.low
    if len(chain) > 1 and is_upwards != (last.low > chain[-2].low):
        return False
    longest = max(one.length, last.length)
    if longest > WIDEST_DETECTOR_MM or abs(one.low - last.low) <= SAME_POSITION_MM:
        return False
    between = one.low - last.high if is_upwards else last.low - one.high
    lost = min(one.number - last.number, MOST_LOST) * (longest + step)
    return -step / 2 <= between <= step + lost + SAME_POSITION_MM


def _is_stepped(chain: Sequence[_Acquisition]) -> bool:
    return all(one.is_stepped for part in chain for one in part.slices)


def _is_on_a_grid(chain: Sequence[_Acquisition], step: float) -> bool:
    """Say whether acquisitions are equal pieces side by side, but for slices that lack."""
    if len(chain) < LEAST_ROTATIONS:
        return False
    whole = max(chain, key=lambda one: one.length)
    if whole.length <= SAME_POSITION_MM:
        return True  # single slices are no runs
    table_step = median_low(
        abs(move)
        for before, after in pairwise(chain)
        for move in (after.low - before.low, after.high - before.high)
    )
    # The next one begins a slice further on, or on the last slice of this one.
    if not -step / 2 <= table_step - whole.length <= GAP_FACTOR * step:
        return False
    return all(
        (one.low - whole.low + step / 2) % table_step + one.length <= whole.length + step
        for one in chain
    )


# --------------------------------------------------------------------------- phases


def _phases(scan: list[SliceGeometry]) -> list[list[SliceGeometry]]:
    """Take apart the volumes of other times or energies that hold the same positions.

    The first slice by number at each position is of the first volume, and so on. Only where every
    position is held equally often, and the numbers run along the normal in each volume: else the
    scan stays whole, and its positions count as held more than once.
    """
    placed, lost = _in_order(scan, scan[0])
    held: list[list[SliceGeometry]] = []
    last = -math.inf
    for place, one in placed:
        if place - last > SAME_POSITION_MM:
            held.append([])
        held[-1].append(one)
        last = place
    is_numbered = len({_by_number(one)[:2] for one in scan}) == len(scan)
    if lost or not is_numbered or len(held) < 2 or len({len(at) for at in held}) > 1:
        return [scan]
    volumes = [
        list(volume) for volume in zip(*(sorted(at, key=_by_number) for at in held), strict=True)
    ]
    return volumes if all(map(_runs_along, volumes)) else [scan]


def _runs_along(volume: Sequence[SliceGeometry]) -> bool:
    numbers = [_by_number(one) for one in volume]
    return numbers in (sorted(numbers), sorted(numbers, reverse=True))


# --------------------------------------------------------------------------- one stack


def _stack(group: list[SliceGeometry], acquisition: str | None) -> Stack:
    placed, lost = _in_order(group, group[0])
    steps = _steps([place for place, _ in placed])
    spacing = median(steps) if steps else None
    return Stack(
        acquisition=acquisition,
        orientation=plane(group[0].orientation),
        kernel=next((one.kernel for one in group if one.kernel), None),
        slices=(*(one for _, one in placed), *lost),
        spacing_mm=None if spacing is None else round(spacing, 4),
        gaps=sum(step > GAP_FACTOR * spacing for step in steps) if spacing else 0,
        repeated=max(0, len(placed) - 1 - len(steps)),
    )


def _in_order(
    group: Iterable[SliceGeometry], first: SliceGeometry
) -> tuple[list[tuple[float, SliceGeometry]], list[SliceGeometry]]:
    """Return slices with their places along the normal of the first, in order, and those without.

    One direction for all: single normals differ in the last digits of their decimal strings.
    """
    found = [(along(one.origin_mm, first.orientation), one) for one in group]
    placed = [(place, one) for place, one in found if place is not None]
    return sorted(placed, key=lambda pair: pair[0]), [one for place, one in found if place is None]


def _places(group: Iterable[SliceGeometry], first: SliceGeometry) -> list[float]:
    return [place for place, _ in _in_order(group, first)[0]]


def _steps(places: Iterable[float]) -> list[float]:
    """Return the steps from each position to the next, mm."""
    steps = (after - before for before, after in pairwise(sorted(places)))
    return [step for step in steps if step > SAME_POSITION_MM]
