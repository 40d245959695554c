"""Run migrations on the connection that `audit.database.upgrade` hands over, in its transaction."""

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    # SQLite cannot alter most things in place: later steps copy the table instead.
    render_as_batch=True,
)
context.run_migrations()
