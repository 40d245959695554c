"""Stacks: which slices belong together, in which order, and what is missing among them."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.slices.ct_images import ct, enhanced, ref
from tfkt_node.records import ENHANCED_CT_IMAGE, SliceGeometry, Stack
from tfkt_node.slices.files import read_dataset
from tfkt_node.slices.geometry import normal, slices_of
from tfkt_node.slices.stacking import stacks

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
PATIENT_POSITIONS = {
    "HFS": AXIAL,
    "HFP": (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0),
    "FFS": (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
    "FFP": (1.0, 0.0, 0.0, 0.0, -1.0, 0.0),
    "HFDR": (0.0, -1.0, 0.0, 1.0, 0.0, 0.0),
    "HFDL": (0.0, 1.0, 0.0, -1.0, 0.0, 0.0),
    "FFDR": (0.0, 1.0, 0.0, 1.0, 0.0, 0.0),
}
"""Row and column directions of an image as the scanner's table holds the patient."""

LOCALIZER = ("ORIGINAL", "PRIMARY", "LOCALIZER")
REFORMAT = ("DERIVED", "SECONDARY", "MPR")

rotations = st.builds(
    lambda seed: np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0],
    st.integers(0, 10**6),
)
"""Orthonormal axes in any direction, either handed."""

[BASE] = slices_of(ref(), ct())


def one_slice(
    number: int, place: float, orientation: tuple[float, ...] = AXIAL, **other: object
) -> SliceGeometry:
    changes = {
        "instance": ref(f"1.{number}"),
        "instance_number": number,
        "orientation": orientation,
        "origin_mm": tuple(place * part for part in normal(orientation)),
        "position_mm": place,
        **other,
    }
    return replace(BASE, **changes)  # type: ignore[arg-type]


def tilted(degrees: float) -> tuple[float, ...]:
    """Orientation under a gantry tilt: columns lean towards the feet."""
    angle = math.radians(degrees)
    return (1.0, 0.0, 0.0, 0.0, math.cos(angle), -math.sin(angle))


def numbers(stack: Stack) -> list[int | None]:
    return [one.instance_number for one in stack.slices]


# --------------------------------------------------------------------------- order


@settings(deadline=None, max_examples=60)
@given(axes=rotations, count=st.integers(2, 12), spacing=st.floats(0.3, 10), data=st.data())
def test_order_along_the_normal_holds_in_any_direction(
    axes: np.ndarray, count: int, spacing: float, data: st.DataObject
) -> None:
    """Whatever the rotation, headers written as decimal strings come back in order of place."""
    row, column = axes[0].round(6), axes[1].round(6)
    along = np.cross(row, column)
    corner = np.array(data.draw(st.tuples(*[st.floats(-500, 500)] * 3), "corner"))
    arrival = data.draw(st.permutations(range(count)), "order of arrival")
    slices = []
    for place in arrival:
        ds = ct(
            InstanceNumber=arrival.index(place) + 1,
            ImageOrientationPatient=[*map(float, row), *map(float, column)],
            ImagePositionPatient=[round(float(x), 4) for x in corner + place * spacing * along],
        )
        slices += slices_of(ref(f"1.{place}"), ds)

    [stack] = stacks(slices)

    assert [f"1.{place}" for place in range(count)] == [
        one.instance.sop_uid for one in stack.slices
    ]
    assert stack.spacing_mm == pytest.approx(spacing, abs=2e-3)
    assert (stack.gaps, stack.repeated) == (0, 0)
    angle = math.degrees(math.acos(min(1.0, abs(along[2]) / np.linalg.norm(along))))
    assert (stack.orientation == "AXIAL") == (angle <= 35) or abs(angle - 35) < 0.01


@pytest.mark.parametrize("position", sorted(PATIENT_POSITIONS))
def test_patient_lies_as_he_may(position: str) -> None:
    """Decubitus, prone and feet first are axial, each in order along its own normal."""
    orientation = PATIENT_POSITIONS[position]
    made = [one_slice(number, place, orientation) for number, place in enumerate([10, 0, 5])]

    [stack] = stacks(made)

    assert stack.orientation == "AXIAL"
    assert [1, 2, 0] == numbers(stack)
    towards_the_head = [one.origin_mm[2] for one in stack.slices if one.origin_mm is not None]
    assert sorted(towards_the_head, reverse=normal(orientation)[2] < 0) == towards_the_head


