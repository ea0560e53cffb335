"""Playing-card suits under random rotation, shift, scale and shear: the test data of the ss-rVAE paper."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from sklearn.utils import Bunch

from tumble.datasets._checks import Range, as_range, check_counts, check_number
from tumble.datasets._glyphs import GLYPH_CLASSES, card_glyphs
from tumble.datasets._random import RandomState, generator
from tumble.errors import ConfigError, DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["affine_matrices", "make_cards"]

_SIZE_PX = 48


def make_cards(
    n_per_class: int | Sequence[int],
    *,
    angle: Range = 60.0,
    shear: Range = 15.0,
    scale: Range = (1.0, 1.3),
    translation: Range = 0.1,
    noise: float = 0.0,
    contamination_density: float = 0.0,
    contamination_intensity: float = 1.0,
    glyphs: npt.ArrayLike | None = None,
    class_names: Sequence[str] | None = None,
    random_state: RandomState = None,
) -> Bunch:
    """Draw images of card suits (or of other glyphs) at random pose, with the true pose.

    Each image is its glyph, centred, under one affine map ``rotation @ shear @ scale`` about the middle of
    the image, then shifted; outside is 0. With one seed, changing a range stretches the same draws, and noise
    or contamination leave the poses as they are.

    Parameters
    ----------
    n_per_class : int or sequence of int
        Number of images, the same for each class or one number for each.
    angle : float or (float, float), default=60
        Rotation in degrees, counter-clockwise as displayed: a number a means U(-a, a), a pair U(low, high).
    shear : float or (float, float), default=15
        Angle of shear in degrees, drawn for each axis by itself; a number or a pair as for `angle`.
    scale : float or (float, float), default=(1.0, 1.3)
        Magnification of the object; a number holds it fixed.
    translation : float or (float, float), default=0.1
        Shift along each axis as a fraction of the image; a number or a pair as for `angle`.
    noise : float, default=0
        Standard deviation of Gaussian noise, added last and not clipped: X may then leave [0, 1].
    contamination_density : float, default=0
        Fraction of the pixels of each image that are replaced by `contamination_intensity`.
    contamination_intensity : float, default=1
        Intensity of the contaminated pixels.
    glyphs : array of shape (K, H, W), optional
        Objects to draw in place of the four suits, in [0, 1], larger where the object is. They are placed in
        the middle of the image at their own size; what exceeds 48 x 48 px is lost.
    class_names : sequence of K str, optional
        Names of `glyphs`; "0", "1", ... if not given.
    random_state : int, RandomState, Generator or None, default=None
        Seed, as in scikit-learn.

    Returns
    -------
    Bunch
        In random order of classes: ``X`` float32 (n, 48, 48), in [0, 1] unless `noise` or the intensity of
        contamination says otherwise; ``y`` int64 (n,); ``classes`` tuple of str; ``angle`` (n,) in rad;
        ``shift`` (n, 2) in px, rows then columns; ``scale`` (n,); ``shear`` (n, 2) in rad, rows then columns
        (see :func:`affine_matrices`); ``polar_angle`` (n,) in rad, the rotation of the whole map with the
        rotation that shear brings along: what a model without shear can at best find.

    Raises
    ------
    ConfigError
        If a setting has a value that it cannot have; the message names it.
    DataError
        If `glyphs` has the wrong shape or range.

    References
    ----------
    .. [1] M. Ziatdinov, M. Y. Yaman, Y. Liu, D. Ginger and S. V. Kalinin, "Semi-supervised learning of images
       with strong rotational disorder: assembling nanoparticle libraries", Digital Discovery 3, 2024.

    Examples
    --------
    >>> cards = make_cards(5, angle=60, random_state=0)
    >>> cards.X.shape, cards.classes
    ((20, 48, 48), ('club', 'spade', 'diamond', 'heart'))
    """
    images, classes = _check_glyphs(glyphs, class_names)
    counts = check_counts("n_per_class", n_per_class, len(images))
    ranges = _check_ranges(angle, shear, scale, translation)
    noise = check_number("noise", noise, 0.0)
    density = check_number("contamination_density", contamination_density, 0.0, 1.0)
    intensity = check_number("contamination_intensity", contamination_intensity, -np.inf)

    rng = generator(random_state)
    y = rng.permutation(np.repeat(np.arange(len(images)), counts))
    pose = _draw_pose(len(y), ranges, rng)
    matrices = affine_matrices(pose["angle"], pose["scale"], pose["shear"])
    X = _place(images[y], matrices, pose["shift"])
    if density > 0:
        _contaminate(X, density, intensity, rng)
    if noise > 0:
        X += np.float32(noise) * rng.standard_normal(X.shape, dtype=np.float32)
    return Bunch(X=X, y=y, classes=classes, **pose, polar_angle=_polar_angles(matrices))


def affine_matrices(angle: npt.ArrayLike, scale: npt.ArrayLike, shear: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return the maps from offsets in the glyph to offsets in the image, both (row, column) from the middle.

    The map is ``rotation(angle) @ shear_rows(shear[0]) @ shear_columns(shear[1]) * scale``, where
    ``shear_rows(s)`` takes ``tan(s)`` of the column from the row and ``shear_columns(s)`` takes ``tan(s)`` of
    the row from the column: order and signs of the `RandomAffine` of torchvision.

    Parameters
    ----------
    angle : array of shape (n,)
        Rotation in rad, counter-clockwise as displayed.
    scale : array of shape (n,)
        Magnification.
    shear : array of shape (n, 2)
        Angles of shear in rad.

    Returns
    -------
    ndarray of shape (n, 2, 2)

    Examples
    --------
    A quarter turn takes a point on the right (row 0, column 1) to the top (row -1, column 0):

    >>> (affine_matrices([np.pi / 2], [1.0], [[0.0, 0.0]])[0] @ [0, 1]).round(6) + 0.0
    array([-1.,  0.])
    """
    angle, scale, tangent = np.asarray(angle), np.asarray(scale), np.tan(shear)
    matrices = np.zeros((3, len(angle), 2, 2))
    matrices[0, :, 0, 0] = matrices[0, :, 1, 1] = np.cos(angle)
    matrices[0, :, 0, 1], matrices[0, :, 1, 0] = -np.sin(angle), np.sin(angle)
    matrices[1:, :, [0, 1], [0, 1]] = 1.0
    matrices[1, :, 0, 1], matrices[2, :, 1, 0] = -tangent[:, 0], -tangent[:, 1]
    return matrices[0] @ matrices[1] @ matrices[2] * scale[:, np.newaxis, np.newaxis]


