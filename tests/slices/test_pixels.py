"""Stored values: cut out of cells and streams bit for bit, or not given at all."""

from __future__ import annotations

import copy
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openjpeg.utils import encode_array
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate

from tests.slices.ct_images import ct, enhanced, reason_of, stored
from tfkt_node.records import Reason, SetAside
from tfkt_node.settings import Limits
from tfkt_node.slices.decoding import decode_hu, raw_hu, read_dataset
from tfkt_node.slices.pixels import Pixels

EXPLICIT_BE = "1.2.840.10008.1.2.2"
JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
JPEG_LS, JPEG_LS_NEAR = "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81"
J2K_LOSSLESS, J2K = "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91"
HTJ2K_LOSSLESS, JPEG_XL_LOSSLESS = "1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.110"
ENCAPSULATED_NATIVE, RLE_LOSSLESS = "1.2.840.10008.1.2.1.98", "1.2.840.10008.1.2.5"
DOUBT = (
    Reason.UNDECODABLE,
    "the pixel data contradict Bits Stored, High Bit or Pixel Representation",
)


def in_syntax(ds: Dataset, syntax: str, *streams: bytes) -> Dataset:
    ds.file_meta.TransferSyntaxUID = syntax
    if streams:
        ds.PixelData = encapsulate(list(streams))
    return ds


# --------------------------------------------------------------------------- native


@settings(deadline=None, max_examples=100)
@given(data=st.data())
def test_values_of_any_layout_come_out_of_their_cells(data: st.DataObject) -> None:
    """10 to 16 bits, signed or not, at any place in the cell, whatever the unused bits hold."""
    bits = data.draw(st.integers(10, 16), "bits stored")
    shift = data.draw(st.integers(0, 16 - bits), "bits below")
    is_signed = data.draw(st.booleans(), "signed")
    low = -(1 << (bits - 1)) if is_signed else 0
    values = np.array(
        data.draw(st.lists(st.integers(low, low + (1 << bits) - 1), min_size=4, max_size=4))
    )
    unused = np.array(
        data.draw(st.lists(st.integers(0, 0xFFFF), min_size=4, max_size=4), "unused bits")
    )
    mask = ((1 << bits) - 1) << shift
    cells = ((values << shift) & mask) | (unused & ~mask & 0xFFFF)
    slope = 4 if bits < 12 else 1
    intercept = 0 if is_signed else -1024
    ds = ct(
        cells.astype("<u2").reshape(2, 2),
        BitsStored=bits,
        HighBit=bits + shift - 1,
        PixelRepresentation=int(is_signed),
        RescaleSlope=slope,
        RescaleIntercept=intercept,
    )
    ds.add_new(0x60000102, "US", 15)  # Overlay Bit Position: the unused bits are an overlay's
    expected = values * slope + intercept

    if expected.max() > 32768:  # nothing measures that
        assert reason_of(ds)[0] is Reason.NO_RESCALE
    else:
        assert expected.tolist() == raw_hu(ds).ravel().tolist()


def test_sign_is_extended_from_bits_stored() -> None:
    """A signed 12-bit value without sign bits above it is negative all the same."""
    ds = ct(stored(0x0FFF, 0x0800, 0x07FF), BitsStored=12, HighBit=11, RescaleIntercept=0)

    assert [-1, -1000, 2047] == decode_hu(ds).ravel().tolist()
    assert [-1, -2048, 2047] == raw_hu(ds).ravel().tolist()


RING = [0xF430, 0xFC18, 0x0028, 0xFF9C]
"""-3024, -1000, 40 and -100 in cells of 16 bits."""


def test_signed_value_beyond_bits_stored_is_in_doubt() -> None:
    """P6: -3024 cut to 12 bits is 1072, a ring of bone around the patient."""
    cells = np.tile(stored(*RING, dtype="u2"), (64, 16))
    native = ct(cells, BitsStored=12, HighBit=11, PixelRepresentation=1, RescaleIntercept=0)
    compressed = in_syntax(copy.deepcopy(native), J2K_LOSSLESS, j2k(cells, 16))

    assert reason_of(native) == reason_of(compressed) == DOUBT
    native.add_new(0x60000102, "US", 12)
    assert [1072, -1000, 40, -100] == raw_hu(native)[0, :4].tolist()


