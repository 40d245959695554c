"""Compressed streams: whole, of the size that the attributes say, or an error."""

from __future__ import annotations

import struct
import tracemalloc
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from openjpeg.utils import encode_array
from pydicom.encaps import encapsulate

from tests.slices.ct_images import ct, reason_of
from tfkt_node.records import Reason
from tfkt_node.slices.codecs import (
    DECODERS,
    DEFLATED_FRAME,
    ENCAPSULATED_NATIVE,
    END_OF_IMAGE,
    JPEG_2000,
    JPEG_2000_LOSSLESS,
    JPEG_BASELINE,
    JPEG_EXTENDED,
    JPEG_LOSSLESS,
    JPEG_LOSSLESS_SV1,
    JPEG_XL_LOSSLESS,
    JPEG_XL_OF_JPEG,
    LOSSLESS,
    RLE_LOSSLESS,
    START_OF_SCAN,
    StreamHeader,
    decode,
    stream_header,
)
from tfkt_node.slices.decoding import decodable_syntaxes, read_dataset

VALUES = np.arange(12, dtype=np.uint16).reshape(3, 4)


def jpeg_2000_header(components: int = 1) -> bytes:
    size = struct.pack(">HHH8IH3B", 0xFF51, 47, 0, 4096, 4096, *[0] * 6, components, 0x8F, 1, 1)
    return b"\xff\x4f" + size


JPEG_LOSSLESS_HEADER = b"\xff\xd8\xff\xc3\x00\x0b\x10\xff\xff\xff\xff\x01\x01\x11\x00"


def test_headers_of_streams_are_read() -> None:
    """Size, components and bits of a sample, before any memory is taken."""
    assert StreamHeader(65535, 65535, 1, 16) == stream_header(JPEG_LOSSLESS_HEADER)
    assert StreamHeader(4096, 4096, 3, 16) == stream_header(jpeg_2000_header(3))
    assert stream_header(b"\xff\xd8\xff\xd9") is None
    assert stream_header(b"") is None


@pytest.mark.parametrize(
    ("syntax", "stream", "size"),
    [
        ("1.2.840.10008.1.2.4.70", JPEG_LOSSLESS_HEADER, 64),
        ("1.2.840.10008.1.2.4.90", jpeg_2000_header(), 64),
        ("1.2.840.10008.1.2.4.90", jpeg_2000_header(16384), 4096),
    ],
)
def test_stream_of_another_size_is_refused_before_it_is_decoded(
    syntax: str, stream: bytes, size: int
) -> None:
    """A stream that declares 65535 squared, or 16384 components, takes no memory for it."""
    with pytest.raises(ValueError, match="another size"):
        decode(syntax, stream, rows=size, columns=size, bits_allocated=16)


@pytest.mark.parametrize("run", [b"\x04" + bytes(5), b"\xfc\x00"])
def test_rle_run_beyond_the_frame_is_undecodable(run: bytes) -> None:
    """Neither more bytes than pixels, nor a run that the segment breaks off."""
    ds = ct(np.zeros((2, 2), dtype=np.int16))
    ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.5"
    segments = run + bytes(len(run) % 2)
    header = struct.pack("<16L", 2, 64, 64 + len(segments), *[0] * 13)
    ds.PixelData = encapsulate([header + 2 * segments])

    reason, detail = reason_of(ds)

    assert reason is Reason.UNDECODABLE
    assert detail.startswith("RLE Lossless could not be decoded (")


def test_rle_with_another_number_of_segments_is_an_error() -> None:
    """16 bits lie in two segments: 99 are a header that lies."""
    header = struct.pack("<16L", 99, 64, 66, *[0] * 13)

    with pytest.raises(ValueError, match="segments"):
        decode("1.2.840.10008.1.2.5", header + bytes(4), rows=1, columns=1, bits_allocated=16)


def test_frames_deflated_one_by_one_are_decoded() -> None:
    """Deflated Image Frame Compression: the cells of a frame, deflated."""
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    stream = deflate.compress(VALUES.tobytes()) + deflate.flush()

    found = decode(DEFLATED_FRAME, stream, rows=3, columns=4, bits_allocated=16)

    assert found.bits == 16
    np.testing.assert_array_equal(VALUES, found.values)


@pytest.mark.parametrize("size", [20, 2_000_000])
def test_deflated_frame_is_inflated_no_further_than_it_should_be(size: int) -> None:
    """A frame that inflates to less or more than the attributes say is an error, not memory."""
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    stream = deflate.compress(bytes(size)) + deflate.flush()

    with pytest.raises(ValueError, match="the frame has another length"):
        decode(DEFLATED_FRAME, stream, rows=3, columns=4, bits_allocated=16)


