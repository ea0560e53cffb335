"""Entry point of Alembic: apply revisions on the connection, and in the transaction, of the caller."""

from __future__ import annotations

from alembic import context

from tumble.library.schema import VERSION_TABLE, metadata


def run_migrations() -> None:
    """Run what the caller asked for; the caller commits or rolls back."""
    context.configure(
        connection=context.config.attributes["connection"],
        target_metadata=metadata,
        version_table=VERSION_TABLE,
    )
    with context.begin_transaction():
        context.run_migrations()


# Alembic runs this file by its path, under this name; an ordinary import must do nothing.
if __name__ == "env_py":
    run_migrations()
