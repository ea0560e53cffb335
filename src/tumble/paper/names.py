"""What can be recomputed, by name; light enough for the command line to read at once."""

from __future__ import annotations

__all__ = ["ALL", "METHOD_TITLES", "STUDY_TITLES"]

#: Stands for all studies.
ALL = "all"

#: Name -> what it recomputes, in the order in which `all` does.
STUDY_TITLES = {
    "fig2": "the data sets",
    "fig3": "accuracy against orientational disorder, and latent traversals, on cards",
    "s2": "confusion matrices on cards",
    "fig4": "robustness of the trained models on cards: shear, angle, noise, contamination",
    "labels": "accuracy against the share of labelled cards",
    "films": "how latent space and manifold form in training, as animations",
    "fig5": "VAE and rVAE of the nanoparticles, without labels",
    "fig6": "ss-rVAE of the nanoparticles",
    "s3": "classifiers on pixels beside the ss-rVAE, on the nanoparticles",
}

#: Name -> what figures call it.
METHOD_TITLES = {
    "paper-ss-rvae": "ss-rVAE as published",
    "paper-ss-vae": "ss-VAE as published",
    "ss-rvae": "ss-rVAE of tumble",
    "ss-vae": "ss-VAE of tumble",
    "ss-rvae-degraded": "ss-rVAE, degradation=1",
    "tree": "decision tree",
    "forest": "random forest",
    "boosting": "gradient boosting",
    "spreading": "label spreading",
}
