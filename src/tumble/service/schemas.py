"""What the service answers, as the OpenAPI describes it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Box", "Classification", "Health", "ImageInfo", "ModelInfo", "Particle", "ParticlePose", "Problem", "Size"]


class ParticlePose(BaseModel):
    """How an object lies in its crop."""

    angle_rad: float = Field(description="Counter-clockwise as displayed, in [-pi, pi).")
    angle_std_rad: float = Field(description="Standard deviation; large where the object has no unique angle.")
    shift_row_px: float = Field(description="Down from the middle of the crop.")
    shift_col_px: float = Field(description="To the right of the middle of the crop.")
    scale: float = Field(description="Magnification; 1 where the model is not invariant to scale.")


class Box(BaseModel):
    """Where a particle is in its micrograph, in px of the image."""

    row_px: float = Field(description="Row of the centroid.")
    col_px: float = Field(description="Column of the centroid.")
    first_row_px: int
    first_col_px: int
    height_px: int
    width_px: int
    touches_border: bool = Field(description="A part of it may lie outside of the image.")


class Size(BaseModel):
    """How large a particle is; in nm where the pixel size is known."""

    area_px: float
    equivalent_diameter_px: float = Field(description="Diameter of the disc of equal area.")
    feret_max_px: float = Field(description="Largest distance between two points of the outline.")
    area_nm2: float | None = None
    equivalent_diameter_nm: float | None = None
    feret_max_nm: float | None = None


class Particle(BaseModel):
    """What the model says of one crop."""

    model_config = ConfigDict(populate_by_name=True)

    class_: str = Field(alias="class", description="The most probable class.")
    probability: float = Field(description="Its probability.")
    probabilities: dict[str, float] = Field(description="Of all classes; they sum to 1.")
    novelty: float | None = Field(
        None, description="0 is the median of known objects, 1 their upper tenth; null if the model has no such score."
    )
    pose: ParticlePose | None = Field(None, description="Null if only the classifier is served.")
    latent: list[float] | None = Field(None, description="Latent factors; null if only the classifier is served.")
    box: Box | None = Field(None, description="Only for kind=micrograph.")
    size: Size | None = Field(None, description="Only for kind=micrograph.")


class ImageInfo(BaseModel):
    """The micrograph that was sent."""

    height_px: int
    width_px: int
    pixel_size_nm: float | None = Field(None, description="Null where neither the file nor the request says it.")
    notes: list[str] = Field(default_factory=list, description="What was changed, or left out, when it was read.")


class Classification(BaseModel):
    """The answer: one entry for each crop, in order."""

    model: str
    particles: list[Particle]
    image: ImageInfo | None = Field(None, description="Only for kind=micrograph.")


class ModelInfo(BaseModel):
    """The model that answers."""

    name: str
    kind: Literal["full", "classifier"] = Field(description='"classifier" gives probabilities alone.')
    classes: list[str]
    channels: int
    height_px: int = Field(description="Of the crops that it takes.")
    width_px: int
    fingerprint: str = Field(description="SHA-256 of its weights.")
    max_crops: int = Field(description="Crops that are taken in one request.")
    tumble: str = Field(description="Version.")


class Health(BaseModel):
    """Whether crops are classified."""

    status: Literal["ok", "failed"]
    model: str
    uptime_s: float
    waiting: int = Field(description="Crops that wait.")


class Problem(BaseModel):
    """Why a request was refused."""

    detail: str = Field(description="A sentence: what was wrong, and what to do.")
