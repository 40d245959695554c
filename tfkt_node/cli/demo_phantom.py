"""A body that exists only on paper: an upper abdomen in Hounsfield units for the demonstration.

Guarantees the same volume for the same seed, without any patient's data. It is not a test object of
physics: shapes and textures are only near enough to anatomy for the model to be in its scope.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.ndimage as ndi

from tfkt_node.records import FloatArray

Grid = tuple[FloatArray, FloatArray]
"""x (to the patient's left) and y (to the back) of every pixel, mm from the middle."""

SIZE = 512
PIXEL_MM = 0.74
SLICE_MM = 3.0

AIR_HU = -1000.0
FAT_HU = -100.0
WALL_MM = 27.0
"""Depth under the skin at which the belly begins."""


@dataclass(frozen=True, slots=True)
class Organ:
    """An ellipsoid of one tissue. Lengths in mm; turn_deg turns it in the axial plane.

    texture_hu: standard deviation of its inner unevenness, for blobs of about 3 mm.
    """

    hu: float
    centre: tuple[float, float, float]
    axes: tuple[float, float, float]
    turn_deg: float = 0.0
    texture_hu: float = 4.0


# Painted in this order, so that what comes later lies on top. z = 0 is the lowest slice, 100 the
# highest. Values are those of a portal venous phase.
LIVER = (
    Organ(108, (-62, -8, 78), (72, 78, 75), turn_deg=-12),  # right lobe
    Organ(108, (-8, -42, 80), (58, 38, 42), turn_deg=14),  # left lobe
)
ORGANS = (
    Organ(22, (-58, -38, 38), (14, 20, 20), turn_deg=20, texture_hu=1),  # gall bladder
    Organ(118, (96, 42, 74), (22, 42, 50), turn_deg=-28),  # spleen
    Organ(66, (62, -38, 68), (46, 36, 40), turn_deg=-18, texture_hu=2),  # stomach, wall
    Organ(14, (62, -38, 68), (41, 31, 36), turn_deg=-18, texture_hu=6),  # and content
    Organ(-980, (60, -58, 70), (24, 9, 20), texture_hu=0),  # and air
    Organ(95, (18, -12, 38), (48, 11, 14), turn_deg=-14, texture_hu=7),  # pancreas
    Organ(178, (-66, 52, 26), (25, 32, 46), turn_deg=-28),  # right kidney, cortex
    Organ(140, (-64, 52, 26), (16, 22, 36), turn_deg=-28, texture_hu=12),  # and medulla
    Organ(-60, (-56, 48, 24), (8, 10, 18), turn_deg=-28),  # and sinus
    Organ(178, (70, 50, 34), (25, 32, 48), turn_deg=28),  # left kidney, cortex
    Organ(140, (68, 50, 34), (16, 22, 37), turn_deg=28, texture_hu=12),
    Organ(-60, (60, 46, 32), (8, 10, 18), turn_deg=28),
    Organ(60, (-38, 66, 10), (20, 18, 45), texture_hu=5),  # right psoas
    Organ(60, (38, 66, 10), (20, 18, 45), texture_hu=5),
    Organ(150, (-20, 20, 50), (12, 9, 400), texture_hu=2),  # inferior vena cava
    Organ(165, (14, 24, 50), (10.5, 10.5, 400), texture_hu=2),  # aorta
    Organ(150, (6, 0, 46), (8, 7, 30), texture_hu=2),  # portal vein and its confluence
    Organ(45, (24, -66, 12), (26, 15, 22), texture_hu=10),  # bowel
    Organ(-200, (24, -70, 12), (14, 6, 14), texture_hu=60),
    Organ(45, (-36, -64, 6), (30, 14, 20), turn_deg=10, texture_hu=10),
    Organ(-350, (-40, -68, 6), (16, 6, 12), texture_hu=80),
    Organ(45, (84, -30, 8), (16, 26, 22), texture_hu=10),
    Organ(48, (6, -48, 0), (22, 14, 22), texture_hu=10),
    Organ(62, (-86, -24, 88), (9, 8, 9), texture_hu=2),  # a lesion in the liver
    Organ(70, (-40, 26, 60), (6, 6, 7), texture_hu=2),
)


def abdomen(slices: int, seed: int = 1) -> FloatArray:
    """Make the volume without noise.

    Returns (slices, 512, 512) float32, HU, from the feet up, seen from the feet as usual.
    """
    random = np.random.default_rng(seed)
    line = ((np.arange(SIZE) - SIZE / 2 + 0.5) * PIXEL_MM).astype(np.float32)
    y, x = np.meshgrid(line, line, indexing="ij")
    grid = (x, y)
    textures = _textures(slices, random)
    organs = (*_vessels_of_belly(random), *LIVER, *_vessels_of_liver(random), *ORGANS)
    volume = np.empty((slices, SIZE, SIZE), np.float32)
    for number in range(slices):
        z = 50.0 + (number - (slices - 1) / 2) * SLICE_MM
        image, belly = _wall(grid, z, textures[number]), _body(grid, z) > WALL_MM
        within = image.copy()
        for organ in organs:
            _paint(within, grid, z, organ, textures[number])
        image[belly] = within[belly]
        _paint_lungs(image, grid, z, textures[number])
        _paint_spine(image, grid, z, textures[number])
        _paint_ribs(image, grid, z)
        _paint_couch(image, grid)
        volume[number] = ndi.gaussian_filter(image, 0.7)  # a standard kernel's sharpness
    return volume


def _textures(slices: int, random: np.random.Generator) -> FloatArray:
    """Return unevenness of unit deviation: blobs of 3 mm, alike in neighbouring slices."""
    raw = random.standard_normal((slices, SIZE, SIZE)).astype(np.float32)
    smooth = ndi.gaussian_filter(raw, (0.8, 1.8, 1.8))
    return np.asarray(smooth / smooth.std(), np.float32)


def _vessels_of_liver(random: np.random.Generator) -> list[Organ]:
    """Scatter enhanced vessels through the right lobe."""
    lobe = LIVER[0]
    vessels = []
    for _ in range(46):
        direction = random.standard_normal(3)
        inside = 0.75 * random.uniform() ** (1 / 3) * direction / np.linalg.norm(direction)
        x, y, z = (c + d * r for c, d, r in zip(lobe.centre, inside, lobe.axes, strict=True))
        axes = random.uniform(6, 20), random.uniform(1.4, 3.2), random.uniform(3, 12)
        vessels.append(Organ(158, (x, y, z), axes, random.uniform(-60, 60), texture_hu=1))
    return vessels


def _vessels_of_belly(random: np.random.Generator) -> list[Organ]:
    """Scatter small vessels through the fat of the belly."""
    vessels = []
    for _ in range(60):
        centre = random.uniform(-70, 80), random.uniform(-60, 20), random.uniform(-10, 60)
        axes = random.uniform(2, 14), random.uniform(1.2, 2.6), random.uniform(3, 20)
        hu, turn_deg = random.uniform(40, 130), random.uniform(-90, 90)
        vessels.append(Organ(hu, centre, axes, turn_deg, texture_hu=1))
    return vessels


def _body(grid: Grid, z: float) -> FloatArray:
    """Return the depth under a smooth, not quite elliptical skin, mm; negative outside."""
    x, y = grid
    angle = np.arctan2(y, x)
    wobble = 1 + 0.018 * np.cos(3 * angle + 0.4) - 0.02 * np.cos(4 * angle) + 0.0002 * (z - 50)
    flat_back = np.where(y > 0, 0.92, 1.0)
    radius = np.hypot(x / 166, y / (118 * flat_back)) / wobble
    return np.asarray((1 - radius) * 118, np.float32)


def _wall(grid: Grid, z: float, texture: FloatArray) -> FloatArray:
    """Paint air, skin, fat under it, the muscles of the wall, and the fat of the belly."""
    x, y = grid
    depth = _body(grid, z)
    image = np.full(depth.shape, AIR_HU, np.float32)
    fat_mm = 13 + 5 * np.cos(2 * np.arctan2(y, x))
    image[depth > 0] = 30
    fat = depth > 2
    image[fat] = (FAT_HU + 7 * texture)[fat]
    muscle = (depth > fat_mm) & (depth < fat_mm + 11)
    image[muscle] = (58 + 6 * texture)[muscle]
    between = np.abs(depth - fat_mm - 5) < 0.5  # the thin fat between two layers of muscle
    image[between & muscle] = -20
    for side in (-1, 1):  # muscles along the spine
        inside = np.hypot((x - side * 34) / 27, (y - 86) / 17) < 1
        image[inside] = (57 + 9 * texture)[inside]
    return image


def _paint(image: FloatArray, grid: Grid, z: float, organ: Organ, texture: FloatArray) -> None:
    """Paint what an organ shows of itself at height z."""
    x, y = grid
    left = 1 - ((z - organ.centre[2]) / organ.axes[2]) ** 2
    if left <= 0:
        return
    turn = np.deg2rad(organ.turn_deg)
    across = (x - organ.centre[0]) * np.cos(turn) + (y - organ.centre[1]) * np.sin(turn)
    along = -(x - organ.centre[0]) * np.sin(turn) + (y - organ.centre[1]) * np.cos(turn)
    inside = (across / organ.axes[0]) ** 2 + (along / organ.axes[1]) ** 2 < left
    image[inside] = (organ.hu + organ.texture_hu * texture)[inside]


def _paint_lungs(image: FloatArray, grid: Grid, z: float, texture: FloatArray) -> None:
    """Paint the bases of the lungs, which reach down behind liver and spleen."""
    x, y = grid
    rise = z - 62
    if rise <= 0:
        return
    cavity = _body(grid, z) > WALL_MM
    for side in (-1, 1):
        middle = np.hypot((x - side * 72) / 62, (y - 38) / 62)
        rim = np.hypot((x - side * 66) / (62 - 0.35 * rise), (y - 22) / (66 - 0.5 * rise))
        inside = cavity & (middle < 1) & (rim > 1) & (np.abs(x) > 24)
        values = -860 + 26 * texture + 620 * (texture > 2.3)  # vessels, cut across
        image[inside] = values[inside]


def _paint_spine(image: FloatArray, grid: Grid, z: float, texture: FloatArray) -> None:
    x, y = grid
    in_disc = (z + 6) % 34 < 7
    body = np.hypot(x / 22, (y - 48) / 17)
    canal = np.hypot(x / 10, (y - 72) / 8.5)
    arch = (np.abs(x) < 5) & (np.abs(y - 92) < 13)
    wing = (np.abs(x) < 36) & (np.abs(y - 74 - 0.1 * np.abs(x)) < 5)
    bone = np.where(texture > 0, 240 + 40 * texture, 200 + 30 * texture)
    if not in_disc:
        image[wing | arch] = (bone + 160)[wing | arch]
    ring = canal < 1.45
    image[ring] = 480
    image[canal < 1] = (-10 + 2 * texture)[canal < 1]
    cord = np.hypot(x / 5.5, (y - 72) / 4.5) < 1
    image[cord] = 35
    inside = body < 1
    image[inside] = (85 + 5 * texture)[inside] if in_disc else bone[inside]
    if not in_disc:
        image[inside & (body > 0.92)] = 560


def _paint_ribs(image: FloatArray, grid: Grid, z: float) -> None:
    """Paint ribs cut obliquely: they walk forward along the wall from slice to slice."""
    x, y = grid
    depth = _body(grid, z)
    angle = np.rad2deg(np.arctan2(y, np.abs(x)))  # 90 at the back, -90 in front
    for number in range(5):
        at = 68 - 34 * number + (z - 50) * 0.16
        if at < -60 + 0.5 * max(0.0, 60 - z):
            continue
        across = (angle - at) / 6.0
        inward = (depth - 24) / 5.2
        outer = np.hypot(across, inward)
        image[outer < 1] = 620
        image[outer < 0.72] = 210


def _paint_couch(image: FloatArray, grid: Grid) -> None:
    x, y = grid
    curve = y - 124 + 0.0011 * x**2
    table = (np.abs(x) < 180) & (curve > 0) & (curve < 26)
    shell = table & ((curve < 2) | (curve > 24))
    free = image < -900
    image[table & free] = -940
    image[shell & free] = -420
