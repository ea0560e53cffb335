"""PNG, JPEG and BMP."""

from __future__ import annotations

import io
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from tumble.micrograph.frames import Frame, Frames, FrameSource, check_size
from tumble.micrograph.sidecar import read_sidecar

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["open_picture"]

#: Decoders for these suffixes; others that Pillow knows are not asked, whatever the file says it is.
FORMATS = ("PNG", "JPEG", "BMP", "MPO")

#: Bytes per pixel of Pillow's modes where they are not 1.
MODE_BYTES = {"RGB": 3, "RGBA": 4, "CMYK": 4, "LA": 2, "I;16": 2, "I": 4, "F": 4, "YCbCr": 3}


@contextmanager
def open_picture(source: FrameSource) -> Iterator[Frames]:
    """Open a picture; an animated PNG has several frames."""
    stored = source.file.stat().st_size
    # From memory: a part that claims to be longer than the file would have a file's buffer made for it.
    content = io.BytesIO(source.file.read_bytes())
    with Image.open(content, formats=FORMATS) as picture:
        width, height = picture.size
        check_size(source.name, (height, width), MODE_BYTES.get(picture.mode, 1), stored)
        beside = read_sidecar(source.file, (height, width))

        def frame(index: int) -> Frame:
            picture.seek(index)
            # An index into a palette is no intensity, a colour is.
            shown = picture.convert("RGB") if picture.mode in ("P", "PA", "CMYK", "YCbCr") else picture
            notes = tuple(filter(None, (beside.note,)))
            return Frame(np.array(shown), beside.pixel_size_nm, beside.metadata, notes)

        n_frames = getattr(picture, "n_frames", 1) if picture.format == "PNG" else 1
        yield Frames(n_frames, frame)