@settings(deadline=None, max_examples=40)
@given(
    tilt=st.floats(-34, 34),
    spacing=st.floats(0.3, 10),
    start=st.floats(-2000, 2000),
    count=st.integers(2, 40),
    seed=st.integers(0, 10**6),
)
def test_shuffled_slices_come_back_in_order_along_their_normal(
    tilt: float, spacing: float, start: float, count: int, seed: int
) -> None:
    """Neither the order of arrival nor the instance numbers decide, but the position."""
    shuffler = random.Random(seed)
    shuffled_numbers = shuffler.sample(range(count), count)
    made = [
        one_slice(shuffled_numbers[index], start + index * spacing, tilted(tilt))
        for index in range(count)
    ]

    [stack] = stacks(shuffler.sample(made, count))

    assert [one.instance.sop_uid for one in made] == [one.instance.sop_uid for one in stack.slices]
    assert (stack.gaps, stack.repeated) == (0, 0)
    assert stack.spacing_mm == pytest.approx(spacing, abs=1e-3)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6))
def test_stacks_do_not_depend_on_the_order_given(seed: int) -> None:
    """The same instances give the same stacks, in the same order."""
    made = [one_slice(number, 5.0 * number) for number in range(6)]
    made += [one_slice(10 + number, 5.0 * number, CORONAL) for number in range(3)]
    made += [one_slice(20 + number, 5.0 * number, kernel="B70f") for number in range(3)]
    made += [one_slice(30 + number, 5.0 * number, acquisition=str(number)) for number in range(4)]

    assert stacks(made) == stacks(random.Random(seed).sample(made, len(made)))


def test_frames_are_ordered_by_place_and_not_by_dimension_index() -> None:
    """Dimension Index Values, frame numbers and stack positions of the header are not asked."""
    ds = enhanced(np.zeros((4, 4, 4), dtype=np.int16), [(1, 0)] * 4, [15, 5, 0, 10])
    for index, frame in enumerate(ds.PerFrameFunctionalGroupsSequence):
        content = ct().copy()
        content.DimensionIndexValues, content.InStackPositionNumber = [1, index + 1], index + 1
        frame.FrameContentSequence = [content]

    [stack] = stacks(slices_of(ref(sop_class=ENHANCED_CT_IMAGE), ds))

    assert [3, 2, 4, 1] == [one.frame for one in stack.slices]


def test_parts_of_a_concatenation_are_one_stack() -> None:
    """One object sent as three: their frames lie between each other, and are ordered as one."""
    slices = []
    for part in range(3):
        places = [part * 5.0, part * 5.0 + 15]
        ds = enhanced(np.zeros((2, 4, 4), dtype=np.int16), [(1, 0)] * 2, places, InstanceNumber=1)
        slices += slices_of(ref(f"1.{part}", sop_class=ENHANCED_CT_IMAGE), ds)

    [stack] = stacks(slices)

    assert [("1.0", 1), ("1.1", 1), ("1.2", 1), ("1.0", 2), ("1.1", 2), ("1.2", 2)] == [
        (one.instance.sop_uid, one.frame) for one in stack.slices
    ]
    assert (stack.spacing_mm, stack.gaps, stack.repeated) == (5.0, 0, 0)


def test_one_slice_without_a_position_hides_no_gap() -> None:
    """The others are in order along the normal and measured; it follows them."""
    places = {1: 20.0, 2: 0.0, 3: 5.0, 5: 10.0, 6: 25.0}
    made = [one_slice(number, place) for number, place in places.items()]
    lost = one_slice(4, 0.0, origin_mm=None, position_mm=None)

    [stack] = stacks([lost, *made])

    assert [2, 3, 5, 1, 6, 4] == numbers(stack)
    assert (stack.spacing_mm, stack.gaps, stack.repeated) == (5.0, 1, 0)


def test_stack_without_positions_keeps_the_order_of_instance_numbers() -> None:
    """Without geometry there is an order still, and no claim about gaps."""
    unknown = {"position_mm": None, "origin_mm": None}
    made = [replace(one_slice(number, 0.0, **unknown), orientation=None) for number in (3, 1, 2)]

    [stack] = stacks(made)

    assert [1, 2, 3] == numbers(stack)
    assert (stack.orientation, stack.spacing_mm, stack.gaps) == ("UNKNOWN", None, 0)


# --------------------------------------------------------------------------- gaps and repeats


