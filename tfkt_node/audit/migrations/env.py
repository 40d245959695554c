"""Run migrations on the connection that `audit.database.upgrade` hands over, in its transaction.

A new step is a file in `versions/` that names the one before it as `down_revision`; its number goes
into `schema.NEWEST`. A released step never changes. There is no way down: restore a backup.
"""

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    # SQLite cannot alter most things in place: later steps copy the table instead.
    render_as_batch=True,
)
context.run_migrations()
