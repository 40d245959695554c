"""Compressed streams: whole, of the size that the attributes say, or an error."""

from __future__ import annotations

import io
import struct
import time
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import PIL.Image
import pytest
from openjpeg.utils import encode_array
from pydicom.encaps import encapsulate

from tests.slices.ct_images import ct, reason_of
from tfkt_node.records import Reason
from tfkt_node.slices.codecs import (
    DECODERS,
    DEFLATED_FRAME,
    ENCAPSULATED_NATIVE,
    JPEG_2000,
    JPEG_2000_LOSSLESS,
    JPEG_BASELINE,
    JPEG_EXTENDED,
    JPEG_LOSSLESS,
    JPEG_LOSSLESS_SV1,
    JPEG_LS_LOSSLESS,
    JPEG_PROGRESSIVE,
    JPEG_XL_LOSSLESS,
    JPEG_XL_OF_JPEG,
    LOSSLESS,
    RLE_LOSSLESS,
    decode,
)
from tfkt_node.slices.decoding import decodable_syntaxes, read_dataset
from tfkt_node.slices.streams import END_OF_IMAGE, StreamHeader, stream_header

START_OF_SCAN = b"\xff\xda"
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


@pytest.mark.parametrize("padding", [b"", b"\0", b"\0\0", b"\0\0\0\0", b"\x80\x80"])
def test_padding_behind_an_rle_segment_is_passed_over(padding: bytes) -> None:
    """PS3.5 G.3.2: a segment is decoded until its bytes are there, whatever pads it."""
    high, low = (b"\x0b" + VALUES.view("u1")[:, byte::2].tobytes() + padding for byte in (1, 0))
    header = struct.pack("<16L", 2, 64, 64 + len(high), *[0] * 13)

    found = decode(RLE_LOSSLESS, header + high + low, rows=3, columns=4, bits_allocated=16)

    np.testing.assert_array_equal(VALUES, found.values)


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


ROW, ROWS = 64, 64


