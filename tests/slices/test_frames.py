"""Which fragments are a frame's: by count, by table, by the end of each image; else by nothing."""

from __future__ import annotations

import struct

import pytest

from tfkt_node.slices.frames import FrameIndex

JPEG, JPEG_2000 = "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.90"
RLE = "1.2.840.10008.1.2.5"
END = b"\xff\xd9"


def item(value: bytes) -> bytes:
    return struct.pack("<HHL", 0xFFFE, 0xE000, len(value)) + value


def pixel_data(*fragments: bytes, table: tuple[int, ...] = (), end: bool = True) -> bytes:
    offsets = struct.pack(f"<{len(table)}L", *table)
    closing = struct.pack("<HHL", 0xFFFE, 0xE0DD, 0) if end else b""
    return item(offsets) + b"".join(map(item, fragments)) + closing


def frames_of(data: bytes, frames: int, syntax: str = JPEG, **extended: bytes) -> list[bytes]:
    index = FrameIndex(data, frames, syntax, **extended)
    return [index.read(data, frame) for frame in range(frames)]


def test_all_fragments_of_a_single_frame_are_its_own() -> None:
    """Whatever the offset table says."""
    assert [b"abcdef"] == frames_of(pixel_data(b"ab", b"cd", b"ef", table=(999,)), 1)


@pytest.mark.parametrize("table", [(), (0, 10), (10, 0), (0, 0), (7, 4000)])
def test_as_many_fragments_as_frames_are_one_each(table: tuple[int, ...]) -> None:
    """Tables of real files are wrong often enough: where there is no choice they are not asked."""
    assert [b"ab", b"cd"] == frames_of(pixel_data(b"ab", b"cd", table=table), 2)


@pytest.mark.parametrize("syntax", [JPEG, RLE])
def test_offset_table_tells_frames_of_several_fragments_apart(syntax: str) -> None:
    """The basic table, and the extended one before it."""
    parts = (b"ab", b"cd", b"ef")
    extended = struct.pack("<2Q", 0, 20)

    assert [b"ab", b"cdef"] == frames_of(pixel_data(*parts, table=(0, 10)), 2, syntax)
    assert [b"abcd", b"ef"] == frames_of(
        pixel_data(*parts, table=(0, 10)), 2, syntax, extended=extended
    )


def test_end_of_image_tells_frames_apart_without_a_table() -> None:
    """With or without the byte that pads a fragment to an even length."""
    data = pixel_data(b"ab", b"c" + END + b"\0", b"ef", b"gh" + END)

    assert [b"abc" + END + b"\0", b"efgh" + END] == frames_of(data, 2)


@pytest.mark.parametrize("table", [(10, 0), (0, 11), (0,), (20, 30)])
def test_table_that_points_nowhere_is_no_guess(table: tuple[int, ...]) -> None:
    """P6: three fragments of two RLE frames, and a table that lies: in doubt."""
    with pytest.raises(ValueError, match="cannot be told apart"):
        frames_of(pixel_data(b"ab", b"cd", b"ef", table=table), 2, RLE)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        pixel_data(),
        pixel_data(b"ab")[:-9],
        item(b"") + struct.pack("<HHL", 0xFFFE, 0xE000, 0x7FFFFFFE) + b"ab",
        item(b"") + struct.pack("<HHL", 0x0028, 0x0010, 2) + b"ab",
    ],
)
def test_what_is_no_sequence_of_fragments_is_an_error(data: bytes) -> None:
    """A fragment longer than what is there is not cut short in silence."""
    with pytest.raises(ValueError, match="fragment"):
        FrameIndex(data, 1, JPEG)


def test_more_frames_than_fragments_is_an_error() -> None:
    """30 frames over 3 fragments: none of them is sure."""
    with pytest.raises(ValueError, match="cannot be told apart"):
        FrameIndex(pixel_data(b"a" + END, b"b" + END, b"c" + END), 30, JPEG)


@pytest.mark.parametrize(
    ("syntax", "start"), [(JPEG, b"\xff\xd8\xff\xc3"), (JPEG_2000, b"\xff\x4f\xff\x51")]
)
def test_second_stream_of_a_single_frame_does_not_vanish(syntax: str, start: bytes) -> None:
    """P6: one frame is declared and two are there: which of them is the image, nobody says."""
    stream = start + b"stream"

    with pytest.raises(ValueError, match="more frames"):
        FrameIndex(pixel_data(stream + END, stream + END), 1, syntax)
    assert [stream + b"rest" + END] == frames_of(pixel_data(stream, b"rest" + END), 1, syntax)


def test_second_stream_within_a_frame_does_not_vanish() -> None:
    """Four streams under a table of two frames: two of them would be passed over."""
    stream = b"\xff\xd8\xff\xc3" + END
    data = pixel_data(stream, stream, stream, stream, table=(0, 2 * (8 + len(stream))))

    with pytest.raises(ValueError, match="more frames"):
        FrameIndex(data, 2, JPEG)
    assert 4 == len(frames_of(data, 4))


def test_fragment_that_happens_to_begin_as_a_jpeg_xl_stream_is_no_second_one() -> None:
    """FF 0A stands every 32 KB in JPEG 2000: it may begin a fragment, and begins no frame there."""
    parts = (b"\xff\x4f\xff\x51 and", b"\xff\x0a on", b"and on" + END)

    assert [b"".join(parts)] == frames_of(pixel_data(*parts), 1, JPEG_2000)


@pytest.mark.parametrize("start", [b"\xff\x0a\x7f\x00", b"\0\0\0\x0cJXL "])
def test_second_stream_of_jpeg_xl_does_not_vanish(start: bytes) -> None:
    """It begins as the first one does: with the same size, or in the same box."""
    with pytest.raises(ValueError, match="more frames"):
        FrameIndex(pixel_data(start + b"one", start + b"two"), 1, "1.2.840.10008.1.2.4.110")


@pytest.mark.parametrize(
    ("parts", "table"),
    [
        ((b"", b"ab", b"cd"), ()),
        ((b"ab", b"cd", b""), ()),
        ((b"ab", b"", b"cd", b""), ()),
        ((b"", b"a", b"b", b"cd"), (0, 26)),
        ((b"a", b"b", b"", b"cd"), (0, 18)),
    ],
)
def test_fragment_of_no_bytes_is_none(parts: tuple[bytes, ...], table: tuple[int, ...]) -> None:
    """It is no frame, and an offset that points at it means the next."""
    assert [b"ab", b"cd"] == frames_of(pixel_data(*parts, table=table), 2, RLE)


def test_second_frame_of_rle_is_found_by_the_offset_table() -> None:
    """RLE has no sign of its own: a table of two frames says that there are two."""
    with pytest.raises(ValueError, match="more frames"):
        FrameIndex(pixel_data(b"ab", b"cd", table=(0, 10)), 1, RLE)


class Counted(bytes):
    """Bytes that count how often they were looked at."""

    looks = 0

    def __getitem__(self, where: object) -> object:
        Counted.looks += 1
        return super().__getitem__(where)  # type: ignore[index]


def test_fragments_are_looked_through_once_for_all_frames() -> None:
    """A thousand frames are no million steps."""
    data = Counted(pixel_data(*(b"%04d" % number for number in range(1000))))

    found = frames_of(data, 1000)  # type: ignore[arg-type]

    assert (b"0000", b"0999", 1000) == (found[0], found[-1], len(found))
    assert Counted.looks < 5000
