"""Stacks: which slices belong together, in which order, and what is missing among them."""

from __future__ import annotations

import math
import random
from dataclasses import replace
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


@pytest.mark.parametrize("phases", [2, 10])
def test_phases_of_a_4d_series_repeat_nothing(phases: int) -> None:
    """Every position equally often: volumes of other times, complete each, and no doubt."""
    made = [
        one_slice(phase * 20 + index, 2.5 * index) for phase in range(phases) for index in range(20)
    ]

    [stack] = stacks(made)

    assert (stack.repeated, stack.gaps, stack.spacing_mm) == (0, 0, 2.5)
    assert stacks(made[:-1])[0].repeated == phases * 20 - 1 - 20


def test_gap_in_a_4d_series_is_seen() -> None:
    """A position that lacks in all phases is missing as it would be in one."""
    made = [
        one_slice(phase * 20 + index, 2.5 * index)
        for phase in range(3)
        for index in range(20)
        if index != 7
    ]

    assert [(1, 0)] == [(stack.gaps, stack.repeated) for stack in stacks(made)]


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
    ],
)
def test_what_differs_in_a_stacks_key_is_a_stack_of_its_own(other: dict[str, object]) -> None:
    """A localizer, a reformat or a second helical run is summed up apart."""
    made = [one_slice(1, 0.0), one_slice(2, 5.0), replace(one_slice(3, 10.0), **other)]

    assert [2, 1] == [len(stack.slices) for stack in stacks(made)]


def test_localizer_among_the_slices_makes_no_gap() -> None:
    """Its place, far off or between two slices, is none of the stack's."""
    made = [one_slice(number, 5.0 * number) for number in range(10)]
    localizers = [one_slice(20, 300.0, image_type=LOCALIZER), one_slice(21, 12.5, CORONAL)]

    found = stacks([*localizers, *made])

    assert [10, 1, 1] == [len(stack.slices) for stack in found]
    assert (found[0].gaps, found[0].repeated) == (0, 0)


@pytest.mark.parametrize("per_rotation", [1, 4])
def test_rotations_of_a_sequence_are_one_stack(per_rotation: int) -> None:
    """Scan, move the table, scan: each rotation has an acquisition number of its own."""
    made = [
        one_slice(number, 5.0 * number, acquisition=str(number // per_rotation + 1))
        for number in range(22)
    ]

    [stack] = stacks(made)

    assert (stack.acquisition, len(stack.slices)) == (f"1-{21 // per_rotation + 1}", 22)
    assert (stack.gaps, stack.repeated, stack.spacing_mm) == (0, 0, 5.0)


@pytest.mark.parametrize(
    "acquisitions",
    [
        {"1": (0, 10), "2": (10, 20)},  # two runs end to end
        {"1": (0, 10), "2": (0, 10), "3": (0, 10)},  # phases of contrast
        {"1": (0, 10), "2": (5, 15), "3": (15, 25)},  # runs that overlap
        {"1": (0, 10), "2": (20, 30), "3": (40, 50)},  # runs with nothing between
        {"1": (0, 30), "2": (30, 40), "3": (40, 47)},  # runs of different lengths
    ],
)
def test_runs_of_their_own_stay_stacks_of_their_own(
    acquisitions: dict[str, tuple[int, int]],
) -> None:
    """Only equal pieces, three or more, side by side and without a gap are one sequence."""
    places = [(name, place) for name, run in acquisitions.items() for place in range(*run)]
    made = [
        one_slice(number, 5.0 * place, acquisition=name)
        for number, (name, place) in enumerate(places)
    ]

    assert list(acquisitions) == [stack.acquisition for stack in stacks(made)]


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
