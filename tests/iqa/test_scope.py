from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tfkt_node.iqa.scope import (
    find_body,
    header_reason,
    is_head_scan,
    is_sharp_kernel,
    pixel_reason,
)
from tfkt_node.records import CT_IMAGE, FloatArray, InstanceRef, Reason, SliceGeometry
from tfkt_node.slices import decoding

SPACING = (0.7, 0.7)
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)


def header(
    *image_type: str,
    orientation: tuple[float, ...] | None = AXIAL,
    rows: int = 512,
    columns: int = 512,
) -> SliceGeometry:
    return SliceGeometry(
        instance=InstanceRef(Path("a.dcm"), "digest", CT_IMAGE, "1.2.3"),
        frame=None,
        rows=rows,
        columns=columns,
        origin_mm=None,
        orientation=orientation,
        position_mm=None,
        pixel_spacing_mm=SPACING,
        slice_thickness_mm=None,
        acquisition=None,
        kernel=None,
        image_type=image_type,
        instance_number=None,
    )


@pytest.mark.parametrize(
    ("image_type", "reason"),
    [
        ((), None),
        (("ORIGINAL", "PRIMARY", "AXIAL"), None),
        (("ORIGINAL", "PRIMARY", "AXIAL", "CT_SOM5 SPI"), None),
        (("DERIVED", "SECONDARY", "REFORMATTED", "AVERAGE"), None),
        (("DERIVED", "PRIMARY", "MPR"), None),
        (("DERIVED", "PRIMARY", "AXIAL", "VMI"), None),
        (("ORIGINAL", "PRIMARY", "LOCALIZER"), Reason.LOCALIZER),
        (("ORIGINAL", "PRIMARY", "LOCALIZER", "PS"), Reason.LOCALIZER),
        (("ORIGINAL", "PRIMARY", "TOPOGRAM"), Reason.LOCALIZER),
        (("DERIVED", "SECONDARY", "AXIAL", "MIP"), Reason.DERIVED_SECONDARY),
        (("DERIVED", "SECONDARY", "MIN IP"), Reason.DERIVED_SECONDARY),
        (("DERIVED", "SECONDARY", "VOLUME", "MIN_IP"), Reason.DERIVED_SECONDARY),
        (("DERIVED", "SECONDARY", "PROJECTION IMAGE"), Reason.DERIVED_SECONDARY),
        (("DERIVED", "SECONDARY", "DOSE_INFO"), Reason.DERIVED_SECONDARY),
        (("DERIVED", "SECONDARY", "SCREEN SAVE"), Reason.DERIVED_SECONDARY),
        (("DERIVED", "PRIMARY", "PERFUSION", "RCBF"), Reason.NOT_HU),
        (("DERIVED", "PRIMARY", "AXIAL", "EFF_ATOMIC_NUM"), Reason.NOT_HU),
    ],
)
def test_image_type_decides_by_what_it_says(
    image_type: tuple[str, ...], reason: Reason | None
) -> None:
    """Derived axial HU images are scored; projections, maps and localizers are not."""
    assert reason is header_reason(header(*image_type))


def test_plane_is_judged_by_orientation_then_by_image_type() -> None:
    """Coronal is out; a tilted gantry is in; a plane that nothing tells is not taken as axial."""
    angle = math.radians(30)
    tilted = (1.0, 0.0, 0.0, 0.0, math.cos(angle), -math.sin(angle))

    assert header_reason(header("ORIGINAL", "PRIMARY", "AXIAL", orientation=CORONAL)) is (
        Reason.NOT_AXIAL
    )
    assert header_reason(header(orientation=tilted)) is None
    assert header_reason(header("ORIGINAL", "PRIMARY", "AXIAL", orientation=None)) is None
    assert header_reason(header(orientation=None)) is Reason.NOT_AXIAL


