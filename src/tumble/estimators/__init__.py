"""The scikit-learn face of the model: arrays in, arrays out."""

from tumble.estimators.ssrvae import SSRVAEClassifier

__all__ = ["SSRVAEClassifier"]
