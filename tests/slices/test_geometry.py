from __future__ import annotations

import math
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from tests.slices.ct_images import ct, enhanced, ref
from tfkt_node.records import ENHANCED_CT_IMAGE, Reason, SetAside, SliceGeometry
from tfkt_node.slices.attributes import read_dataset
from tfkt_node.slices.geometry import normal, plane, slices_of, stacks

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)


def tilted(degrees: float) -> tuple[float, ...]:
    """Orientation under a gantry tilt: columns lean towards the feet."""
    angle = math.radians(degrees)
    return (1.0, 0.0, 0.0, 0.0, math.cos(angle), -math.sin(angle))


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


# --------------------------------------------------------------------------- planes


@pytest.mark.parametrize("degrees", [0, 15, -18.5, 30, 34.9])
def test_gantry_tilt_stays_axial(degrees: float) -> None:
    """Gantries tilt up to 30 degrees; such slices are axial CT."""
    assert plane(tilted(degrees)) == "AXIAL"


def test_other_planes_have_their_names() -> None:
    """Beyond 35 degrees from each axis a plane is oblique; unknown is unknown."""
    assert plane(CORONAL) == "CORONAL"
    assert plane(SAGITTAL) == "SAGITTAL"
    assert plane(tilted(45)) == "OBLIQUE"
    assert plane(None) == "UNKNOWN"


# --------------------------------------------------------------------------- one instance


def test_header_that_tells_nothing_gives_none_and_no_guess() -> None:
    """Missing or senseless geometry is None."""
    absent = ct(
        ImageOrientationPatient=None, ImagePositionPatient=None, PixelSpacing=None, ImageType=None
    )
    senseless = ct(ImageOrientationPatient=[1, 0, 0, 1, 0, 0], PixelSpacing=[0, 0])

    for ds in (absent, senseless):
        [one] = slices_of(ref(), ds)
        assert (one.orientation, one.position_mm, one.pixel_spacing_mm) == (None, None, None)
    assert slices_of(ref(), absent)[0].image_type == ()


def test_each_frame_of_an_enhanced_object_is_a_slice_of_its_own() -> None:
    """Frames take their own groups first, then the shared ones."""
    ds = enhanced(np.zeros((3, 4, 4), dtype=np.int16), [(1, 0)] * 3, [10, 0, 5])

    slices = slices_of(ref(sop_class=ENHANCED_CT_IMAGE), ds)
    [stack] = stacks(slices)

    assert [one.frame for one in slices] == [1, 2, 3]
    assert [one.frame for one in stack.slices] == [2, 3, 1]
    assert {one.pixel_spacing_mm for one in slices} == {(0.7, 0.8)}
    assert (stack.orientation, stack.spacing_mm, stack.gaps) == ("AXIAL", 5.0, 0)


def test_frame_type_of_a_frame_wins_over_the_image_type_of_the_object() -> None:
    """One object may hold a localizer or a projection beside its slices."""
    ds = enhanced(np.zeros((2, 4, 4), dtype=np.int16), [(1, 0)] * 2, [0, 5])
    kind = Dataset()
    kind.FrameType = ["DERIVED", "PRIMARY", "VOLUME", "NONE"]
    kind.VolumeBasedCalculationTechnique = "MAX_IP"
    ds.PerFrameFunctionalGroupsSequence[1].CTImageFrameTypeSequence = [kind]

    plain, projection = slices_of(ref(sop_class=ENHANCED_CT_IMAGE), ds)

    assert plain.image_type == ("ORIGINAL", "PRIMARY", "AXIAL")
    assert projection.image_type == ("DERIVED", "PRIMARY", "VOLUME", "NONE", "MAX_IP")


def dose(mgy: float, phantom: str | None) -> Dataset:
    exposure = Dataset()
    exposure.CTDIvol = mgy
    if phantom is not None:
        code = Dataset()
        code.CodeValue, code.CodingSchemeDesignator = phantom, "DCM"
        exposure.CTDIPhantomTypeCodeSequence = [code]
    return exposure


