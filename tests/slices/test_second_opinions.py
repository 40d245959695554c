"""Hounsfield units as other people's software reads them: DCMTK and GDCM, file by file."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames

from tests.slices.ct_images import enhanced
from tfkt_node.records import CT_IMAGE, FloatArray, SetAside
from tfkt_node.slices import codecs
from tfkt_node.slices.attributes import text
from tfkt_node.slices.decoding import number_of_frames, raw_hu, read_dataset

pytestmark = pytest.mark.peers

Tool = Callable[[str], str]

READERS = {
    "dcm2pnm": {
        "1.2.840.10008.1.2",
        "1.2.840.10008.1.2.1",
        "1.2.840.10008.1.2.2",
        "1.2.840.10008.1.2.1.99",
        codecs.RLE_LOSSLESS,
    },
    "dcmj2pnm": {
        codecs.JPEG_BASELINE,
        codecs.JPEG_EXTENDED,
        codecs.JPEG_SPECTRAL,
        codecs.JPEG_PROGRESSIVE,
        codecs.JPEG_LOSSLESS,
        codecs.JPEG_LOSSLESS_SV1,
    },
    "dcml2pnm": {codecs.JPEG_LS_LOSSLESS, codecs.JPEG_LS_NEAR_LOSSLESS},
}
"""DCMTK's converter -> the transfer syntaxes it reads."""


IMAGES = (
    "series/RIDER-Pilot-0109/1-21.dcm",
    "series/LungFCP-01-0001/1-073.dcm",
    "zoo/pydicom-data/693_UNCR.dcm",
)
"""Signed 16 bits, unsigned 12 and signed 14."""

GRADIENT = (np.arange(64)[:, None] * 37 + np.arange(48) * 5 - 1000).astype(np.int16)
HTJ2K_IMAGES = 3

COMPARED_AND_REFUSED = {"dcm2pnm": (153, 7), "dcmj2pnm": (10, 0), "dcml2pnm": (6, 0)}
"""How many images of the zoo DCMTK reads, and how many it does not."""


def ct_images(zoo: Path, syntaxes: set[str]) -> Iterator[tuple[Path, Dataset, FloatArray]]:
    """Every single-frame CT image of the zoo that is turned into HU, in one of the syntaxes."""
    for path in sorted(zoo.rglob("*")):
        if not path.is_file() or "deflate-bomb" in path.name:
            continue
        try:
            ds = read_dataset(path, pixels=True)
            syntax = str(ds.file_meta.get("TransferSyntaxUID", ""))
            is_one_ct = text(ds, "SOPClassUID") == CT_IMAGE and number_of_frames(ds) == 1
            if syntax in syntaxes and is_one_ct:
                yield path, ds, raw_hu(ds)
        except SetAside:
            continue


def by_dcmtk(tool: str, path: Path, target: Path) -> FloatArray | None:
    """HU by DCMTK, which applies the Modality LUT itself; None where it does not read the file.

    A window of 65536 values around 0 maps each whole HU to its own of 65536 grey levels.
    """
    ran = subprocess.run(
        [tool, "--write-16-bit-pnm", "--set-window", "0", "65536", str(path), str(target)],
        capture_output=True, check=False,
    )  # fmt: skip
    if ran.returncode != 0 or not target.is_file():
        return None
    lines = [line for line in target.read_text(encoding="ascii").splitlines() if line[:1] != "#"]
    assert lines[0] == "P2"
    columns, rows, highest, *levels = map(int, " ".join(lines[1:]).split())
    assert highest == 65535
    return np.array(levels, dtype=np.float32).reshape(rows, columns) - 32768


@pytest.mark.parametrize("reader", sorted(READERS))
def test_dcmtk_reads_the_same_hounsfield_units(
    reader: str, shared_data: Path, tmp_path: Path, require_tool: Tool
) -> None:
    """Every CT image of the zoo that both read has the same HU: rescale, sign and bits agree."""
    tool = require_tool(reader)
    compared, refused = 0, []
    for path, ds, hu in ct_images(shared_data / "zoo", READERS[reader]):
        theirs = by_dcmtk(tool, path, tmp_path / "image.pgm")
        (tmp_path / "image.pgm").unlink(missing_ok=True)
        if theirs is None:
            refused.append(path.name)
            continue
        if ds.PhotometricInterpretation == "MONOCHROME1":  # shown inverted, the values are the same
            theirs = -1 - theirs
        off = np.abs(theirs - hu.clip(-32768, 32767)).max()
        is_whole = (hu == np.round(hu)).all()
        assert off == 0 if is_whole else off < 1, path.name  # grey levels are cut to whole HU
        compared += 1
    assert (compared, len(refused)) == COMPARED_AND_REFUSED[reader], refused