@pytest.mark.parametrize(("rows", "columns"), [(255, 512), (512, 128), (1, 1)])
def test_small_matrix_is_out(rows: int, columns: int) -> None:
    """A preview has other noise than the scan."""
    assert header_reason(header(rows=rows, columns=columns)) is Reason.MATRIX
    assert header_reason(header(rows=256, columns=256)) is None


@pytest.mark.parametrize(
    ("kernel", "is_sharp"),
    [
        ("LUNG", True),
        ("BONEPLUS", True),
        ("EDGE", True),
        ("B60f", True),
        ("B70s", True),
        ("Br64d\\3", True),
        ("Bl57f", True),
        ("I70f\\3", True),
        ("FC30", True),
        ("FC51", True),
        ("L", True),
        ("YE", True),
        ("STANDARD", False),
        ("SOFT", False),
        ("DETAIL", False),
        ("CHST", False),
        ("B20f", False),
        ("B31f", False),
        ("AB50", False),
        ("B50s", False),
        ("Br40d", False),
        ("H60s", True),
        ("FC08", False),
        ("FC17", False),
        ("B", False),
        ("D", False),
        ("UB", False),
        ("", False),
        (None, False),
    ],
)
def test_kernels_for_lung_and_bone_are_told_by_name(kernel: str | None, is_sharp: bool) -> None:
    """Of four makers; a name that nobody knows is no doubt."""
    assert is_sharp_kernel(kernel) is is_sharp


# --------------------------------------------------------------------------- made pixels


