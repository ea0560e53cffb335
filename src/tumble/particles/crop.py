"""Equal square crops that show one particle each."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view
from scipy import ndimage
from skimage.transform import resize

__all__ = ["cut_windows", "resample", "resample_by", "window_corners"]

#: The blurred edge of a neighbour that is masked with it.
NEIGHBOUR_MARGIN_PX = 3

#: The blurred edge of the particle itself that stays, even where a neighbour's margin reaches it.
OWN_MARGIN_PX = 1

#: Windows handled at a time, so that memory does not grow with the number of particles.
BATCH = 512


def window_corners(centroids_px: npt.NDArray[np.float64], window_px: int) -> npt.NDArray[np.int64]:
    """Give the first row and column of the windows centred on some points.

    Parameters
    ----------
    centroids_px : ndarray of shape (n, 2)
        Points (row, column).
    window_px : int
        Side of the windows.

    Returns
    -------
    ndarray of shape (n, 2)
        Corners; negative where a window begins beyond the edge of the image. Windows lie on whole pixels, so
        their centres are within half a pixel of the points.
    """
    # floor(x + 1/2) rather than rint: the even-number rule of rint would not be translation covariant.
    return np.floor(centroids_px - (window_px - 1) / 2 + 0.5).astype(np.int64)


def cut_windows(
    pixels: npt.NDArray[Any],
    background: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int32],
    own_labels: npt.NDArray[np.int32],
    corners: npt.NDArray[np.int64],
    window_px: int,
    *,
    mask_neighbours: bool,
) -> npt.NDArray[np.float32]:
    """Cut a square window around each particle.

    Parameters
    ----------
    pixels, background : ndarray of shape (H, W)
        Intensities, and the background intensity that replaces what is not to be seen.
    labels : ndarray of shape (H, W), int32
        Label image of all objects.
    own_labels : ndarray of shape (n,)
        Label of the particle of each window.
    corners : ndarray of shape (n, 2)
        First row and column of each window.
    window_px : int
        Side of the windows.
    mask_neighbours : bool
        Replace all other objects, and three pixels around them, by the background.

    Returns
    -------
    ndarray of shape (n, window_px, window_px), float32
        Intensities. Beyond the edge of the image the nearest background is continued.
    """
    pad = window_px
    ground = np.pad(background, pad, mode="edge")
    image = ground.copy()
    image[pad:-pad, pad:-pad] = pixels
    rows, columns = (corners + pad).T
    shape = (window_px, window_px)
    windows = sliding_window_view(image, shape)[rows, columns]
    if not mask_neighbours:
        return windows
    ground_windows = sliding_window_view(ground, shape)
    # Wider by the margin, which may reach into a window from an object outside of it.
    reach = NEIGHBOUR_MARGIN_PX
    wide = window_px + 2 * reach
    label_windows = sliding_window_view(np.pad(labels, pad + reach), (wide, wide))
    for start in range(0, len(windows), BATCH):
        part = slice(start, start + BATCH)
        found = label_windows[rows[part], columns[part]]
        hidden = _hidden(found, own_labels[part])[:, reach:-reach, reach:-reach]
        windows[part] = np.where(hidden, ground_windows[rows[part], columns[part]], windows[part])
    return windows


def _hidden(found: npt.NDArray[np.int32], own_labels: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
    """Pixels of other objects and their margins, sparing the particle itself and its blurred edge."""
    own = found == own_labels[:, None, None]
    other = (found != 0) & ~own
    in_plane = ndimage.generate_binary_structure(2, 1)[None]
    margin = np.asarray(ndimage.binary_dilation(other, in_plane, iterations=NEIGHBOUR_MARGIN_PX), dtype=bool)
    spared = np.asarray(ndimage.binary_dilation(own, in_plane, iterations=OWN_MARGIN_PX), dtype=bool)
    return other | (margin & ~spared)


def resample(windows: npt.NDArray[np.float32], crop_size: int) -> npt.NDArray[np.float32]:
    """Resample square windows to crops of another size.

    Parameters
    ----------
    windows : ndarray of shape (n, w, w)
        Windows.
    crop_size : int
        Side of the crops.

    Returns
    -------
    ndarray of shape (n, crop_size, crop_size), float32
        Linear interpolation, after a Gaussian filter where the crops have fewer pixels, so that details too
        fine for them do not turn into false ones.
    """
    side = windows.shape[-1]
    if side == crop_size:
        return windows
    crops = np.empty((len(windows), crop_size, crop_size), dtype=np.float32)
    for start in range(0, len(windows), BATCH):
        part = windows[start : start + BATCH]
        shape = (len(part), crop_size, crop_size)
        crops[start : start + BATCH] = resize(
            part, shape, order=1, mode="edge", preserve_range=True, anti_aliasing=crop_size < side
        )
    return crops


def resample_by(windows: npt.NDArray[np.float32], crop_size: int, px_per_crop_px: float) -> npt.NDArray[np.float32]:
    """Resample the middle of square windows by a factor that need not fit their size.

    Parameters
    ----------
    windows : ndarray of shape (n, w, w)
        Windows, at least as large as what the crops show.
    crop_size : int
        Side of the crops.
    px_per_crop_px : float
        Pixels of the window that make one pixel of the crop.

    Returns
    -------
    ndarray of shape (n, crop_size, crop_size), float32
        As :func:`resample`; the centres of window and crop are the same.
    """
    side = windows.shape[-1]
    offset = (side - 1) / 2 - px_per_crop_px * (crop_size - 1) / 2
    sigma = max(0.0, (px_per_crop_px - 1) / 2)  # as scikit-image's resize
    crops = np.empty((len(windows), crop_size, crop_size), dtype=np.float32)
    for start in range(0, len(windows), BATCH):
        part = windows[start : start + BATCH]
        if sigma > 0:
            part = ndimage.gaussian_filter(part, (0, sigma, sigma), mode="nearest")
        crops[start : start + BATCH] = ndimage.affine_transform(
            part,
            np.array([1.0, px_per_crop_px, px_per_crop_px]),
            np.array([0.0, offset, offset]),  # type: ignore[arg-type]
            output_shape=(len(part), crop_size, crop_size),
            order=1,
            mode="nearest",
        )
    return crops