def test_gdcm_reads_the_same_hounsfield_units(
    shared_data: Path, tmp_path: Path, require_tool: Tool
) -> None:
    """GDCM unpacks JPEG 2000, JPEG-LS and JPEG lossless to the same stored values."""
    tool = require_tool("gdcmconv")
    syntaxes = {codecs.JPEG_2000_LOSSLESS, codecs.JPEG_2000, codecs.JPEG_LS_LOSSLESS}
    syntaxes |= {codecs.JPEG_LS_NEAR_LOSSLESS, codecs.JPEG_LOSSLESS, codecs.JPEG_LOSSLESS_SV1}
    compared = 0
    for path, ds, hu in ct_images(shared_data / "zoo", syntaxes):
        target = tmp_path / "native.dcm"
        target.unlink(missing_ok=True)
        subprocess.run([tool, "--raw", str(path), str(target)], capture_output=True, check=False)
        if not target.is_file():
            continue
        theirs = raw_hu(read_dataset(target, pixels=True))
        loss = 2.0 if str(ds.file_meta.TransferSyntaxUID) == codecs.JPEG_2000 else 0.0
        assert np.abs(theirs - hu).max() <= loss, path.name
        compared += 1
    assert compared == 22


@pytest.mark.parametrize(
    "encoder",
    [
        ("dcmconv", "+ti"),
        ("dcmconv", "+tb"),
        ("dcmconv", "+td"),
        ("dcmcrle",),
        ("dcmcjpeg", "+e1"),
        ("dcmcjpeg", "+el"),
        *(("dcmcjpeg", "+el", "+sv", str(predictor)) for predictor in range(1, 8)),
        ("dcmcjpls",),
        ("gdcmconv", "--j2k"),
        ("gdcmconv", "--jpegls"),
        ("gdcmconv", "--jpeg"),
        ("gdcmconv", "--rle"),
    ],
    ids=" ".join,
)
def test_what_others_encode_without_loss_keeps_its_hounsfield_units(
    encoder: tuple[str, ...], shared_data: Path, tmp_path: Path, require_tool: Tool
) -> None:
    """Signed 16 bits, unsigned 12 and signed 14, encoded by other people's software."""
    tool, *options = encoder
    for name in IMAGES:
        target = tmp_path / Path(name).name
        subprocess.run(
            [require_tool(tool), *options, str(shared_data / name), str(target)],
            capture_output=True, check=True,
        )  # fmt: skip

        expected = raw_hu(read_dataset(shared_data / name, pixels=True))
        np.testing.assert_array_equal(expected, raw_hu(read_dataset(target, pixels=True)))


@pytest.mark.parametrize("points", [1, 2, 3])
@pytest.mark.parametrize("predictor", [1, 4, 6])
def test_point_transform_is_undone_as_dcmtk_does(
    predictor: int, points: int, shared_data: Path, tmp_path: Path, require_tool: Tool
) -> None:
    """JPEG lossless that gives bits away: what is left of the values, where they were."""
    for name in IMAGES:
        encoded, decoded = tmp_path / "encoded.dcm", tmp_path / "decoded.dcm"
        transform = ["+el", "+sv", str(predictor), "+pt", str(points)]
        run(require_tool("dcmcjpeg"), *transform, shared_data / name, encoded)
        run(require_tool("dcmdjpeg"), encoded, decoded)

        theirs = raw_hu(read_dataset(decoded, pixels=True))
        np.testing.assert_array_equal(theirs, raw_hu(read_dataset(encoded, pixels=True)))


@pytest.mark.parametrize("reader", ["dcmdjpeg", "dcmdjpls", "dcmdrle"])
def test_frames_are_those_that_dcmtk_unpacks(
    reader: str, shared_data: Path, tmp_path: Path, require_tool: Tool
) -> None:
    """A multi-frame object: every frame of it, in the order of the file."""
    encoder = {"dcmdjpeg": "dcmcjpeg", "dcmdjpls": "dcmcjpls", "dcmdrle": "dcmcrle"}[reader]
    frames = np.stack([np.roll(GRADIENT, 7 * number) for number in range(5)])
    whole, encoded, decoded = (tmp_path / name for name in ("whole", "encoded", "decoded"))
    made = enhanced(frames, [(1, -5 * number) for number in range(5)], [*range(5)])
    made.StudyInstanceUID, made.SeriesInstanceUID = "1.2.3.4", "1.2.3.5"
    made.save_as(whole, enforce_file_format=True)
    run(require_tool(encoder), whole, encoded)
    run(require_tool(reader), encoded, decoded)

    for number in range(5):
        expected = frames[number] - 5.0 * number
        for path in (encoded, decoded):
            found = raw_hu(read_dataset(path, pixels=True), number + 1)
            np.testing.assert_array_equal(expected, found)


def test_openjph_decodes_htj2k_to_the_same_samples(shared_data: Path) -> None:
    """The second decoder of HTJ2K, OpenJPH, gives the samples that OpenJPEG gives."""
    import imagecodecs

    syntaxes = {codecs.HTJ2K_LOSSLESS, codecs.HTJ2K_LOSSLESS_RPCL}
    compared = 0
    for _, ds, _ in ct_images(shared_data / "zoo", syntaxes):
        [stream] = generate_frames(ds.PixelData, number_of_frames=1)
        syntax = str(ds.file_meta.TransferSyntaxUID)
        ours = codecs.decode(
            syntax, stream, rows=ds.Rows, columns=ds.Columns, bits_allocated=ds.BitsAllocated
        )
        np.testing.assert_array_equal(imagecodecs.htj2k_decode(stream), ours.values)
        compared += 1
    assert compared == HTJ2K_IMAGES


def run(*command: object) -> None:
    subprocess.run([*map(str, command)], capture_output=True, check=True)
