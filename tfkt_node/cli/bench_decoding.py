"""What `tfkt-node bench decoding` measures: slices a second from file to Hounsfield units.

The slices of one series, as they are and compressed anew in the lossless syntaxes that archives
use. Every file is decoded as the scorer does it, on one core, and compared with what it was made
from.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import imagecodecs
import numpy as np
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID

from tfkt_node.cli.bench_model import largest_series, rate, say
from tfkt_node.records import FloatArray, Misconfigured, SetAside
from tfkt_node.slices import codecs
from tfkt_node.slices.codecs import IntArray
from tfkt_node.slices.decoding import decode_hu, read_dataset
from tfkt_node.slices.pixels import Pixels, name_of
from tfkt_node.slices.structure import DEFAULT_LIMITS, EXPLICIT_LE

MOST_SLICES = 24


def _jpeg_lossless(cells: IntArray, bits: int) -> bytes:
    return bytes(imagecodecs.jpeg8_encode(cells, lossless=True, predictor=1, bitspersample=bits))


def _jpeg_2000(cells: IntArray, bits: int) -> bytes:
    stream = imagecodecs.jpeg2k_encode(
        cells, level=0, reversible=True, codecformat="j2k", bitspersample=bits
    )
    return bytes(stream)


Encode = Callable[[IntArray, int], bytes]

ENCODERS: Mapping[str, Encode] = {
    EXPLICIT_LE: lambda cells, _bits: cells.tobytes(),
    codecs.JPEG_LOSSLESS_SV1: _jpeg_lossless,
    codecs.JPEG_LS_LOSSLESS: lambda cells, _bits: bytes(imagecodecs.jpegls_encode(cells)),
    codecs.JPEG_2000_LOSSLESS: _jpeg_2000,
    codecs.HTJ2K_LOSSLESS: lambda cells, _bits: bytes(imagecodecs.htj2k_encode(cells)),
}
"""Samples as unsigned numbers of so many bits -> the stream of a frame."""


@dataclass(frozen=True, slots=True)
class Row:
    """One transfer syntax. per_second: slices. kb: of a file. is_exact: all HU came back."""

    syntax: str
    per_second: float
    kb: float
    is_exact: bool


def measure(source: Path | None, scratch: Path) -> Iterator[Row]:
    """Measure every syntax on the largest series of a folder, or on a simulated one.

    Raises Misconfigured where no slice of it can be decoded.
    """
    files = [instance.path for instance in largest_series(source, scratch).instances]
    originals = list(islice(_decodable(files), MOST_SLICES))
    if not originals:
        raise Misconfigured("--input: no slice of the largest series can be decoded")
    hu = [decode_hu(ds) for ds in originals]
    for syntax, encode in ENCODERS.items():
        name = name_of(syntax)
        say(f"Measuring {name} …")
        folder = scratch / syntax
        folder.mkdir()
        paths = [folder / f"{number}.dcm" for number in range(len(originals))]
        for path, ds in zip(paths, originals, strict=True):
            _compressed(ds, syntax, encode).save_as(path, enforce_file_format=True)
        is_exact = all(map(np.array_equal, hu, map(_decode, paths)))
        with _one_core():
            per_second = rate(lambda some: [_decode(path) for path in some], paths)
        size_kb = sum(path.stat().st_size for path in paths) / len(paths) / 1000
        yield Row(name, per_second, size_kb, is_exact)


def _decodable(files: Sequence[Path]) -> Iterator[Dataset]:
    for path in files:
        try:
            ds = read_dataset(path, pixels=True)
            decode_hu(ds)
        except SetAside:
            continue
        yield ds


def _decode(path: Path) -> FloatArray:
    return decode_hu(read_dataset(path, pixels=True))


@contextmanager
def _one_core() -> Iterator[None]:
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def _compressed(ds: Dataset, syntax: str, encode: Encode) -> Dataset:
    """Return the object with its pixels in another syntax: samples of Bits Stored."""
    made = copy.deepcopy(ds)
    layout = (pixels := Pixels(ds, DEFAULT_LIMITS)).layout
    stored = pixels.frame(None).stored
    samples = (stored & ((1 << layout.bits_stored) - 1)).astype(np.uint16)
    stream = encode(samples, layout.bits_stored)
    made.file_meta.TransferSyntaxUID = UID(syntax)
    made.BitsAllocated, made.HighBit = 16, layout.bits_stored - 1
    made.PixelData = stream if syntax == EXPLICIT_LE else encapsulate([stream])
    made["PixelData"].VR = "OW" if syntax == EXPLICIT_LE else "OB"
    return made
