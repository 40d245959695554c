from __future__ import annotations

import hashlib
import math
import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from tests.slices.ct_images import ct, enhanced
from tfkt_node.assess import Assessor, failed, most_telling
from tfkt_node.iqa.bundle import Bundle, load
from tfkt_node.iqa.engine import Readings, open_engine
from tfkt_node.iqa.feature_distance import FeatureDistance
from tfkt_node.iqa.physics import noise_hu
from tfkt_node.iqa.scope import find_body
from tfkt_node.iqa.uncertainty import Calibration, Float64Array
from tfkt_node.records import (
    CT_IMAGE,
    Assessment,
    Confidence,
    FloatArray,
    InstanceRef,
    InstanceState,
    Outcome,
    Population,
    Reason,
    Verdict,
)
from tfkt_node.settings import Settings
from tfkt_node.slices import decoding

MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"


class NoiseEngine:
    """Scores by measured noise: 4 at 10 HU, a point less for each factor sqrt(2)."""

    name, precision = "noise", "f64"

    def __init__(self) -> None:
        self.largest_chunk = 0

    def quality(self, slices: FloatArray) -> Float64Array:
        noise = [noise_hu(find_body(hu), (0.7, 0.7)) or 10.0 for hu in slices]
        return 4 - 2 * np.log2(np.array(noise) / 10)

    def read(self, slices: FloatArray) -> Readings:
        self.largest_chunk = max(self.largest_chunk, len(slices))
        assert slices.shape[1:] == (512, 512)
        assert slices.dtype == np.float32
        u = self.quality(slices)
        local = np.repeat(u, 64).reshape(-1, 8, 8).astype(np.float32)
        return Readings(u, local, slices.mean(axis=(1, 2))[:, None])


DISTANCE = FeatureDistance(
    mean=np.array([-700.0]),
    scale=np.array([1.0]),
    axes=np.empty((1, 0)),
    spread=np.empty(0),
    rest=np.array(1.0),
    threshold=np.array(300.0),
)
"""Its one feature is the mean of a slice: outside lies a body that fills the image."""


@pytest.fixture
def engine() -> NoiseEngine:
    return NoiseEngine()


@pytest.fixture
def assess(engine: NoiseEngine) -> Callable[..., Assessment]:
    calibration = Calibration(
        slope=1.0,
        shift=0.0,
        below=0.5,
        above=0.5,
        coverage=0.9,
        series=(0.3, 0.2),
        errors=(-0.5, 0.5),
    )
    bundle = SimpleNamespace(
        name="noise",
        version="1",
        digest="0" * 64,
        calibration=calibration,
        feature_distance=lambda: DISTANCE,
    )
    assessor = Assessor(Settings(), cast(Bundle, bundle), engine)

    def run(instances: Sequence[InstanceRef], age: str = "060Y") -> Assessment:
        return assessor.assess(instances, attributes(PatientAge=age))

    return run


def attributes(**values: str) -> bytes:
    ds, buffer = Dataset(), DicomBytesIO()
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    buffer.is_implicit_VR, buffer.is_little_endian = False, True
    write_dataset(buffer, ds)
    return buffer.getvalue()


def ref(path: Path, sop_class: str = CT_IMAGE) -> InstanceRef:
    digest = hashlib.sha256(str(path).encode()).hexdigest()
    return InstanceRef(path, digest, sop_class, f"1.{int(digest[:8], 16)}")


def person(noise: float = 12.0, seed: int = 1) -> np.ndarray:
    """Stored values (signed, HU) of fat around muscle in air, with noise."""
    y, x = np.mgrid[:512, :512] - 255.5
    distance = np.hypot(y, x) * 0.7
    hu = np.select([distance < 100, distance < 130], [50.0, -100.0], -1000.0)
    hu += np.random.default_rng(seed).normal(0, noise, hu.shape)
    return hu.round().astype(np.int16)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., InstanceRef]:
    def write_one(ds: Dataset, name: str) -> InstanceRef:
        path = tmp_path / name
        ds.save_as(path, enforce_file_format=True, implicit_vr=False, little_endian=True)
        return ref(path, str(ds.SOPClassUID))

    return write_one


