"""The models behind scikit-learn's interface."""

from tumble.estimators.rvae import RVAE
from tumble.estimators.ssrvae import SSRVAEClassifier

__all__ = ["RVAE", "SSRVAEClassifier"]
