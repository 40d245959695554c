"""`tfkt-node bench decoding`: what compression costs the scorer, and that it changes no value."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Ran, ct, save
from tfkt_node.cli import bench_decoding, bench_model
from tfkt_node.cli.bench_decoding import ENCODERS
from tfkt_node.slices import codecs

pytestmark = pytest.mark.station
Command = Callable[..., Ran]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_model, "MEASURED_S", 0.0)


@pytest.fixture
def series(tmp_path: Path) -> Path:
    for number in (1, 2):
        save(ct(number, size=512), tmp_path / f"{number}.dcm")
    return tmp_path


def test_every_syntax_gives_the_same_values(command: Command, series: Path) -> None:
    """A row for each, with its speed; all HU came back."""
    ran = command("bench", "decoding", "--input", series, "--json")

    assert 0 == ran.code
    rows = json.loads(ran.out)["rows"]
    assert len(ENCODERS) == len(rows)
    assert all(row["is_exact"] and row["per_second"] > 0 and row["kb"] > 0 for row in rows)


def test_a_value_that_does_not_come_back_is_said(
    command: Command, series: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One pixel that is off by one is seen."""
    encode = ENCODERS[codecs.JPEG_2000_LOSSLESS]

    def off_by_one(cells, bits):
        cells[0, 0] ^= 1
        return encode(cells, bits)

    monkeypatch.setattr(bench_decoding, "ENCODERS", {codecs.JPEG_2000_LOSSLESS: off_by_one})
    ran = command("bench", "decoding", "--input", series)

    assert 0 == ran.code
    assert "JPEG 2000" in ran.out
    assert "WRONG" in ran.out


def test_a_series_that_cannot_be_decoded_is_a_mistake(command: Command, tmp_path: Path) -> None:
    """Nothing to measure is said, with exit code 2."""
    ds = ct(1, size=512)
    del ds.RescaleIntercept
    save(ds, tmp_path / "1.dcm")

    ran = command("bench", "decoding", "--input", tmp_path)

    assert 2 == ran.code
    assert "can be decoded" in ran.err
