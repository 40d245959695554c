"""Say whether a slice is what the model was trained on: an axial slice of a body, in HU.

First by header, then by simple physics of the pixels on a coarse grid. A missing header is
unknown, never a refusal; a value that says "other" is. Scope is not quality: noise, streaks and
cut-off shoulders stay in.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
from scipy import ndimage

from tfkt_node.records import AXIAL_LIMIT_DEG, BoolArray, FloatArray, Reason, SliceGeometry

SMALLEST_MATRIX = 256
"""Rows and columns; smaller images are previews, whose noise is not that of the scan."""

LOCALIZER_TYPES = frozenset({"LOCALIZER", "SCOUT", "TOPOGRAM", "SCANOGRAM", "SURVIEW"})
SECONDARY_TYPES = frozenset(
    {"MIP", "MINIP", "MAXIP", "PROJECTION", "MAXIMUM", "MINIMUM", "VRT", "VR", "SSD", "RENDERED"}
    | {"VOLUMERENDER", "SURFACERENDER", "CURVEDMPR", "SCREEN", "SCREENSAVE", "SCREENCAPTURE"}
    | {"SCREENSHOT", "DOSEINFO", "SUBTRACTION", "STDDEVIATION"}
)
NOT_HU_TYPES = frozenset(
    {"PERFUSION", "RCBF", "CBF", "RCBV", "CBV", "MTT", "TTP", "TMAX", "PERMEABILITY"}
    | {"EFFATOMICNUM", "ELECTRONDENSITY", "MATSPECIFIC", "MATFRACTIONAL", "MATVALUEBASED"}
    | {"ZEFF", "IODINE"}
)
"""Values of Image Type and Frame Type (PS3.3 C.8.2.1.1.1, C.8.15.2.1.1, C.8.16.1.4), vendors'
habits beside the standard's terms; compared without separators, whole and word by word."""

HEAD_PARTS = frozenset(
    {"HEAD", "BRAIN", "SKULL", "ORBIT", "SINUS", "FACE", "IAC", "EAR", "SELLA", "MAXILLA"}
)
"""Words of Body Part Examined (PS3.16 table L-1)."""

SHARP_KERNELS = re.compile(
    r"(LUNG|BONE|EDGE|SHARP|HRCT)|FC(3|5|8)\d\b|\b[A-Z]{1,2}[6-9]\d|\bBL\d\d|\b(L|E|YL|YE)\b"
)
"""Kernels for lung and bone, by what GE and others, Canon, Siemens (from 60 up, and Bl), and
Philips call them. Their noise is three times that of a soft kernel at the same dose, and wanted."""

COARSE_CELLS = 128
TISSUE_ABOVE_HU = -400.0
LEAST_LIMB = 0.04
"""Share of the trunk's area that an arm beside it has."""
LUNG_MEAN_HU = -950.0
"""Mean of a hole of the tissue; lower is air between body and couch."""
LUNG_RIM = 0.3
"""Share of a lung's rim that lies in tissue of 3 cells and more. Measured: lungs at least 0.32,
couch tops at most 0.06."""
LEAST_BODY_SHARE = 0.02
LEAST_BODY_MM = 75.0
"""Equivalent diameter; a newborn's trunk has about 100 mm."""
ONE_VALUE_HU = 20.0
ONE_VALUE_SHARE = 0.75
"""Share of a body within 20 HU, in means over 8 mm, that only a phantom has: bodies on file at most
0.5, cylinders of water or plastic 0.8 and more, with inserts and up to 60 HU of noise."""

HEAD_SHELL_MM = 20.0
HEAD_BONE_HU = 300.0
HEAD_SHARE = 0.75
"""Directions in which bone lies within 20 mm of the surface. Measured: skulls 0.79 to 1, bodies at
most 0.37 (thin chest)."""
LUNG_HU = (-900.0, -500.0)
HEAD_LUNG_SHARE = 0.2
"""An infant's ribs are level and may close the ring too, but around lungs; skulls: at most 0.17."""
HEAD_DIAMETER_MM = (100.0, 240.0)
HEAD_LARGEST_BY_HEADER_MM = 240.0


@dataclass(frozen=True, slots=True)
class Body:
    """A slice on a coarse grid of block x block pixels, and where the body lies in it.

    means: (r, c) float32, HU, mean of each cell. squares: likewise, mean of HU squared. mask:
    (r, c), True inside the body, lungs and bowel included. outline: box (left, top, right, bottom)
    in pixels of the slice, right and bottom exclusive; None without a body.
    """

    means: FloatArray
    squares: FloatArray
    mask: BoolArray
    block: int
    outline: tuple[int, int, int, int] | None

    def diameter_mm(self, spacing_mm: tuple[float, float]) -> float:
        """Diameter of the circle of the body's area."""
        return _diameter_mm(self.mask, self.block, spacing_mm)


