"""`tfkt-node bench`: every row is printed, measured or with the reason why not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import Ran, ct, save
from tfkt_node.cli import bench_model, bench_receivers
from tfkt_node.iqa.feature_distance import fit
from tfkt_node.iqa.uncertainty import Calibration

pytestmark = pytest.mark.station

Command = Callable[..., Ran]

ROWS = (
    "bundle: openvino f32",
    "bundle: openvino bf16",
    "bundle: torch f32",
    "bundle: whole step (decode, scope, score, physics)",
    "released TFKT V2: torch f32, one slice at a time",
    "released TFKT V2: openvino",
)


@pytest.fixture(scope="module")
def small_bundle(tmp_path_factory: pytest.TempPathFactory, require_module) -> Path:
    """Folder of a bundle without a Swin and with random weights."""
    require_module("timm")
    from tfkt_node.iqa.network import NetworkConfig, build
    from tfkt_node.training.bundles.export import Description, golden_slices, write_bundle

    network = build(NetworkConfig(dim=32, depths=()))
    description = Description(
        summary="for tests", name="small", version="0", scope={}, data={}, figures=(),
        calibration=Calibration(1.0, 0.0, 0.5, 0.5, 0.9), readme="# Small\n", recipe="",
    )  # fmt: skip
    vectors = np.random.default_rng(5).normal(size=(40, network.features.channels))
    distance = fit(
        vectors.astype(np.float32), [f"P{number % 10}" for number in range(40)], range(40)
    )
    folder = tmp_path_factory.mktemp("bundles") / "small"
    return write_bundle(folder, network, description, golden_slices(), distance).folder


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("series")
    for number in (1, 2):
        save(ct(number, size=512), folder / f"{number}.dcm")
    return folder


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """One pass a row, and a small network in the place of the released one."""
    from tfkt_node.iqa import network

    monkeypatch.setattr(bench_model, "MEASURED_S", 0.0)
    monkeypatch.setattr(network, "RELEASED", network.NetworkConfig(dim=32, depths=()))


@pytest.mark.usefixtures("_quick")
def test_every_row_is_measured_or_says_why_not(
    command: Command, small_bundle: Path, series: Path
) -> None:
    """In JSON: processor, cores, and a row each; only bf16 may be missing on this machine."""
    ran = command("bench", "model", "--bundle", small_bundle, "--input", series, "--json")

    assert 0 == ran.code
    document = json.loads(ran.out)
    assert document["processor"]
    assert document["cores"] >= 1
    rows = {row["what"]: row for row in document["rows"]}
    assert len(rows) == len(ROWS)
    assert all(what.startswith(named) for what, named in zip(rows, ROWS, strict=True))
    for what, row in rows.items():
        assert row["per_second"] or "bf16" in what, what
        assert row["per_second"] or "this processor has no bf16" in row["remark"]
    assert [what for what, row in rows.items() if row["is_reference"]] == [ROWS[4]]


@pytest.mark.usefixtures("_quick")
def test_without_torch_the_rows_name_the_extra(
    command: Command, small_bundle: Path, series: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A serving install measures what it has and says what the other rows need."""
    monkeypatch.setattr(bench_model, "find_spec", lambda name: None)

    ran = command("bench", "model", "--bundle", small_bundle, "--input", series)

    assert 0 == ran.code
    assert ran.out.count("tfkt-node[train]") == 3
    assert all(row in ran.out for row in ROWS)
    assert "small 0 on" in ran.out
    assert "cores of" in ran.out


@pytest.mark.usefixtures("_quick")
def test_a_folder_without_a_series_is_a_mistake(
    command: Command, small_bundle: Path, tmp_path: Path
) -> None:
    """Nothing to score is said, with exit code 2."""
    ran = command("bench", "model", "--bundle", small_bundle, "--input", tmp_path)

    assert 2 == ran.code
    assert "there is no CT series in" in ran.err


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, require_tool) -> Callable[..., None]:
    """Let the benchmark find these programs and no others: `only("storescu", "storescp")`."""

    def restrict(*programs: str) -> None:
        folder = tmp_path / "bin"
        folder.mkdir()
        for program in programs:
            (folder / program).symlink_to(require_tool(program))
        monkeypatch.setattr(bench_receivers, "SYSTEM_PATH", str(folder))

    return restrict


@pytest.mark.peers
def test_reception_is_measured_beside_its_peers(
    command: Command, only: Callable[..., None], tmp_path: Path
) -> None:
    """A figure a round for each receiver and number of senders, and the parts of ours."""
    only("storescu", "storescp", "Orthanc")

    ran = command(
        "bench", "reception", "--rounds", 2, "--instances", 8, "--folder", tmp_path, "--json"
    )

    assert 0 == ran.code, ran.err
    document = json.loads(ran.out)
    assert (2, 8) == (document["rounds"], document["instances"])
    ours, orthanc, storescp = document["rows"]
    assert ["tfkt-node", "Orthanc", "DCMTK storescp"] == [
        row["name"] for row in (ours, orthanc, storescp)
    ]
    for row in (ours, orthanc, storescp):
        assert {"1", "4"} == set(row["per_second"])
        assert all(len(rates) == 2 and min(rates) > 0 for rates in row["per_second"].values())
    assert {"1", "4"} == set(ours["parts_ms"])
    for parts in ours["parts_ms"].values():
        assert ["network", "write", "sync", "index"] == list(parts)
        assert all(len(values) == 2 and min(values) > 0 for values in parts.values())
    assert [tmp_path / "bin"] == list(tmp_path.iterdir())


@pytest.mark.peers
def test_receiver_that_is_not_installed_is_said(
    command: Command, only: Callable[..., None], tmp_path: Path
) -> None:
    """Without Orthanc the table stands, without ratios."""
    only("storescu", "storescp")

    ran = command("bench", "reception", "--rounds", 1, "--instances", 8, "--folder", tmp_path)

    assert 0 == ran.code, ran.err
    assert "Orthanc is not installed" in ran.out
    assert "The last row is written" in ran.out


def test_reception_needs_a_sender(
    command: Command, only: Callable[..., None], tmp_path: Path
) -> None:
    """Without storescu there is nothing to measure with, and the cure is named."""
    only()

    ran = command("bench", "reception", "--folder", tmp_path)

    assert 2 == ran.code
    assert "install dcmtk" in ran.err
