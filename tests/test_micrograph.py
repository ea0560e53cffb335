"""Reading: what is kept, what is converted, what is refused; background, noise and intensity range."""

from __future__ import annotations

import imageio.v3 as iio
import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tumble.errors import ConfigError, DataError, InputFileError
from tumble.micrograph import (
    estimate_background,
    estimate_noise,
    intensity_range,
    micrograph_from_array,
    read_micrograph,
    to_uint8,
)


@pytest.fixture
def ramp() -> np.ndarray:
    """An asymmetric image, so that a transposed or mirrored one is not mistaken for it."""
    return (np.arange(20 * 30, dtype=np.uint16).reshape(20, 30) % 251).astype(np.uint8)


@pytest.mark.parametrize("suffix", [".tif", ".TIFF", ".png", ".bmp", ".npy"])
def test_lossless_formats_give_the_same_micrograph(tmp_path, ramp, suffix):
    path = tmp_path / f"image{suffix}"
    np.save(path, ramp) if suffix == ".npy" else iio.imwrite(path, ramp)
    micrograph = read_micrograph(path)
    np.testing.assert_array_equal(micrograph.pixels, ramp)
    assert micrograph.content_hash == micrograph_from_array(ramp, source="array").content_hash
    assert (micrograph.source, micrograph.pixel_size_nm, micrograph.notes) == (str(path), None, ())


def test_jpeg_is_read(tmp_path):
    image = np.full((32, 32), 40, np.uint8)
    image[8:24, 8:24] = 200
    iio.imwrite(tmp_path / "image.jpg", image, quality=95)
    assert np.abs(read_micrograph(tmp_path / "image.jpg").pixels.astype(int) - image).max() < 20


@pytest.mark.parametrize("compression", ["lzw", "zlib"])
def test_compressed_16_bit_tiff(tmp_path, ramp, compression):
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, ramp.astype(np.uint16) * 200, compression=compression)
    pixels = read_micrograph(path).pixels
    assert pixels.dtype == np.uint16
    np.testing.assert_array_equal(pixels, ramp.astype(np.uint16) * 200)


def test_white_is_zero_tiff_is_inverted(tmp_path, ramp):
    tifffile.imwrite(tmp_path / "image.tif", ramp, photometric="miniswhite")
    micrograph = read_micrograph(tmp_path / "image.tif")
    np.testing.assert_array_equal(micrograph.pixels, 255 - ramp)
    assert "inverted" in micrograph.notes[0]


def test_16_bit_png(tmp_path, ramp):
    iio.imwrite(tmp_path / "image.png", ramp.astype(np.uint16) * 200)
    np.testing.assert_array_equal(read_micrograph(tmp_path / "image.png").pixels, ramp.astype(np.uint16) * 200)


@pytest.mark.parametrize(
    ("given_dtype", "kept_as", "noted"),
    [
        (">u2", np.uint16, False),
        ("f4", np.float32, False),
        ("f8", np.float32, True),
        ("i2", np.float32, True),
        ("u4", np.float32, True),
    ],
)
def test_types(ramp, given_dtype, kept_as, noted):
    micrograph = micrograph_from_array(ramp.astype(given_dtype), source="array")
    assert micrograph.pixels.dtype == kept_as
    assert micrograph.pixels.dtype.isnative
    assert bool(micrograph.notes) is noted
    np.testing.assert_array_equal(micrograph.pixels, ramp)


def test_boolean_image_becomes_black_and_white(ramp):
    micrograph = micrograph_from_array(ramp > 100, source="array")
    np.testing.assert_array_equal(micrograph.pixels, np.where(ramp > 100, 255, 0))


def test_colours_become_luminance(ramp):
    red = np.zeros((*ramp.shape, 3), np.uint8)
    red[..., 0] = ramp
    micrograph = micrograph_from_array(red, source="array")
    np.testing.assert_array_equal(micrograph.pixels, np.rint(0.2126 * ramp).astype(np.uint8))
    assert "luminance" in micrograph.notes[0]


def test_grey_stored_as_colour_is_exact(tmp_path, ramp):
    rgba = np.dstack([ramp, ramp, ramp, np.full_like(ramp, 255)])
    iio.imwrite(tmp_path / "image.png", rgba)
    micrograph = read_micrograph(tmp_path / "image.png")
    np.testing.assert_array_equal(micrograph.pixels, ramp)
    assert "transparency" in micrograph.notes[0]


