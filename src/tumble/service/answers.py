"""From a model's answers to what is sent: plain values, quick to write as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tumble.service.model import Answers
from tumble.types import Pose

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from tumble.types import Micrograph, Particles

__all__ = ["described_image", "described_particles", "joined_answers", "places"]


def joined_answers(parts: Sequence[Answers]) -> Answers:
    """Join the answers to the pieces of a request."""
    if len(parts) == 1:
        return parts[0]

    def joined(values: list[Any]) -> npt.NDArray[np.float32] | None:
        return None if values[0] is None else np.concatenate(values)

    poses = [part.pose for part in parts if part.pose is not None]
    names = ("angle_rad", "shift_px", "scale", "angle_std_rad")
    pose = Pose(**{name: np.concatenate([getattr(pose, name) for pose in poses]) for name in names}) if poses else None
    return Answers(
        np.concatenate([part.probabilities for part in parts]),
        joined([part.latent for part in parts]),
        pose,
        joined([part.novelty for part in parts]),
    )


def described_particles(answers: Answers, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Give one entry for each crop, as :class:`tumble.service.schemas.Particle` describes it."""
    winners = answers.probabilities.argmax(axis=1).tolist()
    n = len(answers)
    novelty = [None] * n if answers.novelty is None else answers.novelty.tolist()
    latent = [None] * n if answers.latent is None else answers.latent.tolist()
    poses = [None] * n if answers.pose is None else _poses(answers.pose)
    return [
        {
            "class": classes[winner],
            "probability": row[winner],
            "probabilities": dict(zip(classes, row, strict=True)),
            "novelty": novelty[i],
            "pose": poses[i],
            "latent": latent[i],
        }
        for i, (winner, row) in enumerate(zip(winners, answers.probabilities.tolist(), strict=True))
    ]


def _poses(pose: Pose) -> list[dict[str, float]]:
    names = ("angle_rad", "angle_std_rad", "shift_row_px", "shift_col_px", "scale")
    columns = (pose.angle_rad, pose.angle_std_rad, *pose.shift_px.T, pose.scale)
    return [dict(zip(names, row, strict=True)) for row in zip(*(column.tolist() for column in columns), strict=True)]


def places(particles: Particles) -> list[dict[str, Any]]:
    """Give box and size of each particle of a micrograph."""
    table = particles.table
    sizes = [name for name in _SIZES if name in table.columns]
    return [
        {
            "box": {
                "row_px": float(row["centroid_row_px"]),
                "col_px": float(row["centroid_col_px"]),
                "first_row_px": int(row["bbox_min_row_px"]),
                "first_col_px": int(row["bbox_min_col_px"]),
                "height_px": int(row["bbox_max_row_px"] - row["bbox_min_row_px"]),
                "width_px": int(row["bbox_max_col_px"] - row["bbox_min_col_px"]),
                "touches_border": bool(row["touches_border"]),
            },
            "size": dict.fromkeys(_SIZES) | {name: float(row[name]) for name in sizes},
        }
        for row in table.to_dict("records")
    ]


_SIZES = (
    "area_px",
    "equivalent_diameter_px",
    "feret_max_px",
    "area_nm2",
    "equivalent_diameter_nm",
    "feret_max_nm",
)


def described_image(micrograph: Micrograph) -> dict[str, Any]:
    """Describe the micrograph that was read."""
    height, width = micrograph.pixels.shape
    return {
        "height_px": height,
        "width_px": width,
        "pixel_size_nm": micrograph.pixel_size_nm,
        "notes": list(micrograph.notes),
    }
