"""What can be set of an extraction: background, polarity, cuts, sizes in nm, border, scale; the preview."""

from __future__ import annotations

import logging

import imageio.v3 as iio
import numpy as np
import pytest
import tifffile
from scipy import ndimage
from typer.testing import CliRunner

from tumble.cli import app
from tumble.errors import ConfigError
from tumble.library import Library
from tumble.micrograph import estimate_local_background, micrograph_from_array
from tumble.particles import draw_preview, extract_particles
from tumble.pipeline import Annotations, ExtractionOptions, extract_files


def discs(shape, places, *, background=60.0, height=100.0, noise=2.0):
    """Discs (row, column, diameter, sign) on a noisy background, blurred as by a microscope."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    image = np.zeros(shape)
    for row, column, diameter, sign in places:
        image[np.hypot(rows - row, columns - column) <= diameter / 2] = sign * height
    image = ndimage.gaussian_filter(image, 0.8) + background
    return np.clip(image + np.random.default_rng(0).normal(0, noise, shape), 0, 255)


def micrograph(image, pixel_size_nm=None, source="scene"):
    return micrograph_from_array(np.rint(image).astype(np.uint8), source=source, pixel_size_nm=pixel_size_nm)


PLACES = [(30, 40, 20, 1), (80, 60, 12, 1), (60, 110, 28, 1)]
SCENE = discs((110, 150), PLACES)


def centroids(particles):
    return particles.table[["centroid_row_px", "centroid_col_px"]].to_numpy()


def test_bright_and_dark_particles_at_once():
    places = [(30, 40, 20, 1), (60, 110, 24, -0.5), (80, 60, 12, 1)]
    image = micrograph(discs((110, 150), places, background=100))
    both = extract_particles(image, polarity="both")
    np.testing.assert_allclose(centroids(both), np.array(places)[:, :2], atol=0.5)
    assert (both.table["contrast"] < 0).tolist() == [False, True, False]
    assert both.parameters["polarity"] == "both"
    assert len(extract_particles(image, polarity="bright")) == 2
    with pytest.raises(ConfigError, match="both bright and dark"):
        extract_particles(image, polarity="both", threshold=120.0)


def test_both_finds_no_more_than_there_is():
    assert len(extract_particles(micrograph(SCENE), polarity="both")) == 3


def test_local_background_follows_a_step_of_the_substrate():
    step = np.where(np.arange(300) < 150, 0.0, 70.0)
    places = [(40, 40, 14, 1), (200, 60, 14, 1), (60, 230, 14, 1), (240, 250, 14, 1)]
    image = discs((300, 300), places, background=20, height=60) + step
    assert np.abs(estimate_local_background(image)[:, 20:130] - 20).max() < 8
    found = extract_particles(micrograph(image), background="local", min_area_px=60, max_area_px=400)
    distance = np.abs(centroids(found)[:, None] - np.array(places)[None, :, :2]).max(axis=2)
    assert (distance.min(axis=0) < 1).all()
    assert len(extract_particles(micrograph(image), background="surface", threshold="otsu")) < 4


def test_touching_particles_are_cut_where_the_intensity_dips():
    # Two lobes of one smooth outline: there is a dip of intensity and hardly a neck.
    rows, columns = np.mgrid[:80, :120]
    lobes = [np.exp(-((rows - 40) ** 2 / 200 + (columns - c) ** 2 / 90)) for c in (48, 72)]
    bar = (np.abs(rows - 40) < 14) & (np.abs(columns - 60) < 30)
    image = 40 + 60 * ndimage.gaussian_filter(bar.astype(float), 1) + 90 * np.maximum(*lobes)
    image = image + np.random.default_rng(0).normal(0, 1, image.shape)
    assert len(extract_particles(micrograph(image))) == 1
    cut = extract_particles(micrograph(image), split_touching="intensity")
    np.testing.assert_allclose(np.sort(centroids(cut)[:, 1]), [45, 75], atol=4)


def test_sizes_in_nm():
    image = micrograph(SCENE, pixel_size_nm=2.0)
    found = extract_particles(image, min_size_nm=32, max_size_nm=48)
    np.testing.assert_allclose(centroids(found), [PLACES[0][:2]], atol=0.5)
    with pytest.raises(ConfigError, match="min_size_nm=32: needs the pixel size of scene"):
        extract_particles(micrograph(SCENE), min_size_nm=32)
    with pytest.raises(ConfigError, match="max_size_nm=10: must not be less"):
        extract_particles(image, min_size_nm=32, max_size_nm=10)
    with pytest.raises(ConfigError, match="positive number of nm"):
        extract_particles(image, max_size_nm=-1)


def test_border_policies():
    image = micrograph(discs((80, 80), [(3, 40, 20, 1), (50, 40, 20, 1)]))
    pad, keep, exclude = (extract_particles(image, border=policy) for policy in ("pad", "keep", "exclude"))
    assert (len(pad), len(keep), len(exclude)) == (2, 2, 1)
    np.testing.assert_array_equal(pad.mask, keep.mask)
    # The crop begins with the first row of the image, and every pixel of it is of the image.
    left = int(np.floor(centroids(keep)[0, 1] - 23.5 + 0.5))
    np.testing.assert_array_equal(keep.crops[0, :30], image.pixels[:30, left : left + 48])
    assert np.ptp(pad.crops[0][:5].astype(int)) < 12
    np.testing.assert_array_equal(keep.crops[1], pad.crops[1])
    assert extract_particles(image, border="flag").parameters == pad.parameters


def test_crops_at_one_scale():
    fine = discs((240, 240), [(120, 120, 60, 1)], noise=0.5)
    coarse = fine.reshape(120, 2, 120, 2).mean(axis=(1, 3))
    settings = {"crop_nm_per_px": 2.0, "crop_size": 48}
    crops = [
        extract_particles(micrograph(image, size), **settings)
        for image, size in ((fine, 1.0), (coarse, 2.0), (coarse, 1.7))
    ]
    assert [found.parameters["crop_nm_per_px"] for found in crops] == [2.0] * 3
    first, second = (found.crops[0].astype(int) for found in crops[:2])
    assert np.abs(first - second).mean() < 3
    assert (first > 110).sum() * 4 == pytest.approx(np.pi * 30**2, rel=0.05)
    # 1.7 nm per px says that the same pixels show a disc 1.7 / 2 as wide.
    assert (crops[2].crops[0] > 110).sum() / (second > 110).sum() == pytest.approx(0.85**2, rel=0.05)
    with pytest.raises(ConfigError, match="needs the pixel size"):
        extract_particles(micrograph(fine), **settings)
    with pytest.raises(ConfigError, match="give one of them"):
        extract_particles(micrograph(fine, 1.0), window_px=60, **settings)
    with pytest.raises(ConfigError, match="would show"):
        extract_particles(micrograph(fine, 0.01), **settings)


def test_preview_shows_what_is_found():
    image = micrograph(discs((110, 150), [*PLACES, (0, 75, 16, 1), (90, 130, 6, 1)]), 2.0)
    found = extract_particles(image, min_area_px=60)
    objects = extract_particles(image, min_area_px=1).mask
    picture = draw_preview(image, found, objects)
    factor = 1800 // 150
    assert picture.shape[1:] == (150 * factor, 3)
    colours = {tuple(map(int, colour)) for colour in picture[: 110 * factor].reshape(-1, 3)}
    assert {(0, 158, 115), (230, 159, 0), (204, 121, 167)} <= colours
    green = (picture[: 110 * factor] == (0, 158, 115)).all(axis=2)
    rows, columns = np.nonzero(green[:, 20 * factor : 60 * factor])
    assert rows.min() / factor == pytest.approx(20, abs=1.5)  # the first disc spans rows 20 to 40, columns 30 to 50
    assert columns.min() / factor + 20 == pytest.approx(30, abs=1.5)


# --- command line -------------------------------------------------------------------------------------------


def run(*arguments):
    done = CliRunner().invoke(app, ["extract", *map(str, arguments), "--quiet"], env={"COLUMNS": "300"})
    assert "Traceback" not in done.output
    return done


def test_preview_stores_nothing(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.rint(SCENE).astype(np.uint8))
    done = run(tmp_path / "a.tif", "--preview", tmp_path / "look.png", "--pixel-size", "2nm")
    assert done.exit_code == 0, done.output
    assert "3 particles; drawn in" in done.output
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.tif", "look.png"]
    assert iio.imread(tmp_path / "look.png").shape[2] == 3
    for wrong, reason in {
        ("--preview", tmp_path / "look.jpg"): "ends in .png",
        ("--preview", tmp_path / "no" / "look.png"): "cannot be written",
        ("--library", tmp_path / "l.db", "--preview", tmp_path / "look.png"): "either --library",
        (): "either --library",
    }.items():
        done = run(tmp_path / "a.tif", *wrong)
        assert done.exit_code in (2, 3), done.output
        assert reason in done.output


def test_stack_fills_a_library_and_is_added_once(tmp_path, caplog):
    frames = np.stack([np.roll(SCENE, shift, axis=1) for shift in (0, 7, 14)] + [np.full_like(SCENE, 60)])
    frames[3] += np.random.default_rng(1).normal(0, 2, SCENE.shape)
    np.save(tmp_path / "movie.npy", np.rint(frames).astype(np.uint8))
    with caplog.at_level(logging.WARNING, logger="tumble"):
        done = run(tmp_path / "movie.npy", "--library", tmp_path / "l.db", "--pixel-size", "2nm")
    assert done.exit_code == 0, done.output
    assert "movie.npy[3]: no particles found" in caplog.text
    with Library(tmp_path / "l.db") as library:
        sources = library.micrographs()["source"].tolist()
        assert sources == [f"{tmp_path / 'movie.npy'}[{index}]" for index in range(3)]
        assert library.micrographs()["n_particles"].tolist() == [3, 3, 3]
        assert library.micrographs()["metadata"].tolist() == [{"frame": index} for index in range(3)]
    assert run(tmp_path / "movie.npy", "--library", tmp_path / "l.db").output.count("unchanged") == 3


def test_crops_of_different_scale_are_warned_of(tmp_path, caplog):
    for number in range(2):
        tifffile.imwrite(tmp_path / f"{number}.tif", np.rint(np.roll(SCENE, number, 0)).astype(np.uint8))
    extract_files(tmp_path / "l.db", [tmp_path / "0.tif"], pixel_size_nm=2.0)
    with caplog.at_level(logging.WARNING, logger="tumble"):
        extract_files(tmp_path / "l.db", [tmp_path / "1.tif"], pixel_size_nm=3.0)
    assert "sizes in them do not compare" in caplog.text
    caplog.clear()
    options = ExtractionOptions(crop_nm_per_px=2.0)
    with caplog.at_level(logging.WARNING, logger="tumble"):
        for number, size in enumerate((2.0, 3.0)):
            extract_files(tmp_path / "m.db", [tmp_path / f"{number}.tif"], pixel_size_nm=size, options=options)
    assert caplog.text == ""


def test_masks_boxes_and_centroids_on_the_command_line(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.rint(SCENE).astype(np.uint8))
    tifffile.imwrite(tmp_path / "masks.tif", (SCENE > 110).astype(np.uint8) * 255)
    (tmp_path / "boxes.csv").write_text("xmin,ymin,xmax,ymax\n28,18,52,42\n")
    (tmp_path / "points.csv").write_text("X,Y\n40.5,30.5\n60.5,80.5\n")
    for arguments, n_particles in {
        ("--masks", tmp_path / "masks.tif"): 3,
        ("--boxes", tmp_path / "boxes.csv", "--outline", "shape"): 1,
        ("--centroids", tmp_path / "points.csv", "--diameter", "20px"): 2,
        ("--masks", tmp_path / "masks.tif", "--min-area", "200"): 2,
    }.items():
        library = tmp_path / f"{arguments[0]}{len(arguments)}.db"
        done = run(tmp_path / "a.tif", "--library", library, *arguments)
        assert done.exit_code == 0, done.output
        with Library(library) as opened:
            assert len(opened.particles()) == n_particles
            assert opened.micrographs()["extraction"].iloc[0]["origin"] == str(arguments[1])
    for arguments, reason in {
        ("--masks", "x.tif", "--boxes", "y.csv"): "Give one of --masks",
        ("--masks", tmp_path / "none.tif"): "no such file",
        ("--diameter", "20px"): "--diameter goes with --centroids",
        ("--centroids", tmp_path / "points.csv", "--diameter", "5nm"): "needs --pixel-size",
        ("--centroids", tmp_path / "points.csv", "--coordinates", "mm"): "must be px or nm",
        ("--boxes", tmp_path / "boxes.csv", "--outline", "round"): "must be segment or shape",
        ("--min-size", "5"): "--min-size '5': is not a positive length",
        ("--crop-nm-per-px", "2nm"): "needs the pixel size",
    }.items():
        done = run(tmp_path / "a.tif", "--library", tmp_path / "w.db", *arguments)
        assert done.exit_code in (2, 3), done.output
        assert reason in done.output
    assert not (tmp_path / "w.db").exists()


def test_annotations_are_of_one_image(tmp_path):
    with pytest.raises(ConfigError, match="of one image are, but 2 images"):
        extract_files(tmp_path / "l.db", ["a.tif", "b.tif"], annotations=Annotations("m.tif", "masks"))