def test_unsigned_value_beyond_bits_stored_is_in_doubt() -> None:
    """P6: metal of 4500 cut to 12 bits is 404, lung; the other cells have clean unused bits."""
    cells = np.tile(stored(4500, 24, 1064, 924, dtype="u2"), (64, 16))
    native = ct(cells, BitsStored=12, HighBit=11)
    compressed = in_syntax(copy.deepcopy(native), J2K_LOSSLESS, j2k(cells, 16))

    assert reason_of(native) == reason_of(compressed) == DOUBT
    native.add_new(0x60000102, "US", 12)
    assert [404 - 1024, -1000, 40, -100] == raw_hu(native)[0, :4].tolist()


def test_values_left_at_the_top_of_their_cells_are_in_doubt() -> None:
    """P6: High Bit was set to 11, and the values stayed where High Bit 15 had them."""
    cells = np.tile(stored(3000, 24, 1064, 924, dtype="u2"), (64, 16)) << 4

    assert reason_of(ct(cells, BitsStored=12, HighBit=11)) == DOUBT
    expected = [3000 - 1024, -1000, 40, -100]
    assert expected == raw_hu(ct(cells, BitsStored=12, HighBit=15))[0, :4].tolist()


@pytest.mark.parametrize("unused", [0x0000, 0x5000, 0x1000], ids=["zeros", "two bits", "one bit"])
def test_unused_bits_that_are_no_sign_are_not_asked(unused: int) -> None:
    """Zeros, or anything but the sign, above signed values of 12 bits: masked (PS3.5 8.1.1)."""
    values = [0xC18 | unused, 0x028, 0xF9C | unused, 0x7D0]
    ds = ct(stored(*values, dtype="u2"), BitsStored=12, HighBit=11, PixelRepresentation=1)
    ds.RescaleIntercept = 0

    assert [-1000, 40, -100, 2000] == raw_hu(ds).ravel().tolist()


def test_fragments_that_cannot_be_told_apart_are_looked_through_once() -> None:
    """The error is kept as well as the frames: thousands ask for the same."""
    ds = enhanced(np.zeros((3, 4, 4), dtype=np.int16), [(1, 0)] * 3, [0, 5, 10])
    in_syntax(ds, RLE_LOSSLESS, b"ab", b"cd")
    pixels = Pixels(ds, Limits())

    with pytest.raises(SetAside) as first:
        pixels.frame(1)
    with pytest.raises(SetAside) as second:
        pixels.frame(2)

    assert first.value is second.value


def test_bits_outside_the_stored_ones_are_masked() -> None:
    """Overlay bits above High Bit, and bits below the stored ones, never reach the HU."""
    above = ct(stored(0xA400, 0x7401, dtype="u2"), BitsStored=12, HighBit=11)
    shifted = ct(stored(0x400F, dtype="u2"), BitsStored=12, HighBit=15)

    assert [0, 1] == raw_hu(above).ravel().tolist()
    assert [0] == raw_hu(shifted).ravel().tolist()


def test_big_endian_is_read_as_such() -> None:
    """Explicit VR Big Endian pixels have their bytes swapped."""
    ds = in_syntax(ct(stored(1024, dtype=">u2")), EXPLICIT_BE)

    assert [0] == raw_hu(ds).ravel().tolist()


@pytest.mark.parametrize(("vr", "expected"), [("OW", [0, 40, 80, 120]), ("OB", [40, 0, 120, 80])])
def test_bytes_in_big_endian_words_are_swapped_in_pairs(vr: str, expected: list[int]) -> None:
    """Cells of 8 bits lie in words when the VR is OW, and each word has its bytes swapped."""
    ds = ct(np.array([[26, 25, 28, 27]], dtype=np.uint8), RescaleSlope=40, RescaleIntercept=-1000)
    ds["PixelData"].VR = vr

    assert expected == raw_hu(in_syntax(ds, EXPLICIT_BE)).ravel().tolist()


