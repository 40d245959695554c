from __future__ import annotations

import csv
import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest
from pydicom.encaps import encapsulate

from tests.slices.ct_images import ct, enhanced
from tfkt_node.records import FloatArray, Reason, SetAside
from tfkt_node.slices.codecs import DECODERS, LOSSLESS, declared_size, decode
from tfkt_node.slices.decoding import decodable_syntaxes, decode_hu, raw_hu, read_dataset

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


def reason_of(ds: object, frame: int | None = None) -> tuple[Reason, str]:
    with pytest.raises(SetAside) as caught:
        decode_hu(ds, frame)
    return caught.value.reason, caught.value.detail


def stored(*values: int, dtype: str = "i2") -> np.ndarray:
    return np.array([values], dtype=dtype)


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
        ("pixels-empty", Reason.UNDECODABLE),
        ("float-pixels", Reason.NO_PIXELS),
        ("double-pixels", Reason.NO_PIXELS),
        ("declared-65535-square", Reason.UNDECODABLE),
        ("j2k-huge-siz", Reason.UNDECODABLE),
        ("j2k-garbage", Reason.UNDECODABLE),
        ("jpeg-lossless-header-65535", Reason.UNDECODABLE),
        ("jpegls-garbage", Reason.UNDECODABLE),
        ("ts-jpip", Reason.UNDECODABLE),
        ("ts-private-ge", Reason.UNDECODABLE),
        ("no-sequence-delimiter", Reason.UNREADABLE),
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
        return decode_hu(read_dataset(path, pixels=True))
    except SetAside as error:
        return error.reason


@pytest.mark.station
def test_no_file_of_the_zoo_ends_in_anything_but_pixels_or_a_reason(shared_data: Path) -> None:
    """Every file, sound, broken or hostile, gives finite HU or SetAside, whatever its class."""
    with (shared_data / "zoo" / "MANIFEST.csv").open(encoding="utf-8") as manifest:
        paths = [row["path"] for row in csv.DictReader(manifest)]

    for path in paths:
        if "deflate-bomb" in path:  # half a gigabyte; the scorer's memory limit is its test
            continue
        hu = hu_or_reason(shared_data / "zoo" / path)
        assert isinstance(hu, Reason) or np.isfinite(hu).all(), path


# --------------------------------------------------------------------------- stored values


def test_sign_is_extended_from_bits_stored() -> None:
    """A signed 12-bit value without sign bits above it is negative all the same."""
    ds = ct(stored(0x0FFF, 0x0800, 0x07FF), BitsStored=12, HighBit=11, RescaleIntercept=0)

    assert [-1, -1000, 2047] == decode_hu(ds).ravel().tolist()
    assert [-1, -2048, 2047] == raw_hu(ds).ravel().tolist()


def test_bits_outside_the_stored_ones_are_masked() -> None:
    """Overlay bits above High Bit, and bits below the stored ones, never reach the HU."""
    above = ct(stored(0xA400, dtype="u2"), BitsStored=12, HighBit=11)
    shifted = ct(stored(0x400F, dtype="u2"), BitsStored=12, HighBit=15)

    assert [0] == raw_hu(above).ravel().tolist()
    assert [0] == raw_hu(shifted).ravel().tolist()


def test_big_endian_is_read_as_such() -> None:
    """Explicit VR Big Endian pixels have their bytes swapped."""
    ds = ct(stored(1024, dtype=">u2"))
    ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.2"

    assert [0] == raw_hu(ds).ravel().tolist()


def test_one_padding_byte_is_allowed_and_no_other_surplus() -> None:
    """Pixel data are as long as the attributes say; only the even-length pad may follow."""
    values = np.zeros((1, 3), dtype=np.uint8)
    rescale = {"RescaleSlope": 16, "RescaleIntercept": -1024}

    padded = ct(values, PixelData=bytes(4), **rescale)
    longer = ct(values, PixelData=bytes(6), **rescale)

    assert (1, 3) == decode_hu(padded).shape
    assert reason_of(longer) == (
        Reason.UNDECODABLE,
        "pixel data of 6 bytes where the attributes say 3",
    )


