"""The points of a certificate, and what is known of how they came about."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import jax
import numpy as np

from ..bounds import Hypothesis
from ..bounds.checks import check_points
from ..flow import Batch, batch_of


@dataclass(frozen=True, eq=False)
class Data:
    """Training points, on which bounds are taken, and test points, which choose nothing.

    Args:
        x, y: training points as the network sees them, targets -1/+1 in one column or one-hot.
        x_test, y_test: points that neither training nor tuning saw; None where there are none.
        fitted_on: training rows that fixed the map of the inputs; None where nothing did. The bounds are on the others,
            where there are others.
        dtype: precision of the network.

    >>> data = Data(np.eye(10), np.ones((10, 1)), fitted_on=np.arange(2))
    >>> len(data.rows), data.hypotheses[0].status
    (8, 'proved')
    """

    x: np.ndarray
    y: np.ndarray
    x_test: np.ndarray | None = None
    y_test: np.ndarray | None = None
    fitted_on: np.ndarray | None = None
    dtype: str = "float32"

    @cached_property
    def train(self) -> Batch:
        """All training points."""
        return batch_of(self.x, self.y, self.dtype)

    @cached_property
    def test(self) -> Batch | None:
        """The test points."""
        if self.x_test is None or self.y_test is None:
            return None
        return batch_of(self.x_test, self.y_test, self.dtype)

    @property
    def rows(self) -> np.ndarray:
        """Training rows that the bounds are on: those that did not fix the map of the inputs, where there are such."""
        rows = np.arange(len(self.x))
        others = np.setdiff1d(rows, [] if self.fitted_on is None else self.fitted_on)
        return others if len(others) else rows

    @cached_property
    def points(self) -> Batch:
        """The points that the bounds are on.

        Raises:
            MfresnetError: fewer than 8.
        """
        rows = self.rows
        check_points(len(rows))
        return jax.tree.map(lambda leaf: leaf[rows], self.train)

    @property
    def guessing(self) -> float:
        """Error of guessing the largest class among the training points, below which a bound is not vacuous."""
        return majority_error(self.y)

    @property
    def hypotheses(self) -> tuple[Hypothesis, ...]:
        """Whether the map of the inputs saw the points of the bound."""
        statement = "the map of the inputs does not depend on the points of the bound"
        if self.fitted_on is None:
            return (Hypothesis(statement, "proved"),)
        if len(self.fitted_on) < len(self.x):
            note = f"fitted on {len(self.fitted_on)} training points that are left out"
            return (Hypothesis(statement, "proved", note=note),)
        return (
            Hypothesis(
                statement,
                "violated",
                note="its numbers are those of all training inputs (no labels): set data.map_share = 0.1 to fix it on "
                "a tenth of them and certify on the others, or data.transform none or lift where inputs need no "
                "scaling",
            ),
        )


def majority_error(y: np.ndarray) -> float:
    """1 minus the share of the largest class, of targets -1/+1 in one column or one-hot.

    >>> majority_error(np.array([[1.0], [1.0], [-1.0], [1.0]]))
    0.25
    """
    classes = (y[:, 0] > 0).astype(int) if y.shape[1] == 1 else np.argmax(y, axis=1)
    return 1 - float(np.bincount(classes).max()) / len(y)
