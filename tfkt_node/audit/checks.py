"""How a migration changes the CHECK of a column: the list of its values grows."""

from __future__ import annotations

from alembic import op


def change(table: str, column: str, before: str, after: str) -> None:
    """Replace the condition of `ck_<table>_<column>`. before: its text, as it stands."""
    if op.get_bind().dialect.name == "sqlite":
        _change_in_sqlite(table, before, after)
        return
    name = f"ck_{table}_{column}"
    op.drop_constraint(name, table, type_="check")
    op.create_check_constraint(op.f(name), table, after)


def _change_in_sqlite(table: str, before: str, after: str) -> None:
    """Change the text of the CHECK where it stands, as SQLite's manual says for constraints.

    A copy of the table would have to be dropped while other tables point at it.
    """
    connection = op.get_bind()
    version = connection.exec_driver_sql("PRAGMA schema_version").scalar_one()
    connection.exec_driver_sql("PRAGMA writable_schema = ON")
    connection.exec_driver_sql(
        "UPDATE sqlite_master SET sql = replace(sql, ?, ?) WHERE type = 'table' AND name = ?",
        (before, after, table),
    )
    connection.exec_driver_sql(f"PRAGMA schema_version = {version + 1}")
    connection.exec_driver_sql("PRAGMA writable_schema = OFF")