def test_stream_of_another_size_is_refused_before_it_is_decoded() -> None:
    """A stream that declares 65535 squared takes no memory for it."""
    jpeg_lossless = b"\xff\xd8\xff\xc3\x00\x0b\x10\xff\xff\xff\xff\x01\x01\x11\x00"
    jpeg_2000 = b"\xff\x4f\xff\x51\x00\x2f\x00\x00" + b"\x00\x00\x10\x00" * 2 + bytes(8)

    with pytest.raises(ValueError, match="another size"):
        decode("1.2.840.10008.1.2.4.70", jpeg_lossless, rows=64, columns=64, bits_allocated=16)
    assert (65535, 65535) == declared_size(jpeg_lossless)
    assert (4096, 4096) == declared_size(jpeg_2000)
    assert declared_size(b"\xff\xd8\xff\xd9") is None
    assert declared_size(b"") is None


def test_unknown_syntax_is_named_without_its_uid() -> None:
    """The detail names a known syntax, and never repeats an unknown UID."""
    jpip, private = ct(), ct()
    jpip.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.94"
    private.file_meta.TransferSyntaxUID = "1.2.840.113619.5.2"

    assert reason_of(jpip) == (Reason.UNDECODABLE, "no decoder for JPIP Referenced")
    assert reason_of(private) == (Reason.UNDECODABLE, "no decoder for an unknown transfer syntax")


def test_broken_stream_names_its_syntax_and_nothing_of_the_library() -> None:
    """A decoder's own text stays out: it may quote what strangers sent."""
    ds = ct()
    ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.80"
    ds.PixelData = encapsulate([b"no stream"])

    reason, detail = reason_of(ds)

    assert reason is Reason.UNDECODABLE
    assert detail.startswith("JPEG-LS Lossless Image Compression could not be decoded (")


@pytest.mark.parametrize("run", [b"\x04" + bytes(5), b"\xfc\x00"])
def test_rle_run_beyond_the_frame_is_undecodable(run: bytes) -> None:
    """The library panics, which no handler of exceptions sees: it must not end the process."""
    ds = ct(np.zeros((2, 2), dtype=np.int16))
    ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.5"
    segments = run + bytes(len(run) % 2)
    header = struct.pack("<16L", 2, 64, 64 + len(segments), *[0] * 13)
    ds.PixelData = encapsulate([header + 2 * segments])

    assert reason_of(ds) == (
        Reason.UNDECODABLE,
        "RLE Lossless could not be decoded (ValueError)",
    )


def test_decodable_syntaxes_put_lossy_ones_last() -> None:
    """An acceptor that takes the first match keeps what is compressed, and never asks for loss."""
    syntaxes = decodable_syntaxes()
    native = (
        "1.2.840.10008.1.2.1",
        "1.2.840.10008.1.2",
        "1.2.840.10008.1.2.1.99",
        "1.2.840.10008.1.2.2",
    )

    assert len(set(syntaxes)) == len(syntaxes) == len(DECODERS) + 4
    start = syntaxes.index(native[0])
    assert set(syntaxes[:start]) == LOSSLESS
    assert syntaxes[start : start + 4] == native


# --------------------------------------------------------------------------- Hounsfield units


def test_rescale_of_each_frame_wins_over_a_shared_one() -> None:
    """Enhanced CT: every frame has the HU of its own Pixel Value Transformation."""
    values = np.full((3, 1, 1), 1000, dtype=np.int16)
    ds = enhanced(values, [(1, -1024), (0.5, -1024), (2, -1024)], [0, 5, 10])

    hu = [decode_hu(ds, frame).item() for frame in (1, 2, 3)]

    assert [-24, -524, 976] == hu


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


def test_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    """A file that left the spool is FILE_MISSING, not a broken one."""
    with pytest.raises(SetAside) as caught:
        read_dataset(tmp_path / "gone.dcm")

    assert caught.value.reason is Reason.FILE_MISSING
