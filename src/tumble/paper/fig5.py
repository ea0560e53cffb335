"""Figure 5: VAE and rVAE of the nanoparticles, without labels; principal components beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from sklearn.decomposition import PCA
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier

from tumble.metrics import balanced_accuracy
from tumble.paper import draw
from tumble.paper.fig6 import NANOPARTICLE_TITLES, nanoparticles
from tumble.paper.methods import AUTOENCODERS, Fit, chosen_methods
from tumble.paper.outcome import Comparison, Outcome, Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from tumble.paper.data import Split
    from tumble.paper.lab import Lab

__all__ = ["STUDY", "reconstruction_error", "separability"]

_BASELINE = "PCA"
#: What classes are named by.
_NAMED = {"agglomerates": "by number of particles", "gold": "by kind"}
_NEIGHBOURS, _FOLDS = 5, 5
#: Steps of the grid of principal components, in standard deviations, like that of the models.
_EXTENT = 2.0


def separability(z: npt.NDArray[Any], truth: npt.NDArray[Any]) -> float:
    """Balanced accuracy of the nearest neighbours in latent space, cross-validated: how far classes lie apart there.

    Parameters
    ----------
    z : ndarray of shape (n, L)
        Latent factors.
    truth : ndarray of shape (n,)
        Classes; those with a single object are left out.

    Returns
    -------
    float
        1 divided by the number of classes where latent factors say nothing of the class.
    """
    names, counts = np.unique(truth, return_counts=True)
    usable = np.isin(truth, names[counts > 1])
    scaled, truth = draw.standardised(z)[usable], truth[usable]
    folds = StratifiedKFold(min(_FOLDS, int(counts[counts > 1].min())), shuffle=True, random_state=0)
    # Each class has the same say, however many objects it has.
    weights = {k: 1 / float((truth == k).sum()) for k in np.unique(truth)}
    shares = cross_val_predict(
        KNeighborsClassifier(_NEIGHBOURS, weights="distance"), scaled, truth, cv=folds, method="predict_proba"
    )
    weighted = np.asarray(shares) * np.array(list(weights.values()))
    return float(balanced_accuracy(truth, np.array(list(weights))[weighted.argmax(axis=1)]))


def reconstruction_error(
    X: npt.NDArray[Any], drawn: npt.NDArray[Any], truth: npt.NDArray[Any], classes: tuple[str, ...]
) -> dict[str, float]:
    """Root mean square difference of images and their reconstructions, for each class, of pixels in [0, 1]."""
    scaled = X.astype(np.float64) / (255 if X.dtype == np.uint8 else 1)
    squares = ((scaled - drawn) ** 2).mean(axis=(1, 2))
    return {name: float(np.sqrt(squares[truth == k].mean())) for k, name in enumerate(classes)}


def _fits(lab: Lab) -> dict[str, list[Fit]]:
    methods = chosen_methods(lab.methods, AUTOENCODERS, "fig5")
    # As published: first without, then with invariance.
    order = sorted(methods, key=lambda m: (m.endswith("ss-rvae"), not m.startswith("paper")))
    sources = nanoparticles(lab)
    return {name: [Fit(method, source, supervised=False) for method in order] for name, source in sources.items()}


def run(lab: Lab) -> Outcome:
    """Draw manifold and latent distribution of each model without labels, and measure how far classes lie apart."""
    outcome = Outcome()
    for name, fits in _fits(lab).items():
        split = fits[0].source.split()
        found = {fit.title: _measured(lab, fit) for fit in fits}
        found[_BASELINE] = lab.cell(
            {"what": "PCA", **fits[0].case(lab.sizes)["data"]}, lambda split=split: _describe(split, _pca(split))
        )
        outcome.values[name] = found
        outcome.figures[f"fig5-{name}"] = _figure(lab, fits, split, found, name)
        apart = {title: values["separability"] for title, values in found.items()}
        what = f"balanced accuracy of {_NEIGHBOURS} nearest neighbours in latent space, {NANOPARTICLE_TITLES[name]}"
        published = "only single particles stand apart, rVAE “slightly better” than VAE (seen in scatter plots)"
        outcome.comparisons.append(Comparison(what, published, apart))
        last = split.classes[-1]
        worse = {
            title: values["rmse"][last] / values["rmse"][split.classes[0]]
            for title, values in found.items()
            if title != _BASELINE
        }
        what = f"reconstruction error of “{last}” over that of “{split.classes[0]}”, {NANOPARTICLE_TITLES[name]}"
        outcome.comparisons.append(Comparison(what, "“very poor” for 3 and 4 particles", worse))
    return outcome


def _measured(lab: Lab, fit: Fit) -> dict[str, Any]:
    def work() -> dict[str, Any]:
        split, model = fit.source.split(), lab.fitted(fit)
        return _describe(split, model.transform(split.X), model.reconstruct(split.X))

    return lab.cell({"what": "separability", **fit.case(lab.sizes)}, work)


def _describe(split: Split, z: npt.NDArray[Any], drawn: npt.NDArray[Any] | None = None) -> dict[str, Any]:
    known = split.truth >= 0
    found: dict[str, Any] = {"separability": separability(z[known], split.truth[known])}
    if drawn is not None:
        found["rmse"] = reconstruction_error(split.X[known], drawn[known], split.truth[known], split.classes)
    return found


def _pca(split: Split) -> npt.NDArray[Any]:
    return PCA(2, random_state=0).fit_transform(split.X.reshape(len(split.X), -1).astype(np.float64))


def _pca_grid(split: Split, n: int) -> npt.NDArray[Any]:
    """Images over the plane of the first two principal components, like a traversal."""
    scale = 255 if split.X.dtype == np.uint8 else 1
    model = PCA(2, random_state=0).fit(split.X.reshape(len(split.X), -1) / scale)
    axis = np.linspace(-_EXTENT, _EXTENT, n)
    steps = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1) * np.sqrt(model.explained_variance_)
    return model.inverse_transform(steps.reshape(-1, 2)).reshape(n, n, *split.X.shape[1:])


def _figure(lab: Lab, fits: list[Fit], split: Split, found: dict[str, Any], name: str) -> Figure:
    known = split.truth >= 0
    n = lab.sizes.traversal
    columns: list[tuple[str, npt.NDArray[Any], npt.NDArray[Any]]] = []
    for fit in fits:
        model = lab.fitted(fit)
        columns.append((fit.title, model.traverse(n=n)[0], model.transform(split.X)))
    columns.append((_BASELINE, _pca_grid(split, n), _pca(split)))
    with draw.print_style():
        figure = draw.figure_of(3.85, width=max(draw.WIDTH, 1.5 * len(columns)))
        panels = figure.subplots(2, len(columns), squeeze=False, height_ratios=(1, 1.05))
        for i, (title, manifold, z) in enumerate(columns):
            draw.manifold_panel(panels[0, i], manifold)
            panels[0, i].set_title(title, loc="left")
            draw.scatter_panel(
                panels[1, i], draw.standardised(z[known]), split.truth[known], split.classes, unit=" (s.d.)"
            )
            panels[1, i].set_title(f"{_NEIGHBOURS}-NN {found[title]['separability']:.2f}", loc="left")
            for row, axes in enumerate(panels[:, i]):
                axes.set_ylabel(axes.get_ylabel() if i == 0 else "")
                draw.letter(axes, "abcdefghij"[row * len(columns) + i])
        handles, names = panels[1, 0].get_legend_handles_labels()
        figure.legend(
            handles,
            names,
            loc="outside lower center",
            ncols=len(names),
            handletextpad=0.1,
            markerscale=1.5,
            # Two lines: one is longer than the figure is wide.
            title=f"{NANOPARTICLE_TITLES[name]}, {_NAMED[name]}; each image {split.X.shape[2]} px wide\n"
            f"{_NEIGHBOURS}-NN: balanced accuracy of {_NEIGHBOURS} nearest neighbours",
        )
    return figure


def _flat(lab: Lab) -> list[Fit]:
    return [fit for fits in _fits(lab).values() for fit in fits]


STUDY = Study(_flat, run, lambda lab: [_measured(lab, fit) for fit in _flat(lab)])
