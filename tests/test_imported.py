"""Particles found elsewhere: masks, boxes and points, in the files of other programs."""

from __future__ import annotations

import json

import imageio.v3 as iio
import numpy as np
import pytest
import roifile
import tifffile
from scipy import ndimage

from tumble.errors import ConfigError, DataError, InputFileError, TumbleError
from tumble.micrograph import micrograph_from_array, read_micrograph
from tumble.particles import (
    CropSettings,
    SizeLimits,
    particles_from_boxes,
    particles_from_centroids,
    particles_from_masks,
    read_boxes,
    read_centroids,
    read_masks,
)

SHAPE = (90, 130)

#: Two touching rectangles, one apart, of different sides, so that rows and columns cannot be exchanged.
BOXES = np.array([[10, 20, 30, 32], [10, 32, 30, 44], [50, 70, 62, 110]])


def labels():
    image = np.zeros(SHAPE, np.uint16)
    for number, (top, left, bottom, right) in zip((7, 3, 250), BOXES, strict=True):
        image[top:bottom, left:right] = number
    return image


@pytest.fixture
def micrograph():
    clear = ndimage.gaussian_filter((labels() > 0) * 100.0, 0.7) + 60
    noisy = clear + np.random.default_rng(0).normal(0, 3, SHAPE)
    return micrograph_from_array(np.clip(noisy, 0, 255).astype(np.uint8), source="folder/sem.tif", pixel_size_nm=2.0)


def bounding_boxes(particles):
    names = ["bbox_min_row_px", "bbox_min_col_px", "bbox_max_row_px", "bbox_max_col_px"]
    return particles.table[names].to_numpy()


def test_each_number_of_a_label_image_is_a_particle(micrograph):
    particles = particles_from_masks(micrograph, labels())
    np.testing.assert_array_equal(bounding_boxes(particles), BOXES)
    np.testing.assert_array_equal(particles.mask > 0, labels() > 0)
    assert particles.parameters["polarity"] == "bright"
    assert json.loads(json.dumps(particles.parameters)) == particles.parameters
    assert particles.table["area_nm2"].tolist() == [960.0, 960.0, 1920.0]


@pytest.mark.parametrize("value", [1, 255, True])
def test_parts_of_a_mask_are_particles(micrograph, value):
    mask = np.where(labels() > 0, value, 0)
    particles = particles_from_masks(micrograph, mask if value is not True else mask.astype(bool))
    np.testing.assert_array_equal(bounding_boxes(particles), [[10, 20, 30, 44], [50, 70, 62, 110]])


def test_masks_with_the_rows_of_a_banner(tmp_path):
    image = np.clip(np.random.default_rng(0).normal(90, 10, (100, 130)), 0, 255).astype(np.uint8)
    image[labels().nonzero()] = 220
    image[90:] = 0
    image[92:96, 10:50:3] = 255
    tifffile.imwrite(tmp_path / "sem.tif", image)
    found = read_micrograph(tmp_path / "sem.tif")
    assert found.pixels.shape == SHAPE
    particles = particles_from_masks(found, np.vstack([labels(), np.zeros((10, 130), int)]))
    np.testing.assert_array_equal(bounding_boxes(particles), BOXES)


@pytest.mark.parametrize(
    ("masks", "reason"),
    [
        (labels().T, "exchanged"),
        (labels()[:50], "has shape"),
        (np.zeros(SHAPE, int), "no object"),
        (np.full(SHAPE, -1), "negative"),
        (np.full(SHAPE, 0.5), "whole numbers"),
    ],
)
def test_masks_that_do_not_fit(micrograph, masks, reason):
    with pytest.raises(DataError, match=reason):
        particles_from_masks(micrograph, masks)


def test_limits_and_crops_of_imported_particles(micrograph):
    size_nm = 2 * np.sqrt(400 / np.pi) * 2.0
    particles = particles_from_masks(
        micrograph, labels(), limits=SizeLimits(min_size_nm=size_nm), crops=CropSettings(crop_size=24)
    )
    assert particles.crops.shape == (1, 24, 24)
    with pytest.raises(DataError, match="none of the 3 objects"):
        particles_from_masks(micrograph, labels(), limits=SizeLimits(min_area_px=5000))
    with pytest.raises(ConfigError, match="crop_size"):
        particles_from_masks(micrograph, labels(), crops=CropSettings(crop_size=3))