def test_order_of_words_in_big_endian_is_not_guessed() -> None:
    """Of 32 bits in big endian, writers disagree on which word comes first."""
    ds = in_syntax(ct(stored(-1000, 40, dtype=">i4")), EXPLICIT_BE)

    assert reason_of(ds) == (
        Reason.UNDECODABLE,
        "32 bits in big endian: the order of words is not known",
    )


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


@pytest.mark.parametrize("is_encapsulated", [False, True])
def test_large_object_is_read_frame_by_frame(tmp_path: Path, is_encapsulated: bool) -> None:
    """Memory holds one frame of it, not all; each frame is the one that was asked for."""
    count = 80
    values = np.arange(count, dtype=np.int16)[:, None, None] + np.zeros((1, 512, 512), np.int16)
    ds = enhanced(values, [(1, 0)] * count, [*range(count)])
    if is_encapsulated:
        in_syntax(ds, ENCAPSULATED_NATIVE, *(frame.tobytes() for frame in values))
    path = tmp_path / "large.dcm"
    ds.save_as(path, enforce_file_format=True, implicit_vr=False, little_endian=True)
    tracemalloc.start()

    large = read_dataset(path, pixels=True)
    found = [set(raw_hu(large, frame).ravel().tolist()) for frame in (1, 41, count)]

    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [{0}, {40}, {count - 1}] == found
    assert peak < 16 << 20  # the object has 42 MB


@pytest.mark.parametrize("is_encapsulated", [False, True])
def test_large_object_that_breaks_off_is_undecodable(tmp_path: Path, is_encapsulated: bool) -> None:
    """Whether its length says so, or the closing delimiter that is not there."""
    values = np.zeros((80, 512, 512), dtype=np.int16)
    ds = enhanced(values, [(1, 0)] * 80, [*range(80)])
    if is_encapsulated:
        in_syntax(ds, ENCAPSULATED_NATIVE, *(frame.tobytes() for frame in values))
    path = tmp_path / "large.dcm"
    ds.save_as(path, enforce_file_format=True, implicit_vr=False, little_endian=True)
    os.truncate(path, path.stat().st_size - 8)

    with pytest.raises(SetAside) as caught:
        read_dataset(path, pixels=True)

    assert caught.value.detail.startswith("the pixel data break off after ")


def test_limits_hold_before_anything_is_decoded() -> None:
    """A frame, and a number of frames, beyond the limits are named with their setting."""
    large = ct(Rows=20000, Columns=20000)
    many = enhanced(np.zeros((3, 4, 4), dtype=np.int16), [(1, 0)] * 3, [0, 5, 10])

    with pytest.raises(SetAside) as decoded:
        decode_hu(large)
    with pytest.raises(SetAside) as frames:
        decode_hu(many, 1, Limits(frames=2))

    assert decoded.value.detail == "a frame of more than 128 MB (limits.decoded_mb)"
    assert frames.value.detail == "more than 2 frames (limits.frames)"


# --------------------------------------------------------------------------- compressed


def test_unknown_syntax_is_named_without_its_uid() -> None:
    """The detail names a known syntax, and never repeats an unknown UID."""
    jpip = in_syntax(ct(), "1.2.840.10008.1.2.4.94")
    private = in_syntax(ct(), "1.2.840.113619.5.2")

    assert reason_of(jpip) == (Reason.UNDECODABLE, "no decoder for JPIP Referenced")
    assert reason_of(private) == (Reason.UNDECODABLE, "no decoder for an unknown transfer syntax")


def test_broken_stream_names_its_syntax_and_nothing_of_the_library() -> None:
    """A decoder's own text stays out: it may quote what strangers sent."""
    reason, detail = reason_of(in_syntax(ct(), JPEG_LS, b"no stream"))

    assert reason is Reason.UNDECODABLE
    assert detail.startswith("JPEG-LS Lossless Image Compression could not be decoded (")


