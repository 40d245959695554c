from __future__ import annotations

import csv
import hashlib
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset

from tests.slices.ct_images import ct, enhanced, reason_of, stored
from tfkt_node.records import FloatArray, Reason, SetAside
from tfkt_node.settings import Limits
from tfkt_node.slices.decoding import decode_hu, raw_hu, read_dataset

KNOWN_HU = {
    "ctimage": "9604c1e4d214cc57439ad4245112231dcca532abb049f337f26130550db1048b",
    "nema-ct1": "060ec848de42d7138db08716fe5af98f600a51703c4b0e61d29d23cc903a30b0",
}
LOSSY_MAXIMUM_AND_MEAN_HU = {
    "JPEG2000TransferSyntax": (5, 0.58),
    "HTJ2KTransferSyntax": (14, 1.83),
    "JPEGLSLossyTransferSyntax": (1, 0.70),
    "JPEGProcess10_12TransferSyntax": (36, 3.85),
    "JPEGProcess1TransferSyntax": (65, 19.9),
    "JPEGProcess2_4TransferSyntax": (36, 3.85),
    "JPEGProcess6_8TransferSyntax": (36, 3.85),
    "JPEGXLTransferSyntax": (91, 7.4),
    "CT1_J2KI": (352, 26.0),
    "CT1_JLSN": (4, 2.2),
}


# --------------------------------------------------------------------------- known answers


@pytest.mark.station
@pytest.mark.parametrize("folder", sorted(KNOWN_HU))
def test_each_lossless_syntax_gives_the_known_hounsfield_array(
    shared_data: Path, folder: str
) -> None:
    """Whatever the transfer syntax, the same slice has the same HU, bit for bit."""
    files = sorted((shared_data / "zoo" / "one-slice" / folder).iterdir())
    lossless = [one for one in files if not is_lossy(one)]

    digests = {one.name: hu_digest(one) for one in lossless}

    assert len(lossless) == {"ctimage": 12, "nema-ct1": 7}[folder]
    assert {name: KNOWN_HU[folder] for name in digests} == digests


@pytest.mark.station
@pytest.mark.parametrize("folder", sorted(KNOWN_HU))
def test_each_lossy_syntax_stays_within_its_stated_loss(shared_data: Path, folder: str) -> None:
    """A lossy file is off by no more than the loss measured for it."""
    files = sorted((shared_data / "zoo" / "one-slice" / folder).iterdir())
    original = next(one for one in files if "LittleEndianExplicit" in one.name or "UNC" in one.name)
    exact = raw_hu(read_dataset(original, pixels=True))

    for file in filter(is_lossy, files):
        loss = np.abs(raw_hu(read_dataset(file, pixels=True)) - exact)
        known = next(loss for name, loss in LOSSY_MAXIMUM_AND_MEAN_HU.items() if name in file.name)
        assert (loss.max(), loss.mean()) <= known, file.name
        assert loss.mean() <= known[1], file.name


def is_lossy(file: Path) -> bool:
    return any(name in file.name for name in LOSSY_MAXIMUM_AND_MEAN_HU)


def hu_digest(file: Path) -> str:
    return hashlib.sha256(raw_hu(read_dataset(file, pixels=True)).astype("<f4")).hexdigest()