def test_indexed_tiff_shows_the_colours_of_its_palette(tmp_path, ramp):
    # A palette that turns the grey levels round: read as numbers, dark and bright would be exchanged.
    palette = np.tile(np.arange(255, -1, -1, dtype=np.uint16) * 257, (3, 1))
    tifffile.imwrite(tmp_path / "image.tif", ramp, photometric="palette", colormap=palette)
    micrograph = read_micrograph(tmp_path / "image.tif")
    np.testing.assert_array_equal(micrograph.pixels, 255 - ramp)
    assert any("palette" in note for note in micrograph.notes)


def test_planar_colour_tiff(tmp_path, ramp):
    planes = np.stack([ramp, ramp // 2, ramp // 3])
    tifffile.imwrite(tmp_path / "image.tif", planes, photometric="rgb", planarconfig="separate")
    expected = micrograph_from_array(np.moveaxis(planes, 0, -1), source="array")
    assert read_micrograph(tmp_path / "image.tif").content_hash == expected.content_hash


def test_hash_depends_on_values_shape_and_type(ramp):
    images = [ramp, ramp.reshape(30, 20), ramp.astype(np.uint16), np.rot90(ramp, 2)]
    assert len({micrograph_from_array(image, source="x").content_hash for image in images}) == len(images)


# --- pixel size ---------------------------------------------------------------------------------------------


def test_pixel_size_of_ome(tmp_path, ramp):
    sizes = {
        "PhysicalSizeX": 0.25,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": 0.25,
        "PhysicalSizeYUnit": "µm",
    }
    tifffile.imwrite(tmp_path / "image.ome.tif", ramp, metadata={"axes": "YX", **sizes})
    assert read_micrograph(tmp_path / "image.ome.tif").pixel_size_nm == pytest.approx(250)


@pytest.mark.parametrize(("unit", "nm"), [("nm", 0.5), ("micron", 500.0), ("\\u00b5m", 500.0), ("pixel", None)])
def test_pixel_size_of_imagej(tmp_path, ramp, unit, nm):
    tifffile.imwrite(tmp_path / "image.tif", ramp, imagej=True, resolution=(2, 2), metadata={"unit": unit})
    assert read_micrograph(tmp_path / "image.tif").pixel_size_nm == (nm and pytest.approx(nm))


def test_pixel_size_of_zeiss(tmp_path, ramp):
    text = "\r\n".join([*["0"] * 40, "AP_IMAGE_PIXEL_SIZE", "Image Pixel Size = 1.117 nm", ""])
    tag = (34118, "s", 0, text, True)
    tifffile.imwrite(tmp_path / "image.tif", ramp, extratags=[tag])
    micrograph = read_micrograph(tmp_path / "image.tif")
    assert micrograph.pixel_size_nm == pytest.approx(1.117)
    assert micrograph.metadata["instrument"] == "Zeiss"


def test_pixel_size_of_fei(tmp_path, ramp):
    text = "[Scan]\r\nPixelWidth=2.5e-9\r\nPixelHeight=2.5e-9\r\n"
    tifffile.imwrite(tmp_path / "image.tif", ramp, extratags=[(34682, "s", 0, text, True)])
    assert read_micrograph(tmp_path / "image.tif").pixel_size_nm == pytest.approx(2.5)


def test_printing_resolution_is_not_a_pixel_size(tmp_path, ramp):
    tifffile.imwrite(tmp_path / "image.tif", ramp, resolution=(72, 72), resolutionunit="inch")
    assert read_micrograph(tmp_path / "image.tif").pixel_size_nm is None


def test_pixels_that_are_not_square_have_no_single_size(tmp_path, ramp):
    tifffile.imwrite(tmp_path / "image.tif", ramp, imagej=True, resolution=(2, 4), metadata={"unit": "nm"})
    micrograph = read_micrograph(tmp_path / "image.tif")
    assert micrograph.pixel_size_nm is None
    assert "not square" in micrograph.notes[0]


def test_given_pixel_size_wins_with_a_note(tmp_path, ramp):
    tifffile.imwrite(tmp_path / "image.tif", ramp, imagej=True, resolution=(2, 2), metadata={"unit": "nm"})
    micrograph = read_micrograph(tmp_path / "image.tif", pixel_size_nm=3)
    assert micrograph.pixel_size_nm == 3.0
    assert "0.5 nm" in micrograph.notes[0]


@pytest.mark.parametrize("value", [0, -1.0, float("nan"), float("inf")])
def test_impossible_pixel_size(ramp, value):
    with pytest.raises(ConfigError, match="pixel_size_nm"):
        micrograph_from_array(ramp, source="array", pixel_size_nm=value)


# --- what is refused ----------------------------------------------------------------------------------------


def test_missing_folder_unknown_and_empty(tmp_path):
    (tmp_path / "notes.docx").write_text("text")
    (tmp_path / "empty.tif").touch()
    for name, reason in {
        "nothing.tif": "no such file",
        "": "folder",
        "notes.docx": "'.docx' cannot be read",
        "empty.tif": "empty",
    }.items():
        with pytest.raises(InputFileError, match=reason) as caught:
            read_micrograph(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)


@pytest.mark.parametrize("suffix", [".tif", ".png", ".jpg", ".bmp", ".npy"])
def test_text_in_disguise(tmp_path, suffix):
    path = tmp_path / f"image{suffix}"
    path.write_text("this is no image, " * 20)
    with pytest.raises(InputFileError, match="cannot be read as"):
        read_micrograph(path)


@pytest.mark.parametrize("suffix", [".tif", ".png", ".jpg", ".bmp", ".npy"])
@pytest.mark.parametrize("kept", [0.3, 0.9])
def test_truncated_file(tmp_path, suffix, kept):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64)).astype(np.uint8)
    path = tmp_path / f"image{suffix}"
    np.save(path, noise) if suffix == ".npy" else iio.imwrite(path, noise)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(InputFileError, match="image"):
        read_micrograph(path)