@settings(deadline=None, max_examples=40)
@given(missing=st.sets(st.integers(1, 18), min_size=1, max_size=3))
def test_each_hole_is_one_gap(missing: set[int]) -> None:
    """Slices that never arrived show as gaps, neighbouring ones as one."""
    made = [one_slice(number, 2.5 * number) for number in range(20) if number not in missing]
    holes = sum(number - 1 not in missing for number in missing)

    [stack] = stacks(made)

    assert (holes, 0) == (stack.gaps, stack.repeated)
    assert stack.spacing_mm == 2.5


def test_position_held_twice_is_kept_and_counted() -> None:
    """Two slices in one place stay, one after the other."""
    made = [one_slice(number, place) for number, place in enumerate([0, 5, 5, 10])]

    [stack] = stacks(made)

    assert (stack.repeated, stack.gaps, len(stack.slices)) == (1, 0, 4)


# --------------------------------------------------------------------------- phases


@settings(deadline=None, max_examples=60)
@given(
    phases=st.integers(2, 10),
    count=st.integers(2, 12),
    numbering=st.sampled_from(["phase by phase", "place by place", "there and back", "in blocks"]),
    seed=st.integers(0, 10**6),
)
def test_phases_of_a_4d_series_are_stacks_of_their_own(
    phases: int, count: int, numbering: str, seed: int
) -> None:
    """Every position equally often: volumes of other times, and a bad one hides in none of them."""

    def number(phase: int, place: int) -> int:
        if numbering == "place by place":
            return place * phases + phase
        if numbering == "there and back" and phase % 2:
            return phase * count + count - 1 - place
        if numbering == "in blocks" and place >= count // 2:
            return phases * count + phase * count + place
        return phase * count + place

    made = [
        one_slice(number(phase, place), 2.5 * place, body_part=f"PHASE {phase}")
        for phase in range(phases)
        for place in range(count)
    ]

    found = stacks(random.Random(seed).sample(made, len(made)))

    assert [{one.body_part for one in stack.slices} for stack in found] == [
        {f"PHASE {phase}"} for phase in range(phases)
    ]
    assert {(len(stack.slices), stack.gaps, stack.repeated) for stack in found} == {(count, 0, 0)}


@pytest.mark.parametrize("phases", [2, 10])
def test_phase_that_lacks_a_slice_is_said(phases: int) -> None:
    """Positions are not held equally often then: nothing tells which slice is whose."""
    made = [
        one_slice(phase * 20 + index, 2.5 * index) for phase in range(phases) for index in range(20)
    ]

    [stack] = stacks(made[:-1])

    assert (len(stack.slices), stack.repeated) == (phases * 20 - 1, phases * 20 - 1 - 20)


@pytest.mark.parametrize(
    "numbers_of",
    [
        {"good": range(1, 7), "bad": range(1, 7)},  # counted anew
        {"good": [None] * 6, "bad": [None] * 6},
        {"good": [1, 8, 3, 10, 5, 12], "bad": [9, 2, 7, 4, 11, 6]},  # in no order along the normal
    ],
)
def test_phases_that_the_numbers_do_not_tell_are_not_guessed(
    numbers_of: dict[str, list[int | None]],
) -> None:
    """They stay together, and that positions are held more than once is said."""
    made = [
        one_slice(0, 5.0 * place, instance_number=number, instance=ref(f"1.{name}.{place}"))
        for name, numbers in numbers_of.items()
        for place, number in enumerate(numbers)
    ]

    [stack] = stacks(made)

    assert (len(stack.slices), stack.repeated) == (12, 6)


def test_one_place_many_times_is_no_volume() -> None:
    """The slices that watch for contrast lie all in one place."""
    [stack] = stacks([one_slice(number, 50.0) for number in range(8)])

    assert (len(stack.slices), stack.repeated, stack.spacing_mm) == (8, 7, None)


def test_gap_in_a_4d_series_is_seen() -> None:
    """A position that lacks in all phases is missing as it would be in one."""
    made = [
        one_slice(phase * 20 + index, 2.5 * index)
        for phase in range(3)
        for index in range(20)
        if index != 7
    ]

    assert [(1, 0)] * 3 == [(stack.gaps, stack.repeated) for stack in stacks(made)]


# --------------------------------------------------------------------------- what belongs together