def header_reason(one: SliceGeometry) -> Reason | None:
    """Return why the header puts a slice out of scope; None: nothing in it does.

    LOCALIZER, NOT_HU and DERIVED_SECONDARY by Image Type or Frame Type; NOT_AXIAL by orientation,
    or where neither orientation nor Image Type tells the plane; MATRIX under 256 rows or columns.
    Derived axial images (averages, thicker slices) are in scope.
    """
    words = _words(one.image_type)
    if words & LOCALIZER_TYPES:
        return Reason.LOCALIZER
    if words & NOT_HU_TYPES:
        return Reason.NOT_HU
    if words & SECONDARY_TYPES:
        return Reason.DERIVED_SECONDARY
    if not _is_axial(one.orientation, words):
        return Reason.NOT_AXIAL
    if min(one.rows, one.columns) < SMALLEST_MATRIX:
        return Reason.MATRIX
    return None


def is_sharp_kernel(kernel: str | None) -> bool:
    """Say whether a kernel is one for lung or bone, which readers of the scale never saw.

    An unknown name is unknown, never a doubt.
    """
    return kernel is not None and SHARP_KERNELS.search(kernel.upper()) is not None


def is_head_scan(reasons: Sequence[Reason | None]) -> bool:
    """Say whether a stack, by the reason of each of its slices, is the scan of a head.

    Then its faces and necks, which have no closed skull and would pass one by one, are out too.
    """
    skulls = sum(reason is Reason.HEAD for reason in reasons)
    return skulls > 0 and skulls >= sum(reason is None for reason in reasons)


def find_body(hu: FloatArray) -> Body:
    """Find the body in a slice: (rows, columns) float32, HU, without padding.

    Tissue on the coarse grid with its lungs, opened by 3 x 3 cells (about 8 mm) so that couch and
    blankets fall off; its largest pieces and the arms beside them, filled. Cells average noise
    away, so that it holds at any dose.
    """
    block = max(1, round(min(hu.shape) / COARSE_CELLS))
    means = cell_means(hu, block)
    tissue = means > TISSUE_ABOVE_HU
    opened = ndimage.binary_opening(tissue | _lungs(means, tissue), np.ones((3, 3)))
    mask = ndimage.binary_fill_holes(_pieces(opened, least_share=0.1) | _limbs(opened))
    squares = cell_means(np.square(hu), block)
    return Body(means, squares, mask, block, _outline(mask, block))