def j2k(values: np.ndarray, bits: int, **how: object) -> bytes:
    return bytes(encode_array(values, bits_stored=bits, **how))


PEOPLE = np.tile([[-1000, -100, 0, 40], [60, 300, 900, 2000]], (32, 16))
"""HU from air to bone."""


@pytest.mark.parametrize(
    ("syntax", "stream_dtype", "stream_bits", "bits_stored", "is_signed"),
    [
        (J2K_LOSSLESS, "i2", 16, 16, True),
        (J2K_LOSSLESS, "i2", 13, 16, True),  # only as wide as the values that occur
        (J2K_LOSSLESS, "i2", 16, 12, True),
        (J2K_LOSSLESS, "u2", 16, 16, True),  # two's complement in unsigned samples
        (J2K_LOSSLESS, "u2", 16, 12, True),
        (J2K_LOSSLESS, "u2", 12, 12, False),
        (J2K_LOSSLESS, "u2", 12, 16, False),
        (J2K_LOSSLESS, "u2", 16, 12, False),
        (JPEG_LS, "u2", 16, 16, True),
        (JPEG_LS, "u2", 16, 12, False),
    ],
)
def test_samples_of_any_width_give_the_values(
    syntax: str, stream_dtype: str, stream_bits: int, bits_stored: int, is_signed: bool
) -> None:
    """Encoders write samples as wide as the cell, the values or the widest value: HU are equal."""
    import jpeg_ls

    values = PEOPLE if is_signed else PEOPLE + 1024
    samples = values.astype("i2").view("u2") if stream_dtype == "u2" else values.astype("i2")
    stream = (
        bytes(jpeg_ls.encode_array(samples)) if syntax == JPEG_LS else j2k(samples, stream_bits)
    )
    ds = ct(
        samples,
        BitsStored=bits_stored,
        HighBit=bits_stored - 1,
        PixelRepresentation=int(is_signed),
        RescaleIntercept=0 if is_signed else -1024,
    )

    np.testing.assert_array_equal(PEOPLE, raw_hu(in_syntax(ds, syntax, stream)))


def test_negative_samples_of_unsigned_values_are_in_doubt() -> None:
    """A signed stream under Pixel Representation 0: -1000 would become 64536."""
    ds = ct(PEOPLE.astype("u2"), PixelRepresentation=0, RescaleIntercept=0)

    assert reason_of(in_syntax(ds, J2K_LOSSLESS, j2k(PEOPLE.astype("i2"), 16))) == DOUBT


def test_sign_that_a_narrow_stream_may_have_lost_is_not_guessed() -> None:
    """12 unsigned bits under 16 signed ones: 3096 may be 3096 or -1000."""
    cut = (PEOPLE & 0xFFF).astype("u2")
    plain = ct(cut, PixelRepresentation=1, RescaleIntercept=-1024)
    small = ct(cut & 0x3FF, PixelRepresentation=1, RescaleIntercept=-1024)

    assert reason_of(in_syntax(plain, J2K_LOSSLESS, j2k(cut, 12))) == DOUBT
    np.testing.assert_array_equal(
        (cut & 0x3FF) - 1024.0, raw_hu(in_syntax(small, J2K_LOSSLESS, j2k(cut & 0x3FF, 12)))
    )


def test_8_bits_of_jpeg_are_never_12() -> None:
    """Baseline JPEG under 12 stored bits was scaled by somebody, and nobody says by how much."""
    import imagecodecs

    samples = np.full((16, 16), 100, dtype=np.uint8)
    ds = ct(samples.astype("u2"), BitsStored=12, HighBit=11)

    stream = bytes(imagecodecs.jpeg8_encode(samples))

    assert reason_of(in_syntax(ds, JPEG_BASELINE, stream)) == DOUBT