@pytest.mark.station
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("ok-explicit", None),
        ("unsigned-12of16-intercept-1024", None),
        ("unsigned-12of16-garbage-upper-nibble", None),
        ("monochrome1", None),
        ("ok-bigendian", None),
        ("ok-deflated", None),
        ("rle-good", None),
        ("rle-two-fragments", None),
        ("wrong-offset-table", None),
        ("highbit-15-stored-12", None),
        ("allocated-32", None),
        ("slope-nan", Reason.NO_RESCALE),
        ("slope-inf", Reason.NO_RESCALE),
        ("slope-zero", Reason.NO_RESCALE),
        ("slope-negative", Reason.NO_RESCALE),
        ("slope-1e-300", Reason.NO_RESCALE),
        ("slope-text", Reason.NO_RESCALE),
        ("slope-two-values", Reason.NO_RESCALE),
        ("no-rescale", Reason.NO_RESCALE),
        ("no-slope", Reason.NO_RESCALE),
        ("allocated-8", Reason.NO_RESCALE),
        ("rescale-type-us", Reason.NOT_HU),
        ("rgb-ct", Reason.UNDECODABLE),
        ("samples-4", Reason.UNDECODABLE),
        ("no-photometric", Reason.UNDECODABLE),
        ("no-bits", Reason.UNDECODABLE),
        ("no-rows", Reason.UNDECODABLE),
        ("rows-0", Reason.UNDECODABLE),
        ("stored-17-of-16", Reason.UNDECODABLE),
        ("pixel-representation-7", Reason.UNDECODABLE),
        ("frames-0", Reason.UNDECODABLE),
        ("frames-2147483647", Reason.UNDECODABLE),
        ("two-frames-in-ct-class", Reason.UNDECODABLE),
        ("pixels-one-row-short", Reason.UNDECODABLE),
        ("pixels-one-row-long", Reason.UNDECODABLE),
        ("pixels-one-byte-short", Reason.UNDECODABLE),
        ("truncated-third", Reason.UNDECODABLE),
        ("truncated-before-pixels", Reason.NO_PIXELS),
        ("no-pixel-data", Reason.NO_PIXELS),
        ("pixels-empty", Reason.NO_PIXELS),
        ("float-pixels", Reason.NO_PIXELS),
        ("double-pixels", Reason.NO_PIXELS),
        ("declared-65535-square", Reason.UNDECODABLE),
        ("j2k-huge-siz", Reason.UNDECODABLE),
        ("j2k-garbage", Reason.UNDECODABLE),
        ("jpeg-lossless-header-65535", Reason.UNDECODABLE),
        ("jpegls-garbage", Reason.UNDECODABLE),
        ("ts-jpip", Reason.UNDECODABLE),
        ("ts-private-ge", Reason.UNDECODABLE),
        ("no-sequence-delimiter", Reason.UNDECODABLE),
        ("nested-2000", Reason.UNREADABLE),
        ("deflate-cut", Reason.UNREADABLE),
        ("zero-length", Reason.UNREADABLE),
    ],
)
def test_odd_file_gives_the_phantom_exactly_or_its_reason(
    shared_data: Path, name: str, reason: Reason | None
) -> None:
    """HU are given where they are beyond doubt, and then exactly; else one stated reason (P6)."""
    made = shared_data / "zoo" / "made"

    hu = hu_or_reason(made / f"{name}.dcm")

    if reason is not None:
        assert hu is reason
        return
    expected = hu_or_reason(made / "ok-explicit.dcm")
    assert isinstance(expected, np.ndarray)
    if name == "highbit-15-stored-12":  # made of values cut to 12 bits
        expected = expected.clip(-1024, 3071)
    np.testing.assert_array_equal(hu, expected)


def hu_or_reason(path: Path) -> FloatArray | Reason:
    try:
        return decode_hu(read_dataset(path, pixels=True, limits=Limits(inflated_mb=64)))
    except SetAside as error:
        return error.reason


@pytest.mark.station
def test_no_file_of_the_zoo_ends_in_anything_but_pixels_or_a_reason(shared_data: Path) -> None:
    """Every file, sound, broken or hostile, gives finite HU or SetAside, whatever its class."""
    with (shared_data / "zoo" / "MANIFEST.csv").open(encoding="utf-8") as manifest:
        paths = [row["path"] for row in csv.DictReader(manifest)]

    for path in paths:
        hu = hu_or_reason(shared_data / "zoo" / path)
        assert isinstance(hu, Reason) or np.isfinite(hu).all(), path


# --------------------------------------------------------------------------- Hounsfield units


def test_rescale_of_each_frame_wins_over_a_shared_one() -> None:
    """Enhanced CT: every frame has the HU of its own Pixel Value Transformation."""
    values = np.array([1000, 1200, 1400], dtype=np.int16).reshape(3, 1, 1)
    ds = enhanced(values, [(1, -1024), (0.5, -1024), (2, -1024)], [0, 5, 10])

    hu = [decode_hu(ds, frame).item() for frame in (1, 2, 3)]

    assert [-24, -424, 1776] == hu