def test_frames_without_compression_in_fragments_are_decoded() -> None:
    """Encapsulated Uncompressed: the cells of a frame as they are."""
    found = decode(ENCAPSULATED_NATIVE, VALUES.tobytes(), rows=3, columns=4, bits_allocated=16)

    np.testing.assert_array_equal(VALUES, found.values)


def test_jpeg_inside_jpeg_xl_is_decoded() -> None:
    """JPEG XL JPEG Recompression gives what the JPEG gave."""
    picture = np.tile(np.arange(64, dtype=np.uint8) * 4, (64, 1))
    jpeg = bytes(imagecodecs.jpeg8_encode(picture, level=95))
    try:
        jpeg_xl = bytes(imagecodecs.jpegxl_encode_jpeg(jpeg))
    except (AttributeError, RuntimeError):
        pytest.skip("this imagecodecs cannot recompress JPEG, only read it")
    of_jpeg = decode(JPEG_BASELINE, jpeg, rows=64, columns=64, bits_allocated=8)

    found = decode(JPEG_XL_OF_JPEG, jpeg_xl, rows=64, columns=64, bits_allocated=8)

    assert np.abs(found.values.astype(int) - of_jpeg.values).max() <= 1


# --------------------------------------------------------------------------- JPEG


def ct_like(dtype: str = "u2", bits: int = 12) -> np.ndarray:
    """Smooth values with noise on top, (64, 64), from the middle of so many bits."""
    y, x = np.mgrid[:64, :64]
    noise = np.random.default_rng(0).integers(-20, 20, (64, 64))
    values = (1 << (bits - 1)) * (1 + 0.6 * np.sin(x / 9) * np.cos(y / 7)) + noise
    return values.clip(0, (1 << bits) - 1).astype(dtype)


def jpeg_of(values: np.ndarray, **how: object) -> bytes:
    return bytes(imagecodecs.jpeg8_encode(values, **how))


def jpeg_decode(syntax: str, stream: bytes) -> np.ndarray:
    return decode(syntax, stream, rows=64, columns=64, bits_allocated=16).values


def with_point_transform(stream: bytes, points: int) -> bytes:
    """The same differences, of values that have lost so many bits (ISO/IEC 10918-1 H.1.1)."""
    changed = bytearray(stream)
    changed[stream.index(b"\xff\xc3") + 4] += points
    changed[stream.index(START_OF_SCAN) + 9] = points
    return bytes(changed)


@pytest.mark.parametrize("predictor", range(1, 8))
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_jpeg_lossless_gives_its_values_for_every_predictor(predictor: int, bits: int) -> None:
    """Each selection value, in 8, 12 and 16 bits."""
    values = ct_like("u1" if bits == 8 else "u2", bits)
    stream = jpeg_of(values, lossless=True, predictor=predictor, bitspersample=bits)

    np.testing.assert_array_equal(values, jpeg_decode(JPEG_LOSSLESS, stream))


@pytest.mark.parametrize("points", [1, 2, 3])
def test_point_transform_is_undone(points: int) -> None:
    """Samples that were divided by 2, 4 or 8 come back multiplied: no half of a Hounsfield unit."""
    values = ct_like()
    stream = with_point_transform(jpeg_of(values, lossless=True, bitspersample=12), points)

    np.testing.assert_array_equal(values << points, jpeg_decode(JPEG_LOSSLESS, stream))


@pytest.mark.parametrize("end", [b"", END_OF_IMAGE])
@pytest.mark.parametrize(
    ("syntax", "stream"),
    [
        (JPEG_BASELINE, jpeg_of(ct_like("u1", 8), level=90)),
        (JPEG_EXTENDED, jpeg_of(ct_like(), level=95, bitspersample=12)),
        (JPEG_LOSSLESS, jpeg_of(ct_like(), lossless=True, bitspersample=12)),
        (JPEG_LOSSLESS, jpeg_of(ct_like(bits=16), lossless=True, predictor=6, bitspersample=16)),
    ],
    ids=["baseline", "extended", "lossless-12", "lossless-16"],
)
def test_jpeg_that_breaks_off_is_an_error_wherever_it_does(
    syntax: str, stream: bytes, end: bytes
) -> None:
    """P6: the library fills what is missing with grey and says nothing; no half image is given.

    Not even where the marker that ends an image stands behind a part of it.
    """
    whole = jpeg_decode(syntax, stream)
    scan = stream.index(START_OF_SCAN)
    cuts = [*range(scan + 10, len(stream), 599), *range(len(stream) - 9, len(stream) - 2)]

    for cut in cuts:
        try:
            found = jpeg_decode(syntax, stream[:cut] + end)
        except (ValueError, RuntimeError):
            continue
        np.testing.assert_array_equal(whole, found, f"cut at {cut}")
    with pytest.raises((ValueError, RuntimeError)):
        jpeg_decode(syntax, stream[: scan + 10] + end)
    with pytest.raises(ValueError, match="breaks off"):
        jpeg_decode(syntax, stream[: scan + 900] + bytes(len(stream) - scan - 900))