def test_damaged_compressed_tiff(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64)).astype(np.uint8)
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, noise, compression="lzw")
    damaged = bytearray(path.read_bytes())
    damaged[1000:1200] = b"\xff" * 200
    path.write_bytes(damaged)
    with pytest.raises(InputFileError, match="cannot be read as TIF"):
        read_micrograph(path)


def test_pickled_array_is_never_loaded(tmp_path):
    np.save(tmp_path / "image.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(InputFileError, match="cannot be read as NPY"):
        read_micrograph(tmp_path / "image.npy")


def test_stacks_are_refused(tmp_path, ramp):
    stack = np.stack([ramp] * 5)
    tifffile.imwrite(tmp_path / "stack.tif", stack, photometric="minisblack")
    iio.imwrite(tmp_path / "stack.png", stack, plugin="pillow", is_batch=True, extension=".png")
    np.save(tmp_path / "stack.npy", stack)
    for name in ("stack.tif", "stack.png", "stack.npy"):
        with pytest.raises(DataError, match="one image") as caught:
            read_micrograph(tmp_path / name)
        assert name in str(caught.value)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_counted(ramp, bad):
    image = ramp.astype(np.float32)
    image[3, 4:7] = bad
    with pytest.raises(DataError, match="3 of 600 values are NaN or infinite"):
        micrograph_from_array(image, source="array")


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (np.full((20, 20), 7), "all pixels have the value 7"),
        (np.zeros((15, 40)), "at least 16 px"),
        (np.zeros(400), "at least 16 px"),
        (np.zeros((20, 20), complex), "complex"),
        (np.full((20, 20), "a"), "not intensities"),
        (np.array([[1e300] * 20, [0.0] * 20] * 10), "32-bit"),
    ],
)
def test_arrays_without_usable_content(image, reason):
    with pytest.raises(DataError, match=reason):
        micrograph_from_array(image, source="array")


# --- background, noise, range -------------------------------------------------------------------------------


def test_background_ignores_particles_on_uneven_illumination():
    rows, columns = np.mgrid[-1:1:100j, -1:1:140j]
    illumination = 100 + 30 * rows - 20 * columns + 15 * columns**2 - 10 * rows * columns
    image = illumination + np.random.default_rng(0).normal(scale=2, size=illumination.shape)
    image[::20, :] += 150
    image[:, ::10] += 80
    assert np.abs(estimate_background(image) - illumination).max() < 3


def test_noise_is_not_raised_by_edges():
    image = np.random.default_rng(0).normal(scale=4, size=(200, 200))
    image[50:150, 50:150] += 500
    assert estimate_noise(image) == pytest.approx(4, rel=0.05)


@given(hnp.arrays(np.uint8, st.tuples(st.integers(16, 20), st.integers(16, 20))))
def test_8_bit_intensities_come_back_unchanged(image):
    np.testing.assert_array_equal(to_uint8(image, intensity_range(image)), image)


@given(
    hnp.arrays(np.float32, 50, elements=st.floats(-1e6, 1e6, width=32)),
    st.floats(-1e6, 1e6),
    st.floats(1, 1e6),
)
def test_grey_levels_are_within_half_a_step_of_the_intensity(values, low, extent):
    grey = to_uint8(values, (low, low + extent))
    back = low + grey / 255 * extent
    clipped = np.clip(values.astype(np.float64), low, low + extent)
    assert np.abs(back - clipped).max() <= extent / 510 * (1 + 1e-6) + 1e-9 * abs(low)


def test_hot_pixels_do_not_take_the_range():
    image = np.random.default_rng(0).normal(1000, 10, (200, 200)).astype(np.float32)
    image[0, 0] = 60000
    assert intensity_range(image)[1] < 1100