@pytest.mark.parametrize(
    "other",
    [
        {"acquisition": "2"},
        {"kernel": "B70f"},
        {"rows": 256},
        {"orientation": CORONAL},
        {"image_type": LOCALIZER},
        {"image_type": REFORMAT},
        {"frame_of_reference": "1.2.3"},
        {"pixel_spacing_mm": (0.35, 0.35)},
        {"slice_thickness_mm": 1.0},
        {"kvp": 80.0},
        {"stack_id": "2"},
        {"temporal_position": 2},
    ],
)
def test_what_differs_in_a_stacks_key_is_a_stack_of_its_own(other: dict[str, object]) -> None:
    """A localizer, a reformat, another volume or a second helical run is summed up apart."""
    made = [one_slice(1, 0.0), one_slice(2, 5.0), replace(one_slice(3, 10.0), **other)]

    assert [2, 1] == [len(stack.slices) for stack in stacks(made)]


def test_localizer_among_the_slices_makes_no_gap() -> None:
    """Its place, far off or between two slices, is none of the stack's."""
    made = [one_slice(number, 5.0 * number) for number in range(10)]
    localizers = [one_slice(20, 300.0, image_type=LOCALIZER), one_slice(21, 12.5, CORONAL)]

    found = stacks([*localizers, *made])

    assert [10, 1, 1] == [len(stack.slices) for stack in found]
    assert (found[0].gaps, found[0].repeated) == (0, 0)


@pytest.mark.parametrize(
    "written",
    [
        {"kernel": ["STANDARD", "Standard"]},
        {"pixel_spacing_mm": [(0.9765625, 0.9765625), (0.976563, 0.976563)]},
        {"pixel_spacing_mm": [(0.7125, 0.7125), (0.71249999, 0.71250001)]},
        {"slice_thickness_mm": [0.75, 0.7501, 0.7499]},
        {"kvp": [120.0, 119.9]},
        {"temporal_position": range(1, 13)},
        {"stack_id": [str(number) for number in range(12)]},
    ],
)
def test_one_value_written_in_two_ways_is_one_stack(written: dict[str, list[object]]) -> None:
    """Rounding, case, and marks that are another on every slice tell no volumes apart."""
    [(name, values)] = written.items()
    made = [
        one_slice(number, 5.0 * number, **{name: values[number % len(values)]})
        for number in range(12)
    ]

    [stack] = stacks(made)

    assert (len(stack.slices), stack.gaps, stack.repeated) == (12, 0, 0)


@settings(deadline=None, max_examples=40)
@given(silent=st.sets(st.integers(1, 10), max_size=8))
@pytest.mark.parametrize(
    "mark",
    [
        {"acquisition": "1"},
        {"kernel": "STANDARD"},
        {"frame_of_reference": "1.2"},
        {"pixel_spacing_mm": (0.7, 0.7)},
        {"slice_thickness_mm": 5.0},
        {"kvp": 120.0},
    ],
)
def test_slice_that_says_nothing_is_as_its_neighbours(
    mark: dict[str, object], silent: set[int]
) -> None:
    """What some slices leave out, and those before and after them state, makes no second stack."""
    nothing = dict.fromkeys(mark, None)
    made = [
        one_slice(number, 5.0 * number, **(nothing if number in silent else mark))
        for number in range(12)
    ]

    [stack] = stacks(made)

    assert (len(stack.slices), stack.gaps, stack.spacing_mm) == (12, 0, 5.0)
    assert (stack.acquisition, stack.kernel) == (
        mark.get("acquisition", BASE.acquisition),
        mark.get("kernel", BASE.kernel),
    )


def test_run_without_a_number_stays_a_stack_of_its_own() -> None:
    """It is not that of its neighbours, which differ, or are on one side only."""
    runs = ["1", None, "2", None]
    made = [
        one_slice(10 * run + index, 50.0 * run + 5.0 * index, acquisition=number)
        for run, number in enumerate(runs[:2] + runs[:1])
        for index in range(10)
    ]

    assert [30] == [len(stack.slices) for stack in stacks(made)]
    assert [10, 10] == [len(stack.slices) for stack in stacks(made[:20])]


# --------------------------------------------------------------------------- step and shoot


def rotations_of(
    count: int, per_rotation: int, *, shared: int = 0, spacing: float = 5.0, **other: object
) -> list[SliceGeometry]:
    """A scan of so many rotations, each of which shares its first places with the one before."""
    return [
        one_slice(
            rotation * per_rotation + index,
            spacing * (rotation * (per_rotation - shared) + index),
            acquisition=str(rotation + 1),
            **other,
        )
        for rotation in range(count)
        for index in range(per_rotation)
    ]


