"""Files as they lie on a disk: out of order, cut short while they are read, or not to be read."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from tests.slices.ct_images import ct, stored
from tests.slices.test_structure import encoded
from tfkt_node.file_bytes import FileBytes
from tfkt_node.slices import files
from tfkt_node.slices.decoding import decode_hu
from tfkt_node.slices.files import read_dataset

PRIVATE = b"\xe1\x7f\x10\x00LO\x0c\x00SOME CREATOR"


def parts(data: bytes) -> tuple[bytes, bytes, bytes]:
    """What stands before the description of the image, that description, and the pixels."""
    image, pixels = data.index(b"\x28\x00\x02\x00US"), data.index(b"\xe0\x7f\x10\x00")
    return data[:image], data[image:pixels], data[pixels:]


@pytest.mark.parametrize("large", [False, True])
def test_attributes_behind_the_pixel_data_are_read(
    tmp_path: Path, large: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Out of order, yet all there: header and pixels are had, and junk behind them is not."""
    if large:
        monkeypatch.setattr(files, "LARGE_BYTES", 0)
    before, image, pixels = parts(encoded(ct(stored(-1000, 40))))
    path = tmp_path / "ct.dcm"
    path.write_bytes(before + pixels + image)

    header, whole = read_dataset(path), read_dataset(path, pixels=True)

    assert (1, 2) == (header.Rows, header.Columns)
    assert "PixelData" not in header
    assert [-1000, 40] == decode_hu(whole).ravel().tolist()


def test_private_group_above_the_pixel_data_may_stand_before_it(tmp_path: Path) -> None:
    """Nothing says that the attributes of the image are over but the pixel data themselves."""
    before, image, pixels = parts(encoded(ct(stored(-1000, 40))))
    path = tmp_path / "ct.dcm"
    path.write_bytes(before + PRIVATE + image + pixels + PRIVATE)

    assert 1 == read_dataset(path).Rows
    assert [-1000, 40] == decode_hu(read_dataset(path, pixels=True)).ravel().tolist()


def test_file_that_is_cut_short_while_it_is_read_ends_nothing(tmp_path: Path) -> None:
    """A map of it would end the process by a signal; bytes that are gone are fewer bytes."""
    path = tmp_path / "file"
    path.write_bytes(bytes(300_000))
    with path.open("rb") as file:
        data = FileBytes(file, 100, 300_000)
        assert (100_000, 8) == (len(data[:100_000]), len(data[200_000:200_008]))

        os.truncate(path, 1000)

        assert (900, 0) == (len(data[:100_000]), len(data[150_000:250_000]))


def test_disk_that_fails_says_nothing_about_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is tried again: an error of the disk is no reason to set an instance aside."""

    def fail(*_: object) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    path = tmp_path / "ct.dcm"
    path.write_bytes(encoded(ct()))
    monkeypatch.setattr(os, "pread", fail)

    with pytest.raises(OSError, match="Input/output"):
        read_dataset(path)


def test_pieces_of_a_file_are_those_of_its_bytes(tmp_path: Path) -> None:
    """Within the window, across its edge, larger than it, and at the end."""
    content = np.random.default_rng(0).bytes(200_000)
    path = tmp_path / "file"
    path.write_bytes(content)
    with path.open("rb") as file:
        data = FileBytes(file, 7, 190_000)
        whole = content[7:190_000]
        places = [0, 1, 65_530, 65_536, 65_540, 131_072, 189_980, 189_992, 189_993, 200_000]

        for first in (*places, *places[::-1]):
            for length in (0, 1, 4, 8, 12, 70_000):
                assert whole[first : first + length] == data[first : first + length]
