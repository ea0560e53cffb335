"""Small files of every kind that `tumble` reads, written here: the same asymmetric image, of known pixel size."""

from __future__ import annotations

import importlib
import io
import json
import struct
import warnings
from typing import TYPE_CHECKING, Any

import h5py
import imageio.v3 as iio
import mrcfile
import numpy as np
import tifffile

if TYPE_CHECKING:
    from pathlib import Path

#: Rows and columns differ, and no two rows or columns are alike: a transposed or mirrored image is another one.
IMAGE = (np.arange(24 * 36).reshape(24, 36) * 7 % 251).astype(np.uint16)

PIXEL_SIZE_NM = 2.5


def write_tiff(path: Path, image: np.ndarray = IMAGE) -> None:
    tifffile.imwrite(
        path, image, imagej=True, resolution=(1 / PIXEL_SIZE_NM, 1 / PIXEL_SIZE_NM), metadata={"unit": "nm"}
    )


def write_ome(path: Path, image: np.ndarray = IMAGE) -> None:
    size = {f"PhysicalSize{axis}": PIXEL_SIZE_NM for axis in "XY"}
    unit = {f"PhysicalSize{axis}Unit": "nm" for axis in "XY"}
    axes = "YX" if image.ndim == 2 else "TYX"
    tifffile.imwrite(path, image, ome=True, metadata={"axes": axes, **size, **unit}, compression="zlib")


def write_mrc(path: Path, image: np.ndarray = IMAGE) -> None:
    with warnings.catch_warnings(), mrcfile.new(path, overwrite=True) as file:
        warnings.simplefilter("ignore")
        file.set_data(image)
        file.voxel_size = PIXEL_SIZE_NM * 10


def write_hdf5(path: Path, image: np.ndarray = IMAGE) -> None:
    with h5py.File(path, "w") as file:
        data = file.create_dataset("entry/data", data=image, chunks=(1,) * (image.ndim - 2) + (12, 18), compression=4)
        data.attrs["element_size_um"] = [1.0] * (image.ndim - 2) + [PIXEL_SIZE_NM / 1e3] * 2