@pytest.mark.parametrize("per_rotation", [1, 4])
def test_rotations_of_a_sequence_are_one_stack(per_rotation: int) -> None:
    """Scan, move the table, scan: each rotation has an acquisition number of its own."""
    made = rotations_of(6, per_rotation)[: 6 * per_rotation - per_rotation // 2]

    [stack] = stacks(made)

    assert (stack.acquisition, len(stack.slices)) == ("1-6", len(made))
    assert (stack.gaps, stack.repeated, stack.spacing_mm) == (0, 0, 5.0)


@settings(deadline=None, max_examples=100)
@given(
    count=st.integers(5, 12),
    per_rotation=st.integers(1, 8),
    is_upwards=st.booleans(),
    data=st.data(),
)
def test_lost_slice_of_a_sequence_is_a_gap_and_nothing_else(
    count: int, per_rotation: int, is_upwards: bool, data: st.DataObject
) -> None:
    """The verdict must not depend on whether an image got lost, but its confidence does."""
    total = count * per_rotation
    lost = data.draw(st.integers(1, total - 2), "lost")
    made = rotations_of(count, per_rotation, spacing=2.5 if is_upwards else -2.5)

    [stack] = stacks(made[:lost] + made[lost + 1 :])

    assert (stack.acquisition, len(stack.slices)) == (f"1-{count}", total - 1)
    assert (stack.gaps, stack.repeated) == (1, 0)


def test_lost_rotation_is_a_gap_of_the_sequence() -> None:
    """Its number lacks too: the table went on as far as it would have."""
    made = [one for one in rotations_of(12, 8) if one.acquisition not in ("4", "5")]

    [stack] = stacks(made)

    assert (stack.acquisition, stack.gaps, len(stack.slices)) == ("1-12", 1, 80)


def test_numbers_of_any_size_are_acquisitions() -> None:
    """As an Integer String may hold them that nobody checked."""
    made = [one_slice(n, 5.0 * n, acquisition=str(int(1.7e308) * (n - 1))) for n in range(3)]

    assert [3] == [len(stack.slices) for stack in stacks(made)]


def test_rotations_that_share_a_place_are_one_stack() -> None:
    """As wide detectors scan; that places are held twice is said."""
    [stack] = stacks(rotations_of(6, 8, shared=1))

    assert (stack.acquisition, stack.gaps, stack.repeated) == ("1-6", 0, 5)


def test_rotation_scanned_again_is_a_stack_of_its_own() -> None:
    """Whatever it was repeated for, it does not break up the others."""
    made = rotations_of(6, 8)
    again = [
        replace(one, acquisition="7", instance=ref(f"2.{one.instance_number}"), instance_number=99)
        for one in made
        if one.acquisition == "3"
    ]

    assert [("1-6", 48, 0), ("7", 8, 0)] == [
        (stack.acquisition, len(stack.slices), stack.repeated) for stack in stacks(made + again)
    ]


def test_phases_of_a_sequence_are_one_stack_each() -> None:
    """Where each rotation holds its positions twice."""
    made = rotations_of(6, 8)
    later = [
        replace(one, instance=ref(f"2.{one.instance_number}"), instance_number=100 + number)
        for number, one in enumerate(made)
    ]

    assert [("1-6", 48, 0)] * 2 == [
        (stack.acquisition, len(stack.slices), stack.repeated) for stack in stacks(made + later)
    ]


@pytest.mark.parametrize("lengths", [(16, 16), (16, 9), (9, 16)])
def test_two_rotations_are_a_sequence_if_the_header_says_so(lengths: tuple[int, int]) -> None:
    """Two acquisitions end to end may be two helical runs: one that is bad must not be averaged."""
    made = [
        one_slice(number, 2.5 * number, acquisition="1" if number < lengths[0] else "2")
        for number in range(sum(lengths))
    ]

    assert [*lengths] == [len(stack.slices) for stack in stacks(made)]
    stepped = stacks([replace(one, is_stepped=True) for one in made])
    assert [("1-2", sum(lengths))] == [(one.acquisition, len(one.slices)) for one in stepped]


@pytest.mark.parametrize("is_stepped", [False, True])
@pytest.mark.parametrize(
    "acquisitions",
    [
        {"1": (0, 10), "2": (0, 10), "3": (0, 10)},  # phases of contrast
        {"1": (0, 10), "2": (8, 18), "3": (16, 26)},  # runs that overlap
        {"1": (0, 10), "2": (30, 40), "3": (60, 70)},  # runs with nothing between
        {"1": (0, 10), "300": (300, 310), "600": (600, 610)},  # numbers far from each other too
        {"1": (0, 40), "2": (40, 80), "3": (80, 120)},  # longer than any detector
    ],
)
def test_runs_over_or_far_from_each_other_are_never_one_stack(
    acquisitions: dict[str, tuple[int, int]], is_stepped: bool
) -> None:
    """Whatever the header says of the table."""
    places = [(name, place) for name, run in acquisitions.items() for place in range(*run)]
    made = [
        one_slice(number, 5.0 * place, acquisition=name, is_stepped=is_stepped)
        for number, (name, place) in enumerate(places)
    ]

    assert list(acquisitions) == [stack.acquisition for stack in stacks(made)]


@pytest.mark.parametrize(
    "acquisitions",
    [
        {"1": (0, 10), "2": (10, 20)},  # two runs end to end
        {"1": (0, 10), "2": (5, 15), "3": (15, 25)},  # runs that overlap
        {"1": (0, 10), "2": (20, 30), "3": (40, 50)},  # runs with nothing between
        {"1": (0, 30), "2": (30, 40), "3": (40, 47)},  # runs of different lengths
        {"1": (0, 30), "2": (30, 50), "3": (50, 80)},
    ],
)
def test_runs_of_their_own_stay_stacks_of_their_own(
    acquisitions: dict[str, tuple[int, int]],
) -> None:
    """Only equal pieces, three or more, side by side are one sequence without the header's word."""
    places = [(name, place) for name, run in acquisitions.items() for place in range(*run)]
    made = [
        one_slice(number, 5.0 * place, acquisition=name)
        for number, (name, place) in enumerate(places)
    ]

    assert list(acquisitions) == [stack.acquisition for stack in stacks(made)]


@settings(deadline=None, max_examples=200)
@given(
    runs=st.lists(st.tuples(st.integers(0, 60), st.integers(2, 20)), min_size=2, max_size=6),
    is_stepped=st.booleans(),
)
def test_no_stack_joins_runs_of_one_place(runs: list[tuple[int, int]], is_stepped: bool) -> None:
    """A bad run would vanish in the median of both."""
    made = [
        one_slice(
            100 * run + index, 5.0 * (start + index), acquisition=str(run), is_stepped=is_stepped
        )
        for run, (start, count) in enumerate(runs)
        for index in range(count)
    ]

    for stack in stacks(made):
        held: dict[str | None, set[float | None]] = {}
        for one in stack.slices:
            held.setdefault(one.acquisition, set()).add(one.position_mm)
        assert all(len(a & b) <= 1 for a, b in combinations(held.values(), 2))
        assert is_stepped or len(held) != 2


# --------------------------------------------------------------------------- real series


@pytest.mark.station
def test_three_acquisitions_under_one_series_are_three_stacks(shared_data: Path) -> None:
    """RIDER holds 47, 10 and 7 slices of three helical runs; one position occurs in two of them."""
    files = sorted((shared_data / "series" / "RIDER-Pilot-0109").glob("*.dcm"))

    found = stacks(one for f in files for one in slices_of(ref(f.name), read_dataset(f)))

    assert [47, 10, 7] == [len(stack.slices) for stack in found]
    assert {(stack.orientation, stack.spacing_mm) for stack in found} == {("AXIAL", 5.0)}
    assert [0, 0, 0] == [stack.gaps + stack.repeated for stack in found]


@pytest.mark.station
def test_tilted_phantom_is_axial_with_spacing_along_its_normal(shared_data: Path) -> None:
    """2.5 mm of table feed under a tilt of 18.5 degrees are 2.37 mm along the normal."""
    folder = shared_data / "series" / "dcm_qa_ct-PLASTIC-head-phantom" / "tilt-minus18"

    [stack] = stacks(
        one for f in folder.iterdir() for one in slices_of(ref(f.name), read_dataset(f))
    )

    assert stack.orientation == "AXIAL"
    assert stack.spacing_mm == pytest.approx(2.5 * math.cos(math.radians(18.5)), abs=1e-3)
