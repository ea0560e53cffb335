"""A real micrograph of gold nanoparticles with a class for every pixel, shipped with the package."""

from __future__ import annotations

from importlib.resources import as_file, files

import numpy as np
import tifffile
from scipy import ndimage
from sklearn.utils import Bunch

__all__ = ["load_nanogold"]


def load_nanogold() -> Bunch:
    """Load a scanning electron micrograph of gold nanoparticles on a glass fibre, with reference labels.

    The reference was made by a machine: it is noisy, above all between "cluster" and "pile". Split by region,
    never by particle, when you train and test on it: crops of neighbours overlap.

    Returns
    -------
    Bunch
        ``image`` : uint8 of shape (614, 1012), the micrograph.

        ``labels`` : uint8 of shape (614, 1012), class of each pixel: 0 is background, ``k`` is
        ``classes[k - 1]``.

        ``mask`` : bool of shape (614, 1012), the source's own foreground mask, made separately from
        ``labels`` and somewhat larger.

        ``objects`` : int32 of shape (614, 1012), label image of the 1518 reference objects (the 4-connected
        components of ``labels > 0``), to compare with the ``mask`` of :class:`tumble.types.Particles`.

        ``object_classes`` : int64 of shape (1518,), class of object ``i + 1`` as an index into ``classes``.

        ``classes`` : tuple of str, ``("single", "dimer", "cluster", "pile")``.

        ``pixel_size_nm`` : None, as the source does not record it.

        ``filename`` : str, path of the micrograph where the package is installed as files; ``DESCR`` : str,
        description, source and licence.

    References
    ----------
    .. [1] A. Hughes, "pyparty", Python package, George Washington University, 2013
       (BSD 3-Clause).

    Examples
    --------
    >>> gold = load_nanogold()
    >>> gold.image.shape, gold.image.dtype, int(gold.objects.max())
    ((614, 1012), dtype('uint8'), 1518)
    """
    folder = files("tumble.datasets") / "data" / "nanogold"
    arrays = {}
    for name in ("nanogold", "nanolabels", "nanobinary"):
        with as_file(folder / f"{name}.tif") as path:
            arrays[name] = tifffile.imread(path)
    labels = arrays["nanolabels"].astype(np.uint8)
    objects, n_objects = ndimage.label(labels > 0, output=np.int32)  # type: ignore[misc]
    # Every component has exactly one class, so the maximum over it is that class.
    classes_found = ndimage.maximum(labels, objects, np.arange(1, n_objects + 1))
    return Bunch(
        image=arrays["nanogold"],
        labels=labels,
        mask=arrays["nanobinary"] > 0,
        objects=objects,
        object_classes=np.asarray(classes_found, dtype=np.int64) - 1,
        classes=("single", "dimer", "cluster", "pile"),
        pixel_size_nm=None,
        filename=str(folder / "nanogold.tif"),
        DESCR=(folder / "README.md").read_text(encoding="utf-8"),
    )
