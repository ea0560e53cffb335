"""How classes are shown: their colours and order, and those that have no labels yet."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table; classes of older libraries enter it when the first one is changed."""
    op.create_table(
        "classes",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("colour", sa.String(length=7), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_classes")),
    )


def downgrade() -> None:
    """Libraries are only ever brought forward."""
    raise NotImplementedError