@pytest.fixture
def series(write: Callable[..., InstanceRef]) -> Callable[..., list[InstanceRef]]:
    """A series of people, 5 mm apart: `series(count, noise=…, **attributes)`."""

    def make(
        count: int, *, noise: float = 12.0, name: str = "a", first: int = 0, **other: Any
    ) -> list[InstanceRef]:
        refs = []
        for number in range(first, first + count):
            ds = ct(person(noise, number), InstanceNumber=number + 1, **other)
            ds.ImagePositionPatient = [0, 0, 5 * number]
            refs.append(write(ds, f"{name}{number}.dcm"))
        return refs

    return make


# --------------------------------------------------------------------------- made series


def test_quiet_series_is_diagnostic_and_sure(
    assess: Callable[..., Assessment], series: Callable[..., list[InstanceRef]]
) -> None:
    """Five slices of little noise: one stack, a verdict, every instance SCORED."""
    found = assess(series(5))

    assert (found.outcome, found.verdict, found.flagged) == (
        Outcome.ASSESSED,
        Verdict.DIAGNOSTIC,
        False,
    )
    assert (found.confidence, found.confidence_reasons) == (Confidence.CONFIDENT, ())
    assert {InstanceState.SCORED} == {one.state for one in found.instances}
    assert found.deciding_stack == 0
    assert found.score == found.stacks[0].score
    assert found.stacks[0].physics["noise_hu"] == pytest.approx(12, rel=0.1)


def test_noisy_acquisition_decides_over_the_quiet_one(
    assess: Callable[..., Assessment], series: Callable[..., list[InstanceRef]]
) -> None:
    """The worst populated stack gives the verdict, and the flag follows."""
    quiet = series(5, name="quiet", AcquisitionNumber=1)
    noisy = series(5, name="noisy", AcquisitionNumber=2, noise=60.0)

    found = assess([*quiet, *noisy])

    assert found.deciding_stack is not None
    assert found.stacks[found.deciding_stack].acquisition == "2"
    assert (found.verdict, found.flagged) == (Verdict.NON_DIAGNOSTIC, True)


def test_series_has_an_interval_of_its_own(
    assess: Callable[..., Assessment], series: Callable[..., list[InstanceRef]]
) -> None:
    """It comes from errors of series, which are smaller than those of the slices."""
    found = assess(series(5, noise=20.0))

    assert found.score is not None
    assert found.interval == pytest.approx((found.score - 0.3, found.score + 0.2), abs=1e-4)
    assert found.interval == found.stacks[0].interval
    for one in found.stacks[0].slices:
        assert one.interval == pytest.approx((one.score - 0.5, one.score + 0.5), abs=1e-4)


def test_order_of_the_list_changes_nothing(
    assess: Callable[..., Assessment], series: Callable[..., list[InstanceRef]]
) -> None:
    """The same instances give the same verdict, slices in the same order (P12)."""
    refs = series(6)
    shuffled = random.Random(2).sample(refs, len(refs))

    one, other = assess(refs), assess(shuffled)

    assert one.stacks == other.stacks
    assert one.score == other.score


def test_missing_slice_and_unknown_age_lower_the_confidence(
    assess: Callable[..., Assessment], series: Callable[..., list[InstanceRef]]
) -> None:
    """A hole in the stack, and no age, are said beside the verdict."""
    refs = series(8)

    found = assess(refs[:3] + refs[4:], age="")

    assert found.confidence is Confidence.LOW_CONFIDENCE
    assert found.confidence_reasons == (Reason.COVERAGE, Reason.AGE_UNKNOWN)
    assert found.criteria.population is Population.ADULT


@pytest.mark.parametrize(
    ("keyword", "known"),
    [("ImagePositionPatient", None), ("ImageOrientationPatient", None), ("PixelSpacing", 0)],
)
def test_unknown_geometry_lowers_the_confidence(
    assess: Callable[..., Assessment],
    write: Callable[..., InstanceRef],
    keyword: str,
    known: int | None,
) -> None:
    """P6: slices without a place may have gaps and repeats, and that none is known is said."""
    refs = []
    for number in range(6):
        ds = ct(person(seed=number), InstanceNumber=number + 1)
        ds.ImagePositionPatient = [0, 0, 5 * number]
        if number < 4:
            delattr(ds, keyword)
        refs.append(write(ds, f"{number}"))

    found = assess(refs)

    assert found.deciding_stack is not None
    stack = found.stacks[found.deciding_stack]
    assert (stack.gaps, stack.repeated) == (known, known)
    assert Reason.NO_GEOMETRY in found.confidence_reasons
    assert Reason.COVERAGE not in found.confidence_reasons