def test_own_group_of_a_frame_wins_over_the_shared_one() -> None:
    """A shared rescale holds for the frames without one of their own (PS3.3 C.7.6.16)."""
    ds = enhanced(np.zeros((2, 1, 1), dtype=np.int16), [(1, -5), (1, -5)], [0, 5])
    shared = ct().copy()
    shared.RescaleIntercept = -7
    ds.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence = [shared]
    del ds.PerFrameFunctionalGroupsSequence[1].PixelValueTransformationSequence

    assert [-5, -7] == [decode_hu(ds, frame).item() for frame in (1, 2)]


def test_frame_without_any_rescale_is_not_scored() -> None:
    """A slope is never borrowed from another frame."""
    ds = enhanced(np.zeros((2, 1, 1), dtype=np.int16), [(1, 0), (1, 0)], [0, 5])
    del ds.PerFrameFunctionalGroupsSequence[1].PixelValueTransformationSequence

    assert decode_hu(ds, 1).item() == 0
    assert reason_of(ds, 2)[0] is Reason.NO_RESCALE


@pytest.mark.parametrize(
    ("padding", "limit", "expected"),
    [
        (-2000, None, [-1000, -1400, 40]),
        (64136, None, [-1000, -1000, 40]),  # -1400 written as an unsigned number
        (-2000, -1400, [-1000, -1000, 40]),
        (-1400, -2000, [-1000, -1000, 40]),
        (40, None, [-1000, -1400, 40]),  # tissue, and not at the corners
        (None, None, [-1000, -1400, 40]),
    ],
)
def test_padding_and_what_lies_outside_the_field_become_air(
    padding: int | None, limit: int | None, expected: list[float]
) -> None:
    """Padding is air in the scored image, whatever the sign its VR gives it."""
    ds = ct(stored(-2000, -1400, 40))
    if padding is not None:
        ds.add_new("PixelPaddingValue", "US" if padding > 0 else "SS", padding)
    if limit is not None:
        ds.add_new("PixelPaddingRangeLimit", "SS", limit)

    assert expected == decode_hu(ds).ravel().tolist()
    assert [-2000, -1400, 40] == raw_hu(ds).ravel().tolist()


def test_padding_of_any_value_is_air_where_the_corners_hold_it() -> None:
    """White padding outside the circle is no bone; single pixels of its value are."""
    values = np.array([[3071, 40, 3071], [40, 3071, 40], [3071, 40, 3071]], dtype=np.int16)
    ds = ct(values, RescaleIntercept=0)
    ds.add_new("PixelPaddingValue", "SS", 3071)
    bone = ct(values[1:, 1:], RescaleIntercept=0)
    bone.add_new("PixelPaddingValue", "SS", 3071)

    assert {-1000, 40} == set(decode_hu(ds).ravel().tolist())
    assert {3071, 40} == set(decode_hu(bone).ravel().tolist())


def test_values_that_cannot_hold_hounsfield_units_have_no_rescale() -> None:
    """Unsigned values with intercept 0 never reach air: counts or a screen, not HU."""
    reason, detail = reason_of(ct(stored(0, dtype="u2"), RescaleIntercept=0))

    assert (reason, detail) == (
        Reason.NO_RESCALE,
        "the rescaled values cannot hold Hounsfield units",
    )


@pytest.mark.parametrize("slope", [4, 10, 1e20, 1e36, 1e308])
def test_slope_beyond_any_scanner_is_no_rescale(slope: float) -> None:
    """P6: a score of values that are ten or 1e36 times too large would be invented."""
    ds = ct(stored(-1000, 40), RescaleSlope=slope, RescaleIntercept=0)

    assert reason_of(ds) == (
        Reason.NO_RESCALE,
        "the rescaled values cannot hold Hounsfield units",
    )


