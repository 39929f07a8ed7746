"""Classification by a mean-field ResNet, with scikit-learn's manners."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from scipy.special import expit, softmax
from sklearn.base import ClassifierMixin
from sklearn.utils import column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from ..errors import MfresnetError
from .base import MeanFieldResNet
from .certify import votes
from .engine import model_of, outputs_of
from .rows import class_factors


class MeanFieldResNetClassifier(ClassifierMixin, MeanFieldResNet):
    """The scaled ResNet of [C24] as a classifier.

        f(x) = beta/K sum_k a_k sigma0(w_k . Z(x) + b_k),   Z the state after L layers of M particles each

    Features are standardised (weighted mean and deviation of the training rows, or a quarter of the column's range
    where that is larger), then mapped to the sphere by x -> (x, 1)/|(x, 1)|, which keeps the length of x in the angle.
    Two classes: one output, targets -1/+1; C > 2 classes: C outputs, one-hot.

    Equal training rows are merged and their weights added, so that an integer weight and a repeated row are the same to
    the bit; the same integer ``random_state`` gives the same result to the bit. Training is in float32, prediction in
    float64.

    Args:
        depth, width, head_width: layers L, particles M of a layer, particles K of the head.
        alpha, beta: scale of the residual branch and of the output.
        activation: sigma0, a name or ``package.module:ATTRIBUTE``.
        rule: adam, sgd, momentum, optax:NAME; langevin, annealed chains of ``max_iter`` steps,
            whose networks are certified themselves; or gradient-flow (Euler steps), which carries probe particles and
            thereby gives a certificate.
        loss: logistic (cross-entropy), squared, or auto, which is logistic.
        chains: of langevin; several vote, and their vote is what is predicted and certified. Its bound is twice that of
            the mean of its networks, so one chain has the smaller certificate.
        learning_rate: default 0.02 (adam) or 0.01 (optax:NAME); for gradient-flow and sgd (0.5) and momentum (0.05)
            a step of training time in units of 1/beta^2.
        max_iter: steps at most (not passes over the data); None for 600, of langevin 4,000.
        batch_size: rows of a mini-batch, None for all. Weights enter through the weighted mean of the batch.
        standardize: whether features are standardised first; of a network that is certified, by the moments of a
            quarter of the rows (of langevin one in twenty), which the certificate leaves out.
        probes, head_probes: probe particles of each layer and of the head (gradient-flow).
        delta: failure probability of the certificate.
        early_stopping: hold ``validation_fraction`` of the rows out, and keep the network that does best on them.
        n_iter_no_change, tol: stop after so many looks (one each 50 steps) without a relative improvement by ``tol``
            of the loss (with early stopping: of the held-out error).
        class_weight: factors of the classes in the loss, as in scikit-learn: a dictionary, "balanced" for
            (sum of all weights)/(number of classes x weight of the class), or None. ``sample_weight`` multiplies them.
            A certificate stays one of the error in which all rows count alike.
        warm_start: fit goes on from where the last fit ended.
        random_state: of the start and the mini-batches.
        verbose: print the loss.

    Attributes:
        classes_, n_features_in_, feature_names_in_, n_iter_: as everywhere in scikit-learn.
        particles_: the trained particles, plain arrays.
        transform_: the map of the features to the sphere.
        loss_curve_: mean training loss of each 50 steps.
        certificate_: a `mfresnet.bounds.Certificate`, or None; then ``certificate_note_`` says why.
        gram_, model_: computed when asked for.

    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> model = MeanFieldResNetClassifier(depth=3, max_iter=200, random_state=0).fit(X, y)
    >>> model.score(X, y) > 0.95, model.predict_proba(X).shape
    (True, (150, 3))
    """

    def __init__(
        self,
        *,
        depth: int = 8,
        width: int = 32,
        head_width: int = 128,
        alpha: float = 1.0,
        beta: float = 20.0,
        activation: str = "tanh",
        rule: str = "adam",
        loss: str = "auto",
        chains: int = 1,
        learning_rate: float | None = None,
        max_iter: int | None = None,
        batch_size: int | None = 256,
        standardize: bool = True,
        probes: int = 32,
        head_probes: int = 512,
        delta: float = 0.05,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        tol: float = 1e-4,
        class_weight: Any = None,
        warm_start: bool = False,
        random_state: Any = None,
        verbose: bool = False,
    ) -> None:
        super().__init__(
            depth=depth,
            width=width,
            head_width=head_width,
            alpha=alpha,
            beta=beta,
            activation=activation,
            rule=rule,
            loss=loss,
            learning_rate=learning_rate,
            max_iter=max_iter,
            batch_size=batch_size,
            standardize=standardize,
            probes=probes,
            head_probes=head_probes,
            delta=delta,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            n_iter_no_change=n_iter_no_change,
            tol=tol,
            warm_start=warm_start,
            random_state=random_state,
            verbose=verbose,
        )
        self.class_weight = class_weight
        self.chains = chains

    def _outputs(self, X: Any) -> np.ndarray:
        """f(x_i), shape (n, C); where several chains vote, shares of votes, of two classes their difference."""
        f = super()._outputs(X)
        if not self._others:
            return f
        x = self.transform_.apply(np.asarray(validate_data(self, X, dtype=np.float64, reset=False)))
        networks = [f, *(outputs_of(arrays, self._scales, x) for arrays in self._others)]
        return np.mean([_vote(one) for one in networks], axis=0)

    def _loss(self) -> str:
        return "logistic" if self.loss == "auto" else self.loss

    def _task(self) -> str:
        return "binary" if len(self.classes_) == 2 else "classes"

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> MeanFieldResNetClassifier:
        """Train on all rows; rows of weight 0 count as absent, their classes too."""
        x, y, weights = self._check_rows(X, y, sample_weight, reset=True)
        classes = np.unique(y[weights > 0])
        if len(classes) < 2:
            raise MfresnetError(f"the training data has 1 class ({classes[0]!s}): give at least 2 classes.")
        again = self.warm_start and hasattr(self, "particles_")
        if again and not np.array_equal(classes, self.classes_):
            raise MfresnetError("the classes differ from those of the last fit: set warm_start=False.")
        self.classes_ = classes
        kept = weights > 0
        x, y, weights = x[kept], y[kept], weights[kept]
        factors = class_factors(self.class_weight, y, classes, weights)
        self._fit_arrays(x, self._targets(y), weights, again=again, factors=factors)
        return self

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> MeanFieldResNetClassifier:
        """One pass over these rows, from where training is.

        The first call needs all ``classes``, and its rows fix the standardisation of the features for good: give it a
        fair sample, or standardise before.
        """
        if self.class_weight == "balanced":
            raise MfresnetError(
                "class_weight = 'balanced' needs all rows at once, and partial_fit sees a part: give a dictionary with "
                "the weights of sklearn.utils.class_weight.compute_class_weight."
            )
        first = not hasattr(self, "particles_")
        x, y, weights = self._check_rows(X, y, sample_weight, reset=first)
        if classes is not None:
            classes = np.unique(np.asarray(classes))
        if first:
            if classes is None:
                raise MfresnetError("classes is missing: the first call of partial_fit needs all classes.")
            if len(classes) < 2:
                raise MfresnetError("classes has less than 2 classes: name all that can occur.")
            self.classes_ = classes
        elif classes is not None and not np.array_equal(classes, self.classes_):
            raise MfresnetError("classes differ from those of the first call: give the same, or none.")
        unknown = np.setdiff1d(y, self.classes_)
        if unknown.size:
            raise MfresnetError(f"y has the class {unknown[0]!r}, which is not in classes: name all in the first call.")
        factors = class_factors(self.class_weight, y, self.classes_, weights)
        self._continue(x, self._targets(y), weights, factors)
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """The network's outputs: shape (n,) for two classes (positive for the second), else (n, C)."""
        f = self._outputs(X)
        return f[:, 0] if len(self.classes_) == 2 else f

    def predict(self, X: Any) -> np.ndarray:
        """The class of each row.

        Raises:
            MfresnetError: rows whose outputs are not finite, which have no class; `score` counts them as errors.
        """
        check_is_fitted(self, "particles_")
        return self._classes_of(_check_finite(self._outputs(X)))

    def _classes_of(self, f: np.ndarray) -> np.ndarray:
        return self.classes_[(f[:, 0] > 0).astype(int) if f.shape[1] == 1 else np.argmax(f, axis=1)]

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Share of the rows that get their class; a row with an output that is not finite counts as an error."""
        check_is_fitted(self, "particles_")
        f = self._outputs(X)
        right = (self._classes_of(f) == column_or_1d(y)) & np.isfinite(f).all(axis=1)
        return float(np.average(right, weights=sample_weight))

    def predict_by_vote(self, X: Any) -> np.ndarray:
        """The class that most of the sub-networks behind ``certificate_`` give to each row.

        The certificate bounds the mean error of these networks. The vote errs only where at least half of them do, so
        its error is at most twice that: ``certificate_.details["vote"]``.

        Raises:
            MfresnetError: there is no certificate, hence no sub-networks.
        """
        check_is_fitted(self, "particles_")
        if self._others:
            return self.predict(X)
        if self._drawn is None:
            raise MfresnetError(f"no sub-networks were drawn that could vote: {self.certificate_note_}.")
        x = cast(np.ndarray, validate_data(self, X, dtype=np.float64, reset=False))
        return self.classes_[votes(self._drawn, model_of(self.particles_, self._scales), self.transform_.apply(x))]

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities of the classes, shape (n, C).

        Several chains: their shares of votes. Logistic loss: softmax(f),
        or 1/(1 + exp(-f)) for two classes. Squared loss: f estimates the probabilities
        themselves ((1 + f)/2 for two classes), so the nearest point of the simplex.

        Raises:
            MfresnetError: rows whose outputs are not finite.
        """
        f = _check_finite(self._outputs(X))
        logistic = self._loss() == "logistic" and not self._others
        if len(self.classes_) == 2:
            second = expit(f) if logistic else np.clip((1 + f) / 2, 0.0, 1.0)
            return np.hstack([1 - second, second])
        return softmax(f, axis=1) if logistic else nearest_probabilities(f)

    def _check_rows(
        self, X: Any, y: Any, sample_weight: Any, *, reset: bool
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        x, y = cast(tuple[np.ndarray, np.ndarray], validate_data(self, X, y, dtype=np.float64, reset=reset))
        check_classification_targets(y)
        return x, column_or_1d(y, warn=True), self._weights(sample_weight, x)

    def _targets(self, y: np.ndarray) -> np.ndarray:
        """-1/+1 in one column, or one-hot."""
        code = np.searchsorted(self.classes_, y)
        if len(self.classes_) == 2:
            return np.where(code == 1, 1.0, -1.0)[:, None]
        return np.eye(len(self.classes_))[code]


def _vote(f: np.ndarray) -> np.ndarray:
    """What each network votes for: -1/+1 for two classes, one-hot for several; NaN where it has no output.

    >>> _vote(np.array([[0.3], [-2.0]])).ravel().tolist()
    [1.0, -1.0]
    """
    vote = np.where(f > 0, 1.0, -1.0) if f.shape[1] == 1 else np.eye(f.shape[1])[np.argmax(f, axis=1)]
    return np.where(np.isfinite(f).all(axis=1, keepdims=True), vote, np.nan)


def nearest_probabilities(f: np.ndarray) -> np.ndarray:
    """The nearest point of the probability simplex to each row (Held, Wolfe and Crowder 1974); keeps the order.

    >>> nearest_probabilities(np.array([[0.5, 0.5, 0.0], [3.0, 0.0, 0.0]])).tolist()
    [[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]]
    """
    sorted_ = -np.sort(-f, axis=1)
    excess = (np.cumsum(sorted_, axis=1) - 1) / np.arange(1, f.shape[1] + 1)
    count = np.sum(sorted_ > excess, axis=1)
    return np.maximum(f - np.take_along_axis(excess, count[:, None] - 1, axis=1), 0.0)


def _check_finite(f: np.ndarray) -> np.ndarray:
    """The outputs, shape (n, C).

    Raises:
        MfresnetError: some are not finite, naming the rows.
    """
    rows = np.flatnonzero(~np.isfinite(f).all(axis=1))
    if len(rows):
        named = ", ".join(map(str, rows[:5])) + (f" and {len(rows) - 5} more" if len(rows) > 5 else "")
        raise MfresnetError(
            f"the outputs of rows {named} of X are not finite, so they have no class: scale these inputs like the "
            "training data, or leave the rows out."
        )
    return f