def test_slices_are_placed_as_viewers_place_them(
    assess: Callable[..., Assessment], write: Callable[..., InstanceRef]
) -> None:
    """Under a gantry tilted by 20 degrees, z of Image Position is not the way along the normal."""
    sine, cosine = math.sin(math.radians(20)), math.cos(math.radians(20))
    refs = []
    for number in range(6):
        ds = ct(person(seed=number))
        ds.ImageOrientationPatient = [1, 0, 0, 0, round(cosine, 6), round(-sine, 6)]
        ds.ImagePositionPatient = [-180, -170, 60.5 + 5 * number]
        ds.SOPInstanceUID = f"1.2.3.{number}"
        refs.append(write(ds, f"tilted{number}.dcm"))

    (stack,) = assess(refs).stacks

    assert [60.5 + 5 * number for number in range(6)] == [one.position_mm for one in stack.slices]


def test_child_is_judged_by_the_criteria_of_children(
    assess: Callable[..., Assessment], series: Callable[..., list[InstanceRef]]
) -> None:
    """The age comes from the attributes of the series."""
    assert assess(series(5), age="006M").criteria.population is Population.CHILD


@pytest.mark.parametrize("first", [{}, {"PatientAge": "000Y"}])
def test_age_comes_from_the_instance_that_states_one(
    assess: Callable[..., Assessment],
    series: Callable[..., list[InstanceRef]],
    first: dict[str, str],
) -> None:
    """Where the first instance of a series has none, another may."""
    refs = [*series(1, **first), *series(5, first=1, PatientAge="008Y")]

    found = assess(refs, age=first.get("PatientAge", ""))

    assert found.criteria.population is Population.CHILD
    assert found.confidence_reasons == ()


def test_ages_that_contradict_are_no_age(
    assess: Callable[..., Assessment], series: Callable[..., list[InstanceRef]]
) -> None:
    """P6: whether child or adult is not guessed from the instance that came first."""
    refs = [*series(1, PatientAge="008Y"), *series(5, first=1, PatientAge="060Y")]

    found = assess(refs, age="008Y")

    assert found.criteria.population is Population.ADULT
    assert found.confidence_reasons == (Reason.AGE_UNKNOWN,)


def test_each_instance_ends_with_its_own_reason_and_the_rest_is_scored(
    assess: Callable[..., Assessment],
    series: Callable[..., list[InstanceRef]],
    write: Callable[..., InstanceRef],
    tmp_path: Path,
) -> None:
    """Broken, foreign, missing and out-of-scope instances are said, and the image moves on (P6)."""
    (tmp_path / "broken.dcm").write_bytes(b"no DICOM")
    short = ct(person())
    short.PixelData = short.PixelData[:1000]
    odd = {
        ref(tmp_path / "broken.dcm"): Reason.UNREADABLE,
        ref(tmp_path / "gone.dcm"): Reason.FILE_MISSING,
        ref(tmp_path / "mr.dcm", MR_IMAGE): Reason.NOT_CT,
        write(ct(person(), ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]), "localizer"): (
            Reason.LOCALIZER
        ),
        write(ct(np.full((512, 512), -1000, np.int16)), "air"): Reason.NO_BODY,
        write(short, "short"): Reason.UNDECODABLE,
        write(ct(person(), PixelData=None), "header"): Reason.NO_PIXELS,
        write(ct(person(), RescaleSlope=None), "slope"): Reason.NO_RESCALE,
        write(ct(person(), RescaleSlope=1e36), "absurd"): Reason.NO_RESCALE,
    }

    found = assess([*series(5), *odd])

    assert found.outcome is Outcome.ASSESSED
    outcomes = {one.digest: one.reason for one in found.instances}
    assert {one.digest: reason for one, reason in odd.items()} == {
        one.digest: outcomes[one.digest] for one in odd
    }
    details = {one.reason: one.detail for one in found.instances}
    assert details[Reason.UNDECODABLE] == "pixel data of 1000 bytes where the attributes say 524288"


def cut_off(ds: Dataset) -> None:
    ds.PixelData = ds.PixelData[:1000]


