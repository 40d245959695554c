"""Two more kinds of object: the report as an Enhanced SR, and a picture that sums it up."""

from alembic import op

revision = "0002"
down_revision = "0001"

BEFORE = "kind IN ('SR', 'KOS')"
AFTER = "kind IN ('SR', 'KOS', 'ENHANCED_SR', 'PICTURE')"


def upgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        widen_in_sqlite()
        return
    op.drop_constraint("ck_objects_kind", "objects", type_="check")
    op.create_check_constraint(op.f("ck_objects_kind"), "objects", AFTER)


def widen_in_sqlite() -> None:
    """Change the text of the CHECK where it stands, as SQLite's manual says for constraints.

    A copy of the table would have to be dropped while deliveries point at it.
    """
    connection = op.get_bind()
    version = connection.exec_driver_sql("PRAGMA schema_version").scalar_one()
    connection.exec_driver_sql("PRAGMA writable_schema = ON")
    connection.exec_driver_sql(
        "UPDATE sqlite_master SET sql = replace(sql, ?, ?) WHERE type = 'table' AND name = ?",
        (BEFORE, AFTER, "objects"),
    )
    connection.exec_driver_sql(f"PRAGMA schema_version = {version + 1}")
    connection.exec_driver_sql("PRAGMA writable_schema = OFF")
