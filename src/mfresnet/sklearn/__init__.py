"""scikit-learn estimators: `MeanFieldResNetClassifier` and `MeanFieldResNetRegressor`."""

from .classifier import MeanFieldResNetClassifier
from .regressor import MeanFieldResNetRegressor

__all__ = ["MeanFieldResNetClassifier", "MeanFieldResNetRegressor"]
