"""Where rows come from, what labels can be taken back, and what particles are searched by.

Novelty of predictions, runs of classification, hashes of files and crops, actions of labelling, and indices. What an
older library can say of these is filled in: hashes of its crops, the first latent coordinate, one action for the labels
that were stored at once. Its novelty stays unknown until it is classified again.
"""

import hashlib

import numpy as np
import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
CHUNK = 2000


def upgrade() -> None:
    """Add tables, columns and indices, and fill them."""
    add_columns()
    create_tables()
    fill_label_actions()
    fill_crop_hashes()
    fill_latent()
    create_indices()


def add_columns() -> None:
    """Add columns, all of which may be empty."""
    op.add_column("micrographs", sa.Column("file_hash", sa.String(length=64), nullable=True))
    op.add_column("particles", sa.Column("crop_hash", sa.BigInteger(), nullable=True))
    op.add_column("particles", sa.Column("crop_dhash", sa.BigInteger(), nullable=True))
    op.add_column("labels", sa.Column("action_id", ID, nullable=True))
    op.add_column("predictions", sa.Column("novelty", sa.Double(), nullable=True))
    op.add_column("predictions", sa.Column("latent_0", sa.Double(), nullable=True))
    op.add_column("predictions", sa.Column("run_id", ID, nullable=True))


def create_tables() -> None:
    """Create the tables of actions and of runs."""
    op.create_table(
        "label_actions",
        sa.Column("id", ID, nullable=False),
        sa.Column("kind", sa.String(length=8), nullable=False),
        sa.Column("target_id", ID, nullable=True),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("created_at", sa.String(length=32), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_label_actions")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_label_actions_target_id", "label_actions", ["target_id"], unique=False)
    op.create_table(
        "runs",
        sa.Column("id", ID, nullable=False),
        sa.Column("model_id", ID, nullable=False),
        sa.Column("tumble_version", sa.String(length=64), nullable=False),
        sa.Column("started_at", sa.String(length=32), nullable=False),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name=op.f("fk_runs_model_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_runs")),
    )
    op.create_index("ix_runs_model_id", "runs", ["model_id"], unique=False)


def fill_label_actions() -> None:
    """Labels of one author, source and moment were stored at once: they are one action."""
    op.execute(
        "INSERT INTO label_actions (kind, author, source, created_at) "
        "SELECT 'label', author, source, created_at FROM labels GROUP BY author, source, created_at ORDER BY min(id)"
    )
    op.execute(
        "UPDATE labels SET action_id = (SELECT min(a.id) FROM label_actions AS a WHERE a.author = labels.author "
        "AND a.source = labels.source AND a.created_at = labels.created_at)"
    )


def fill_crop_hashes() -> None:
    """Hash the crops that are there."""
    query = (
        "SELECT p.id, m.crop_side_px, i.crop FROM particles AS p JOIN micrographs AS m ON m.id = p.micrograph_id "
        "JOIN particle_images AS i ON i.particle_id = p.id WHERE p.id > :after ORDER BY p.id LIMIT :many"
    )
    change = "UPDATE particles SET crop_hash = :exact, crop_dhash = :alike WHERE id = :id"
    for rows in pages(query):
        values = []
        for row in rows:
            crop = np.frombuffer(row.crop, dtype=np.uint8).reshape(row.crop_side_px, row.crop_side_px)
            values.append({"id": row.id, "exact": exact_hash(row.crop), "alike": difference_hash(crop)})
        op.get_bind().execute(sa.text(change), values)


def pages(query: str, **values: int):
    """Yield the rows of a query in pages, by rising id."""
    after = 0
    while rows := op.get_bind().execute(sa.text(query), {"after": after, "many": CHUNK, **values}).all():
        yield rows
        after = rows[-1].id


def exact_hash(crop: bytes) -> int:
    """As `tumble.library.fingerprints` had it at this revision: what is stored must stay as it was."""
    return int.from_bytes(hashlib.sha256(crop).digest()[:8], "big", signed=True)


def difference_hash(crop: np.ndarray) -> int:
    """As `tumble.library.fingerprints` had it at this revision."""
    rows, columns = (np.linspace(0, side, n + 1).astype(int)[:-1] for side, n in zip(crop.shape, (8, 9), strict=True))
    sums = np.add.reduceat(np.add.reduceat(crop.astype(np.int64), rows, axis=0), columns, axis=1)
    heights, widths = np.diff([*rows, crop.shape[0]]), np.diff([*columns, crop.shape[1]])
    areas = np.outer(np.maximum(heights, 1), np.maximum(widths, 1))
    means = sums / areas
    bits = (means[:, 1:] > means[:, :-1]).ravel()
    return int.from_bytes(np.packbits(bits).tobytes(), "big", signed=True)


def fill_latent() -> None:
    """Copy the first latent coordinate out of the vector."""
    bind = op.get_bind()
    models = bind.execute(sa.text("SELECT id FROM models")).scalars().all()
    query = (
        "SELECT particle_id AS id, latent FROM predictions WHERE model_id = :model AND particle_id > :after "
        "ORDER BY particle_id LIMIT :many"
    )
    change = "UPDATE predictions SET latent_0 = :first WHERE model_id = :model AND particle_id = :id"
    for model in models:
        for rows in pages(query, model=model):
            values = [
                {"model": model, "id": row.id, "first": float(np.frombuffer(row.latent, dtype="<f4")[0])}
                for row in rows
                if len(row.latent)
            ]
            if values:
                bind.execute(sa.text(change), values)


def create_indices() -> None:
    """Index what is searched by, after the columns are filled."""
    op.create_index("ix_particles_crop_hash", "particles", ["crop_hash"], unique=False)
    op.create_index("ix_labels_action_id", "labels", ["action_id"], unique=False)
    op.create_index("ix_labels_label", "labels", ["label"], unique=False)
    op.drop_index("ix_predictions_model_id_class_name", table_name="predictions")
    op.create_index(
        "ix_predictions_model_id_class_name_probability",
        "predictions",
        ["model_id", "class_name", "probability"],
        unique=False,
    )
    op.create_index("ix_predictions_model_id_novelty", "predictions", ["model_id", "novelty"], unique=False)
    op.create_index("ix_predictions_model_id_latent_0", "predictions", ["model_id", "latent_0"], unique=False)


def downgrade() -> None:
    """Libraries are only ever brought forward."""
    raise NotImplementedError
