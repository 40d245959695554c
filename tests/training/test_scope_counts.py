from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from tests.slices.ct_images import ct
from tfkt_node.iqa.bundle import Bundle
from tfkt_node.iqa.engine import Engine, Readings
from tfkt_node.iqa.feature_distance import FeatureDistance
from tfkt_node.iqa.uncertainty import Calibration
from tfkt_node.records import FloatArray, Misconfigured, Reason
from tfkt_node.training.judging import scope_counts as counting
from tfkt_node.training.judging.scope_counts import scope_counts
from tfkt_node.training.track import untracked

NEVER_OUTSIDE = FeatureDistance(
    mean=np.zeros(1),
    scale=np.ones(1),
    axes=np.empty((1, 0)),
    spread=np.empty(0),
    rest=np.array(1.0),
    threshold=np.array(1.0),
)


class Flat:
    """An engine that finds every slice alike."""

    name, precision = "flat", "f32"

    def read(self, slices: FloatArray) -> Readings:
        count = len(slices)
        local = np.full((count, 8, 8), 3.0, np.float32)
        return Readings(np.full(count, 3.0), local, np.zeros((count, 1), np.float32))


@pytest.fixture
def model() -> tuple[Bundle, Engine]:
    bundle = SimpleNamespace(
        name="flat",
        version="1",
        digest="0" * 64,
        calibration=Calibration(slope=1.0, shift=0.0, below=0.5, above=0.5, coverage=0.9),
        feature_distance=lambda: NEVER_OUTSIDE,
    )
    return cast(Bundle, bundle), cast(Engine, Flat())


@pytest.mark.station
def test_rules_alone_keep_bodies_and_withhold_the_rest(
    shared_data: Path, model: tuple[Bundle, Engine]
) -> None:
    """Before any feature distance: no body is refused, and of the others two heads get through."""
    found = {one.group: one for one in scope_counts(shared_data, *model, untracked)}

    assert {name for name, one in found.items() if one.belongs} == {"ct-clean", *counting.SERIES}
    assert [one.withheld for one in found.values() if one.belongs] == [0, 0, 0]
    assert (found["ct-clean"].slices, found["ct-clean"].patients) == (141, 65)
    through = {name: one.slices - one.withheld for name, one in found.items() if not one.belongs}
    assert through.pop(counting.HEAD_PHANTOM) <= 1
    assert through.pop("zoo: head") == 1  # a face has no closed skull
    assert set(through.values()) == {0}


def test_slices_and_patients_are_counted_apart(
    tmp_path: Path, model: tuple[Bundle, Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A patient with one slice withheld is refused once; files are judged one by one."""
    clean, zoo = tmp_path / "ct-clean", tmp_path / "zoo"
    for folder in (clean, zoo, tmp_path / "series"):
        folder.mkdir()
    rows = [("a1", "A"), ("a2", "A"), ("b1", "B")]
    text = "file,patient,pixel_mm\n" + "".join(f"{file},{name},0.7\n" for file, name in rows)
    (clean / "index.csv").write_text(text)
    (zoo / "MANIFEST.csv").write_text("path,kind\nl.dcm,localizer\nno.dcm,pet\n")
    localizer = ct(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    save: Any = localizer.save_as
    save(zoo / "l.dcm", enforce_file_format=True, implicit_vr=False, little_endian=True)
    y, x = np.mgrid[:512, :512] - 255.5
    distance = np.hypot(y, x) * 0.7
    body = np.select([distance < 90, distance < 130], [50, -100], -1000).astype(np.float32)
    air = np.full_like(body, -1000)
    monkeypatch.setattr(counting, "read_png", lambda path: air if path.name == "a2" else body)
    monkeypatch.setattr(counting, "ZOO_HEADS", ())

    found = {one.group: one for one in scope_counts(tmp_path, *model, untracked)}

    bodies = found["ct-clean"]
    assert (bodies.slices, bodies.withheld, bodies.patients, bodies.refused) == (3, 1, 2, 1)
    assert bodies.reasons == Counter({Reason.NO_BODY: 1})
    assert found["zoo: localizer"].reasons == Counter({Reason.LOCALIZER: 1})
    assert found["zoo: pet"].reasons == Counter({Reason.FILE_MISSING: 1})


def test_missing_data_are_named(tmp_path: Path, model: tuple[Bundle, Engine]) -> None:
    """The folder that --data lacks is said."""
    with pytest.raises(Misconfigured, match="must hold the folder zoo"):
        scope_counts(tmp_path, *model, untracked)
