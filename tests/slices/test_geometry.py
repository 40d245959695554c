from __future__ import annotations

import math

import numpy as np
import pytest
from pydicom.dataset import Dataset

from tests.slices.ct_images import ct, enhanced, ref
from tfkt_node.records import CT_IMAGE, ENHANCED_CT_IMAGE, Reason, SetAside
from tfkt_node.slices.geometry import plane, slices_of
from tfkt_node.slices.stacking import stacks

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)


def tilted(degrees: float) -> tuple[float, ...]:
    """Orientation under a gantry tilt: columns lean towards the feet."""
    angle = math.radians(degrees)
    return (1.0, 0.0, 0.0, 0.0, math.cos(angle), -math.sin(angle))


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


def test_marks_of_a_volume_are_read() -> None:
    """Frame of Reference, tube voltage, and what a frame is said to belong to."""
    single = ct(FrameOfReferenceUID="1.2.9", KVP="120", TemporalPositionIdentifier="3")
    frames = enhanced(np.zeros((2, 4, 4), dtype=np.int16), [(1, 0)] * 2, [0, 5], KVP="999")
    for number, frame in enumerate(frames.PerFrameFunctionalGroupsSequence, 1):
        content, tube = Dataset(), Dataset()
        content.StackID, content.TemporalPositionIndex = "A", number
        tube.KVP = 80.0 * number
        frame.FrameContentSequence, frame.CTXRayDetailsSequence = [content], [tube]

    slices = [*slices_of(ref(), single), *slices_of(ref(sop_class=ENHANCED_CT_IMAGE), frames)]

    assert [
        (one.frame_of_reference, one.kvp, one.stack_id, one.temporal_position) for one in slices
    ] == [("1.2.9", 120.0, None, 3), (None, 80.0, "A", 1), (None, 160.0, "A", 2)]


@pytest.mark.parametrize(
    ("attributes", "is_stepped"),
    [
        ({"AcquisitionType": "SEQUENCED"}, True),
        ({"AcquisitionType": "SPIRAL"}, False),
        ({"ScanOptions": "AXIAL MODE"}, True),
        ({"ScanOptions": ["FILTERED", "AXIAL"]}, True),
        ({"ScanOptions": "HELICAL MODE"}, False),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL", "CT_SOM5 SEQ"]}, True),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL", "CT_SOM5 SPI"]}, False),
        ({}, False),
    ],
)
def test_step_and_shoot_is_told_by_the_header(
    attributes: dict[str, object], is_stepped: bool
) -> None:
    """Each maker writes it elsewhere; AXIAL in Image Type says nothing of the table."""
    [one] = slices_of(ref(), ct(**attributes))

    assert one.is_stepped is is_stepped


def test_step_and_shoot_of_a_frame() -> None:
    """Acquisition Type stands in a functional group there."""
    ds = enhanced(np.zeros((2, 4, 4), dtype=np.int16), [(1, 0)] * 2, [0, 5])
    kind = Dataset()
    kind.AcquisitionType = "SEQUENCED"
    ds.PerFrameFunctionalGroupsSequence[1].CTAcquisitionTypeSequence = [kind]

    assert [False, True] == [
        one.is_stepped for one in slices_of(ref(sop_class=ENHANCED_CT_IMAGE), ds)
    ]


@pytest.mark.parametrize(
    ("frames", "reason"), [(30, Reason.NO_GEOMETRY), (2147483647, Reason.UNDECODABLE)]
)
def test_frames_that_are_not_described_are_not_placed(frames: int, reason: Reason) -> None:
    """Two thousand million frames with two descriptions take no memory and get a reason."""
    ds = enhanced(np.zeros((2, 4, 4), dtype=np.int16), [(1, 0)] * 2, [0, 5])
    ds.NumberOfFrames = frames

    with pytest.raises(SetAside) as caught:
        slices_of(ref(sop_class=ENHANCED_CT_IMAGE), ds)

    assert caught.value.reason is reason


def test_modality_that_contradicts_the_class_is_not_ct() -> None:
    """An MR image under the CT class is not scored; a missing Modality is unknown."""
    with pytest.raises(SetAside) as caught:
        slices_of(ref(), ct(Modality="MR"))

    assert caught.value.reason is Reason.NOT_CT
    assert len(slices_of(ref(), ct(Modality=None))) == 1


@pytest.mark.parametrize(
    ("meta", "reason"),
    [
        ({"MediaStorageSOPInstanceUID": "1.2.3.4"}, Reason.IDENTITY),
        ({"MediaStorageSOPClassUID": ENHANCED_CT_IMAGE}, Reason.IDENTITY),
        ({"MediaStorageSOPClassUID": CT_IMAGE, "MediaStorageSOPInstanceUID": "1.2.3"}, None),
    ],
)
def test_instance_that_was_sent_as_another_is_not_scored(
    meta: dict[str, str], reason: Reason | None
) -> None:
    """A report would name an instance that the archive knows by the other UID, or not at all."""
    ds = ct()
    for keyword, value in meta.items():
        setattr(ds.file_meta, keyword, value)

    if reason is None:
        assert len(slices_of(ref(), ds)) == 1
        return
    with pytest.raises(SetAside) as caught:
        slices_of(ref(), ds)
    assert caught.value.reason is reason


def test_another_class_sent_as_ct_is_not_ct() -> None:
    """The data set of an MR under the command of a CT."""
    ds = ct(SOPClassUID="1.2.840.10008.5.1.4.1.1.4", Modality=None)
    ds.file_meta.MediaStorageSOPClassUID = CT_IMAGE

    with pytest.raises(SetAside) as caught:
        slices_of(ref(), ds)

    assert caught.value.reason is Reason.NOT_CT


@pytest.mark.parametrize("colour", ["RGB", "YBR_FULL_422", "PALETTE COLOR"])
def test_colour_under_the_ct_class_is_a_screen_or_a_map(colour: str) -> None:
    """A rendering, a dose screen or a coloured map, whatever its Image Type says."""
    with pytest.raises(SetAside) as caught:
        slices_of(ref(), ct(PhotometricInterpretation=colour))

    assert caught.value.reason is Reason.DERIVED_SECONDARY
