"""The house rules that no other tool holds."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.conftest import ROOT

LATER = {"P8"}
"""Promises whose part is not built yet: holding series."""


@pytest.mark.parametrize("promise", sorted({f"P{n}" for n in range(1, 13)} - LATER))
def test_each_promise_has_a_test_that_names_it(promise: str) -> None:
    tests = (path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))

    assert any(re.search(rf'"""[^"]*\b{promise}\b', text) for text in tests)


def test_documents_name_only_files_that_exist() -> None:
    """A link of README, CONTRIBUTING or the runbook leads somewhere."""
    documents = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "deploy" / "RUNBOOK.md"]
    links = [
        (document.parent, target)
        for document in documents
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text(encoding="utf-8"))
    ]

    assert links
    assert [] == [target for folder, target in links if not Path(folder, target).exists()]
