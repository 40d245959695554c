"""The demonstration: an ordinary CT study, and the whole path to report and picture."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from tests.cli.conftest import Ran, ct, save
from tfkt_node.cli.demo_phantom import AIR_HU, SIZE, abdomen
from tfkt_node.cli.demo_series import LOW_DOSE, DemoSeries, input_series, phantom_series
from tfkt_node.records import Misconfigured
from tfkt_node.slices.decoding import decode_hu, read_dataset

pytestmark = pytest.mark.station

SR, KOS = "1.2.840.10008.5.1.4.1.1.88.33", "1.2.840.10008.5.1.4.1.1.88.59"


def silently(numbers: Sequence[int], _: str) -> Iterable[int]:
    return numbers


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[DemoSeries, DemoSeries]:
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    return phantom_series(tmp_path_factory.mktemp("demo"), at, silently)


def pixels(series: DemoSeries) -> np.ndarray:
    return np.stack([decode_hu(read_dataset(path, pixels=True)) for path in series.paths])


def test_phantom_is_the_same_each_time() -> None:
    """The same seed gives the same body, another one another."""
    first = abdomen(1)

    assert np.array_equal(first, abdomen(1))
    assert not np.array_equal(first, abdomen(1, seed=2))


def test_phantom_holds_the_tissues_of_a_body() -> None:
    """Air outside, and inside it fat, soft tissue, enhanced vessels and bone."""
    volume = abdomen(3)

    assert (3, SIZE, SIZE) == volume.shape
    assert volume[:, :40].max() == AIR_HU
    for low, high in ((-120, -80), (40, 70), (95, 120), (150, 180), (400, 650)):
        assert 0.001 < np.mean((volume > low) & (volume < high)), (low, high)


def test_noise_grows_with_the_root_of_the_dose(both: tuple[DemoSeries, DemoSeries]) -> None:
    """A tenth of the dose has sqrt(10) times the noise, and the same mean."""
    full, low = pixels(both[0]), pixels(both[1])
    clean = abdomen(len(full))
    liver = (clean > 100) & (clean < 116)

    sds = [np.std((volume - clean)[liver]) for volume in (full, low)]

    assert sds[1] / sds[0] == pytest.approx(LOW_DOSE**-0.5, rel=0.05)
    assert np.mean((low - clean)[liver]) == pytest.approx(0, abs=2)


def test_two_ordinary_series_of_one_study(both: tuple[DemoSeries, DemoSeries]) -> None:
    """Both series are plain CT of one study with UIDs of their own."""
    sets = [dcmread(path) for series in both for path in series.paths]

    assert 1 == len({ds.StudyInstanceUID for ds in sets})
    assert [one.series_uid for one in both] == list(
        dict.fromkeys(ds.SeriesInstanceUID for ds in sets)
    )
    assert len(sets) == len({ds.SOPInstanceUID for ds in sets})
    assert 300 == sets[0].XRayTubeCurrent == 10 * sets[-1].XRayTubeCurrent


@pytest.mark.peers
def test_dciodvfy_finds_no_error(
    both: tuple[DemoSeries, DemoSeries], require_tool: Callable[[str], str]
) -> None:
    """The images are valid CT Image instances."""
    import subprocess

    ran = subprocess.run(
        [require_tool("dciodvfy"), both[1].paths[0]], capture_output=True, text=True, check=False
    )

    assert "Error" not in ran.stdout + ran.stderr


def test_input_is_taken_as_it_is(tmp_path: Path) -> None:
    """--input sends the files of the largest series unchanged, and a noisier copy."""
    given = [save(ct(number, size=128), tmp_path / "in" / f"{number}") for number in (1, 2)]
    save(ct(3, size=128, SeriesInstanceUID="2.25.77"), tmp_path / "in" / "other")

    full, low = input_series(tmp_path / "in", tmp_path / "out", silently)

    assert tuple(given) == full.paths
    assert 2 == len(low.paths)
    muscle = (slice(None), slice(40, 48), slice(40, 48))
    assert pixels(low)[muscle].std() > 2 * pixels(full)[muscle].std()
    assert "2.25.2" == full.series_uid != low.series_uid


def test_input_without_ct_is_said(tmp_path: Path) -> None:
    """--input of a folder without CT is wrong usage, in one sentence."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "notes").write_text("no CT", encoding="utf-8")

    with pytest.raises(Misconfigured, match="no series of CT Image"):
        input_series(tmp_path / "in", tmp_path / "out", silently)


def test_input_is_never_replaced(command: Callable[..., Ran], tmp_path: Path) -> None:
    """--input inside --output is refused, for what lies there is replaced."""
    kept = save(ct(), tmp_path / "out" / "full-dose" / "slice-001.dcm")

    ran = command("demo", "--input", kept.parent, "--output", tmp_path / "out")

    assert (2, True) == (ran.code, kept.exists())


@pytest.mark.usefixtures("scoring_config")
def test_the_whole_path(command: Callable[..., Ran], tmp_path: Path) -> None:
    """Scan, association, score, report, delivery, picture: every file named at the end is there.

    P5: each series has one SR at the PACS; only the one at a tenth of the dose is flagged, by a
    KOS.
    """
    old = save(ct(), tmp_path / "out" / "full-dose" / "slice-099.dcm")

    ran = command("demo", "--output", tmp_path / "out")

    assert 0 == ran.code, ran.err
    assert not old.exists()
    named = [Path(line.strip()) for line in ran.out.partition("To look at:")[2].split("\n")[1:-1]]
    assert all(path.exists() for path in named)
    classes = [str(dcmread(path).SOPClassUID) for path in named if path.suffix == ".dcm"]
    assert 2 == classes.count(SR)
    assert 1 == classes.count(KOS)
    assert ran.out.index("DIAGNOSTIC, CONFIDENT, not flagged") < ran.out.index(", flagged")
    assert tmp_path / "out" / "scores.png" in named
    full, low = (float(part.split(",")[0]) for part in ran.out.split(": score ")[1:])
    assert full > low
