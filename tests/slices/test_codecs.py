"""Compressed streams: whole, of the size that the attributes say, or an error."""

from __future__ import annotations

import struct
import zlib

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
    JPEG_BASELINE,
    JPEG_XL_OF_JPEG,
    LOSSLESS,
    StreamHeader,
    decode,
    stream_header,
)
from tfkt_node.slices.decoding import decodable_syntaxes

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

    found, bits = decode(DEFLATED_FRAME, stream, rows=3, columns=4, bits_allocated=16)

    assert bits == 16
    np.testing.assert_array_equal(VALUES, found)


@pytest.mark.parametrize("size", [20, 2_000_000])
def test_deflated_frame_is_inflated_no_further_than_it_should_be(size: int) -> None:
    """A frame that inflates to less or more than the attributes say is an error, not memory."""
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    stream = deflate.compress(bytes(size)) + deflate.flush()

    with pytest.raises(ValueError, match="the frame has another length"):
        decode(DEFLATED_FRAME, stream, rows=3, columns=4, bits_allocated=16)


def test_frames_without_compression_in_fragments_are_decoded() -> None:
    """Encapsulated Uncompressed: the cells of a frame as they are."""
    found, _ = decode(ENCAPSULATED_NATIVE, VALUES.tobytes(), rows=3, columns=4, bits_allocated=16)

    np.testing.assert_array_equal(VALUES, found)


def test_jpeg_inside_jpeg_xl_is_decoded() -> None:
    """JPEG XL JPEG Recompression gives what the JPEG gave."""
    picture = np.tile(np.arange(64, dtype=np.uint8) * 4, (64, 1))
    jpeg = bytes(imagecodecs.jpeg8_encode(picture, level=95))
    try:
        jpeg_xl = bytes(imagecodecs.jpegxl_encode_jpeg(jpeg))
    except (AttributeError, RuntimeError):
        pytest.skip("this imagecodecs cannot recompress JPEG, only read it")
    of_jpeg, _ = decode(JPEG_BASELINE, jpeg, rows=64, columns=64, bits_allocated=8)

    found, _ = decode(JPEG_XL_OF_JPEG, jpeg_xl, rows=64, columns=64, bits_allocated=8)

    assert np.abs(found.astype(int) - of_jpeg).max() <= 1


@pytest.mark.parametrize("kept", [0.3, 0.7, 0.95])
@pytest.mark.parametrize("syntax", sorted({JPEG_BASELINE, "1.2.840.10008.1.2.4.90"}))
def test_stream_that_breaks_off_is_an_error(syntax: str, kept: float) -> None:
    """The JPEG library fills what is missing with grey and says nothing: no half image is given."""
    picture = np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)
    stream = bytes(
        imagecodecs.jpeg8_encode(picture)
        if syntax == JPEG_BASELINE
        else encode_array(picture, bits_stored=8)
    )
    size = {"rows": 64, "columns": 64, "bits_allocated": 8}
    decode(syntax, stream, **size)

    with pytest.raises((ValueError, RuntimeError)):
        decode(syntax, stream[: int(kept * len(stream))], **size)


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
