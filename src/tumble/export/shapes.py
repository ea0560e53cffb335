"""Outlines for programs that draw and train on them: ImageJ's ROI zip, COCO JSON.

Both count from the corner of the first pixel, where `tumble` counts from its middle: half a pixel is added.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from tumble.errors import ConfigError
from tumble.export.optional import required

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from tumble.export.content import Content

__all__ = ["write_coco", "write_imagej"]


def write_imagej(content: Content, path: Path) -> None:
    """Write the outlines of one micrograph as an ImageJ ROI set; the name of each is its particle and class."""
    roifile = required("roifile", "the ImageJ ROI zip")
    if len(content.micrographs) != 1:
        listed = ", ".join(str(i) for i in content.micrographs.index[:10])
        raise ConfigError(
            f"an ImageJ ROI set belongs to one image, these particles are of {len(content.micrographs)} micrographs "
            f"({listed}). Choose one with --micrograph."
        )
    rois = []
    for _, group, outlines in content.by_micrograph():
        for particle, name in zip(group.index, group["class"], strict=True):
            roi = roifile.ImagejRoi.frompoints(_xy(outlines[int(particle)]), name=f"{particle}-{_plain(name)}")
            roi.roitype = roifile.ROI_TYPE.POLYGON
            rois.append(roi)
    roifile.roiwrite(path, rois, mode="w")


def write_coco(content: Content, path: Path) -> None:
    """Write a COCO data set of instances: images, categories, and annotations with polygon, box, area and score."""
    names = sorted(set(content.particles["class"]))
    categories = {name: i + 1 for i, name in enumerate(names)}
    images = [
        {"id": int(key), "file_name": source, "width": int(width), "height": int(height)}
        for key, source, width, height in content.micrographs[["source", "width_px", "height_px"]].itertuples(name=None)
    ]
    annotations = []
    for micrograph, group, outlines in content.by_micrograph():
        scores = group["probability"] if "probability" in group else [None] * len(group)
        for particle, name, score in zip(group.index, group["class"], scores, strict=True):
            annotations.append(_annotation(int(particle), micrograph, categories[name], outlines[int(particle)], score))
    dataset = {
        "info": {"description": f"particles of {content.library.url.rpartition('/')[2]}", "model": content.model},
        "images": images,
        "categories": [{"id": number, "name": name} for name, number in categories.items()],
        "annotations": annotations,
    }
    path.write_text(json.dumps(dataset, indent=1) + "\n", encoding="utf-8")


def _annotation(
    particle: int, micrograph: int, category: int, outline: npt.NDArray[np.float32], score: float | None
) -> dict[str, Any]:
    x, y = _xy(outline).T
    area = abs(float(x @ np.roll(y, 1) - y @ np.roll(x, 1))) / 2
    found: dict[str, Any] = {
        "id": particle,
        "image_id": micrograph,
        "category_id": category,
        "segmentation": [np.stack([x, y], axis=1).ravel().round(2).tolist()],
        "bbox": [float(v) for v in (x.min(), y.min(), np.ptp(x), np.ptp(y))],
        "area": area,
        "iscrowd": 0,
    }
    return found if score is None or np.isnan(score) else {**found, "score": float(score)}


def _xy(outline: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    return outline[:, ::-1].astype(np.float64) + 0.5


def _plain(name: str) -> str:
    """Return a class as part of a file name within an archive."""
    return "".join(c if c.isalnum() or c in "-_ ." else "_" for c in str(name))
