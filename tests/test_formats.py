"""Every kind of file gives the same micrograph; stacks, names within files, banners, text files beside images."""

from __future__ import annotations

import builtins
import sys

import h5py
import numpy as np
import pytest
import tifffile
from helpers_formats import IMAGE, PIXEL_SIZE_NM, WITHOUT_PIXEL_SIZE, WRITERS, write_hdf5, write_hspy, write_tiff

from tumble.errors import ConfigError, DataError, InputFileError
from tumble.micrograph import iter_micrographs, read_label_image, read_micrograph
from tumble.micrograph.banner import find_banner, has_scale_bar
from tumble.micrograph.limits import ReadLimits, reading_within
from tumble.micrograph.sidecar import read_sidecar

pytest.importorskip("rsciio")
pytest.importorskip("zarr")

STACKABLE = [name for name in WRITERS if name not in {"a.png", "a.jpg", "a.bmp"}]


@pytest.mark.parametrize("name", [name for name in WRITERS if name != "a.jpg"])
def test_each_kind_of_file_gives_the_same_micrograph(tmp_path, name):
    WRITERS[name](tmp_path / name)
    micrograph = read_micrograph(tmp_path / name)
    np.testing.assert_array_equal(micrograph.pixels, IMAGE)
    expected = None if name in WITHOUT_PIXEL_SIZE else pytest.approx(PIXEL_SIZE_NM)
    assert (micrograph.pixel_size_nm, micrograph.source) == (expected, str(tmp_path / name))
    assert micrograph.notes == ()


@pytest.mark.parametrize("name", STACKABLE)
def test_each_frame_of_a_stack_is_a_micrograph(tmp_path, name):
    path, stack = tmp_path / name, np.stack([IMAGE, IMAGE + 1, IMAGE[::-1], IMAGE[:, ::-1]])
    WRITERS[name](path, stack)
    found = list(iter_micrographs(path))
    np.testing.assert_array_equal([micrograph.pixels for micrograph in found], stack)
    assert [micrograph.source for micrograph in found] == [f"{path}[{index}]" for index in range(4)]
    assert [micrograph.metadata["frame"] for micrograph in found] == [0, 1, 2, 3]
    assert {micrograph.pixel_size_nm for micrograph in found} == {read_micrograph(path, frame=2).pixel_size_nm}
    if name not in WITHOUT_PIXEL_SIZE:
        assert found[3].pixel_size_nm == pytest.approx(PIXEL_SIZE_NM)
    np.testing.assert_array_equal(read_micrograph(path, frame=2).pixels, stack[2])
    with pytest.raises(DataError, match=r"holds 4 frames.*one image"):
        read_micrograph(path)
    with pytest.raises(ConfigError, match="frame=4"):
        read_micrograph(path, frame=4)


def test_frames_are_read_one_by_one(tmp_path):
    # The second frame is damaged: the first is there before anyone looks at it.
    stack = np.random.default_rng(0).integers(0, 255, (3, 64, 64)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "stack.tif", stack, compression="zlib", photometric="minisblack")
    with tifffile.TiffFile(tmp_path / "stack.tif") as tiff:
        offset = tiff.pages[1].dataoffsets[0]
    content = bytearray((tmp_path / "stack.tif").read_bytes())
    content[offset : offset + 100] = b"\xff" * 100
    (tmp_path / "stack.tif").write_bytes(content)
    found = iter_micrographs(tmp_path / "stack.tif")
    np.testing.assert_array_equal(next(found).pixels, stack[0])
    with pytest.raises(InputFileError, match="cannot be read as TIF"):
        next(found)


def test_hyperstack_of_imagej(tmp_path):
    stack = np.arange(2 * 3 * 20 * 30, dtype=np.uint16).reshape(2, 3, 20, 30)
    tifffile.imwrite(tmp_path / "hyper.tif", stack, imagej=True, metadata={"axes": "TCYX"})
    found = [micrograph.pixels for micrograph in iter_micrographs(tmp_path / "hyper.tif")]
    np.testing.assert_array_equal(found, stack.reshape(6, 20, 30))


@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_planes_of_one_page(tmp_path, byteorder):
    stack = np.arange(3 * 32 * 48, dtype=np.uint16).reshape(3, 32, 48)
    tifffile.imwrite(tmp_path / "volume.tif", stack, volumetric=True, byteorder=byteorder, photometric="minisblack")
    found = [micrograph.pixels for micrograph in iter_micrographs(tmp_path / "volume.tif")]
    np.testing.assert_array_equal(found, stack)


def test_frame_of_colours_in_a_stack(tmp_path):
    stack = np.zeros((4, 20, 30, 3), np.uint8)
    stack[..., 0], stack[..., 2] = IMAGE[:20, :30] % 250, 9
    np.save(tmp_path / "colours.npy", stack)
    assert read_micrograph(tmp_path / "colours.npy", frame=3).pixels.shape == (20, 30)