@pytest.mark.parametrize("outline", ["segment", "shape"])
def test_boxes(micrograph, outline):
    wide = BOXES + np.array([-3, 0, 3, 0])
    particles = particles_from_boxes(micrograph, wide, outline=outline)
    expected = BOXES if outline == "segment" else wide
    np.testing.assert_allclose(bounding_boxes(particles), expected, atol=1 if outline == "segment" else 0)


def test_centroids_part_touching_particles(micrograph):
    points = [[20, 26], [20, 38], [56, 90], [80.4, 10.2]]
    particles = particles_from_centroids(micrograph, points)
    found = particles.table[["centroid_row_px", "centroid_col_px"]].to_numpy()
    np.testing.assert_allclose(found[:3], np.array(points)[:3] - 0.5, atol=0.8)
    np.testing.assert_allclose(found[3], points[3], atol=0.5)  # a disc, as there is no object
    discs = particles_from_centroids(micrograph, points[2:], diameter_px=11)
    np.testing.assert_allclose(discs.table["equivalent_diameter_px"], 11, atol=0.5)


@pytest.mark.parametrize("points", [[[95, 10]], [[10, 140]], [[-3, 5]], [], [[1, 2, 3]], [[np.nan, 1]]])
def test_impossible_centroids(micrograph, points):
    with pytest.raises(DataError, match=r"centroids: (1 of 1 lie outside|must be rows)"):
        particles_from_centroids(micrograph, points)


# --- files --------------------------------------------------------------------------------------------------


def coco(boxes=True, polygons=True, name="sem.tif"):
    entries = []
    for number, (top, left, bottom, right) in enumerate(BOXES.tolist(), start=1):
        entry = {"id": number, "image_id": 5, "category_id": 1}
        if boxes:
            entry["bbox"] = [left, top, right - left, bottom - top]
        if polygons:
            entry["segmentation"] = [[left, top, right, top, right, bottom, left, bottom]]
        entries.append(entry)
    other = {"id": 9, "image_id": 6, "category_id": 1, "bbox": [0, 0, 5, 5], "segmentation": [[0, 0, 5, 0, 5, 5]]}
    images = [{"id": 5, "file_name": f"data/{name}"}, {"id": 6, "file_name": "other.tif"}]
    return {"images": images, "annotations": [*entries, other], "categories": [{"id": 1, "name": "rod"}]}


def test_masks_of_files(tmp_path, micrograph):
    tifffile.imwrite(tmp_path / "a.tif", labels())
    iio.imwrite(tmp_path / "a.png", labels())
    np.save(tmp_path / "a.npy", labels())
    (tmp_path / "a.json").write_text(json.dumps(coco()))
    rois = [
        roifile.ImagejRoi.frompoints([[left, top], [right, top], [right, bottom], [left, bottom]])
        for top, left, bottom, right in BOXES
    ]
    roifile.roiwrite(tmp_path / "a.zip", rois, mode="w")
    for suffix in ("tif", "png", "npy", "json", "zip"):
        found = particles_from_masks(micrograph, read_masks(tmp_path / f"a.{suffix}", micrograph))
        np.testing.assert_array_equal(bounding_boxes(found), BOXES, err_msg=suffix)
        np.testing.assert_array_equal(found.mask > 0, labels() > 0, err_msg=suffix)


def test_uncompressed_coco_mask(tmp_path, micrograph):
    flat = (labels() == 250).T.ravel()
    changes = np.flatnonzero(np.diff(flat.astype(int))) + 1
    counts = np.diff([0, *changes, flat.size]).tolist()
    content = coco(polygons=False)
    content["annotations"] = [{"id": 1, "image_id": 5, "segmentation": {"size": list(SHAPE), "counts": counts}}]
    (tmp_path / "a.json").write_text(json.dumps(content))
    np.testing.assert_array_equal(read_masks(tmp_path / "a.json", micrograph) > 0, labels() == 250)