@pytest.mark.parametrize(
    ("spoil", "acquisition"),
    [
        (cut_off, 1),
        (cut_off, 2),
        (lambda ds: delattr(ds, "PixelData"), 1),
        (lambda ds: delattr(ds, "RescaleSlope"), 1),
        (lambda ds: delattr(ds, "Rows"), 1),
    ],
    ids=["pixels cut off", "in another stack", "no pixels", "no rescale", "in no stack"],
)
def test_verdict_is_not_sure_where_slices_could_not_be_read(
    assess: Callable[..., Assessment],
    series: Callable[..., list[InstanceRef]],
    write: Callable[..., InstanceRef],
    spoil: Callable[[Dataset], None],
    acquisition: int,
) -> None:
    """P6: broken is said, though the rest of the stack has no gap, in whatever stack it lies."""
    unread = []
    for number in range(5, 8):
        ds = ct(person(), InstanceNumber=number + 1, AcquisitionNumber=acquisition)
        ds.ImagePositionPatient = [0, 0, 5 * number]
        spoil(ds)
        unread.append(write(ds, f"unread{number}"))

    found = assess([*series(5, AcquisitionNumber=1), *unread])

    assert (found.verdict, found.confidence) == (Verdict.DIAGNOSTIC, Confidence.LOW_CONFIDENCE)
    assert found.confidence_reasons == (Reason.PARTLY_READ,)


@pytest.mark.parametrize("name", ["broken.dcm", "gone.dcm"])
def test_verdict_is_not_sure_where_a_file_could_not_be_read(
    assess: Callable[..., Assessment],
    series: Callable[..., list[InstanceRef]],
    tmp_path: Path,
    name: str,
) -> None:
    """P6: what no header tells of may have been a slice of the stack."""
    (tmp_path / "broken.dcm").write_bytes(b"no DICOM")

    found = assess([*series(5), ref(tmp_path / name)])

    assert found.confidence_reasons == (Reason.PARTLY_READ,)


def test_images_that_are_not_to_be_scored_raise_no_doubt(
    assess: Callable[..., Assessment],
    series: Callable[..., list[InstanceRef]],
    write: Callable[..., InstanceRef],
    tmp_path: Path,
) -> None:
    """Localizers, projections, maps, reformats, screens, air and other objects belong to a study.

    They do not make a verdict unsure, even where their pixels could not have been read.
    """
    others = {
        "localizer": ct(person(), ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]),
        "projection": ct(person(), ImageType=["DERIVED", "SECONDARY", "AXIAL", "MIP"]),
        "map": ct(person(), RescaleType="MGML", ImagePositionPatient=[0, 0, 30]),
        "small": ct(person()[:128, :128]),
        "air": ct(np.full((512, 512), -1000, np.int16), ImagePositionPatient=[0, 0, 25]),
        "coronal": ct(person(), ImageOrientationPatient=[1, 0, 0, 0, 0, -1]),
        "colour": ct(person(), PhotometricInterpretation="RGB"),
    }
    for name in ("localizer", "projection", "small", "coronal", "colour"):
        cut_off(others[name])
    refs = [write(ds, name) for name, ds in others.items()]

    found = assess([*series(5), *refs, ref(tmp_path / "mr.dcm", MR_IMAGE)])

    assert (found.confidence, found.confidence_reasons) == (Confidence.CONFIDENT, ())


