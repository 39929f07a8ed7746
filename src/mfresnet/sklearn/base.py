"""What both estimators do alike: parameters, fitting, continuing, certificate and Gram matrix."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, cast

import jax
import numpy as np
import psutil
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from ..bounds import Certificate
from ..errors import MfresnetError
from ..kernels.gram import gram
from ..kernels.precision import double_precision
from ..model import AbstractResNet
from ..train.langevin import LANGEVIN, MAP_SHARE
from . import engine
from .certify import APART, certificate_of, rows_apart, why_not
from .langevin import check_langevin, train_langevin
from .rows import Rows, merge_rows, padded_length


class MeanFieldResNet(BaseEstimator):
    """Base of the estimators; see `MeanFieldResNetClassifier` for the parameters."""

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
        warm_start: bool = False,
        random_state: Any = None,
        verbose: bool = False,
    ) -> None:
        self.depth = depth
        self.width = width
        self.head_width = head_width
        self.alpha = alpha
        self.beta = beta
        self.activation = activation
        self.rule = rule
        self.loss = loss
        self.learning_rate = learning_rate
        self.max_iter = max_iter
        self.batch_size = batch_size
        self.standardize = standardize
        self.probes = probes
        self.head_probes = head_probes
        self.delta = delta
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.warm_start = warm_start
        self.random_state = random_state
        self.verbose = verbose

    def __dir__(self) -> list[str]:
        # A notebook that shows a fitted estimator reads every attribute listed here: not one that takes n^2 memory.
        return [name for name in super().__dir__() if name != "gram_"]

    @property
    def model_(self) -> AbstractResNet:
        """The trained network, for everything else in mfresnet; it reads inputs that `transform_` has mapped."""
        check_is_fitted(self, "particles_")
        return engine.model_of(self.particles_, self._scales)

    @property
    def gram_(self) -> np.ndarray:
        """Gram matrix G = alpha^2 G1 + G2 of the training rows, shape (n C, n C), computed when asked for.

        In closed form and float64 ([C24], section 3; `mfresnet.gram`), rows in the order of the training data.

        Raises:
            MfresnetError: it does not fit into memory.
        """
        check_is_fitted(self, "particles_")
        x = self.transform_.apply(self._x)
        outputs = self.particles_["head_out"].shape[1]
        need, have = 8 * (len(x) * outputs) ** 2, psutil.virtual_memory().available
        if need > have:
            raise MfresnetError(
                f"gram_ needs {need / 2**30:.1f} GiB for {len(x)} rows and {outputs} outputs, and "
                f"{have / 2**30:.1f} GiB are free: take mfresnet.gram_operator(est.model_, "
                "est.transform_.apply(X)), which holds no matrix."
            )
        with double_precision():
            model = engine.model_of(self.particles_, self._scales, "float64")
        return gram(model, x, hold="total").total

    def _loss(self) -> str:
        raise NotImplementedError

    def _task(self) -> str:
        raise NotImplementedError

    def _settings(self) -> engine.Settings:
        """The parameters, checked."""
        for name, low, high in (("validation_fraction", 0.0, 1.0), ("delta", 0.0, 1.0), ("tol", -np.inf, np.inf)):
            value = getattr(self, name)
            if not isinstance(value, Real) or not low < float(value) < high:
                raise MfresnetError(f"{name} = {value!r} is not allowed: give a number > {low:g} and < {high:g}.")
        if not isinstance(self.n_iter_no_change, Integral) or self.n_iter_no_change < 1:
            raise MfresnetError(
                f"n_iter_no_change = {self.n_iter_no_change!r} is not allowed: give a whole number >= 1."
            )
        return engine.settings_of(self.get_params(deep=False), self._loss())

    def _seed(self) -> int:
        """One whole number from ``random_state``."""
        return int(check_random_state(self.random_state).randint(2**31 - 3))

    def _weights(self, sample_weight: Any, x: np.ndarray) -> np.ndarray:
        """Checked weights: not negative, not all zero."""
        return _check_sample_weight(sample_weight, x, dtype=np.float64, ensure_non_negative=True)

    def _fit_arrays(
        self, x: np.ndarray, y: np.ndarray, weights: np.ndarray, *, again: bool, factors: np.ndarray | float = 1.0
    ) -> None:
        """Train from the start, or with ``again`` from where the last fit ended.

        Args:
            weights: of the rows: how often each was drawn.
            factors: of the rows in the loss alone.
        """
        settings, seed = self._settings(), self._seed()
        rows = merge_rows(x, y, weights * factors)
        again = again and hasattr(self, "particles_")
        chain = self.rule == LANGEVIN
        if chain:
            check_langevin(self, weights * factors, again)
            reason = ""
        elif self._task() == "regression":
            reason = "the target is a number and the certificate bounds an error rate"
        else:
            reason = why_not(self, weights, settings, again)
        share = MAP_SHARE if chain else APART
        apart = None if reason or not self.standardize else rows_apart(len(x), seed, share)
        if again:
            self._check_same(y.shape[1])
            model = engine.model_of(self.particles_, self._scales)
        else:
            part = slice(None) if apart is None else apart
            fitting = merge_rows(x[part], y[part], weights[part])
            self.transform_ = engine.sphere_lift(fitting.x, fitting.weights, self.standardize)
            model = engine.start(settings, seed, x.shape[1] + 1, y.shape[1])
        bounded = slice(None) if apart is None else np.setdiff1d(np.arange(len(x)), apart)
        if chain:
            trained, others, self.certificate_ = train_langevin(
                settings, model, self.transform_.apply(x[bounded]), y[bounded], seed, self.delta,
                0 if apart is None else len(apart), self.get_params()["chains"],
            )  # fmt: skip
            self._keep(trained, x, again)
            self._others = [engine.arrays_of(network) for network in others]
            self._drawn, self.certificate_note_ = None, ""
            return
        rows = rows._replace(x=self.transform_.apply(rows.x))
        rows, held_out = self._split(rows, seed) if self.early_stopping else (rows, None)
        trained = engine.train(
            settings,
            model,
            rows,
            seed,
            held_out=held_out,
            task=self._task(),
            memory=self._memory if again and self._rule == self.rule else None,
            done=self.n_iter_ if again else 0,
        )
        self._keep(trained, x, again)
        self.certificate_: Certificate | None = None
        self._drawn: Any = None
        self.certificate_note_ = reason
        if not reason and trained.ensemble is not None:
            self.certificate_, self._drawn = certificate_of(
                trained.model, trained.ensemble, self.transform_.apply(x), y, seed, self.delta, apart
            )

    def _continue(self, x: np.ndarray, y: np.ndarray, weights: np.ndarray, factors: np.ndarray | float = 1.0) -> None:
        """One pass over the rows, from where training is; the first call fixes the map to the sphere."""
        settings, seed = self._settings(), self._seed()
        rows = merge_rows(x, y, weights * factors)
        again = hasattr(self, "particles_")
        if again:
            self._check_same(y.shape[1])
            model = engine.model_of(self.particles_, self._scales)
        else:
            fitting = merge_rows(x, y, weights)
            self.transform_ = engine.sphere_lift(fitting.x, fitting.weights, self.standardize)
            model = engine.start(settings, seed, x.shape[1] + 1, y.shape[1])
        rows = rows._replace(x=self.transform_.apply(rows.x))
        n = padded_length(len(rows.x))
        trained = engine.train(
            settings,
            model,
            rows,
            seed,
            memory=self._memory if again else None,
            done=self.n_iter_ if again else 0,
            steps=-(-n // min(n, settings.batch_size)),
        )
        self._keep(trained, x, again)
        self.certificate_ = self._drawn = None
        self.certificate_note_ = "partial_fit does not see all points at once: call fit"

    def _check_same(self, outputs: int) -> None:
        """What is continued must have the sizes that it started with."""
        arrays = self.particles_
        have = {
            "depth": arrays["encoder_w"].shape[0],
            "width": arrays["encoder_w"].shape[1],
            "head_width": arrays["head_w"].shape[0],
        } | self._scales
        for name, value in have.items():
            if getattr(self, name) != value:
                raise MfresnetError(
                    f"{name} = {getattr(self, name)!r}, but training began with {value!r}: continue with the same "
                    "value, or call fit with warm_start=False."
                )
        if arrays["head_out"].shape[1] != outputs:
            raise MfresnetError(
                f"the targets have {outputs} outputs and training began with {arrays['head_out'].shape[1]}: "
                "call fit with warm_start=False."
            )

    def _split(self, rows: Rows, seed: int) -> tuple[Rows, Rows]:
        """(training rows, held-out rows) for early stopping."""
        n = len(rows.x)
        count = max(1, round(self.validation_fraction * n))
        if count >= n:
            raise MfresnetError(f"early_stopping needs at least 2 distinct rows, but there are {n}.")
        order = np.random.default_rng(seed).permutation(n)
        parts = (np.sort(order[count:]), np.sort(order[:count]))
        training, held_out = (Rows(*(leaf[part] for leaf in rows)) for part in parts)
        return training, held_out

    def _keep(self, trained: engine.Trained, x: np.ndarray, again: bool) -> None:
        """The result as plain arrays: what a fitted estimator holds, and all that is pickled."""
        self.particles_ = engine.arrays_of(trained.model)
        self._memory = [np.asarray(leaf) for leaf in jax.tree.leaves(trained.memory)]
        self._scales = {"alpha": self.alpha, "beta": self.beta, "activation": self.activation}
        self._rule = self.rule
        self._others: list[dict[str, np.ndarray]] = []
        self._x = x
        self.n_iter_ = trained.steps + (self.n_iter_ if again else 0)
        self.loss_curve_ = (list(self.loss_curve_) if again else []) + trained.losses

    def _outputs(self, X: Any) -> np.ndarray:
        """f(x_i), shape (n, C), float64."""
        check_is_fitted(self, "particles_")
        x = cast(np.ndarray, validate_data(self, X, dtype=np.float64, reset=False))
        return engine.outputs_of(self.particles_, self._scales, self.transform_.apply(x))
