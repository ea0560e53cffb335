"""Synthetic electron micrographs of touching nanoparticles, with everything known about them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from sklearn.utils import Bunch

from tumble.datasets._checks import check_counts, check_number
from tumble.datasets._random import RandomState, generator
from tumble.datasets._scene import Scene, grow_cluster, orientation, render, sphere_mask
from tumble.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["make_agglomerate_micrograph", "make_agglomerates"]

_DEFAULT_CLASSES = 4
_MARGIN_PX = 1.0
_GAP_PX = 3.0
_ATTEMPTS = 200

_Float = npt.NDArray[np.float64]


def make_agglomerates(
    n_per_class: int | Sequence[int] = (304, 93, 49, 31),
    *,
    size: int = 48,
    diameter_px: float = 10.0,
    polydispersity: float = 0.08,
    neighbours: float = 2.0,
    background_gradient: float = 0.1,
    blur_px: float = 1.0,
    electrons: float | None = 200.0,
    random_state: RandomState = None,
) -> Bunch:
    """Draw crops of agglomerates of 1, 2, 3, ... spherical particles at random orientation.

    Particles of an agglomerate touch without overlap. In the image they have the bright edges of secondary
    electrons, a point spread function, a linear background of random direction and shot noise. Neighbours
    come into view but stay at least 3 px away from everything else. The default numbers of images are those
    of the gold particles in [1]_.

    Parameters
    ----------
    n_per_class : int or sequence of K int, default=(304, 93, 49, 31)
        Number of images of 1, 2, ..., K particles; a single number for each of four classes.
    size : int, default=48
        Height and width of the images in px.
    diameter_px : float, default=10
        Mean diameter of the particles in px.
    polydispersity : float, default=0.08
        Standard deviation of the diameter divided by its mean, at most 0.3; drawn from a normal distribution
        cut at 2.5 standard deviations.
    neighbours : float, default=2
        Mean number of other particles in view (Poisson); fewer where there is no room.
    background_gradient : float, default=0.1
        Greatest change of grey level across the image, of 1.
    blur_px : float, default=1
        Standard deviation of the point spread function in px.
    electrons : float or None, default=200
        Mean number of electrons at grey level 1, which sets the shot noise; None for no noise.
    random_state : int, RandomState, Generator or None, default=None
        Seed, as in scikit-learn.

    Returns
    -------
    Bunch
        In random order of classes: ``X`` float32 (n, size, size) in [0, 1]; ``y`` int64 (n,), the number of
        particles less 1; ``classes`` ("1", "2", ...); ``n_particles`` int64 (n,); ``centres``, list of n
        arrays (k, 2), row and column in px; ``diameters``, list of n arrays (k,) in px; ``angle`` (n,),
        direction of the long axis in rad, in (-pi/2, pi/2], counter-clockwise as displayed, NaN for single
        particles; ``gradient`` (n, 2), change of the background across the image along rows and columns;
        ``mask`` bool (n, size, size), pixels whose centre lies in the agglomerate (discs that touch in one
        point need not be connected in it); ``n_neighbours`` int64 (n,).

    Raises
    ------
    ConfigError
        If a setting has a value that it cannot have, or agglomerates do not fit into the image.

    References
    ----------
    .. [1] M. Ziatdinov, M. Y. Yaman, Y. Liu, D. Ginger and S. V. Kalinin, "Semi-supervised learning of images
       with strong rotational disorder: assembling nanoparticle libraries", Digital Discovery 3, 2024.
    .. [2] L. Reimer, "Scanning Electron Microscopy", Springer, 1998, section 4.2 (yield and tilt).

    Examples
    --------
    >>> gold = make_agglomerates((3, 2, 1), random_state=0)
    >>> gold.X.shape, sorted(gold.n_particles.tolist())
    ((6, 48, 48), [1, 1, 1, 2, 2, 3])
    """
    counts = _class_counts(n_per_class)
    size = _check_length("size", size)
    diameter_px, polydispersity = _check_diameter(diameter_px, polydispersity)
    neighbours = check_number("neighbours", neighbours, 0.0)
    scene = _check_scene(blur_px, electrons, background_gradient)

    rng = generator(random_state)
    n_particles = rng.permutation(np.repeat(np.arange(1, len(counts) + 1), counts))
    shape = (size, size)
    drawn: dict[str, list] = {
        name: [] for name in ("X", "centres", "diameters", "angle", "gradient", "mask", "n_neighbours")
    }
    for k in n_particles:
        diameters = _draw_diameters(k, diameter_px, polydispersity, rng)
        centres = _fitting_cluster(diameters, size, rng)
        others = _draw_diameters(rng.poisson(neighbours), diameter_px, polydispersity, rng)
        other_centres, others = _place_neighbours(centres, diameters, others, shape, rng)
        all_centres, all_diameters = np.vstack([centres, other_centres]), np.append(diameters, others)
        image, gradient = render(shape, all_centres, all_diameters, scene, rng)
        mask = sphere_mask(shape, centres, diameters)
        values = (image, centres, diameters, orientation(centres, diameters), gradient, mask, len(others))
        for name, value in zip(drawn, values, strict=True):
            drawn[name].append(value)
    stacked = {name: np.stack(drawn.pop(name)) for name in ("X", "angle", "gradient", "mask", "n_neighbours")}
    classes = tuple(str(k + 1) for k in range(len(counts)))
    return Bunch(y=n_particles - 1, classes=classes, n_particles=n_particles, **stacked, **drawn)


def make_agglomerate_micrograph(
    n_per_class: int | Sequence[int] = (60, 20, 10, 6),
    *,
    shape: tuple[int, int] = (512, 512),
    diameter_px: float = 10.0,
    polydispersity: float = 0.08,
    background_gradient: float = 0.1,
    blur_px: float = 1.0,
    electrons: float | None = 200.0,
    random_state: RandomState = None,
) -> Bunch:
    """Draw one micrograph of agglomerates, as :func:`make_agglomerates` draws crops, to cut and to classify.

    Parameters
    ----------
    n_per_class : int or sequence of K int, default=(60, 20, 10, 6)
        Number of agglomerates of 1, 2, ..., K particles; a single number for each of four classes.
    shape : (int, int), default=(512, 512)
        Height and width in px.
    diameter_px, polydispersity, background_gradient, blur_px, electrons, random_state
        As in :func:`make_agglomerates`.

    Returns
    -------
    Bunch
        ``image`` uint8 (H, W); ``objects`` int32 (H, W), 0 for background and ``i + 1`` for agglomerate i;
        ``y`` int64 (n,), number of particles less 1; ``classes`` ("1", "2", ...); ``n_particles`` (n,);
        ``centres``, list of n arrays (k, 2), row and column in px; ``diameters``, list of n arrays (k,) in
        px; ``angle`` (n,) as in :func:`make_agglomerates`. All agglomerates lie wholly inside, at least 3 px
        from each other.

    Raises
    ------
    ConfigError
        If a setting has a value that it cannot have, or the agglomerates do not fit into the image.

    Examples
    --------
    >>> gold = make_agglomerate_micrograph((10, 5), shape=(200, 300), random_state=0)
    >>> gold.image.shape, gold.image.dtype, int(gold.objects.max())
    ((200, 300), dtype('uint8'), 15)
    """
    counts = _class_counts(n_per_class)
    height, width = (_check_length("shape", length) for length in shape)
    diameter_px, polydispersity = _check_diameter(diameter_px, polydispersity)
    scene = _check_scene(blur_px, electrons, background_gradient)

    rng = generator(random_state)
    # The largest first: they are the hardest to find room for.
    n_particles = np.repeat(np.arange(1, len(counts) + 1), counts)[::-1]
    clusters: list[_Float] = []
    diameters: list[_Float] = []
    objects = np.zeros((height, width), dtype=np.int32)
    taken = np.empty((0, 2)), np.empty(0)
    for k in n_particles:
        own = _draw_diameters(k, diameter_px, polydispersity, rng)
        centres = _free_place(grow_cluster(own, rng), own, taken, (height, width), rng)
        taken = np.vstack([taken[0], centres]), np.append(taken[1], own)
        clusters.append(centres)
        diameters.append(own)
        objects[sphere_mask((height, width), centres, own)] = len(clusters)
    image, _ = render((height, width), *taken, scene, rng)
    return Bunch(
        image=np.round(image * 255).astype(np.uint8),
        objects=objects,
        y=n_particles - 1,
        classes=tuple(str(k + 1) for k in range(len(counts))),
        n_particles=n_particles,
        centres=clusters,
        diameters=diameters,
        angle=np.array([orientation(c, d) for c, d in zip(clusters, diameters, strict=True)]),
    )


def _class_counts(n_per_class: int | Sequence[int]) -> list[int]:
    """Return the number of agglomerates of each number of particles."""
    single = isinstance(n_per_class, int | np.integer)
    return check_counts("n_per_class", n_per_class, _DEFAULT_CLASSES if single else None)


def _check_length(name: str, length: int) -> int:
    if not isinstance(length, int | np.integer) or length < 1:
        msg = f"{name}={length!r} must be a whole number of pixels of at least 1"
        raise ConfigError(msg)
    return int(length)


def _check_diameter(diameter_px: float, polydispersity: float) -> tuple[float, float]:
    # Beyond 0.3 the truncated normal would reach diameters near 0, which no sphere has.
    diameter_px = check_number("diameter_px", diameter_px, 1.0)
    return diameter_px, check_number("polydispersity", polydispersity, 0.0, 0.3)


def _check_scene(blur_px: float, electrons: float | None, background_gradient: float) -> Scene:
    return Scene(
        blur_px=check_number("blur_px", blur_px, 0.0),
        electrons=None if electrons is None else check_number("electrons", electrons, 1.0, 1e9),
        background_gradient=check_number("background_gradient", background_gradient, 0.0, 1.0),
    )


def _draw_diameters(n: int, mean: float, polydispersity: float, rng: np.random.Generator) -> _Float:
    """Draw diameters in px from a normal distribution cut at 2.5 standard deviations."""
    deviations = rng.standard_normal(n)
    while np.any(outside := np.abs(deviations) > 2.5):
        deviations[outside] = rng.standard_normal(outside.sum())
    return mean * (1 + polydispersity * deviations)


def _fitting_cluster(diameters: _Float, size: int, rng: np.random.Generator) -> _Float:
    """Grow an agglomerate that lies inside the image, centred on it to the pixel as a crop would be."""
    for _ in range(_ATTEMPTS):
        centres = grow_cluster(diameters, rng) + (size - 1) / 2 + rng.uniform(-0.5, 0.5, 2)
        if _inside(centres, diameters, (size, size)):
            return centres
    msg = (
        f"agglomerates of {len(diameters)} particles with diameter_px of about {diameters.mean():.0f} do not "
        f"fit into size={size} px; choose smaller particles or a larger image"
    )
    raise ConfigError(msg)


def _free_place(
    cluster: _Float,
    diameters: _Float,
    taken: tuple[_Float, _Float],
    shape: tuple[int, int],
    rng: np.random.Generator,
) -> _Float:
    """Move an agglomerate to where it lies inside the image and away from the spheres `taken`."""
    for _ in range(10 * _ATTEMPTS):
        centres = cluster + rng.uniform(0, np.array(shape) - 1)
        if _inside(centres, diameters, shape) and _least_gap(centres, diameters, *taken) >= _GAP_PX:
            return centres
    msg = f"no room left in shape={shape}; choose a smaller n_per_class or diameter_px, or a larger image"
    raise ConfigError(msg)


def _place_neighbours(
    centres: _Float,
    diameters: _Float,
    others: _Float,
    shape: tuple[int, int],
    rng: np.random.Generator,
) -> tuple[_Float, _Float]:
    """Put single particles in view, wholly or in part; leave out those for which there is no room."""
    placed, kept = np.empty((0, 2)), np.empty(0)
    for diameter in others:
        reach = diameter / 2
        for _ in range(_ATTEMPTS):
            new = rng.uniform(-reach, np.array(shape) - 1 + reach)[np.newaxis]
            visible = np.hypot(*(new[0] - np.clip(new[0], 0, np.array(shape) - 1))) < reach
            own = np.array([diameter])
            apart = min(_least_gap(new, own, centres, diameters), _least_gap(new, own, placed, kept))
            if visible and apart >= _GAP_PX:
                placed, kept = np.vstack([placed, new]), np.append(kept, diameter)
                break
    return placed, kept


def _inside(centres: _Float, diameters: _Float, shape: tuple[int, int]) -> bool:
    """Return whether all spheres lie in the image, with a margin."""
    reach = diameters[:, np.newaxis] / 2 + _MARGIN_PX
    return bool(np.all(centres >= reach) and np.all(centres <= np.array(shape) - 1 - reach))


def _least_gap(a: _Float, diameters_a: _Float, b: _Float, diameters_b: _Float) -> float:
    """Return the least distance in px between two sets of spheres; infinite if one is empty."""
    if not len(a) or not len(b):
        return float("inf")
    distances = np.hypot(*(a[:, np.newaxis] - b).transpose(2, 0, 1))
    return float((distances - (diameters_a[:, np.newaxis] + diameters_b) / 2).min())
