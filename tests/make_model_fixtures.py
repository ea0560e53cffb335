"""Write the saved models of `tests/data`: `python tests/make_model_fixtures.py FORMAT`, by hand and once per format.

Files of a format stay as the version that wrote them left them: what later versions must read are those, not new ones.
Those of format 1 were made with tumble 0.1.0 at commit b30cb33. Expected numbers are what that version said.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from tumble import SSRVAEClassifier

DATA = Path(__file__).with_name("data")
SIDE = 16


def images(n: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """Bars and discs with noise, from plain arithmetic: no generator whose numbers another version might change."""
    k = np.arange(n)
    row, col = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    angle = (k * 2.399963 % (2 * np.pi))[:, None, None]
    along, across = np.cos(angle) * col - np.sin(angle) * row, np.sin(angle) * col + np.cos(angle) * row
    bar = (np.abs(along) < 6) & (np.abs(across) < 2)
    disc = np.hypot(along - 1, across) < 4
    grain = np.modf(np.sin((k[:, None, None] + 1) * (row * 12.9898 + col * 78.233)) * 43758.5453)[0]
    y = k % 2
    X = np.where(y[:, None, None] == 0, bar, disc) * 0.7 + 0.1 + 0.05 * grain
    return np.clip(X, 0, 1).astype(np.float32), np.where(k < 8, y, -1)


def expected(model, X: np.ndarray) -> dict[str, object]:
    """Everything that a model says of images, as JSON."""
    pose = model.pose(X)
    said = {
        "transform": model.transform(X),
        "angle_rad": pose.angle_rad,
        "angle_std_rad": pose.angle_std_rad,
        "shift_px": pose.shift_px,
        "scale": pose.scale,
        "reconstruct_mean": model.reconstruct(X).mean(axis=(1, 2)),
        "traverse_mean": model.traverse(n=2).mean(axis=(3, 4)),
    }
    if hasattr(model, "predict_proba"):
        said |= {"predict": model.predict(X), "predict_proba": model.predict_proba(X)}
    if getattr(model.model_, "novelty", None) is not None:
        said["novelty"] = model.novelty(X)
    return {name: np.asarray(values).tolist() for name, values in said.items()}


def models(format_version: int) -> dict[str, object]:
    """Give unfitted estimators by the name of their folder."""
    small = {"hidden": 8, "max_epochs": 2, "batch_size": 12, "random_state": 0, "device": "cpu"}
    semi = {"labelled_batch_size": 8, **small}
    if format_version == 1:
        return {
            "ssrvae": SSRVAEClassifier(**semi),
            "ssrvae-bernoulli": SSRVAEClassifier(
                likelihood="bernoulli", class_prior=(0.25, 0.75), invariances=("rotation", "scale"), **semi
            ),
        }
    from tumble import RVAE

    later = {
        "ssrvae-fine": SSRVAEClassifier(
            encoder_channels=(8,), classifier="fine", latent_dim=3, decoder="coordinate", **semi
        ),
        # Long enough for latent factors that vary, so that there is something to unmix.
        "ssrvae-long": SSRVAEClassifier(encoder_channels=(8, 16), **(semi | {"max_epochs": 60, "kl_weight": 0.1})),
    }
    return (later if format_version > 2 else {}) | {
        "ssrvae": SSRVAEClassifier(encoder_channels=(8, 16), class_prior="learned", **semi),
        "ssrvae-options": SSRVAEClassifier(
            encoder_channels=(8,),
            angle_posterior="von_mises",
            decoder="coordinate",
            sigma=0.2,
            predict_views=2,
            invariances=("rotation", "scale", "reflection"),
            **semi,
        ),
        "rvae": RVAE(encoder_channels=(8,), angle_posterior="projected", **small),
        "ssrvae-paper": SSRVAEClassifier(method="paper", **semi),
    }


def main(format_version: int) -> None:
    """Fit and save the models, with what they say of eight images."""
    X, y = images(24 if format_version < 3 else 200)  # of enough images the latent axes are turned
    names = np.array(["bar", "disc", "-1"])[y]
    for name, model in models(format_version).items():
        folder = DATA / f"model-format-{format_version}" / name
        model.fit(X, names).save(folder)
        (folder / "expected.json").write_text(json.dumps(expected(model, X[:8]), indent=1) + "\n")


if __name__ == "__main__":
    main(int(sys.argv[1]))