@pytest.mark.parametrize(
    ("dtype", "bits", "slope", "intercept"),
    [
        ("u1", 8, "32.1216", -4047),  # lossy JPEG of 8 bits
        ("u2", 12, "2.0002442", -4047),
        ("u2", 12, "10", -10240),  # the extended scale for metal
        ("i2", 16, "2.5", -3024),
        ("u2", 16, "2", -1024),
        ("u2", 16, "0.25", -1024),
        ("i4", 32, "1", 0),
    ],
)
def test_slope_that_scanners_write_is_taken(
    dtype: str, bits: int, slope: str, intercept: int
) -> None:
    """The ceiling of the rescale leaves every honest header alone."""
    ds = ct(
        stored(0, 100, dtype=dtype),
        BitsStored=bits,
        HighBit=bits - 1,
        RescaleSlope=slope,
        RescaleIntercept=intercept,
    )

    expected = [intercept, np.float32(100 * float(slope) + intercept)]
    assert expected == raw_hu(ds).ravel().tolist()


def test_value_that_nothing_has_is_no_rescale() -> None:
    """32 bits with slope 1 may hold Hounsfield units, and may hold 2e9, which are none."""
    assert reason_of(ct(stored(-1000, 2_000_000_000, dtype="i4")))[0] is Reason.NO_RESCALE


def test_negative_values_read_as_unsigned_are_no_hounsfield_units() -> None:
    """A Pixel Representation that lies turns air of -1000 into 64536: nothing measures that."""
    ds = ct(stored(-1000, 40), PixelRepresentation=0, RescaleIntercept=-1024)

    assert reason_of(ds)[0] is Reason.NO_RESCALE


def test_modality_lut_is_not_taken_for_a_rescale() -> None:
    """Its output is unsigned and holds no air; beside a rescale, one of the two is wrong."""
    lut = Dataset()
    lut.LUTDescriptor, lut.ModalityLUTType = [4096, 0, 16], "HU"
    alone = ct(RescaleSlope=None, RescaleIntercept=None, ModalityLUTSequence=[lut])
    beside = ct(ModalityLUTSequence=[lut])

    for ds in (alone, beside):
        assert reason_of(ds) == (
            Reason.NO_RESCALE,
            "a Modality LUT stands in place of the rescale",
        )


@pytest.mark.parametrize(
    ("unit", "rescale_type", "reason"),
    [
        ("mg/mL", None, Reason.NOT_HU),  # an iodine map
        ("mg/mL", "HU", None),  # the rescale says what it is itself
        ("[hnsf'U]", None, None),
        ("HU", None, None),
        (None, "HU_MOD", Reason.NOT_HU),
        (None, "Z_EFF", Reason.NOT_HU),
        (None, ["Z_EFF", "US"], Reason.NOT_HU),
        (None, ["MGML", "HU"], Reason.NOT_HU),
        (None, "normalized", Reason.NOT_HU),
        (None, "", None),
        (None, "HU\r\n", None),
        (None, "Hounsfield Units", None),
    ],
)
def test_values_in_other_units_are_no_hounsfield_units(
    unit: str | None, rescale_type: str | list[str] | None, reason: Reason | None
) -> None:
    """By Rescale Type, and without one by Real World Value Mapping, of the object or its frames."""
    single = ct(RescaleType=rescale_type)
    frames = enhanced(np.zeros((1, 4, 4), dtype=np.int16), [(1, 0)], [0])
    value = frames.PerFrameFunctionalGroupsSequence[0].PixelValueTransformationSequence[0]
    value.RescaleType = rescale_type
    if unit is not None:
        mapping, code = Dataset(), Dataset()
        code.CodeValue, code.CodingSchemeDesignator = unit, "UCUM"
        mapping.MeasurementUnitsCodeSequence = [code]
        single.RealWorldValueMappingSequence = [mapping]
        shared = frames.SharedFunctionalGroupsSequence[0]
        shared.RealWorldValueMappingSequence = [mapping]

    for ds, frame in ((single, None), (frames, 1)):
        if reason is None:
            assert decode_hu(ds, frame).shape == (4, 4)
        else:
            assert reason_of(ds, frame)[0] is reason


