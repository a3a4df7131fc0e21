"""Run by Alembic for each command; the connection comes from :func:`customer_orders.migrations.upgrade`."""

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=context.config.attributes.get("metadata"),
    render_as_batch=True,
    # SQLite too: our connections begin their transactions themselves (see db.py)
    transactional_ddl=True,
)
# On SQLite the caller holds the transaction, and this does nothing.
with context.begin_transaction():
    context.run_migrations()