def test_loss_beyond_the_range_is_clipped_and_not_wrapped() -> None:
    """4100 of 12 bits after loss is bright metal, not air: masked it would be 4."""
    beyond = np.full((64, 64), 4100, dtype="u2")
    beyond[0, 0] = 4101
    ds = ct(beyond, BitsStored=12, HighBit=11)

    lossy = raw_hu(in_syntax(ds.copy(), J2K, j2k(beyond, 16, compression_ratios=[2])))
    lossless = raw_hu(in_syntax(ds.copy(), J2K_LOSSLESS, j2k(beyond, 16)))

    assert {4095 - 1024} == set(lossy.ravel().tolist())
    assert {4 - 1024, 5 - 1024} == set(
        lossless.ravel().tolist()
    )  # there these are bits of an overlay


@pytest.mark.parametrize("codec", ["JPEG-LS", "JPEG 2000", "HTJ2K", "JPEG XL"])
def test_loss_under_the_name_of_a_lossless_syntax_is_clipped_too(codec: str) -> None:
    """Metal at the highest stored value stays metal, whatever the sender called the stream."""
    import imagecodecs

    metal = np.where(np.random.default_rng(0).random((64, 64)) < 0.5, 4095, 3600).astype("u2")
    syntax, stream = {
        "JPEG-LS": (JPEG_LS, imagecodecs.jpegls_encode(metal, level=3)),
        "JPEG 2000": (J2K_LOSSLESS, j2k(metal, 16, compression_ratios=[6])),
        "HTJ2K": (HTJ2K_LOSSLESS, imagecodecs.htj2k_encode(metal, reversible=False)),
        "JPEG XL": (JPEG_XL_LOSSLESS, imagecodecs.jpegxl_encode(metal, lossless=False, distance=1)),
    }[codec]
    ds = in_syntax(ct(metal, BitsStored=12, HighBit=11), syntax, bytes(stream))

    assert raw_hu(ds).max() == 4095 - 1024
    assert raw_hu(ds).min() > 1000


def test_padding_far_beyond_the_range_is_found_under_a_syntax_that_may_lose() -> None:
    """It is what the header names, so it puts nothing in doubt."""
    import imagecodecs

    values = np.tile(stored(63536, 24, 1064, 924, dtype="u2"), (64, 16))
    ds = ct(values, BitsStored=12, HighBit=11)
    stream = bytes(imagecodecs.jpegxl_encode(values, lossless=True))
    in_syntax(ds, JPEG_XL_LOSSLESS, stream)

    assert reason_of(ds) == DOUBT
    ds.add_new("PixelPaddingValue", "US", 63536)
    assert [-1000, -1000, 40, -100] == decode_hu(ds)[0, :4].tolist()


def test_sign_of_a_lossy_stream_is_taken_where_it_fills_the_sample() -> None:
    """14 signed bits in 16 unsigned ones, or in 14: the same values, off by at most 2."""
    import jpeg_ls

    filled = PEOPLE.astype("i2").view("u2")
    cut = (PEOPLE & 0x3FFF).astype("u2")
    attributes = {"BitsStored": 14, "HighBit": 13, "PixelRepresentation": 1, "RescaleIntercept": 0}

    def lossy(samples: np.ndarray) -> Dataset:
        stream = bytes(jpeg_ls.encode_array(np.ascontiguousarray(samples), lossy_error=2))
        return in_syntax(ct(samples, **attributes), JPEG_LS_NEAR, stream)

    assert np.abs(raw_hu(lossy(filled)) - PEOPLE).max() <= 2
    assert np.abs(raw_hu(lossy(cut)) - PEOPLE).max() <= 2


def test_overlays_under_loss_are_in_doubt() -> None:
    """Values far beyond the range are other data in the unused bits, spoiled by the loss."""
    overlay = np.full((64, 64), 0x9400, dtype="u2")
    ds = ct(overlay, BitsStored=12, HighBit=11)

    assert reason_of(in_syntax(ds, J2K, j2k(overlay, 16, compression_ratios=[2]))) == DOUBT