def write_zarr(path: Path, image: np.ndarray = IMAGE) -> None:
    import zarr

    group: Any = zarr.open_group(str(path), mode="w", zarr_format=2)
    group.create_array("0", data=image, chunks=(1,) * (image.ndim - 2) + (12, 18))
    axes = [{"name": name, "type": "space", "unit": "nanometer"} for name in "zyx"[-image.ndim :]]
    scale = [100.0] * (image.ndim - 2) + [PIXEL_SIZE_NM] * 2
    datasets = [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": scale}]}]
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": datasets}]


def _signal(image: np.ndarray) -> dict[str, Any]:
    axes = [
        {
            "name": name,
            "size": size,
            "offset": 0.0,
            "scale": PIXEL_SIZE_NM,
            "units": "nm",
            "navigate": name == "z",
            "index_in_array": index,
        }
        for index, (name, size) in enumerate(zip("zyx"[-image.ndim :], image.shape, strict=True))
    ]
    return {
        "data": image,
        "axes": axes,
        "metadata": {
            "General": {"title": "HAADF"},
            "Signal": {"signal_type": ""},
            "Acquisition_instrument": {"TEM": {"microscope": "Titan", "magnification": 40_000.0}},
        },
        "original_metadata": {},
        "learning_results": {},
        "attributes": {"_lazy": False, "ragged": False},
        "package_info": {"package": "hyperspy", "package_version": "2.3"},
        "tmp_parameters": {},
        "models": {},
    }


def _write_with_rosettasciio(module: str, path: Path, image: np.ndarray) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        importlib.import_module(f"rsciio.{module}").file_writer(str(path), _signal(image))


def write_hspy(path: Path, image: np.ndarray = IMAGE) -> None:
    _write_with_rosettasciio("hspy", path, image)


def write_berkeley_emd(path: Path, image: np.ndarray = IMAGE) -> None:
    _write_with_rosettasciio("emd", path, image)


def write_zspy(path: Path, image: np.ndarray = IMAGE) -> None:
    """Write HyperSpy's layout in Zarr 2, as HyperSpy does with that version of the library."""
    import zarr

    root: Any = zarr.open_group(str(path), mode="w", zarr_format=2)
    root.attrs.update({"file_format": "ZSpy", "file_format_version": "3.3"})
    signal, described = root.create_group("Experiments/HAADF"), _signal(image)
    signal.create_array("data", data=image, chunks=(1,) * (image.ndim - 2) + (12, 18))
    for index, axis in enumerate(described["axes"]):
        signal.create_group(f"axis-{index}").attrs.update(axis)
    for name, entries in described["metadata"].items():
        signal.create_group(f"metadata/{name}").attrs.update(entries)


def write_velox_emd(path: Path, image: np.ndarray = IMAGE) -> None:
    """Write the least of Velox's layout: frames along the last axis, metadata as JSON in a column of bytes."""
    frames = image[..., None] if image.ndim == 2 else np.moveaxis(image, 0, -1)
    edge = str(PIXEL_SIZE_NM * 1e-9)
    metadata = {
        "Core": {"MetadataDefinitionVersion": "7.9"},
        "Instrument": {"InstrumentModel": "Titan"},
        "Acquisition": {"AcquisitionStartDatetime": {"DateTime": "1500000000"}},
        "Optics": {"NominalMagnification": "40000", "LastMeasuredScreenCurrent": "0"},
        "BinaryResult": {
            "PixelSize": {"width": edge, "height": edge},
            "PixelUnitX": "m",
            "PixelUnitY": "m",
            "Offset": {"x": "0", "y": "0"},
            "Detector": "HAADF",
            "DetectorIndex": "0",
        },
        "Scan": {"FrameTime": "1"},
        "Detectors": {"Detector-0": {"DetectorName": "HAADF", "DetectorType": "ScanningDetector"}},
    }
    column = np.zeros((20_000, frames.shape[-1]), np.uint8)
    text = np.frombuffer(json.dumps(metadata).encode(), np.uint8)
    column[: len(text)] = text[:, None]
    with h5py.File(path, "w") as file:
        version = json.dumps({"format": "Velox", "version": "10", "versionGuid": ""})
        file.create_dataset("Version", data=np.array([version.encode()], dtype=object), dtype=h5py.string_dtype())
        group = file.create_group("Data/Image/0123456789abcdef")
        group.create_dataset("Data", data=frames, chunks=(*frames.shape[:2], 1))
        group.create_dataset("Metadata", data=column)
        group.create_dataset("FrameLookupTable", data=np.zeros(frames.shape[-1], np.uint32))


def write_dm(path: Path, image: np.ndarray = IMAGE) -> None:
    """Write the tags of DigitalMicrograph's formats 3 or 4, by the suffix, that a reader needs."""
    version = int(path.suffix[-1])
    size = ">q" if version == 4 else ">l"

    def number(value: int) -> bytes:
        return struct.pack(size, value)

    def tag(name: str, content: bytes, kind: int) -> bytes:
        head = struct.pack(">bh", kind, len(name)) + name.encode()
        return head + (number(len(content)) if version == 4 else b"") + content

    def value(name: str, code: int, layout: str, item: Any) -> bytes:
        return tag(name, b"%%%%" + number(1) + number(code) + struct.pack("<" + layout, item), 21)

    def array(name: str, code: int, items: np.ndarray) -> bytes:
        head = b"%%%%" + number(3) + number(20) + number(code) + number(items.size)
        return tag(name, head + items.tobytes(), 21)

    def text(name: str, content: str) -> bytes:
        return array(name, 4, np.frombuffer(content.encode("utf-16-le"), np.uint16))

    def body(*tags: bytes) -> bytes:
        return b"\x01\x00" + number(len(tags)) + b"".join(tags)

    def group(name: str, *tags: bytes) -> bytes:
        # In version 4 a length, which readers do not need, stands between the two flags and the number of tags.
        content = b"\x01\x00" + (number(0) if version == 4 else b"") + number(len(tags)) + b"".join(tags)
        return struct.pack(">bh", 20, len(name)) + name.encode() + content

    def axis(units: str, scale: float) -> bytes:
        return group("", value("Origin", 6, "f", 0.0), value("Scale", 6, "f", scale), text("Units", units))

    axes = [axis("nm", PIXEL_SIZE_NM)] * 2 + [axis("", 1.0)] * (image.ndim - 2)
    sides = [value("", 5, "L", side) for side in image.shape[::-1]]
    calibrations = group(
        "Calibrations",
        group("Brightness", value("Origin", 6, "f", 0.0), value("Scale", 6, "f", 1.0), text("Units", "")),
        group("Dimension", *axes),
    )
    microscope = group(
        "Microscope Info", value("Indicated Magnification", 7, "d", 40_000.0), text("Microscope", "Titan")
    )
    data = group(
        "ImageData",
        calibrations,
        array("Data", 4, image.astype("<u2")),
        value("DataType", 5, "L", 10),
        group("Dimensions", *sides),
        value("PixelDepth", 5, "L", 2),
    )
    pictures = group("ImageList", group("", data, group("ImageTags", microscope), text("Name", "HAADF")))
    content = body(pictures)
    head = struct.pack(">l", version) + number(len(content)) + struct.pack(">l", 1)
    path.write_bytes(head + content + b"\x00" * 8)


def write_ser(path: Path, image: np.ndarray = IMAGE) -> None:
    """Write TIA's series format: header, one dimension, table of offsets, then each image with its calibration."""
    frames = image if image.ndim == 3 else image[None]
    n = len(frames)
    dimension = struct.pack("<LddLL", n, 0.0, 1.0, 0, 6) + b"Number" + struct.pack("<L", 0)
    table_at = 30 + len(dimension)
    elements, tags = [], []
    first = table_at + 8 * n
    for frame in frames:
        calibration = struct.pack("<ddLddL", 0.0, PIXEL_SIZE_NM * 1e-9, 0, 0.0, PIXEL_SIZE_NM * 1e-9, 0)
        # TIA counts rows from the bottom.
        pixels = frame[::-1].astype("<u2").tobytes()
        elements.append(calibration + struct.pack("<HLL", 2, frame.shape[1], frame.shape[0]) + pixels)
        tags.append(struct.pack("<HHL", 0x4152, 0, 1_500_000_000))
    offsets = np.cumsum([first, *(len(e) + len(t) for e, t in zip(elements, tags, strict=True))])[:-1]
    tag_offsets = [o + len(e) for o, e in zip(offsets, elements, strict=True)]
    head = struct.pack("<HHHLLLLLL", 0x4949, 0x0197, 0x0210, 0x4122, 0x4152, n, n, table_at, 1)
    table = struct.pack(f"<{2 * n}L", *map(int, offsets), *map(int, tag_offsets))
    path.write_bytes(head + dimension + table + b"".join(e + t for e, t in zip(elements, tags, strict=True)))


def write_npy(path: Path, image: np.ndarray = IMAGE) -> None:
    np.save(path, image)


def write_picture(path: Path, image: np.ndarray = IMAGE) -> None:
    kept = image if path.suffix == ".png" else (image % 256).astype(np.uint8)
    buffer = io.BytesIO()
    iio.imwrite(buffer, kept, extension=path.suffix)
    path.write_bytes(buffer.getvalue())


#: Writers by the name of the file they write.
WRITERS = {
    "imagej.tif": write_tiff,
    "zlib.ome.tif": write_ome,
    "a.png": write_picture,
    "a.jpg": write_picture,
    "a.bmp": write_picture,
    "a.npy": write_npy,
    "a.mrc": write_mrc,
    "a.h5": write_hdf5,
    "a.zarr": write_zarr,
    "a.dm3": write_dm,
    "a.dm4": write_dm,
    "velox.emd": write_velox_emd,
    "berkeley.emd": write_berkeley_emd,
    "a.ser": write_ser,
    "a.hspy": write_hspy,
    "a.zspy": write_zspy,
}

#: Kinds that say nothing of the pixel size.
WITHOUT_PIXEL_SIZE = {"a.png", "a.jpg", "a.bmp", "a.npy"}
