from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.report import samples
from tfkt_node.report import key_objects, structured_report


@pytest.fixture
def objects(tmp_path: Path) -> Callable[[int], list[Path]]:
    """Files of made objects on disk: `objects(3)` gives an SR, a KOS, and the next verdict's SR."""

    def make(count: int) -> list[Path]:
        paths = []
        for number in range(count):
            record = samples.record_of(
                samples.flagged_assessment(), verdict_id=f"verdict {number // 2}"
            )
            made = key_objects.build(record) if number % 2 else structured_report.build(record, 3)
            path = tmp_path / f"{made.sop_instance_uid}.dcm"
            path.write_bytes(made.content)
            paths.append(path)
        return paths

    return make