def disc(radius_mm: float, hu: float, *, size: int = 512) -> Iterator[FloatArray]:
    """Distances from the centre, then the image: one value in a disc, air around."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    distance = np.hypot(y, x) * SPACING[0]
    yield distance
    yield np.where(distance < radius_mm, hu, -1000).astype(np.float32)


def person(*, radius_mm: float = 140, noise: float = 20) -> FloatArray:
    """Fat around muscle around lung, with noise."""
    distance, hu = disc(radius_mm, 50)
    hu[(distance > radius_mm - 20) & (distance < radius_mm)] = -100
    hu[distance < radius_mm / 3] = -850
    hu += np.random.default_rng(1).normal(0, noise, hu.shape).astype(np.float32)
    return hu


def test_person_is_in_scope_with_an_outline_around_it() -> None:
    """Skin, fat, muscle and lungs are one body; the outline is in pixels of the slice."""
    body = find_body(person())
    assert body.outline is not None
    left, top, right, bottom = body.outline

    assert pixel_reason(body, SPACING) is None
    assert body.diameter_mm(SPACING) == pytest.approx(280, abs=4)
    assert [left, top] == pytest.approx([56, 56], abs=8)
    assert [right, bottom] == pytest.approx([456, 456], abs=8)
    assert body.mask[64, 64]


@pytest.mark.parametrize("noise", [0, 60, 150, 300])
def test_noise_puts_nothing_out_of_scope(noise: float) -> None:
    """Scope is not quality: photon starvation must reach the score."""
    assert pixel_reason(find_body(person(noise=noise)), SPACING) is None


def test_newborn_is_in_scope() -> None:
    """A trunk of 100 mm in a field of 360 mm is a body."""
    assert pixel_reason(find_body(person(radius_mm=50)), SPACING) is None


def test_couch_without_a_patient_is_no_body() -> None:
    """A thin shell falls off; air is nothing."""
    couch = np.full((512, 512), -1000, dtype=np.float32)
    couch[400:403, 60:450] = 100

    for empty in (couch, np.full((512, 512), -1000, dtype=np.float32)):
        body = find_body(empty)
        assert (body.outline, pixel_reason(body, SPACING)) == (None, Reason.NO_BODY)


def test_water_and_flat_images_are_phantoms() -> None:
    """One value throughout is nobody."""
    _, water = disc(100, 0)
    water += np.random.default_rng(1).normal(0, 15, water.shape).astype(np.float32)

    assert pixel_reason(find_body(water), SPACING) is Reason.PHANTOM
    assert pixel_reason(find_body(np.full((512, 512), 40, np.float32)), SPACING) is Reason.PHANTOM


def cylinder(inserts: list[tuple[float, float, float]], *, noise: float) -> FloatArray:
    """Plastic of 100 HU with inserts: (distance from the centre in mm, radius in mm, HU)."""
    _, hu = disc(100, 100)
    y, x = (np.mgrid[:512, :512] - 255.5) * SPACING[0]
    for number, (away, radius, value) in enumerate(inserts):
        angle = 2 * math.pi * number / len(inserts)
        hu[np.hypot(y - away * math.sin(angle), x - away * math.cos(angle)) < radius] = value
    hu += np.random.default_rng(2).normal(0, noise, hu.shape).astype(np.float32)
    return hu


@pytest.mark.parametrize("noise", [3, 20, 60])
@pytest.mark.parametrize(
    ("away", "radius", "values"),
    [
        (58, 6, (-1000, -200, -100, -35, 120, 340, 990, -1000)),  # sensitometry
        (55, 11, (-700, -500, -90, -50, 50, 200, 450, 1200)),  # electron density
        (86, 7, (-1000, -1000, -1000, -1000)),  # dose, with holes for a chamber
    ],
)
def test_cylinder_with_inserts_is_a_phantom(
    away: float, radius: float, values: tuple[float, ...], noise: float
) -> None:
    """Inserts of any material leave most of a phantom one value; so does noise."""
    hu = cylinder([(away, radius, value) for value in values], noise=noise)

    assert pixel_reason(find_body(hu), SPACING) is Reason.PHANTOM


def skull(*, gap_share: float = 0.0) -> FloatArray:
    distance, hu = disc(85, 40)
    hu[(distance > 70) & (distance < 78)] = 900
    y, x = np.mgrid[:512, :512] - 255.5
    angle = np.arctan2(y, x)
    hu[(np.abs(angle) < math.pi * gap_share) & (distance > 70) & (distance < 78)] = 40
    hu[distance < 30] = -60
    return hu


def test_closed_shell_of_bone_under_the_skin_is_a_head() -> None:
    """A skull is told by its bone, also with an opening; a rib or two make no skull."""
    assert pixel_reason(find_body(skull()), SPACING) is Reason.HEAD
    assert pixel_reason(find_body(skull(gap_share=0.2)), SPACING) is Reason.HEAD
    assert pixel_reason(find_body(skull(gap_share=0.5)), SPACING) is None


@pytest.mark.parametrize(
    ("reasons", "is_head"),
    [
        ([Reason.HEAD, Reason.HEAD, None, Reason.NO_BODY], True),
        ([Reason.HEAD, None], True),
        ([Reason.HEAD, None, None], False),
        ([Reason.NO_BODY], False),
        ([], False),
    ],
)
def test_stack_of_as_many_skulls_as_others_is_a_head(
    reasons: list[Reason | None], is_head: bool
) -> None:
    """A face alone is not told from a body; among skulls it is. One skull over a body is not."""
    assert is_head_scan(reasons) is is_head


def test_ring_of_ribs_around_lungs_is_no_head() -> None:
    """An infant's ribs are level: a thick slice may show them all the way round."""
    distance, hu = disc(60, 50)
    hu[(distance > 48) & (distance < 54)] = 600
    hu[distance < 44] = -750
    hu[distance < 15] = 50

    assert pixel_reason(find_body(hu), SPACING) is None


def test_head_by_header_counts_where_the_size_agrees() -> None:
    """A face has no closed shell, but its header says it; a chest under BRAIN stays in."""
    face, chest = find_body(skull(gap_share=0.5)), find_body(person())

    assert pixel_reason(face, SPACING, "BRAIN") is Reason.HEAD
    assert pixel_reason(face, SPACING, "CHEST") is None
    assert pixel_reason(chest, SPACING, "BRAIN") is None


