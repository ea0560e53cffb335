"""Training: settings, batches, disorder, the loop, and models on disk."""

from tumble.fit.config import FitConfig
from tumble.fit.loop import EpochReport, FitResult, fit_ssrvae

__all__ = ["EpochReport", "FitConfig", "FitResult", "fit_ssrvae"]
