"""Fixtures that every test may use: the shared data and the tools of peers.

Where one is absent the test is skipped with the reason, or fails when CI=true, so that a green CI
never hides a test that did not run.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .postgres import Databases, name_of, running_postgresql

ROOT = Path(__file__).parent.parent


def skip_or_fail(reason: str) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI=true and {reason}", pytrace=False)
    pytest.skip(reason)


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take every TFKT_NODE_… variable away, so that tests see the defaults."""
    for name in [name for name in os.environ if name.startswith("TFKT_NODE_")]:
        if name != "TFKT_NODE_TEST_DATA":
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the shared test data (TFKT_NODE_TEST_DATA, default ../shared/data)."""
    folder = Path(os.environ.get("TFKT_NODE_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        skip_or_fail(f"the shared test data are not at {folder}; set TFKT_NODE_TEST_DATA")
    return folder


@pytest.fixture(scope="session")
def require_tool() -> Callable[[str], str]:
    """Return the path of a command, or skip: `storescu = require_tool("storescu")`."""

    def find(name: str) -> str:
        # Debian keeps PostgreSQL's server commands and Orthanc out of some users' PATH.
        places = os.pathsep.join(
            [
                os.environ.get("PATH", ""),
                "/usr/sbin",
                *map(str, Path("/usr/lib/postgresql").glob("*/bin")),
            ]
        )
        path = shutil.which(name, path=places)
        if path is None:
            skip_or_fail(f"the command {name} is not installed")
            raise AssertionError
        return path

    return find


@pytest.fixture(scope="session")
def require_module() -> Callable[[str], None]:
    """Skip unless a Python module can be imported: `require_module("torch")`."""

    def find(name: str) -> None:
        if importlib.util.find_spec(name) is None:
            skip_or_fail(f"the Python package {name} is not installed")

    return find


@pytest.fixture(scope="session")
def postgresql(require_tool: Callable[[str], str]) -> Iterator[Databases]:
    """Start a PostgreSQL for this session: `postgresql()` returns the URL of an empty database."""
    with running_postgresql(require_tool("initdb")) as databases:
        yield databases


BOTH_DATABASES = [
    pytest.param("sqlite", marks=pytest.mark.station),
    pytest.param("postgresql", marks=pytest.mark.peers),
]


@pytest.fixture(params=BOTH_DATABASES)
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """URL of an empty database; a test that asks for it runs on both kinds."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'audit.db'}"
        return
    databases = request.getfixturevalue("postgresql")
    url = databases()
    yield url
    databases.drop(url)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make one SQLite file with the newest schema, to be copied."""
    from tfkt_node.audit.store import upgrade

    path = tmp_path_factory.mktemp("sqlite") / "audit.db"
    upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def postgresql_template(postgresql: Databases) -> str:
    """Make one PostgreSQL database with the newest schema, to be copied, and return its name."""
    from tfkt_node.audit.store import upgrade

    url = postgresql()
    upgrade(url)
    return name_of(url)


@pytest.fixture(params=BOTH_DATABASES)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """URL of a database with the newest schema; a test that asks for it runs on both kinds."""
    if request.param == "sqlite":
        copy = shutil.copy(request.getfixturevalue("sqlite_template"), tmp_path / "audit.db")
        yield f"sqlite:///{copy}"
        return
    databases = request.getfixturevalue("postgresql")
    url = databases(template=request.getfixturevalue("postgresql_template"))
    yield url
    databases.drop(url)