def test_body_cut_off_by_the_field_of_view_is_in_scope() -> None:
    """Shoulders and arms beyond the field of view are no reason; the outline ends at its edge."""
    body = find_body(person()[150:406, 100:356])

    assert pixel_reason(body, SPACING) is None
    assert body.outline == (0, 0, 256, 256)


def test_metal_is_no_reason_and_changes_no_outline() -> None:
    """Metal at 3071 HU, a pixel or a hip joint, is for the score to judge."""
    bare = person()
    for half_width in (0, 20):
        hu = bare.copy()
        hu[330 - half_width : 331 + half_width, 200 - half_width : 201 + half_width] = 3071
        body = find_body(hu)

        assert pixel_reason(body, SPACING) is None
        assert body.outline == find_body(bare).outline


def test_sizes_are_not_judged_without_pixel_spacing() -> None:
    """A missing header is unknown, never a refusal."""
    assert pixel_reason(find_body(person()), None) is None


# --------------------------------------------------------------------------- real slices


@pytest.fixture(scope="module")
def reason_of() -> Callable[[Path, str], Reason | None]:
    def judge(path: Path, body_part: str) -> Reason | None:
        ds = decoding.read_dataset(path, pixels=True)
        spacing = (float(ds.PixelSpacing[0]), float(ds.PixelSpacing[1]))
        return pixel_reason(find_body(decoding.decode_hu(ds)), spacing, body_part)

    return judge


@pytest.mark.station
@pytest.mark.parametrize("series", ["RIDER-Pilot-0109", "LungFCP-01-0001"])
def test_every_slice_of_a_chest_is_in_scope(
    shared_data: Path, reason_of: Callable[[Path, str], Reason | None], series: str
) -> None:
    """From the shoulders to the kidneys, noisy ones too."""
    files = sorted((shared_data / "series" / series).glob("*.dcm"))

    out = {file.name: reason_of(file, "") for file in files}

    assert {name: reason for name, reason in out.items() if reason} == {}
    assert len(out) == {"RIDER-Pilot-0109": 64, "LungFCP-01-0001": 36}[series]


@pytest.mark.station
def test_every_clean_body_slice_is_in_scope(shared_data: Path) -> None:
    """Chest, abdomen and pelvis of 65 people on the scanners of four vendors."""
    folder = shared_data / "ct-clean"
    with (folder / "index.csv").open(encoding="utf-8") as index:
        rows = list(csv.DictReader(index))

    out = {}
    for row in rows:
        with Image.open(folder / row["file"]) as image:
            hu = np.asarray(image).astype(np.float32) - 1024
        out[row["file"]] = pixel_reason(find_body(hu), (float(row["pixel_mm"]),) * 2)

    assert {name: reason for name, reason in out.items() if reason} == {}
    assert len(out) == 141


@pytest.mark.station
def test_no_slice_of_a_head_is_in_scope(
    shared_data: Path, reason_of: Callable[[Path, str], Reason | None]
) -> None:
    """A plastic head, an empty one with tilt, and real heads; by header and mostly without it."""
    phantom = shared_data / "series" / "dcm_qa_ct-PLASTIC-head-phantom"
    brain, tilt = (
        sorted((phantom / "brain-5mm").iterdir()),
        sorted((phantom / "tilt-minus18").iterdir()),
    )
    people = [
        shared_data / "zoo" / "pydicom-data" / "693_UNCR.dcm",
        shared_data / "zoo" / "fo-dicom" / "IM-0001-0001-0001.dcm",
    ]

    by_header = [reason_of(file, "BRAIN") for file in brain]
    by_pixels = [[reason_of(file, "") for file in stack] for stack in (brain, tilt, people)]

    assert [Reason.HEAD] * 6 == by_header
    assert all(map(is_head_scan, by_pixels))  # so that its two odd slices are out as well
    assert [stack.count(None) for stack in by_pixels] == [2, 0, 0]
    assert [Reason.HEAD] * 2 == by_pixels[-1]