def test_boxes_of_files(tmp_path, micrograph):
    (tmp_path / "a.json").write_text(json.dumps(coco(polygons=False)))
    lines, table, sides, imagej = [], ["xmin,ymin,xmax,ymax"], ["x,y,width,height"], [" ,Area,X,Y,BX,BY,Width,Height"]
    for top, left, bottom, right in BOXES:
        h, w = bottom - top, right - left
        parts = ((left + w / 2) / SHAPE[1], (top + h / 2) / SHAPE[0], w / SHAPE[1], h / SHAPE[0])
        lines.append("0 " + " ".join(f"{part:.6f}" for part in parts))
        table.append(f"{left},{top},{right},{bottom}")
        sides.append(f"{left},{top},{w},{h}")
        imagej.append(f"1,{h * w},0,0,{left},{top},{w},{h}")
    (tmp_path / "a.txt").write_text("\n".join(lines))
    for name, rows in {"corners.csv": table, "sides.csv": sides, "imagej.csv": imagej}.items():
        (tmp_path / name).write_text("\n".join(rows))
    for name in ("a.json", "a.txt", "corners.csv", "sides.csv", "imagej.csv"):
        np.testing.assert_allclose(read_boxes(tmp_path / name, micrograph), BOXES, atol=1e-3, err_msg=name)


@pytest.mark.parametrize(
    ("header", "row", "in_nm"),
    [
        ("X,Y", "26.5,20.5", False),  # ImageJ: the middle of the first pixel is at 0.5
        (" \tArea\tX\tY", "1\t9\t26.5\t20.5", False),
        ("y;x", "20;26", False),
        ("centroid-0,centroid-1", "20,26", False),
        ("index,axis-0,axis-1", "0,20,26", False),
        ("X,Y", "53,41", True),
    ],
)
def test_centroids_of_files(tmp_path, micrograph, header, row, in_nm):
    (tmp_path / "a.csv").write_text(f"{header}\n{row}\n{row}\n")
    np.testing.assert_allclose(read_centroids(tmp_path / "a.csv", micrograph, in_nm=in_nm), [[20, 26]] * 2)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.json", "{", "cannot be read as JSON"),
        ("a.json", "[]", "is not COCO"),
        ("a.json", json.dumps({"images": [{"id": 1, "file_name": "x"}] * 2, "annotations": []}), "annotation|image"),
        ("a.json", json.dumps(coco(name="another.tif")), "has no image 'sem.tif'"),
        ("a.txt", "0 0.5 0.5 0.1", "line 1 is not a class"),
        ("a.txt", "0 400 300 20 20", "line 1 is not a class"),
        ("a.csv", "left,right\n1,2\n", "but no boxes such as"),
        ("a.csv", "xmin,ymin,xmax,ymax\n1,2,three,4\n", "row 2 has no finite number"),
        ("a.csv", "xmin,ymin,xmax,ymax\n", "no rows"),
        ("a.csv", "xmin,ymin,xmax,ymax\n500,2,520,4\n", "lie outside"),
        ("a.csv", "xmin,ymin,xmax,ymax\n5,2,5,4\n", "has no area"),
        ("a.docx", "x", "boxes are read from"),
        ("missing.csv", None, "no such file"),
    ],
)
def test_files_of_boxes_that_cannot_be_used(tmp_path, micrograph, name, content, reason):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(TumbleError, match=reason) as caught:
        particles_from_boxes(micrograph, read_boxes(tmp_path / name, micrograph), origin=name)
    assert name in str(caught.value)


def test_files_of_masks_that_cannot_be_used(tmp_path, micrograph):
    (tmp_path / "a.zip").write_bytes(b"PK" + bytes(200))
    (tmp_path / "a.roi").write_bytes(b"Iout" + bytes(3))
    np.save(tmp_path / "cells_seg.npy", np.array({"masks": 1}, dtype=object), allow_pickle=True)
    roifile.roiwrite(tmp_path / "line.roi", roifile.ImagejRoi.frompoints([[1, 1], [9, 9]]), mode="w")
    roi = roifile.ImagejRoi.frompoints([[500, 500], [520, 500], [520, 520]])
    roifile.roiwrite(tmp_path / "far.roi", roi, mode="w")
    for name, reason in {
        "a.zip": "cannot be read as ImageJ's ROIs",
        "a.roi": "cannot be read as ImageJ's ROIs",
        "cells_seg.npy": "never loaded",
        "far.roi": "covers a pixel",
    }.items():
        with pytest.raises(TumbleError, match=reason):
            read_masks(tmp_path / name, micrograph)
    with pytest.raises(InputFileError, match="no such file"):
        read_masks(tmp_path / "missing.tif", micrograph)
