"""The first schema: micrographs, particles, labels, models and predictions."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create all tables."""
    create_micrographs()
    create_models()
    create_particles()
    create_particle_indexes()
    create_labels()
    create_particle_images()
    create_predictions()


def create_micrographs() -> None:
    """Create the table of micrographs."""
    op.create_table(
        "micrographs",
        sa.Column("id", ID, nullable=False),
        sa.Column("content_hash", sa.String(length=64), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("height_px", sa.Integer(), nullable=False),
        sa.Column("width_px", sa.Integer(), nullable=False),
        sa.Column("dtype", sa.String(length=16), nullable=False),
        sa.Column("pixel_size_nm", sa.Double(), nullable=True),
        sa.Column("metadata", sa.Text(), nullable=False),
        sa.Column("notes", sa.Text(), nullable=False),
        sa.Column("extraction", sa.Text(), nullable=False),
        sa.Column("measurements", sa.Text(), nullable=False),
        sa.Column("intensity_low", sa.Double(), nullable=False),
        sa.Column("intensity_high", sa.Double(), nullable=False),
        sa.Column("crop_side_px", sa.Integer(), nullable=False),
        sa.Column("preview", sa.LargeBinary(), nullable=False),
        sa.Column("preview_scale", sa.Double(), nullable=False),
        sa.Column("mask", sa.LargeBinary(), nullable=False),
        sa.Column("tumble_version", sa.String(length=64), nullable=False),
        sa.Column("added_at", sa.String(length=32), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_micrographs")),
        sa.UniqueConstraint("content_hash", name=op.f("uq_micrographs_content_hash")),
    )


def create_models() -> None:
    """Create the table of models."""
    op.create_table(
        "models",
        sa.Column("id", ID, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("classes", sa.Text(), nullable=False),
        sa.Column("config", sa.Text(), nullable=False),
        sa.Column("environment", sa.Text(), nullable=False),
        sa.Column("history", sa.Text(), nullable=False),
        sa.Column("evaluation", sa.Text(), nullable=True),
        sa.Column("labelled_particle_ids", sa.Text(), nullable=False),
        sa.Column("fit_seconds", sa.Double(), nullable=False),
        sa.Column("manifold", sa.LargeBinary(), nullable=True),
        sa.Column("created_at", sa.String(length=32), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_models")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_models_name"), "models", ["name"], unique=False)


def create_particles() -> None:
    """Create the table of particles."""
    op.create_table(
        "particles",
        sa.Column("id", ID, nullable=False),
        sa.Column("micrograph_id", ID, nullable=False),
        sa.Column("index_in_micrograph", sa.Integer(), nullable=False),
        sa.Column("centroid_row_px", sa.Double(), nullable=True),
        sa.Column("centroid_col_px", sa.Double(), nullable=True),
        sa.Column("bbox_min_row_px", sa.Integer(), nullable=True),
        sa.Column("bbox_min_col_px", sa.Integer(), nullable=True),
        sa.Column("bbox_max_row_px", sa.Integer(), nullable=True),
        sa.Column("bbox_max_col_px", sa.Integer(), nullable=True),
        sa.Column("area_px", sa.Double(), nullable=True),
        sa.Column("equivalent_diameter_px", sa.Double(), nullable=True),
        sa.Column("feret_max_px", sa.Double(), nullable=True),
        sa.Column("perimeter_px", sa.Double(), nullable=True),
        sa.Column("major_axis_px", sa.Double(), nullable=True),
        sa.Column("minor_axis_px", sa.Double(), nullable=True),
        sa.Column("eccentricity", sa.Double(), nullable=True),
        sa.Column("solidity", sa.Double(), nullable=True),
        sa.Column("extent", sa.Double(), nullable=True),
        sa.Column("intensity_mean", sa.Double(), nullable=True),
        sa.Column("intensity_std", sa.Double(), nullable=True),
        sa.Column("intensity_max", sa.Double(), nullable=True),
        sa.Column("circularity", sa.Double(), nullable=True),
        sa.Column("orientation_rad", sa.Double(), nullable=True),
        sa.Column("background_mean", sa.Double(), nullable=True),
        sa.Column("contrast", sa.Double(), nullable=True),
        sa.Column("touches_border", sa.Boolean(), nullable=True),
        sa.Column("truncated", sa.Boolean(), nullable=True),
        sa.Column("centroid_row_nm", sa.Double(), nullable=True),
        sa.Column("centroid_col_nm", sa.Double(), nullable=True),
        sa.Column("area_nm2", sa.Double(), nullable=True),
        sa.Column("equivalent_diameter_nm", sa.Double(), nullable=True),
        sa.Column("feret_max_nm", sa.Double(), nullable=True),
        sa.Column("perimeter_nm", sa.Double(), nullable=True),
        sa.Column("major_axis_nm", sa.Double(), nullable=True),
        sa.Column("minor_axis_nm", sa.Double(), nullable=True),
        sa.Column("other_measurements", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["micrograph_id"], ["micrographs.id"], name=op.f("fk_particles_micrograph_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_particles")),
        sa.UniqueConstraint(
            "micrograph_id",
            "index_in_micrograph",
            name=op.f("uq_particles_micrograph_id_index_in_micrograph"),
        ),
    )


def create_particle_indexes() -> None:
    """Index what particles are searched by."""
    op.create_index("ix_particles_area_px", "particles", ["area_px"], unique=False)
    op.create_index("ix_particles_equivalent_diameter_nm", "particles", ["equivalent_diameter_nm"], unique=False)
    op.create_index("ix_particles_equivalent_diameter_px", "particles", ["equivalent_diameter_px"], unique=False)
    op.create_index("ix_particles_feret_max_nm", "particles", ["feret_max_nm"], unique=False)
    op.create_index("ix_particles_feret_max_px", "particles", ["feret_max_px"], unique=False)


def create_labels() -> None:
    """Create the table of labels."""
    op.create_table(
        "labels",
        sa.Column("id", ID, nullable=False),
        sa.Column("particle_id", ID, nullable=False),
        sa.Column("label", sa.Text(), nullable=True),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("created_at", sa.String(length=32), nullable=False),
        sa.ForeignKeyConstraint(
            ["particle_id"], ["particles.id"], name=op.f("fk_labels_particle_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_labels")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_labels_particle_id_id", "labels", ["particle_id", "id"], unique=False)


def create_particle_images() -> None:
    """Create the table of particle images."""
    op.create_table(
        "particle_images",
        sa.Column("particle_id", ID, autoincrement=False, nullable=False),
        sa.Column("crop", sa.LargeBinary(), nullable=False),
        sa.Column("outline", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["particle_id"], ["particles.id"], name=op.f("fk_particle_images_particle_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("particle_id", name=op.f("pk_particle_images")),
    )


def create_predictions() -> None:
    """Create the table of predictions."""
    op.create_table(
        "predictions",
        sa.Column("model_id", ID, autoincrement=False, nullable=False),
        sa.Column("particle_id", ID, autoincrement=False, nullable=False),
        sa.Column("class_index", sa.Integer(), nullable=False),
        sa.Column("class_name", sa.Text(), nullable=False),
        sa.Column("probability", sa.Double(), nullable=False),
        sa.Column("probabilities", sa.LargeBinary(), nullable=False),
        sa.Column("latent", sa.LargeBinary(), nullable=False),
        sa.Column("angle_rad", sa.Double(), nullable=True),
        sa.Column("angle_std_rad", sa.Double(), nullable=True),
        sa.Column("shift_row_px", sa.Double(), nullable=True),
        sa.Column("shift_col_px", sa.Double(), nullable=True),
        sa.Column("scale", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name=op.f("fk_predictions_model_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(
            ["particle_id"], ["particles.id"], name=op.f("fk_predictions_particle_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("model_id", "particle_id", name=op.f("pk_predictions")),
    )
    op.create_index("ix_predictions_model_id_class_name", "predictions", ["model_id", "class_name"], unique=False)
    op.create_index("ix_predictions_model_id_probability", "predictions", ["model_id", "probability"], unique=False)
    op.create_index(op.f("ix_predictions_particle_id"), "predictions", ["particle_id"], unique=False)


def downgrade() -> None:
    """There is no schema before this one."""
    raise NotImplementedError
