"""Databases are made by migrations, and come out as `schema.py` says."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from tfkt_node.audit import schema
from tfkt_node.audit.database import Database, schema_of
from tfkt_node.audit.schema import NEWEST, metadata
from tfkt_node.audit.store import Store, upgrade
from tfkt_node.records import Misconfigured, ObjectKind

from .making import close, decide, fill
from .rows import rows_of

ROOT = Path(__file__).parent.parent.parent


def shape_of(connection: sa.Connection) -> dict[str, object]:
    """Return what the database itself tells of its tables, constraints and indexes."""
    inspector = sa.inspect(connection)
    shape: dict[str, object] = {}
    for table in metadata.tables:
        shape[table] = {
            "columns": [str(column) for column in inspector.get_columns(table)],
            "primary": inspector.get_pk_constraint(table),
            "foreign": sorted(map(str, inspector.get_foreign_keys(table))),
            "unique": sorted(map(str, inspector.get_unique_constraints(table))),
            "checks": sorted(map(str, inspector.get_check_constraints(table))),
            "indexes": sorted(map(index_of, inspector.get_indexes(table))),
        }
    return shape


def index_of(found: Any) -> str:
    """Write an index with the text of its condition, not the object that holds it."""
    options = {name: str(value) for name, value in found.get("dialect_options", {}).items()}
    return str({**found, "dialect_options": options})


def test_migrated_schema_is_the_schema(empty_database_url: str) -> None:
    """A database made by the migrations is that of the tables in the code."""
    upgrade(empty_database_url)
    database = Database(empty_database_url)

    with database.writing() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), metadata)
        migrated = shape_of(connection)
        drop_all(connection)
        metadata.create_all(connection)
        fresh = shape_of(connection)

    database.close()
    assert differences == []
    assert migrated == fresh


def drop_all(connection: sa.Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("DROP SCHEMA public CASCADE")
        connection.exec_driver_sql("CREATE SCHEMA public")
    else:
        for table in reversed(metadata.sorted_tables):
            connection.exec_driver_sql(f"DROP TABLE {table.name}")


def test_upgrade_tells_what_it_did_and_does_it_once(empty_database_url: str) -> None:
    """`db upgrade` twice changes nothing the second time."""
    before, after = upgrade(empty_database_url)
    store = Store(empty_database_url)
    node_uid = store.node_uid()

    assert (before, after) == (None, NEWEST)
    assert upgrade(empty_database_url) == (after, after)
    store.check_schema()
    with store.reading() as connection:
        assert schema_of(connection) == NEWEST
    assert store.node_uid() == node_uid
    store.close()


def test_filled_database_of_the_first_schema_is_upgraded(empty_database_url: str) -> None:
    """A database in use keeps its rows, and takes the kinds of object that came later."""
    upgrade(empty_database_url, to="0001")
    store = Store(empty_database_url)
    fill(store, 2)
    close(store, 30)
    decide(store, 31, "v1", (ObjectKind.SR, ObjectKind.KOS))
    before = rows_of(store, "objects"), rows_of(store, "deliveries")
    store.close()

    assert upgrade(empty_database_url) == ("0001", NEWEST)

    store = Store(empty_database_url)
    store.check_schema()
    assert (rows_of(store, "objects"), rows_of(store, "deliveries")) == before
    fill(store, 1, first=50, now_s=100)
    close(store, 130)
    decide(store, 131, "v2", (ObjectKind.ENHANCED_SR, ObjectKind.PICTURE))
    assert ["SR", "KOS", "ENHANCED_SR", "PICTURE"] == [
        row["kind"] for row in rows_of(store, "objects")
    ]
    store.close()


def test_newest_step_is_the_one_that_the_code_expects() -> None:
    """A migration without its number in the code, or the other way round, is a mistake."""
    folder = Path(schema.__file__).parent / "migrations"

    assert ScriptDirectory(str(folder)).get_heads() == [NEWEST]


def test_installation_has_a_uid_of_its_own(empty_database_url: str, tmp_path: Path) -> None:
    """Each installation is a device observer of its own, with a valid UID."""
    other = f"sqlite:///{tmp_path / 'other.db'}"
    uids = []
    for url in (empty_database_url, other):
        upgrade(url)
        store = Store(url)
        uids.append(store.node_uid())
        store.close()

    assert uids[0] != uids[1]
    assert all(uid.startswith("2.25.") and len(uid) <= 64 for uid in uids)


def test_empty_database_is_refused_with_the_cure(empty_database_url: str) -> None:
    """Nothing is served on a database without tables; the message names the command."""
    store = Store(empty_database_url)

    with pytest.raises(Misconfigured, match="db upgrade"):
        store.check_schema()

    store.close()


def test_schema_of_a_later_version_is_left_alone(database_url: str) -> None:
    """An older node neither serves nor changes a database that a newer one made."""
    store = Store(database_url)
    with store.writing() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")

    with pytest.raises(Misconfigured, match="9999"):
        store.check_schema()
    with pytest.raises(Misconfigured, match="newer"):
        upgrade(database_url)

    store.close()


@pytest.mark.station
def test_installed_package_upgrades_from_any_folder(tmp_path: Path) -> None:
    """The migrations travel with the package and need no alembic.ini in the folder."""
    packed = tmp_path / "packed.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        for path in (ROOT / "tfkt_node").rglob("*.py"):
            archive.write(path, path.relative_to(ROOT))
    zipfile.ZipFile(packed).extractall(tmp_path / "site")
    code = f"from tfkt_node.audit.store import upgrade; print(upgrade('sqlite:///{tmp_path}/a.db'))"

    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert ran.stderr == ""
    assert ran.stdout == f"(None, '{NEWEST}')\n"