def cell_means(values: FloatArray, block: int) -> FloatArray:
    """Average over cells of block x block pixels; a rest at right and bottom is left out."""
    rows, columns = (length // block * block for length in values.shape)
    # Whole strips at a time: four to ten times as fast as sums over axes as short as a block.
    strips = reduce(np.add, (values[at:rows:block, :columns] for at in range(block)))
    means: FloatArray = reduce(np.add, (strips[:, at::block] for at in range(block)))
    return means / np.float32(block**2)


def pixel_reason(
    body: Body, spacing_mm: tuple[float, float] | None, body_part: str = ""
) -> Reason | None:
    """Return why the pixels put a slice out of scope; None: they show a body.

    spacing_mm: (between rows, between columns); None: sizes are not judged. body_part: Body Part
    Examined; a head by header counts where the size agrees.
    HEAD: a shell of bone under the skin in most directions. NO_BODY: nothing, or too little.
    PHANTOM: nearly one value throughout, as in cylinders of water or plastic, inserts or not.
    """
    if spacing_mm is not None and _is_head(body, spacing_mm):
        return Reason.HEAD
    if body.mask.mean() < LEAST_BODY_SHARE:
        return Reason.NO_BODY
    diameter_mm = None if spacing_mm is None else body.diameter_mm(spacing_mm)
    if _words((body_part,)) & HEAD_PARTS and (diameter_mm or 0) <= HEAD_LARGEST_BY_HEADER_MM:
        return Reason.HEAD
    if diameter_mm is not None and diameter_mm < LEAST_BODY_MM:
        return Reason.NO_BODY
    return Reason.PHANTOM if _share_of_one_value(body) >= ONE_VALUE_SHARE else None


# --------------------------------------------------------------------------- header


def _words(values: tuple[str, ...]) -> frozenset[str]:
    """Compare without separators, whole and word by word: 'MIN IP' gives MINIP, MIN, IP."""
    parts = [re.findall(r"[A-Z0-9]+", value.upper()) for value in values]
    return frozenset(word for words in parts for word in ("".join(words), *words))


def _is_axial(orientation: tuple[float, ...] | None, words: frozenset[str]) -> bool:
    if orientation is None:
        return "AXIAL" in words
    rx, ry, _, cx, cy, _ = orientation
    return abs(rx * cy - ry * cx) >= math.cos(math.radians(AXIAL_LIMIT_DEG))


# --------------------------------------------------------------------------- pixels


def _pieces(mask: BoolArray, least_share: float) -> BoolArray:
    """Keep connected pieces of at least a share of the largest one's area."""
    labels, found = ndimage.label(mask)
    if found == 0:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    kept: BoolArray = (sizes >= max(1.0, least_share * sizes.max()))[labels]
    return kept


def _lungs(means: FloatArray, tissue: BoolArray) -> BoolArray:
    """Mark holes of the tissue that hold more than air and lie in thick tissue.

    Before anything is opened: that takes away a chest wall of under three cells, and with it the
    lung behind. A hollow couch top is a hole as well, with little thick tissue around it.
    """
    holes, found = ndimage.label(ndimage.binary_fill_holes(tissue) & ~tissue)
    rim = np.where(tissue, ndimage.grey_dilation(holes, (3, 3)), 0)
    thick = rim[ndimage.binary_opening(tissue, np.ones((3, 3)))]
    around, in_thick = (np.bincount(one.ravel(), minlength=found + 1) for one in (rim, thick))
    mean = np.asarray(ndimage.mean(means, holes, np.arange(found + 1)))
    lungs = (in_thick >= LUNG_RIM * around) & (mean > LUNG_MEAN_HU)
    lungs[0] = False  # what is no hole
    marked: BoolArray = lungs[holes]
    return marked


def _limbs(mask: BoolArray) -> BoolArray:
    """Keep connected pieces of LEAST_LIMB that are not much longer than thick: arms.

    The plates of a couch are as large.
    """
    labels, _ = ndimage.label(mask)
    area = np.bincount(labels.ravel())
    area[0] = 0
    limbs = np.zeros_like(mask)
    for number in np.flatnonzero((area >= LEAST_LIMB * area.max()) & (area < area.max())):
        piece = labels == number
        across = 2 * ndimage.distance_transform_cdt(piece, "chessboard").max() - 1
        if area[number] <= 3 * across**2:
            limbs |= piece
    return limbs


def _outline(mask: BoolArray, block: int) -> tuple[int, int, int, int] | None:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if rows.size == 0:
        return None
    left, right = int(columns[0]), int(columns[-1]) + 1
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    return left * block, top * block, right * block, bottom * block


def _diameter_mm(mask: BoolArray, block: int, spacing_mm: tuple[float, float]) -> float:
    area = float(mask.sum()) * block**2 * spacing_mm[0] * spacing_mm[1]
    return 2 * math.sqrt(area / math.pi)


def _share_of_one_value(body: Body) -> float:
    """Largest share of the body, without its surface, whose values lie within ONE_VALUE_HU."""
    inside = ndimage.binary_erosion(body.mask, np.ones((3, 3)), iterations=2)
    means = ndimage.uniform_filter(body.means, 3)
    values = np.sort(means[inside if inside.any() else body.mask])
    counts = np.searchsorted(values, values + ONE_VALUE_HU, "right") - np.arange(values.size)
    return float(counts.max()) / values.size


def _is_head(body: Body, spacing_mm: tuple[float, float]) -> bool:
    """Look for a closed shell of bone under the surface of a thing of a head's size.

    Tried on the body, and on everything filled: an empty skull (a phantom) has thin walls only,
    which the opening that removes the couch takes away.
    """
    low, high = HEAD_DIAMETER_MM
    if body.diameter_mm(spacing_mm) > high:
        return False
    closed = ndimage.binary_closing(body.means > TISSUE_ABOVE_HU, np.ones((3, 3)))
    filled = _pieces(ndimage.binary_fill_holes(closed), least_share=1.0)
    cell_mm = body.block * math.sqrt(spacing_mm[0] * spacing_mm[1])
    lung = (body.means > LUNG_HU[0]) & (body.means < LUNG_HU[1])
    return any(
        low <= _diameter_mm(mask, body.block, spacing_mm) <= high
        and lung[mask].mean() <= HEAD_LUNG_SHARE
        and _bone_share(body.means, mask, HEAD_SHELL_MM / cell_mm) >= HEAD_SHARE
        for mask in (_pieces(body.mask, least_share=1.0), filled)
    )


def _bone_share(means: FloatArray, mask: BoolArray, shell_cells: float) -> float:
    """Share of 90 directions from the centre that meet bone in the shell under the surface."""
    rows, columns = np.nonzero(mask)
    angles = np.deg2rad(np.arange(0, 360, 4))[:, None]
    reach = np.hypot(rows - rows.mean(), columns - columns.mean()).max()
    radius = np.arange(0, reach + 1, 0.5)
    y = np.rint(rows.mean() + np.sin(angles) * radius).astype(int)
    x = np.rint(columns.mean() + np.cos(angles) * radius).astype(int)
    in_image = (y >= 0) & (y < mask.shape[0]) & (x >= 0) & (x < mask.shape[1])
    y, x = np.where(in_image, y, 0), np.where(in_image, x, 0)
    inside = mask[y, x] & in_image
    surface = np.where(inside, radius, 0).max(axis=1, keepdims=True)
    shell = inside & (radius > surface - shell_cells)
    return float((shell & (means[y, x] > HEAD_BONE_HU)).any(axis=1).mean())
