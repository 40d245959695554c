"""Every file of the zoo comes to the one outcome that the table states, on each way in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.zoo.outcomes import Row, hounsfield, read_table, same_hounsfield, scored, zoo_files
from tests.zoo.sending import stored_by_dcmtk, stored_by_pynetdicom
from tfkt_node.cli import intake
from tfkt_node.cli.intake import GivenFile

Zoo = dict[str, GivenFile]


@pytest.fixture(scope="module")
def zoo(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    """SHA-256 -> the file, as the command takes it in."""
    scratch = tmp_path_factory.mktemp("scratch")
    files = zoo_files(shared_data / "zoo")
    return {sha: intake.read_file(path, scratch) for sha, path in files.items()}


def differences(expected: dict[str, str], found: dict[str, str], names: dict[str, Row]) -> str:
    return "\n".join(
        f"{names[sha].path}: {said} instead of {expected[sha]}"
        for sha, said in found.items()
        if expected[sha] != said
    )


@pytest.mark.station
def test_table_covers_the_zoo_file_by_file(shared_data: Path) -> None:
    """No file without a row, and no row without a file."""
    assert set(read_table()) == set(zoo_files(shared_data / "zoo"))


@pytest.mark.station
def test_score_gives_every_file_its_outcome(zoo: Zoo) -> None:
    """P4, P6: scored, not assessed with a reason, set aside or refused by a rule; nothing else."""
    table = read_table()
    expected = {sha: row.score for sha, row in table.items()}

    found = dict(zip(zoo, scored(zoo.values()), strict=True))

    assert "" == differences(expected, found, table)


@pytest.mark.station
def test_every_ct_image_has_its_hounsfield_units(zoo: Zoo) -> None:
    """Whether in scope or not: exact values in order along the normal, or the reason."""
    table = read_table()

    found = {sha: hounsfield(one.instance) for sha, one in zoo.items()}

    wrong = [table[sha].path for sha, hu in found.items() if not same_hounsfield(table[sha].hu, hu)]
    assert [] == wrong


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")  # the libraries warn of odd UIDs: the point of some files
def test_pynetdicom_brings_every_file_to_its_outcome(zoo: Zoo, tmp_path: Path) -> None:
    """P1, P4: what a real node answers and makes of the bytes of each file, sent as they are."""
    table = read_table()
    expected = {sha: row.pynetdicom for sha, row in table.items()}

    answers = stored_by_pynetdicom(list(zoo.values()), tmp_path)

    found = {sha: answers[one.path] for sha, one in zoo.items()}
    assert "" == differences(expected, found, table)


@pytest.mark.peers
def test_dcmtk_brings_every_file_it_reads_to_its_outcome(
    zoo: Zoo, tmp_path: Path, require_tool: Callable[[str], str]
) -> None:
    """P1, P4: the same through storescu, which encodes some of them anew."""
    table = read_table()
    expected = {sha: row.dcmtk for sha, row in table.items()}

    answers = stored_by_dcmtk(list(zoo.values()), tmp_path, require_tool("storescu"))

    found = {sha: answers[one.path] for sha, one in zoo.items()}
    assert "" == differences(expected, found, table)
