"""Regression by a mean-field ResNet, with scikit-learn's manners."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.utils.validation import validate_data

from ..errors import MfresnetError
from .base import MeanFieldResNet


class MeanFieldResNetRegressor(RegressorMixin, MeanFieldResNet):
    """The scaled ResNet of [C24] as a regressor of one number; see `MeanFieldResNetClassifier` for the parameters.

    The target is mapped to [-1, 1] inside, y -> (y - center)/half with the middle and half the range of the training
    targets, and predictions are mapped back; the loss is the squared one.

    Args:
        loss: auto or squared.

    Attributes:
        target_center_, target_scale_: the map of the target.
        certificate_: None; ``certificate_note_`` says why.

    >>> import numpy as np
    >>> X = np.linspace(-1, 1, 64)[:, None]
    >>> model = MeanFieldResNetRegressor(depth=3, max_iter=300, random_state=0).fit(X, X[:, 0] ** 2)
    >>> model.score(X, X[:, 0] ** 2) > 0.95
    True
    """

    def _loss(self) -> str:
        if self.loss not in ("auto", "squared"):
            raise MfresnetError(f"loss = {self.loss!r} needs classes, but the target is numeric: give auto or squared.")
        return "squared"

    def _task(self) -> str:
        return "regression"

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> MeanFieldResNetRegressor:
        """Train on all rows; rows of weight 0 count as absent."""
        x, y, weights = self._check_rows(X, y, sample_weight, reset=True)
        again = self.warm_start and hasattr(self, "particles_")
        kept = weights > 0
        if not again:
            self._scale_target(y[kept])
        self._fit_arrays(x[kept], self._targets(y[kept]), weights[kept], again=again)
        return self

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> MeanFieldResNetRegressor:
        """One pass over these rows, from where training is; the first call fixes the maps of features and target."""
        first = not hasattr(self, "particles_")
        x, y, weights = self._check_rows(X, y, sample_weight, reset=first)
        if first:
            self._scale_target(y[weights > 0])
        self._continue(x, self._targets(y), weights)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """The target of each row, in its own units."""
        f = self._outputs(X)[:, 0]
        return self.target_center_ + self.target_scale_ * f

    def _check_rows(
        self, X: Any, y: Any, sample_weight: Any, *, reset: bool
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        from sklearn.utils import column_or_1d

        x, y = cast(
            tuple[np.ndarray, np.ndarray], validate_data(self, X, y, dtype=np.float64, reset=reset, y_numeric=True)
        )
        return x, column_or_1d(y, dtype=np.float64, warn=True), self._weights(sample_weight, x)

    def _scale_target(self, y: np.ndarray) -> None:
        low, high = float(y.min()), float(y.max())
        self.target_center_ = low / 2 + high / 2
        self.target_scale_ = high / 2 - low / 2 if high > low else 1.0

    def _targets(self, y: np.ndarray) -> np.ndarray:
        return ((y - self.target_center_) / self.target_scale_)[:, None]
