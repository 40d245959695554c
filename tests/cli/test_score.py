"""`score`: every file accounted for, the document, the words, the picture, the exit code."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator

from tests.cli.conftest import Ran, ct, save
from tfkt_node.cli.demo_phantom import abdomen
from tfkt_node.cli.document import schema
from tfkt_node.training.simulation.low_dose import LowDose

pytestmark = pytest.mark.station

Command = Callable[..., Ran]
PNG = b"\x89PNG\r\n\x1a\n"


def told(ran: Ran) -> dict[str, Any]:
    """Read and check what --json printed."""
    document: dict[str, Any] = json.loads(ran.out)
    Draft202012Validator(schema()).validate(document)
    return document


@pytest.fixture(scope="module")
def bodies() -> list[bytes]:
    """Pixels of six slices of the demonstration's abdomen, with the noise of a scan.

    A plainer picture is unlike what the model knows, and withheld.
    """
    random = np.random.default_rng(7)
    scanned = [
        hu + LowDose(hu, own_noise_hu=25.0).scan_noise(1.0, random) for hu in abdomen(16)[4:10]
    ]
    return [np.round(hu).astype("<i2").tobytes() for hu in scanned]


@pytest.fixture
def series(tmp_path: Path, bodies: list[bytes]) -> Path:
    """A folder with six slices, one of them twice, a superseded one, and a text."""
    folder = tmp_path / "series"
    for number, pixels in enumerate(bodies, start=1):
        save(ct(number, size=512, PixelData=pixels), folder / f"{number}.dcm")
    older = ct(6, size=512, SeriesDescription="older", PixelData=bodies[5])
    save(older, folder / "0-older.dcm")
    save(ct(1, size=512, PixelData=bodies[0]), folder / "7-again.dcm")
    (folder / "notes.txt").write_text("not DICOM", encoding="utf-8")
    return folder


def test_every_file_of_the_zoo_has_its_outcome(
    command: Command, scoring_config: Path, shared_data: Path
) -> None:
    """P6: of 545 odd, broken and hostile files each path is told once, and the exit code is 0."""
    zoo = shared_data / "zoo"

    ran = command("--config", scoring_config, "score", zoo, "--json")

    assert 0 == ran.code, ran.err
    expected = Counter(str(path) for path in zoo.rglob("*") if not path.is_dir())
    assert expected == Counter(one["path"] for one in told(ran)["files"])
    assert "" == ran.err


@pytest.mark.parametrize(
    ("name", "slices_of_stacks"),
    # RIDER: three acquisitions under one series UID. LungFCP: no Image Type, no Manufacturer.
    [("RIDER-Pilot-0109", [47, 10, 7]), ("LungFCP-01-0001", [36])],
)
def test_real_series_follow_the_schema(
    name: str,
    slices_of_stacks: list[int],
    command: Command,
    scoring_config: Path,
    shared_data: Path,
) -> None:
    """A real series is ASSESSED, each file is told once as scored, and the exit code is 0."""
    folder = shared_data / "series" / name

    ran = command("--config", scoring_config, "score", folder, "--json")

    assert 0 == ran.code, ran.err
    document = told(ran)
    expected = {(str(path), "scored") for path in folder.glob("*.dcm")}
    assert expected == {(one["path"], one["outcome"]) for one in document["files"]}
    assert len(expected) == len(document["files"])
    (found,) = document["series"]
    assert "ASSESSED" == found["outcome"]
    assert slices_of_stacks == [len(stack["slices"]) for stack in found["stacks"]]


def test_a_series_is_scored(command: Command, scoring_config: Path, series: Path) -> None:
    """Slices go in order, a copy is named, an older version is superseded, a text refused."""
    document = told(command("--config", scoring_config, "score", series, "--json"))

    outcomes = {Path(one["path"]).name: (one["outcome"], one["reason"]) for one in
                document["files"]}  # fmt: skip
    assert ("not_assessed", "SUPERSEDED") == outcomes.pop("0-older.dcm")
    assert ("duplicate", None) == outcomes.pop("7-again.dcm")
    assert ("refused", "NOT_DICOM") == outcomes.pop("notes.txt")
    assert {("scored", None)} == set(outcomes.values())
    (one,) = document["series"]
    assert "ASSESSED" == one["outcome"]
    assert [f"{number}.dcm" for number in range(1, 7)] == [
        Path(slice_["path"]).name for slice_ in one["stacks"][0]["slices"]
    ]


def test_words_for_people(command: Command, scoring_config: Path, series: Path) -> None:
    """Without --json: score, verdict, confidence, worst slice, and what was not scored."""
    ran = command("--config", scoring_config, "score", series)

    assert 0 == ran.code
    for words in ("Series 1 of 1", "verdict", "6 slices in scope", "worst slice",
                  "9 files: 6 scored, 1 not assessed, 1 refused, 1 duplicate",
                  "same as", "The file is not DICOM."):  # fmt: skip
        assert words in ran.out


def test_nothing_that_is_dicom_exits_with_1(
    command: Command, scoring_config: Path, series: Path
) -> None:
    """When nothing given was DICOM, the file is named and the exit code is 1."""
    ran = command("--config", scoring_config, "score", series / "notes.txt")

    assert 1 == ran.code
    assert "notes.txt" in ran.out
    assert "tfkt-node: nothing given was DICOM\n" == ran.err


def test_an_empty_folder_exits_with_1(
    command: Command, scoring_config: Path, tmp_path: Path
) -> None:
    """A folder without a file is nothing that is DICOM."""
    (tmp_path / "empty").mkdir()

    assert 1 == command("--config", scoring_config, "score", tmp_path / "empty").code


def test_a_series_that_breaks_the_scorer_is_failed(
    command: Command, scoring_config: Path, series: Path
) -> None:
    """P4: a series past its time is FAILED with the reason, its files are accounted for: exit 1."""
    text = scoring_config.read_text(encoding="utf-8")
    scoring_config.write_text(text.replace("streams = 1", "time_limit_s = 0.01"), encoding="utf-8")

    ran = command("--config", scoring_config, "score", series, "--json")

    document = told(ran)
    assert 1 == ran.code
    assert ("FAILED", "SCORER_TIMEOUT") == (
        document["series"][0]["outcome"], document["series"][0]["reason"],
    )  # fmt: skip
    assert 6 == Counter(one["reason"] for one in document["files"])["SCORER_TIMEOUT"]


def test_no_bundle_exits_with_2(command: Command, config: Callable[[str], Path], series: Path
) -> None:  # fmt: skip
    """A bundle that is not there is an error of the settings."""
    ran = command("--config", config('[scoring]\nbundle = "none"'), "score", series)

    assert 2 == ran.code
    assert "scoring.bundle" in ran.err


def test_a_picture_of_the_scores(
    command: Command, scoring_config: Path, series: Path, tmp_path: Path
) -> None:
    """--figure writes a PNG that holds no identifier, beside the usual output."""
    picture = tmp_path / "out.png"

    ran = command("--config", scoring_config, "score", series, "--figure", picture)

    assert 0 == ran.code
    content = picture.read_bytes()
    assert content.startswith(PNG)
    assert len(content) > 20_000
    assert b"2.25" not in content


@pytest.mark.parametrize("picture", ["no/x.png", "x.pdf"])
def test_a_picture_needs_its_folder_and_name(
    command: Command, config: Callable[[str], Path], series: Path, tmp_path: Path, picture: str
) -> None:
    """What cannot be written is said first, before bundle and files are looked at."""
    no_bundle = config('[scoring]\nbundle = "none"')

    ran = command("--config", no_bundle, "score", series, "--figure", tmp_path / picture)

    assert 2 == ran.code
    assert "--figure" in ran.err


def test_what_is_not_assessed_says_why(
    command: Command, scoring_config: Path, tmp_path: Path
) -> None:
    """A series out of scope is NOT_ASSESSED with one sentence: exit 0, no picture."""
    save(ct(1, size=512, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]), tmp_path / "a.dcm")

    ran = command(
        "--config", scoring_config, "score", tmp_path / "a.dcm", "--figure", tmp_path / "x.png"
    )

    assert 0 == ran.code
    assert "LOCALIZER: The image is a localizer." in ran.out
    assert "no picture was written" in ran.err
    assert not (tmp_path / "x.png").exists()


def test_warnings_of_libraries_stay_inside(
    command: Command, scoring_config: Path, tmp_path: Path
) -> None:
    """P10: a header that a library warns about is not quoted on standard error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        save(ct(1, size=512, PatientAge="SECRET-LONG-VALUE"), tmp_path / "a.dcm")

    ran = command("--config", scoring_config, "score", tmp_path / "a.dcm")

    assert "SECRET" not in ran.out + ran.err