@pytest.mark.station
def test_jpeg_lossless_whose_differences_overflow_is_in_doubt(shared_data: Path) -> None:
    """An encoder that reckoned in 16 bits: decoded by the standard, its image is noise."""
    name = "zoo/pylibjpeg-data/JPEGLossless_1s_1f_i_16_16_bad.dcm"

    reason, detail = reason_of(read_dataset(shared_data / name, pixels=True))

    assert reason is Reason.UNDECODABLE
    assert detail.startswith("JPEG Lossless, Non-Hierarchical (Process 14) could not be decoded")


@pytest.mark.parametrize("predictor", [5, 6, 7])
def test_signed_jpeg_lossless_is_given_where_nothing_overflows(predictor: int) -> None:
    """Two's complement that crosses zero takes large steps in unsigned samples, and no others."""
    values = (ct_like().astype("i2") - 2048).view("u2")
    stream = jpeg_of(values, lossless=True, predictor=predictor, bitspersample=16)

    np.testing.assert_array_equal(values, jpeg_decode(JPEG_LOSSLESS, stream))


def test_jpeg_with_loss_is_no_lossless_one_whatever_the_syntax_says() -> None:
    """8 bits under the name of JPEG lossless were scaled all the same: 12 bits are in doubt."""
    ds = ct(ct_like(), BitsStored=12, HighBit=11)
    ds.file_meta.TransferSyntaxUID = JPEG_LOSSLESS_SV1
    ds.PixelData = encapsulate([jpeg_of(ct_like("u1", 8), level=90)])

    assert reason_of(ds)[0] is Reason.UNDECODABLE
    assert reason_of(ds)[1].startswith("the pixel data contradict")


def test_frame_header_is_found_behind_what_is_no_segment() -> None:
    """Fill bytes and stray ones between segments are passed over, as the library does."""
    stream = jpeg_of(ct_like("u1", 8))
    header = stream_header(stream)

    assert header is not None
    assert header.is_dct
    for stray in (b"\xff\xff", b"\0\0\0", b"\xff\x00"):
        assert header == stream_header(stream[:2] + stray + stream[2:])


# --------------------------------------------------------------------------- others


@pytest.mark.parametrize("kept", [0.3, 0.7, 0.95])
def test_jpeg_2000_that_breaks_off_is_an_error(kept: float) -> None:
    """No half image, and none in half the resolution."""
    stream = bytes(encode_array(ct_like("u1", 8), bits_stored=8))
    jpeg_decode(JPEG_2000_LOSSLESS, stream)

    with pytest.raises((ValueError, RuntimeError)):
        jpeg_decode(JPEG_2000_LOSSLESS, stream[: int(kept * len(stream))])


def test_jpeg_2000_with_loss_whose_rest_is_zeros_is_an_error() -> None:
    """A transfer that stopped leaves zeros in a file that was given its length before."""
    stream = bytes(encode_array(ct_like("u1", 8), bits_stored=8, compression_ratios=[2]))
    for padding in (b"\0", b"\xff"):
        jpeg_decode(JPEG_2000, stream + padding)

    for kept in (0.3, 0.7, 0.95):
        there = int(kept * len(stream))
        with pytest.raises((ValueError, RuntimeError)):
            jpeg_decode(JPEG_2000, stream[:there] + bytes(len(stream) - there))


@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_jpeg_xl_of_another_shape_is_refused_before_memory_is_taken(dtype: str) -> None:
    """Rows for columns would scramble the image, and a few bytes may declare a gigapixel."""
    stream = bytes(imagecodecs.jpegxl_encode(np.ones((32, 16), dtype), lossless=True))

    found = decode(JPEG_XL_LOSSLESS, stream, rows=32, columns=16, bits_allocated=16)

    assert (found.values == 1).all()
    for rows, columns in ((16, 32), (32, 32)):
        with pytest.raises(ValueError, match="another size"):
            decode(JPEG_XL_LOSSLESS, stream, rows=rows, columns=columns, bits_allocated=16)


def test_rle_segment_is_unpacked_no_further_than_the_frame() -> None:
    """64 times its size is what a segment may become: it is given no more than the pixels need."""
    segment = b"\x81\0" * (1 << 20)  # 128 MB of zeros
    header = struct.pack("<16L", 2, 64, 64 + len(segment), *[0] * 13)
    tracemalloc.start()

    with pytest.raises(RuntimeError):
        decode(RLE_LOSSLESS, header + 2 * segment, rows=64, columns=64, bits_allocated=16)

    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16 << 20


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