def test_units_that_cannot_be_read_are_no_hounsfield_units() -> None:
    """P6: a Rescale Type or a Modality LUT under another VR is there, and says something."""
    typed, looked_up = ct(RescaleType=None), ct()
    typed.add_new("RescaleType", "OB", b"Z_EFF ")
    looked_up.add_new("ModalityLUTSequence", "OB", b"a table ")

    assert reason_of(typed) == (Reason.NOT_HU, "Rescale Type is not HU")
    assert reason_of(looked_up)[0] is Reason.NO_RESCALE
    looked_up.ModalityLUTSequence = []  # an empty sequence is none
    assert (decode_hu(looked_up) == -1024).all()


def test_water_of_the_value_of_padding_stays_water() -> None:
    """0 around the field is padding, and 0 within the patient is water, down to the last pixel."""
    values = np.full((8, 8), 40, dtype=np.int16)
    values[[0, 0, -1, -1], [0, -1, 0, -1]] = 0
    values[0, 1] = values[1, 0] = values[4, 4] = values[4, 0] = 0
    ds = ct(values, RescaleIntercept=0)
    ds.add_new("PixelPaddingValue", "SS", 0)

    hu = decode_hu(ds)

    assert [-1000] * 6 == [hu[at] for at in ((0, 0), (0, 1), (1, 0), (0, 7), (7, 0), (7, 7))]
    assert [0, 0] == [hu[4, 4], hu[4, 0]]


def test_padding_wider_than_the_stored_bits_is_found_in_the_whole_cell() -> None:
    """-3024 needs more than 12 bits: cut to them it would be 1072, as bright as bone."""
    ds = ct(stored(-3024, -1000, 40), BitsStored=12, HighBit=11)
    ds.add_new("PixelPaddingValue", "SS", -3024)

    assert [-1000, -1000, 40] == decode_hu(ds).ravel().tolist()


def test_padding_that_nothing_measures_does_not_withhold_the_image() -> None:
    """63536 is -2000 for a scanner that writes unsigned values, and stands around the circle."""
    values = np.full((6, 6), 1064, dtype=np.uint16)
    values[[0, 0, -1, -1], [0, -1, 0, -1]] = 63536
    ring = values.copy()
    ring[0, 0] = 1064  # not at every corner: still nothing else can be so bright
    for pixels in (values, ring):
        ds = ct(pixels, RescaleIntercept=-1024)
        assert reason_of(ds)[0] is Reason.NO_RESCALE
        ds.add_new("PixelPaddingValue", "US", 63536)

        assert {-1000, 40} == set(decode_hu(ds).ravel().tolist())


@pytest.mark.parametrize(("vr", "number"), [("FD", -1024.0), ("FL", -1024.0), ("SS", -1024)])
def test_rescale_in_a_binary_vr_is_taken_as_it_is_written(
    tmp_path: Path, vr: str, number: float
) -> None:
    """Not what the standard asks for, but a number, and no doubt which."""
    ds = ct(stored(1064, dtype="u2"))
    ds.add_new("RescaleIntercept", vr, number)
    path = tmp_path / "ct.dcm"
    ds.save_as(path, enforce_file_format=True, implicit_vr=False, little_endian=True)

    assert [40] == decode_hu(read_dataset(path, pixels=True)).ravel().tolist()


@pytest.mark.parametrize("frames", ["", None])
def test_empty_number_of_frames_is_none(frames: str | None) -> None:
    """What anonymisation has emptied is as good as absent: one frame."""
    ds = ct(stored(-1000, 40))
    ds.add_new("NumberOfFrames", "IS", frames)

    assert [-1000, 40] == decode_hu(ds).ravel().tolist()


def test_empty_pixel_data_are_no_pixels() -> None:
    """An element without a value holds nothing that could not be decoded."""
    assert reason_of(ct(PixelData=b"")) == (Reason.NO_PIXELS, "")


def test_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    """A file that left the spool is FILE_MISSING, not a broken one."""
    with pytest.raises(SetAside) as caught:
        read_dataset(tmp_path / "gone.dcm")

    assert caught.value.reason is Reason.FILE_MISSING
