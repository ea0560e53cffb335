"""Exports say what the library says, in the words of the programs that read them."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pandas as pd
import pytest
from helpers_library import make_predictions, make_record
from helpers_pipeline import OPTIONS, make_image, make_library

import tumble.export.optional
from tumble.errors import ConfigError, InputFileError, LibraryError
from tumble.export import FORMATS, export_library
from tumble.library import Library
from tumble.pipeline import extract_into


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    folder = tmp_path_factory.mktemp("library")
    with Library(make_library(folder)) as library:
        iio.imwrite(folder / "second.png", make_image(4)[0])
        extract_into(library, [folder / "second.png"], options=OPTIONS)
        ids = library.particle_ids()
        said = dataclasses.replace(make_predictions(len(ids)), novelty=np.linspace(0, 1, len(ids), dtype=np.float32))
        classes = ("rod", "sphere", "a/b: c")
        library.add_model(make_record("first", classes=classes))
        library.add_predictions("first", ids, dataclasses.replace(said, classes=classes))
        yield library


def test_csv_and_parquet_hold_the_whole_table(library, tmp_path):
    pytest.importorskip("pyarrow")
    expected = library.particles(model="first")
    read = {
        "csv": pd.read_csv(export_library(library, tmp_path / "p.csv", "csv"), index_col="particle_id"),
        "parquet": pd.read_parquet(export_library(library, tmp_path / "p.parquet", "parquet")),
    }
    for table in read.values():
        assert table.index.tolist() == expected.index.tolist()
        assert set(expected) <= set(table)
        for name in ("area_px", "probability", "novelty", "latent_1", "angle_rad"):
            np.testing.assert_array_equal(table[name], expected[name])
        assert table["predicted"].tolist() == expected["predicted"].tolist()
        assert table["label"].isna().tolist() == expected["label"].isna().tolist()


def test_anndata_is_read_by_its_own_package(library, tmp_path):
    anndata = pytest.importorskip("anndata")
    data = anndata.read_h5ad(export_library(library, tmp_path / "p.h5ad", "h5ad"))
    expected = library.particles(model="first")
    assert data.obs_names.tolist() == [str(i) for i in expected.index]
    np.testing.assert_allclose(data[:, "area_px"].X[:, 0], expected["area_px"])
    np.testing.assert_allclose(data.obsm["X_latent"], expected[["latent_0", "latent_1"]], rtol=1e-6)
    np.testing.assert_array_equal(data.obsm["spatial"], expected[["centroid_col_px", "centroid_row_px"]])
    assert data.obs["predicted"].tolist() == expected["predicted"].tolist()
    assert data.uns["tumble"]["model"] == "first"


#: Where Python is too old for an AnnData that takes pandas 3, `make test` puts one with its own pandas.
ANNDATA = Path(sys.prefix) / "anndata"


@pytest.mark.skipif(not ANNDATA.is_dir(), reason="AnnData is in the environment itself, or not installed")
def test_anndata_is_read_by_its_own_package_with_the_pandas_that_it_takes():
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ANNDATA), *filter(None, sys.path)])}
    test = f"{__file__}::{test_anndata_is_read_by_its_own_package.__name__}"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", test]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout


def test_imagej_rois_lie_on_the_particles(library, tmp_path):
    roifile = pytest.importorskip("roifile")
    ids = library.particles(micrograph_id=1).index
    rois = roifile.roiread(export_library(library, tmp_path / "p.zip", "imagej", particle_ids=ids))
    assert len(rois) == len(ids)
    outlines = library.outlines(1)
    for roi in rois:
        particle, _, name = roi.name.partition("-")
        assert name in ("rod", "sphere", "a_b_ c")
        np.testing.assert_allclose(roi.coordinates(), outlines[int(particle)][:, ::-1] + 0.5, atol=1e-3)
    with pytest.raises(ConfigError, match="2 micrographs"):
        export_library(library, tmp_path / "all.zip", "imagej")


def test_coco_boxes_and_areas_are_those_of_the_masks(library, tmp_path):
    data = json.loads(export_library(library, tmp_path / "p.json", "coco").read_text())
    assert [(image["id"], image["width"], image["height"]) for image in data["images"]] == [
        (1, 192, 120),
        (2, 192, 120),
    ]
    names = {category["id"]: category["name"] for category in data["categories"]}
    table, masks = library.particles(model="first"), {i: library.particle_masks(i) for i in (1, 2)}
    assert len(data["annotations"]) == len(table)
    for found in data["annotations"]:
        row = table.loc[found["id"]]
        rows, columns = np.nonzero(masks[found["image_id"]] == found["id"])
        assert (names[found["category_id"]], found["image_id"]) == (row["predicted"], row["micrograph_id"])
        assert found["score"] == row["probability"]
        # The outline runs through the middle of the edge between pixels: within a pixel of the box of the mask.
        x, y, width, height = found["bbox"]
        box = (columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1)
        np.testing.assert_allclose((x, y, width, height), box, atol=1.01)
        assert found["area"] == pytest.approx(len(rows), rel=0.15)


def test_each_crop_is_in_the_folder_of_its_class(library, tmp_path):
    folder = export_library(library, tmp_path / "crops", "crops")
    table = library.particles(model="first")
    files = sorted(folder.rglob("*.png"))
    assert len(files) == len(table)
    for file in files:
        particle = int(file.stem.removeprefix("particle-"))
        assert file.parent.name == {"a/b: c": "a_b_ c"}.get(table["predicted"][particle], table["predicted"][particle])
        np.testing.assert_array_equal(iio.imread(file), library.crops([particle])[0])


def test_contact_sheets_show_every_particle(library, tmp_path):
    page = export_library(library, tmp_path / "sheet.html", "html").read_text()
    assert page.count("<figure>") == page.count("data:image/png;base64,") == len(library.particle_ids())
    assert "a/b: c (" in page
    assert "http://" not in page
    assert export_library(library, tmp_path / "sheet.pdf", "pdf").read_bytes().startswith(b"%PDF")
    only = export_library(library, tmp_path / "few.html", "html", particle_ids=[3, 1], by="label").read_text()
    assert only.count("<figure>") == 2


def test_nothing_is_replaced_or_half_written(library, tmp_path, monkeypatch):
    path = tmp_path / "p.csv"
    path.write_text("mine")
    with pytest.raises(InputFileError, match=r"p\.csv: is there already.*--overwrite"):
        export_library(library, path, "csv")
    (tmp_path / "crops").mkdir()
    with pytest.raises(InputFileError, match="is there already"):
        export_library(library, tmp_path / "crops", "crops", overwrite=True)

    def fail(content, path):
        path.write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(FORMATS, "csv", (".csv", fail))
    with pytest.raises(InputFileError, match="No space left"):
        export_library(library, path, "csv", overwrite=True)
    assert path.read_text() == "mine"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["crops", "p.csv"]


def test_what_cannot_be_exported_is_explained(library, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="no format 'xlsx'"):
        export_library(library, tmp_path / "p.xlsx", "xlsx")
    with pytest.raises(ConfigError, match=r"ends in \.json"):
        export_library(library, tmp_path / "p.db", "coco")
    with pytest.raises(LibraryError, match="no particle 999"):
        export_library(library, tmp_path / "p.csv", "csv", particle_ids=[1, 999])
    with pytest.raises(LibraryError, match="no particle to export"):
        export_library(library, tmp_path / "p.csv", "csv", particle_ids=[])
    with pytest.raises(InputFileError, match="cannot be written"):
        export_library(library, tmp_path / "no" / "p.csv", "csv")

    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(tumble.export.optional, "import_module", missing)
    for name in ("parquet", "h5ad", "imagej"):
        with pytest.raises(ConfigError, match=r'pip install "tumble\[export\]"'):
            export_library(library, tmp_path / f"p{FORMATS[name][0]}", name, particle_ids=[1])


def test_the_extras_are_not_imported_before_they_are_needed():
    # pandas itself imports pyarrow where it is installed
    code = "import sys, tumble.export; assert not {'anndata', 'roifile', 'matplotlib'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
