"""Training: settings, batches, disorder, the loop, callbacks, and models on disk."""

from tumble.fit.callbacks import BestWeights, Callback, Checkpoint, EarlyStopping, EpochReport, Progress
from tumble.fit.config import FitConfig
from tumble.fit.loop import FitResult, fit_ssrvae
from tumble.fit.objective import DefaultObjective, Objective

__all__ = [
    "BestWeights",
    "Callback",
    "Checkpoint",
    "DefaultObjective",
    "EarlyStopping",
    "EpochReport",
    "FitConfig",
    "FitResult",
    "Objective",
    "Progress",
    "fit_ssrvae",
]