def _check_glyphs(
    glyphs: npt.ArrayLike | None, class_names: Sequence[str] | None
) -> tuple[npt.NDArray[np.float32], tuple[str, ...]]:
    """Return the glyphs and their names."""
    if glyphs is None:
        images, default = card_glyphs(), GLYPH_CLASSES
    else:
        images = np.asarray(glyphs, dtype=np.float32)
        if images.ndim != 3 or images.size == 0:
            msg = f"glyphs has shape {images.shape}; give one image per class, (K, H, W)"
            raise DataError(msg)
        # "not all" rather than "any" so that NaN is refused as well.
        if not np.all((images >= 0) & (images <= 1)):
            msg = "glyphs must lie in [0, 1], larger where the object is; divide by its maximum"
            raise DataError(msg)
        default = tuple(str(k) for k in range(len(images)))
    names = default if class_names is None else tuple(str(name) for name in class_names)
    if len(names) != len(images) or len(set(names)) != len(names):
        msg = f"class_names={class_names!r} must be {len(images)} different names, one for each glyph"
        raise ConfigError(msg)
    return images, names


def _check_ranges(angle: Range, shear: Range, scale: Range, translation: Range) -> dict[str, tuple[float, float]]:
    """Return (low, high) of each factor, in degrees, fractions and magnification."""
    ranges = {
        "angle": as_range("angle", angle, symmetric=True),
        "shear": as_range("shear", shear, symmetric=True),
        "scale": as_range("scale", scale, symmetric=False),
        "translation": as_range("translation", translation, symmetric=True),
    }
    if max(map(abs, ranges["shear"])) >= 90:
        msg = f"shear={shear!r} must stay below 90 degrees"
        raise ConfigError(msg)
    if ranges["scale"][0] <= 0:
        msg = f"scale={scale!r} must be positive"
        raise ConfigError(msg)
    return ranges


def _draw_pose(
    n: int, ranges: dict[str, tuple[float, float]], rng: np.random.Generator
) -> dict[str, npt.NDArray[np.float64]]:
    """Draw the true factors, always the same number of draws in the same order."""
    return {
        "angle": np.deg2rad(rng.uniform(*ranges["angle"], n)),
        "shift": _SIZE_PX * rng.uniform(*ranges["translation"], (n, 2)),
        "scale": rng.uniform(*ranges["scale"], n),
        "shear": np.deg2rad(rng.uniform(*ranges["shear"], (n, 2))),
    }


def _place(
    images: npt.NDArray[np.float32], matrices: npt.NDArray[np.float64], shift: npt.NDArray[np.float64]
) -> npt.NDArray[np.float32]:
    """Resample each image under its map, with 0 outside."""
    X = np.empty((len(images), _SIZE_PX, _SIZE_PX), dtype=np.float32)
    middle_out = np.full(2, (_SIZE_PX - 1) / 2)
    middle_in = (np.array(images.shape[1:]) - 1) / 2
    inverses = np.linalg.inv(matrices)
    for image, inverse, moved, out in zip(images, inverses, shift, X, strict=True):
        # Pixels of the output look back: glyph offset = inverse @ (output offset - shift).
        offset = middle_in - inverse @ (middle_out + moved)
        ndimage.affine_transform(image, inverse, offset, output=out, order=1, mode="grid-constant")
    return np.clip(X, 0.0, 1.0, out=X)


def _polar_angles(matrices: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the rotation R of each map R @ S with S symmetric and positive (polar decomposition)."""
    sine, cosine = matrices[:, 1, 0] - matrices[:, 0, 1], matrices[:, 0, 0] + matrices[:, 1, 1]
    return np.arctan2(sine, cosine)


def _contaminate(X: npt.NDArray[np.float32], density: float, intensity: float, rng: np.random.Generator) -> None:
    """Replace the same number of randomly chosen pixels in every image, in place."""
    n_pixels = X[0].size
    n_replaced = round(density * n_pixels)
    for image in X:
        image.flat[rng.choice(n_pixels, n_replaced, replace=False)] = intensity