def with_restarts() -> list[bytes]:
    """A JPEG lossless stream of grey rows: what stands before its bits, and the bits of each row.

    Each row, and the marker that goes before the next: a restart after each of them.
    """
    code = b"\xff\xc4" + struct.pack(">HB", 20, 0) + b"\x01" + bytes(15) + b"\0"  # no difference
    frame = b"\xff\xc3" + struct.pack(">HBHHB3B", 11, 12, ROWS, ROW, 1, 1, 0x11, 0)
    interval = b"\xff\xdd" + struct.pack(">HH", 4, ROW)
    scan = START_OF_SCAN + struct.pack(">HB5B", 8, 1, 1, 0, 1, 0, 0)
    bits = bytes(ROW // 8)  # one zero for each sample
    rows = [bits + bytes([0xFF, 0xD0 + row % 8]) for row in range(ROWS - 1)]
    return [b"\xff\xd8" + code + frame + interval + scan, *rows, bits + END_OF_IMAGE]


def test_restart_markers_are_passed_over() -> None:
    """With fill bytes before them, too."""
    stream = b"".join(with_restarts())
    filled = stream.replace(b"\xff\xd3", b"\xff\xff\xff\xd3")

    for one in (stream, filled):
        assert {2048} == set(jpeg_decode(JPEG_LOSSLESS, one).ravel().tolist())


@pytest.mark.parametrize(
    "lost",
    [slice(20, 28), slice(20, 21), slice(1, 2), slice(-9, -1)],
    ids=["eight rows, so that the numbers go on", "one row", "the first", "the last ones"],
)
def test_jpeg_whose_restart_intervals_are_lost_is_an_error(lost: slice) -> None:
    """P6: the library closes the ranks: anatomy moves up, and nothing says so."""
    parts = with_restarts()
    del parts[lost]

    with pytest.raises(ValueError, match="between restart markers"):
        jpeg_decode(JPEG_LOSSLESS, b"".join(parts))


def test_baseline_jpeg_whose_restart_intervals_are_lost_is_an_error() -> None:
    """There an interval has blocks of 8 x 8 for units."""
    stream = with_interval_of_a_scan(jpeg_of(ct_like("u1", 8), level=90))

    with pytest.raises(ValueError, match="between restart markers"):
        jpeg_decode(JPEG_BASELINE, stream)


def with_interval_of_a_scan(stream: bytes) -> bytes:
    """The same stream, said to have a restart marker after each row of eight blocks."""
    scan = stream.index(START_OF_SCAN)
    return stream[:scan] + b"\xff\xdd" + struct.pack(">HH", 4, 8) + stream[scan:]


def test_progressive_jpeg_that_lost_bits_of_any_scan_is_an_error() -> None:
    """Not of the last alone."""
    file = io.BytesIO()
    PIL.Image.fromarray(ct_like("u1", 8)).save(file, "JPEG", quality=95, progressive=True)
    stream = file.getvalue()
    scans = [at for at in range(len(stream)) if stream.startswith(START_OF_SCAN, at)]
    assert len(scans) > 2
    jpeg_decode(JPEG_PROGRESSIVE, stream)

    for end in scans[1:]:  # the tables of the next scan stand before it
        tables = stream.rindex(b"\xff\xc4", 0, end)
        with pytest.raises((ValueError, RuntimeError)):
            jpeg_decode(JPEG_PROGRESSIVE, stream[: tables - 40] + stream[tables:])


def test_bytes_behind_a_jpeg_stream_cost_no_time() -> None:
    """A megabyte of FF is one step, not a million."""
    stream = jpeg_of(ct_like(), lossless=True, bitspersample=12)
    start = time.process_time()

    found = jpeg_decode(JPEG_LOSSLESS, stream + b"\xff" * (1 << 20))

    assert time.process_time() - start < 5
    np.testing.assert_array_equal(ct_like(), found)


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


def tiled(*kept: int, parts: int = 1) -> bytes:
    """A JPEG 2000 stream of four tiles of 32 x 32, of which some are kept."""
    tiles = [
        np.ascontiguousarray(ct_like()[y : y + 32, x : x + 32]) for y in (0, 32) for x in (0, 32)
    ]
    streams = [bytes(encode_array(tile, bits_stored=12)) for tile in tiles]
    first = streams[0].index(TILE_PART)
    header = bytearray(streams[0][:first])
    header[8:16] = struct.pack(">2L", 64, 64)
    found = bytes(header)
    for number in kept:
        at = streams[number].index(TILE_PART)
        part = bytearray(streams[number][at:-2])
        part[4:6], part[11] = struct.pack(">H", number), parts
        found += bytes(part)
    return found + END_OF_IMAGE


TILE_PART = b"\xff\x90\x00\x0a"


def jp2(stream: bytes, *boxes: bytes) -> bytes:
    """The JP2 file of a stream of 64 x 64, with boxes before it."""
    wrapped = bytes(encode_array(ct_like(), bits_stored=12, codec_format=1))
    at = wrapped.index(b"jp2c") - 4
    return wrapped[:at] + b"".join(boxes) + struct.pack(">L4s", 0, b"jp2c") + stream


@pytest.mark.parametrize("wrap", [bytes, jp2])
@pytest.mark.parametrize(
    ("kept", "parts"),
    [((0, 1, 3), 1), ((0, 1, 2), 1), ((0,), 1), ((), 1), ((0, 1, 2, 3), 2), ((0, 1, 1, 3), 1)],
)
def test_jpeg_2000_with_a_missing_tile_is_an_error(
    wrap: Callable[[bytes], bytes], kept: tuple[int, ...], parts: int
) -> None:
    """P6: the library leaves zeros in its place, air in the middle of the patient."""
    np.testing.assert_array_equal(
        ct_like(), jpeg_decode(JPEG_2000_LOSSLESS, wrap(tiled(0, 1, 2, 3)))
    )

    with pytest.raises(ValueError, match="breaks off"):
        jpeg_decode(JPEG_2000_LOSSLESS, wrap(tiled(*kept, parts=parts)))


def test_last_tile_of_jpeg_2000_may_leave_its_length_out() -> None:
    """A length of 0 is "up to the end" (ISO/IEC 15444-1 A.4.2)."""
    stream = bytearray(tiled(0, 1, 2, 3))
    last = stream.rindex(TILE_PART)
    stream[last + 6 : last + 10] = bytes(4)

    np.testing.assert_array_equal(ct_like(), jpeg_decode(JPEG_2000_LOSSLESS, bytes(stream)))


@pytest.mark.parametrize("box", [b"", struct.pack(">L4s", 8008, b"xml ") + b"<" * 8000])
def test_header_in_a_jp2_file_is_found_behind_any_box(box: bytes) -> None:
    """The size is compared before memory is taken, however far in front of it a box reaches."""
    stream = jp2(tiled(0, 1, 2, 3), box)

    assert stream_header(stream) == StreamHeader(64, 64, 1, 12)
    with pytest.raises(ValueError, match="another size"):
        decode(JPEG_2000_LOSSLESS, stream, rows=32, columns=64, bits_allocated=16)


@pytest.mark.parametrize("syntax", [JPEG_2000_LOSSLESS, JPEG_LS_LOSSLESS, JPEG_LOSSLESS])
def test_stream_without_a_header_is_refused_before_it_is_decoded(syntax: str) -> None:
    """What cannot be compared with the attributes is not decoded."""
    with pytest.raises(ValueError, match="no header"):
        decode(syntax, b"\0" * 100, rows=3, columns=4, bits_allocated=16)


def test_loss_of_a_stream_is_read_from_the_stream() -> None:
    """Whatever its transfer syntax is called: NEAR of JPEG-LS, the wavelet of JPEG 2000, DCT."""
    values = ct_like()
    streams = {
        bytes(imagecodecs.jpegls_encode(values)): False,
        bytes(imagecodecs.jpegls_encode(values, level=2)): True,
        bytes(encode_array(values, bits_stored=12)): False,
        bytes(encode_array(values, bits_stored=12, compression_ratios=[4])): True,
        bytes(imagecodecs.htj2k_encode(values)): False,
        bytes(imagecodecs.htj2k_encode(values, reversible=False)): True,
        jpeg_of(values, lossless=True, bitspersample=12): False,
        jpeg_of(values, level=95, bitspersample=12): True,
    }
    headers = [stream_header(stream) for stream in streams]

    assert list(streams.values()) == [header is not None and header.is_lossy for header in headers]


def test_jpeg_ls_that_breaks_off_is_an_error_at_once() -> None:
    """The library looks for the end for seconds, whatever the size."""
    stream = bytes(imagecodecs.jpegls_encode(ct_like()))

    with pytest.raises(ValueError, match="breaks off"):
        jpeg_decode(JPEG_LS_LOSSLESS, stream[: len(stream) // 2])


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

    with pytest.raises(ValueError, match="more or fewer bytes"):
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