def test_image_is_named_within_its_file(tmp_path):
    path = tmp_path / "a.h5"
    write_hdf5(path)
    with h5py.File(path, "a") as file:
        file["other/stack"] = np.stack([IMAGE, IMAGE + 1])
    assert read_micrograph(f"{path}:/entry/data").pixel_size_nm == pytest.approx(PIXEL_SIZE_NM)
    np.testing.assert_array_equal(read_micrograph(f"{path}:other/stack", frame=1).pixels, IMAGE + 1)
    for wrong, reason in {
        str(path): "holds 2 datasets.*/entry/data",
        f"{path}:/nothing": "no dataset '/nothing'.*/other/stack",
        f"{path}:/other": "is a group",
    }.items():
        with pytest.raises(InputFileError, match=reason):
            read_micrograph(wrong)


def test_dataset_that_points_to_another_file_is_refused(tmp_path):
    (tmp_path / "secret.bin").write_bytes(bytes(range(256)) * 4)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("data", (32, 32), "u1", external=[(str(tmp_path / "secret.bin"), 0, 1024)])
    with pytest.raises(InputFileError, match="from other files"):
        read_micrograph(tmp_path / "a.h5")


def test_magnification_and_instrument_are_kept(tmp_path):
    write_hspy(tmp_path / "a.hspy")
    metadata = read_micrograph(tmp_path / "a.hspy").metadata
    assert (metadata["instrument"], metadata["magnification"]) == ("Titan", 40_000.0)
    text = "\r\n".join([*["0"] * 40, "AP_MAG", "Mag =  12.50 K X", ""])
    tifffile.imwrite(tmp_path / "zeiss.tif", IMAGE, extratags=[(34118, "s", 0, text, True)])
    assert read_micrograph(tmp_path / "zeiss.tif").metadata["magnification"] == 12_500.0


@pytest.mark.parametrize("kind", ["Gatan", "JEOL"])
def test_pixel_size_in_the_tags_of_other_vendors(tmp_path, kind):
    if kind == "Gatan":
        tags = [(65003, "s", 0, "nm", False), (65004, "s", 0, "nm", False)]
        tags += [(65009, "d", 1, 0.5, False), (65010, "d", 1, 0.5, False)]
        tifffile.imwrite(tmp_path / "a.tif", IMAGE, extratags=tags)
    else:
        entries = {"EosMode": "eosTEM", "ModeString": "MAG", "SelectorValue": "20000"}
        report = "".join(f"<{name}>{value}</{name}>" for name, value in entries.items())
        # 1,000 px per cm on the camera are 10 µm each, at 20,000 times 0.5 nm.
        tifffile.imwrite(
            tmp_path / "a.tif",
            IMAGE,
            description=f"<TemReporter>{report}</TemReporter>",
            resolution=(1000, 1000),
            resolutionunit="centimeter",
            extratags=[(271, "s", 0, "JEOL Ltd.", False)],
            metadata=None,
        )
    assert read_micrograph(tmp_path / "a.tif").pixel_size_nm == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "a.txt",
            "$CM_FORMAT JEOL-SEM\r\n$CM_MAG 50000\r\n$CM_FULL_SIZE 36 24\r\n"
            "$$SM_MICRON_BAR 40\r\n$$SM_MICRON_MARKER 0.1um\r\n",
        ),
        ("a.txt", "[SemImageFile]\r\nDataSize=36x24\r\nPixelSize=2.5\r\nMagnification=50000\r\n"),
        ("a-tif.hdr", "[MAIN]\nDevice=TESCAN VEGA\nMagnification=50000\nPixelSizeX=2.5e-9\nPixelSizeY=2.5e-9\n"),
    ],
)
def test_text_file_beside_the_image(tmp_path, name, text):
    tifffile.imwrite(tmp_path / "a.tif", IMAGE)
    (tmp_path / name).write_text(text)
    micrograph = read_micrograph(tmp_path / "a.tif")
    assert micrograph.pixel_size_nm == pytest.approx(2.5)
    assert micrograph.metadata["magnification"] == 50_000


def test_text_of_another_image_is_not_used(tmp_path):
    text = "$CM_FORMAT JEOL-SEM\n$CM_FULL_SIZE 1280 960\n$$SM_MICRON_BAR 40\n$$SM_MICRON_MARKER 100nm\n"
    (tmp_path / "a.txt").write_text(text)
    found = read_sidecar(tmp_path / "a.tif", IMAGE.shape)
    assert found.pixel_size_nm is None
    assert "another width" in found.note
    (tmp_path / "a.txt").write_text("These are my notes of Monday.")
    assert read_sidecar(tmp_path / "a.tif", IMAGE.shape).metadata == {}


# --- data banners -------------------------------------------------------------------------------------------


def with_banner(height=200, rows=24, level=0, noise=12.0):
    """A noisy image with a banner that holds a line, text-like marks and a scale bar."""
    image = np.clip(np.random.default_rng(1).normal(90, noise, (height, 320)), 0, 255).astype(np.uint8)
    image[40:60, 50:80] = 200
    banner = np.full((rows, 320), level, np.uint8)
    banner[0] = 255 - level
    banner[8:16, 20:120:3] = 255 - level
    banner[18:20, 200:280] = 255 - level
    return np.vstack([image, banner])