def test_slice_whose_quality_is_no_number_is_not_assessed_and_the_rest_is_scored(
    assess: Callable[..., Assessment],
    engine: NoiseEngine,
    series: Callable[..., list[InstanceRef]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One NaN or infinity of the engine costs its slice, not the series, and no score (P6)."""
    quality = engine.quality

    def broken(slices: FloatArray) -> Float64Array:
        return np.array([np.nan, np.inf, *quality(slices)[2:]])

    monkeypatch.setattr(engine, "quality", broken)

    found = assess(series(7))

    assert found.outcome is Outcome.ASSESSED
    assert (found.stacks[0].in_scope, found.stacks[0].out_of_scope) == (5, 2)
    assert [Reason.SCORER_ERROR] * 2 + [None] * 5 == [one.reason for one in found.instances]
    assert [None, None] == [one.score for one in found.stacks[0].slices[:2]]
    assert found.confidence_reasons == (Reason.PARTLY_READ,)


def test_slice_unlike_those_of_the_training_is_not_assessed(
    assess: Callable[..., Assessment],
    series: Callable[..., list[InstanceRef]],
    write: Callable[..., InstanceRef],
) -> None:
    """What passes header and pixels, but is too far off by its features, is said with a reason."""
    zoomed = np.linspace(60, 451, 512).astype(int)
    odd = write(ct(person()[np.ix_(zoomed, zoomed)], InstanceNumber=99), "odd")

    found = assess([*series(5), odd])

    assert found.outcome is Outcome.ASSESSED
    assert {one.digest: one.reason for one in found.instances}[odd.digest] is Reason.UNFAMILIAR
    assert (found.stacks[0].in_scope, found.stacks[0].out_of_scope) == (5, 1)


def test_kernel_and_physics_lower_the_confidence(
    assess: Callable[..., Assessment],
    engine: NoiseEngine,
    series: Callable[..., list[InstanceRef]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A sharp kernel, and a score that the noise does not allow, are said beside the verdict."""
    monkeypatch.setattr(engine, "quality", lambda slices: np.full(len(slices), 3.6))

    found = assess(series(5, noise=80.0, ConvolutionKernel="BONEPLUS"))

    assert (found.verdict, found.confidence) == (Verdict.DIAGNOSTIC, Confidence.LOW_CONFIDENCE)
    assert found.confidence_reasons == (Reason.KERNEL, Reason.PHYSICS)


def test_face_among_skulls_is_a_head(
    assess: Callable[..., Assessment],
    series: Callable[..., list[InstanceRef]],
    write: Callable[..., InstanceRef],
) -> None:
    """Half the slices have a closed skull: the others get no score either."""
    skull = person()
    y, x = np.mgrid[:512, :512] - 255.5
    skull[np.abs(np.hypot(y, x) * 0.7 - 110) < 5] = 900
    skull[np.hypot(y, x) * 0.7 > 120] = -1000
    heads = []
    for number in range(3):
        ds = ct(skull, InstanceNumber=50 + number)
        ds.ImagePositionPatient = [0, 0, 5 * (50 + number)]
        heads.append(write(ds, f"head{number}"))

    found = assess([*series(3), *heads])

    assert (found.outcome, found.reason) == (Outcome.NOT_ASSESSED, Reason.HEAD)
    assert {one.score for stack in found.stacks for one in stack.slices} == {None}
    assert assess([*series(4), *heads]).outcome is Outcome.ASSESSED


def test_dose_of_the_header_stands_beside_the_score(
    assess: Callable[..., Assessment], series: Callable[..., list[InstanceRef]]
) -> None:
    """CTDIvol is given as stated, the size-specific dose with the phantom and the size."""
    phantom = Dataset()
    phantom.CodeValue, phantom.CodingSchemeDesignator = "113691", "DCM"

    [stack] = assess(series(5, CTDIvol=6.0, CTDIPhantomTypeCodeSequence=[phantom])).stacks

    assert stack.physics["ctdi_vol_mgy"] == 6.0
    assert stack.physics["ssde_mgy"] == pytest.approx(6.0 * 1.45, rel=0.03)


def test_no_detail_holds_an_identifier(
    assess: Callable[..., Assessment], write: Callable[..., InstanceRef]
) -> None:
    """What strangers wrote into a header is never repeated (P10)."""
    ds = ct(person(), PatientName="MARKER^NAME", PatientID="MARKER-ID")
    ds.Rows = 4096
    ds.file_meta.TransferSyntaxUID = "1.2.840.113619.5.2"
    found = assess([write(ds, "MARKER.dcm")])

    assert found.reason is Reason.UNDECODABLE
    assert "MARKER" not in found.detail + found.instances[0].detail
    assert not re.search(r"\d+\.\d+\.\d+", found.detail + found.instances[0].detail)


def test_revision_of_localizers_is_not_assessed_for_that_reason(
    assess: Callable[..., Assessment], series: Callable[..., list[InstanceRef]]
) -> None:
    """Nothing in scope: no verdict, no score, no flag, and the most frequent reason."""
    localizers = series(3, name="l", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    projection = series(1, name="m", ImageType=["DERIVED", "SECONDARY", "MIP"])

    found = assess([*projection, *localizers])

    assert (found.outcome, found.reason) == (Outcome.NOT_ASSESSED, Reason.LOCALIZER)
    assert (found.verdict, found.score, found.flagged) == (None, None, False)
    assert found.confidence is found.interval is found.deciding_stack is None


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (cut_off, Reason.UNDECODABLE),
        (lambda ds: delattr(ds, "RescaleSlope"), Reason.NO_RESCALE),
        (lambda ds: setattr(ds, "Rows", 0), Reason.UNDECODABLE),
    ],
)
def test_localizers_do_not_hide_what_could_not_be_read(
    assess: Callable[..., Assessment],
    series: Callable[..., list[InstanceRef]],
    write: Callable[..., InstanceRef],
    broken: Callable[[Dataset], None],
    reason: Reason,
) -> None:
    """P6: broken is said, which a reason that owes no report by default would not do."""
    localizers = series(3, name="l", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    axial = ct(person())
    broken(axial)

    found = assess([*localizers, write(axial, "axial")])

    assert (found.outcome, found.reason) == (Outcome.NOT_ASSESSED, reason)


def test_ties_between_reasons_go_to_the_first_in_the_enum() -> None:
    """The order is stated, so that the reason is the same each time."""
    assert most_telling([Reason.NO_BODY, Reason.NOT_AXIAL]) is Reason.NOT_AXIAL
    assert most_telling([Reason.NOT_AXIAL, Reason.NO_BODY, Reason.NO_BODY]) is Reason.NO_BODY
    assert most_telling([Reason.LOCALIZER, Reason.NO_PIXELS]) is Reason.NO_PIXELS
    assert most_telling([]) is Reason.NO_PIXELS


def test_frames_of_one_object_are_slices_and_one_instance(
    assess: Callable[..., Assessment], write: Callable[..., InstanceRef]
) -> None:
    """An enhanced object is one stack of frames, and SCORED once any frame is."""
    frames = np.stack([person(seed=number) for number in range(5)] + [person() * 0 - 1000])
    ds = enhanced(frames, [(1, 0)] * 6, [0, 5, 10, 15, 20, 25])

    found = assess([write(ds, "enhanced")])

    [stack] = found.stacks
    assert [1, 2, 3, 4, 5, 6] == [one.frame for one in stack.slices]
    assert (stack.in_scope, stack.out_of_scope) == (5, 1)
    assert [InstanceState.SCORED] == [one.state for one in found.instances]


def test_file_that_is_changed_while_it_is_read_gives_no_score(
    assess: Callable[..., Assessment],
    write: Callable[..., InstanceRef],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """P6: the place of one image and the pixels of another are neither's score."""
    one = write(ct(person()), "one")
    other = write(ct(person(noise=60.0), ImagePositionPatient=[0, 0, 500]), "other")
    read = decoding.read_dataset

    def read_and_replace(path: Path, **how: object) -> Dataset:
        ds = read(path, **how)  # type: ignore[arg-type]
        if not how.get("pixels"):
            other.path.rename(one.path)
        return ds

    monkeypatch.setattr(decoding, "read_dataset", read_and_replace)

    [found] = assess([one]).instances

    assert (found.reason, found.detail) == (
        Reason.UNREADABLE,
        "the file was changed while it was being read",
    )


def test_object_that_cannot_be_opened_is_opened_once(
    assess: Callable[..., Assessment],
    write: Callable[..., InstanceRef],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A thousand frames of a broken object are no thousand readings of it."""
    frames = np.stack([person()] * 6)
    ds = enhanced(frames, [(1, 0)] * 6, [0, 5, 10, 15, 20, 25])
    ds.BitsStored = 99
    broken = write(ds, "broken")
    read, readings = decoding.read_dataset, []

    def counted(path: Path, **how: object) -> Dataset:
        readings.append(path)
        return read(path, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(decoding, "read_dataset", counted)

    assert assess([broken]).reason is Reason.UNDECODABLE
    assert len(readings) == 2  # its header, and its pixels


def test_slices_go_to_the_engine_in_bounded_chunks(
    assess: Callable[..., Assessment],
    engine: NoiseEngine,
    write: Callable[..., InstanceRef],
) -> None:
    """Memory does not grow with the series."""
    one = write(ct(person()), "one")
    again = [InstanceRef(one.path, f"{number}", CT_IMAGE, f"1.{number}") for number in range(40)]

    found = assess(again)

    assert (found.stacks[0].in_scope, engine.largest_chunk) == (40, 32)


def test_other_matrices_reach_the_engine_on_its_grid(
    assess: Callable[..., Assessment], write: Callable[..., InstanceRef]
) -> None:
    """256 and 768 are in scope, with rows and columns kept for the audit."""
    small = write(ct(person()[:256, :256], InstanceNumber=1), "small")
    large = write(ct(np.pad(person(), 128, constant_values=-1000), InstanceNumber=2), "large")

    found = assess([small, large])

    assert [(256, 1), (768, 1)] == [(one.rows, one.in_scope) for one in found.stacks]


def test_failed_revision_keeps_its_criteria_and_its_reason() -> None:
    """FAILED is an outcome like the others, made without pixels (P4)."""
    refs = [ref(Path("a.dcm")), ref(Path("b.dcm"))]

    found = failed(
        Settings(), refs, attributes(PatientAge="004Y"), Reason.SCORER_TIMEOUT, "15 minutes"
    )

    assert (found.outcome, found.reason) == (Outcome.FAILED, Reason.SCORER_TIMEOUT)
    assert (found.verdict, found.bundle, found.stacks) == (None, None, ())
    assert found.criteria.population is Population.CHILD
    assert [Reason.SCORER_TIMEOUT] * 2 == [one.reason for one in found.instances]


# --------------------------------------------------------------------------- real series


@pytest.mark.station
def test_real_chest_is_assessed_in_three_stacks(
    assess: Callable[..., Assessment], shared_data: Path
) -> None:
    """RIDER: all 64 slices scored; measured noise is that of its index."""
    files = sorted((shared_data / "series" / "RIDER-Pilot-0109").glob("*.dcm"))

    found = assess([ref(file) for file in files])

    assert found.outcome is Outcome.ASSESSED
    assert found.confidence_reasons == ()
    assert [47, 10, 7] == [stack.in_scope for stack in found.stacks]
    assert {InstanceState.SCORED} == {one.state for one in found.instances}
    assert found.stacks[0].physics["noise_hu"] == pytest.approx(11.5, rel=0.1)
    assert found.stacks[0].physics["water_equivalent_diameter_mm"] == pytest.approx(281, abs=10)


@pytest.mark.station
def test_reformats_are_stacks_out_of_scope(
    assess: Callable[..., Assessment], shared_data: Path
) -> None:
    """SBU: the axial images are scored, coronal and sagittal ones are NOT_AXIAL."""
    files = sorted((shared_data / "series" / "SBU-A046441-reformats").rglob("*.dcm"))

    found = assess([ref(file) for file in files])

    reasons = Counter(one.reason for stack in found.stacks for one in stack.slices)
    assert {None: 2, Reason.NOT_AXIAL: 4} == reasons
    assert Reason.TOO_FEW_SLICES in found.confidence_reasons


@pytest.mark.station
def test_head_study_is_not_assessed(assess: Callable[..., Assessment], shared_data: Path) -> None:
    """Localizer, dose screen and two head scans: nothing in scope, and HEAD is why."""
    folder = shared_data / "series" / "dcm_qa_ct-PLASTIC-head-phantom"
    files = sorted(file for file in folder.rglob("I*") if file.is_file())

    found = assess([ref(file) for file in files])

    assert (found.outcome, found.reason) == (Outcome.NOT_ASSESSED, Reason.HEAD)
    assert {Reason.HEAD: 14, Reason.LOCALIZER: 1, Reason.DERIVED_SECONDARY: 1} == Counter(
        one.reason for one in found.instances
    )


@pytest.mark.station
def test_metal_and_padding_change_no_score(shared_data: Path, tmp_path: Path) -> None:
    """The same chest with a pixel at 3071 HU, or padding of -3024, scores the same within 0.1."""
    source = dcmread(shared_data / "series" / "RIDER-Pilot-0109" / "1-20.dcm")
    stored = source.pixel_array.astype(np.int16)
    y, x = np.mgrid[:512, :512] - 255.5
    metal, padded, bare = stored.copy(), stored.copy(), stored.copy()
    intercept = int(source.RescaleIntercept)
    outside = np.hypot(y, x) > 250
    metal[300, 250] = 3071 - intercept
    padded[outside], bare[outside] = -3024 - intercept, -1000 - intercept
    metal[outside] = -1000 - intercept
    refs = []
    for name, values in (("bare", bare), ("metal", metal), ("padded", padded)):
        source.PixelData = values.tobytes()
        source.PixelPaddingValue = -3024 - intercept
        source.save_as(tmp_path / name)
        refs.append(ref(tmp_path / name))
    bundle = load("tfkt-v2-lite")
    assessor = Assessor(Settings(), bundle, open_engine(bundle, "openvino"))

    scores = [assessor.assess([one], attributes(PatientAge="060Y")).score for one in refs]

    assert None not in scores
    assert scores == pytest.approx([scores[0]] * 3, abs=0.1)