@pytest.mark.parametrize(
    ("mgy", "phantom", "read"),
    [
        (6.5, "113691", (6.5, 320.0)),
        (30.0, "113690", (30.0, 160.0)),
        (6.5, "113692", (6.5, None)),
        (6.5, None, (6.5, None)),
        (0.0, "113691", (None, 320.0)),
        (-1.0, "113691", (None, 320.0)),
    ],
)
def test_dose_is_read_with_its_phantom(
    mgy: float, phantom: str | None, read: tuple[float | None, float | None]
) -> None:
    """CTDIvol of 0 is a filler; a phantom that is not named is not guessed: it is a factor of 2."""
    single = ct()
    single.update(dose(mgy, phantom))
    frames = enhanced(np.zeros((2, 4, 4), dtype=np.int16), [(1, 0)] * 2, [0, 5])
    frames.SharedFunctionalGroupsSequence[0].CTExposureSequence = [dose(mgy, phantom)]

    slices = [*slices_of(ref(), single), *slices_of(ref(sop_class=ENHANCED_CT_IMAGE), frames)]

    assert [(one.ctdi_vol_mgy, one.ctdi_phantom_mm) for one in slices] == [read] * 3


def test_frames_that_are_not_described_are_not_placed() -> None:
    """Two thousand million frames with two descriptions take no memory and get a reason."""
    ds = enhanced(np.zeros((2, 4, 4), dtype=np.int16), [(1, 0)] * 2, [0, 5])
    ds.NumberOfFrames = 2147483647

    with pytest.raises(SetAside) as caught:
        slices_of(ref(sop_class=ENHANCED_CT_IMAGE), ds)

    assert caught.value.reason is Reason.NO_GEOMETRY


def test_modality_that_contradicts_the_class_is_not_ct() -> None:
    """An MR image under the CT class is not scored; a missing Modality is unknown."""
    with pytest.raises(SetAside) as caught:
        slices_of(ref(), ct(Modality="MR"))

    assert caught.value.reason is Reason.NOT_CT
    assert len(slices_of(ref(), ct(Modality=None))) == 1


# --------------------------------------------------------------------------- stacks


@settings(deadline=None)
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
    numbers = shuffler.sample(range(count), count)
    made = [
        one_slice(numbers[index], start + index * spacing, tilted(tilt)) for index in range(count)
    ]
    shuffled = shuffler.sample(made, count)

    [stack] = stacks(shuffled)

    assert [one.instance.sop_uid for one in made] == [one.instance.sop_uid for one in stack.slices]
    assert (stack.gaps, stack.repeated) == (0, 0)
    assert stack.spacing_mm == pytest.approx(spacing, abs=1e-3)


@settings(deadline=None)
@given(seed=st.integers(0, 10**6))
def test_stacks_do_not_depend_on_the_order_given(seed: int) -> None:
    """The same instances give the same stacks, in the same order."""
    made = [one_slice(number, 5.0 * number) for number in range(6)]
    made += [one_slice(10 + number, 5.0 * number, CORONAL) for number in range(3)]
    made += [one_slice(20 + number, 5.0 * number, kernel="B70f") for number in range(3)]

    assert stacks(made) == stacks(random.Random(seed).sample(made, len(made)))


@settings(deadline=None)
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


@pytest.mark.parametrize(
    "other", [{"acquisition": "2"}, {"kernel": "B70f"}, {"rows": 256}, {"orientation": CORONAL}]
)
def test_what_differs_in_a_stacks_key_is_a_stack_of_its_own(other: dict[str, object]) -> None:
    """A localizer, a reformat or a second helical run is summed up apart."""
    made = [one_slice(1, 0.0), one_slice(2, 5.0), replace(one_slice(3, 10.0), **other)]

    assert [2, 1] == [len(stack.slices) for stack in stacks(made)]


def test_stack_without_positions_keeps_the_order_of_instance_numbers() -> None:
    """Without geometry there is an order still, and no claim about gaps."""
    unknown = {"position_mm": None, "origin_mm": None}
    made = [replace(one_slice(number, 0.0, **unknown), orientation=None) for number in (3, 1, 2)]

    [stack] = stacks(made)

    assert [1, 2, 3] == [one.instance_number for one in stack.slices]
    assert (stack.orientation, stack.spacing_mm, stack.gaps) == ("UNKNOWN", None, 0)


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