@pytest.mark.parametrize("level", [0, 255])
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_data_banner_is_left_out(tmp_path, level, suffix):
    from PIL import Image

    path = tmp_path / f"sem{suffix}"
    Image.fromarray(with_banner(level=level)).save(path, quality=90)
    micrograph = read_micrograph(path)
    assert abs(micrograph.pixels.shape[0] - 200) <= (0 if suffix == ".png" else 1)
    assert micrograph.metadata["banner_rows"] == 224 - micrograph.pixels.shape[0]
    assert any("banner" in note and "row 200" in note for note in micrograph.notes) or suffix == ".jpg"
    assert any("says nothing of its pixel size" in note for note in micrograph.notes)
    assert read_micrograph(path, banner="keep").pixels.shape == (224, 320)
    sized = read_micrograph(path, pixel_size_nm=2.0)
    assert not any("says nothing" in note for note in sized.notes)


def test_rows_of_an_fei_banner_come_from_the_file(tmp_path):
    text = "[Image]\r\nResolutionX=320\r\nResolutionY=202\r\n[Scan]\r\nPixelWidth=2.5e-9\r\nPixelHeight=2.5e-9\r\n"
    tifffile.imwrite(tmp_path / "fei.tif", with_banner(), extratags=[(34682, "s", 0, text, True)])
    assert read_micrograph(tmp_path / "fei.tif").pixels.shape == (202, 320)


@pytest.mark.parametrize(
    "image",
    [
        np.where(np.arange(200)[:, None] < 150, 20, 60).repeat(300, 1).astype(np.uint8),  # drawn, without noise
        np.random.default_rng(0).integers(0, 40, (200, 300)).clip(18).astype(np.uint8),  # black for the most part
        np.random.default_rng(0).normal(90, 1.0, (200, 300)).astype(np.uint8),  # hardly any contrast
        np.random.default_rng(0).normal(90, 20.0, (200, 300)).astype(np.float32),
    ],
)
def test_images_without_a_banner_keep_their_rows(image):
    assert find_banner(image) is None


def test_scale_bar_without_a_pixel_size_is_told(tmp_path):
    image = with_banner()[:200]
    assert not has_scale_bar(image)
    image[180:184, 220:290] = 255
    tifffile.imwrite(tmp_path / "bar.tif", image)
    (note,) = read_micrograph(tmp_path / "bar.tif").notes
    assert "says nothing of its pixel size" in note


# --- what is refused ----------------------------------------------------------------------------------------


def test_missing_extra_is_one_sentence(tmp_path, monkeypatch):
    write_hspy(tmp_path / "a.hspy")
    real_import = builtins.__import__

    def without(name, *arguments, **keywords):
        if name.split(".")[0] in {"rsciio", "zarr"}:
            raise ImportError(f"No module named {name!r}")
        return real_import(name, *arguments, **keywords)

    for module in [name for name in sys.modules if name.split(".")[0] in {"rsciio"} or ".readers." in name]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputFileError, match=r'pip install "tumble\[formats\]"') as caught:
        read_micrograph(tmp_path / "a.hspy")
    assert str(caught.value).count("\n") == 0


@pytest.mark.parametrize("name", ["a.npy", "zlib.ome.tif", "a.h5", "a.png"])
def test_image_bombs_are_refused_before_they_are_unpacked(tmp_path, name):
    WRITERS[name](tmp_path / name)
    limits = ReadLimits(max_frame_px=24 * 36 - 1)
    with reading_within(limits), pytest.raises(InputFileError, match=r"24 x 36 px; at most 863 px"):
        read_micrograph(tmp_path / name)
    assert read_micrograph(tmp_path / name).pixels.shape == (24, 36)


def test_file_that_unpacks_to_far_more_than_it_holds(tmp_path):
    with h5py.File(tmp_path / "bomb.h5", "w") as file:
        file.create_dataset("data", (20_000, 20_000), "u2", chunks=(1000, 1000), compression=9)
        file["data"][:16, :16] = 1
    with pytest.raises(InputFileError, match=r"unpacks from .* to 763 MB; the limit is 1,032 times"):
        read_micrograph(tmp_path / "bomb.h5")


def test_chunks_that_are_missing_are_told(tmp_path):
    WRITERS["a.zarr"](tmp_path / "a.zarr")
    chunks = [
        file for file in (tmp_path / "a.zarr" / "0").rglob("*") if file.is_file() and not file.name.startswith(".")
    ]
    chunks[0].unlink()
    assert any("1 of 4 chunks are not stored" in note for note in read_micrograph(tmp_path / "a.zarr").notes)


def test_label_image_of_any_kind(tmp_path):
    labels = np.zeros((24, 36), np.uint16)
    labels[3:9, 5:20] = 300
    for name in ("a.h5", "a.mrc", "a.zarr", "a.npy"):
        WRITERS[name](tmp_path / name, labels)
        np.testing.assert_array_equal(read_label_image(tmp_path / name), labels)
    write_tiff(tmp_path / "a.tif", np.stack([labels, labels]))
    with pytest.raises(DataError, match="one image of whole numbers"):
        read_label_image(tmp_path / "a.tif")
