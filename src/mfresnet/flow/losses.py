"""Losses of predictions f (n, C) against targets y (n, C), with weights of the points.

Targets are -1/+1 (two classes, C = 1), one-hot 0/1 (several classes) or numbers (regression).
Weights are non-negative; a loss is their weighted mean, so that padding with weight 0 changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from ..registry import Entry, Registry

Predictions = Float[Array, "n outputs"]
Weights = Float[Array, " n"]
Loss = Callable[[Predictions, Predictions, Weights], Float[Array, ""]]


def weighted_mean(values: Float[Array | np.ndarray, " n"], weights: Weights) -> Float[Array, ""]:
    """sum_i weight_i value_i / sum_i weight_i."""
    return jnp.sum(weights * values) / jnp.sum(weights)


def squared(f: Predictions, y: Predictions, weights: Weights) -> Float[Array, ""]:
    """1/(2n) sum_i |f(x_i) - y_i|^2, the loss of the theory ([C24], section 3)."""
    return 0.5 * weighted_mean(jnp.sum((f - y) ** 2, axis=-1), weights)


def logistic(f: Predictions, y: Predictions, weights: Weights) -> Float[Array, ""]:
    """Two classes: mean log(1 + exp(-y f)); several: mean cross-entropy of softmax(f)."""
    if f.shape[-1] == 1:
        return weighted_mean(jax.nn.softplus(-y[:, 0] * f[:, 0]), weights)
    return weighted_mean(-jnp.sum(y * jax.nn.log_softmax(f, axis=-1), axis=-1), weights)


def sigmoid(f: Predictions, y: Predictions, weights: Weights) -> Float[Array, ""]:
    """A bounded surrogate of the mistakes: mean sigmoid(-y f); for several classes mean 1 - softmax(f)_y."""
    if f.shape[-1] == 1:
        return weighted_mean(jax.nn.sigmoid(-y[:, 0] * f[:, 0]), weights)
    return weighted_mean(1.0 - jnp.sum(y * jax.nn.softmax(f, axis=-1), axis=-1), weights)


LOSSES: Registry[Loss] = Registry(
    "loss (train.loss)",
    "mfresnet.losses",
    {
        "squared": Entry(squared, "the theory's"),
        "logistic": Entry(logistic, "logistic, or cross-entropy of several"),
        "sigmoid": Entry(sigmoid, "mean sigmoid(-y f), a bounded surrogate of the mistakes"),
    },
)


def loss_of(loss: str | Loss) -> Loss:
    """A loss by its name in `LOSSES`, or the loss itself.

    Raises:
        MfresnetError: an unknown name.

    >>> loss_of("squared") is loss_of(squared)
    True
    """
    return LOSSES[loss] if isinstance(loss, str) else loss


def is_misclassified(f: Any, y: Any) -> Any:
    """Which points get a wrong class; a prediction with an output that is not finite is wrong, whatever the label.

    Two classes: y f(x) > 0 is right, so that 0 is wrong for both. Several: the first of the largest outputs. This is
    the one definition of an error, for metrics, certificates and votes alike.

    Args:
        f: predictions, shape (..., n, C), NumPy or JAX.
        y: targets (n, C), -1/+1 with C = 1 or one-hot; or the numbers of the classes, integers of shape (n,).

    Returns:
        Booleans of shape (..., n), of the library of ``f``.

    >>> is_misclassified(np.array([[1.0], [0.0], [np.nan]]), np.ones((3, 1))).tolist()
    [False, True, True]
    >>> is_misclassified(np.array([[0.2, 0.9], [np.nan, 0.1]]), np.array([1, 0])).tolist()
    [False, True]
    """
    xp: Any = np if isinstance(f, np.ndarray) else jnp
    bad = ~xp.all(xp.isfinite(f), axis=-1)
    if f.shape[-1] == 1:
        return ~(f[..., 0] * y[..., 0] > 0) | bad
    labels = y if xp.issubdtype(y.dtype, xp.integer) else xp.argmax(y, axis=-1)
    return (xp.argmax(f, axis=-1) != labels) | bad


def mistakes(f: Predictions | np.ndarray, y: Predictions | np.ndarray, task: str) -> Float[Array | np.ndarray, " n"]:
    """Per point: 1 for a wrong class and 0 for a right one (`is_misclassified`); for regression the squared error."""
    if task == "regression":
        return jnp.sum((f - y) ** 2, axis=-1)
    return is_misclassified(f, y).astype(f.dtype)


def error(f: Predictions, y: Predictions, weights: Weights, task: str) -> Float[Array, ""]:
    """Share of wrong classes; for regression the root mean squared error."""
    mean = weighted_mean(mistakes(f, y, task), weights)
    return jnp.sqrt(mean) if task == "regression" else mean
