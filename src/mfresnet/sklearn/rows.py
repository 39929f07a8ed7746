"""Training rows in one order: equal rows merged, weights added, and the table filled up to a size that recurs."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import Any, NamedTuple

import numpy as np

from ..data.table import quote
from ..errors import MfresnetError

LENGTHS = (64, 256)  # then powers of two: few lengths, so that few programs are compiled


class Rows(NamedTuple):
    """Distinct weighted rows: inputs (n, d), targets (n, C), weights (n,) > 0."""

    x: np.ndarray
    y: np.ndarray
    weights: np.ndarray


def merge_rows(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> Rows:
    """Equal rows (x_i, y_i) as one with the sum of their weights, rows of weight 0 left out, in an order of their own.

    A weighted loss does not change, and what is trained on the result depends on neither the order of the rows nor on
    whether a row is repeated k times or has weight k: not even the rounding does.

    >>> rows = merge_rows(np.array([[1.0], [2.0], [1.0]]), np.zeros((3, 1)), np.array([1.0, 0.0, 2.0]))
    >>> rows.x.tolist(), rows.weights.tolist()
    ([[1.0]], [3.0])
    """
    there = weights > 0
    x, y, weights = x[there], y[there], weights[there]
    # adding 0 makes -0.0 and 0.0 the same bytes
    table = np.ascontiguousarray(np.hstack([x, y]) + 0.0)
    as_bytes = table.view(np.dtype((np.void, table.itemsize * table.shape[1]))).ravel()
    _, first, place = np.unique(as_bytes, return_index=True, return_inverse=True)
    # sorted first, so that the sum of the weights of equal rows does not depend on their order
    order = np.argsort(weights, kind="stable")
    total = np.bincount(place[order], weights=weights[order], minlength=len(first))
    return Rows(x[first], y[first], total)


def padded_length(n: int) -> int:
    """The least of 64, 256, 512, 1024, ... that holds n rows.

    >>> padded_length(5), padded_length(178), padded_length(569)
    (64, 256, 1024)
    """
    return next((length for length in LENGTHS if n <= length), 1 << (n - 1).bit_length())


def fill_rows(rows: Rows) -> Rows:
    """``padded_length`` rows: row i is repeated, and its weight shared among the copies, so that the loss is the same.

    Unlike rows of weight 0, copies do no harm in a mini-batch: none of them is empty.

    >>> fill_rows(Rows(np.zeros((48, 1)), np.zeros((48, 1)), np.ones(48))).weights[[0, 16, 48]].tolist()
    [0.5, 1.0, 0.5]
    """
    index = np.arange(padded_length(len(rows.x))) % len(rows.x)
    copies = np.bincount(index)
    return Rows(rows.x[index], rows.y[index], (rows.weights / copies)[index])


def class_factors(class_weight: Any, y: np.ndarray, classes: np.ndarray, weights: np.ndarray) -> np.ndarray | float:
    """Factor of each row in the loss, from the weights of the classes (scikit-learn's ``class_weight``).

        balanced:  sum_j weight_j / (C sum_{j : y_j = c} weight_j)    of class c

    Args:
        class_weight: None, "balanced" or a dictionary {class: weight}; classes that it leaves out have weight 1.
        y, weights: classes and weights of the rows.
        classes: all C of them.

    Raises:
        MfresnetError: another value, a class that does not occur, a weight that is negative or no number.

    >>> class_factors("balanced", np.array(["a", "a", "b"]), np.array(["a", "b"]), np.ones(3)).tolist()
    [0.75, 0.75, 1.5]
    """
    if class_weight is None:
        return 1.0
    code = np.searchsorted(classes, y)
    if isinstance(class_weight, str) and class_weight == "balanced":
        return (weights.sum() / (len(classes) * np.bincount(code, weights)))[code]
    if not isinstance(class_weight, Mapping):
        raise MfresnetError(f"class_weight = {class_weight!r} is not allowed: give None, 'balanced' or a dictionary.")
    factors, names = np.ones(len(classes)), classes.tolist()
    for name, weight in class_weight.items():
        if name not in names:
            raise MfresnetError(f"class_weight names {name!r}, which is no class of y: give some of {quote(names)}.")
        if not isinstance(weight, Real) or not 0 <= float(weight) < np.inf:
            raise MfresnetError(f"class_weight of {name!r} = {weight!r} is not allowed: give a finite number >= 0.")
        factors[names.index(name)] = weight
    if not (weights * factors[code]).any():
        raise MfresnetError(f"class_weight = {class_weight!r} leaves no row with weight > 0: give one class more.")
    return factors[code]


def weighted_moments(x: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weighted mean and standard deviation of each column; a constant column gives its value and 1.

    >>> mean, std = weighted_moments(np.array([[0.0, 5.0], [4.0, 5.0]]), np.array([3.0, 1.0]))
    >>> mean.tolist(), std.round(3).tolist()
    ([1.0, 5.0], [1.732, 1.0])
    """
    share = (weights / weights.sum())[:, None]
    low = x.min(axis=0)
    spread = x.max(axis=0) - low
    # Scaled to [0, 1] first: neither huge nor tiny columns lose their deviation to rounding.
    unit = (x - low) / np.where(spread > 0, spread, 1.0)
    mean = np.sum(share * unit, axis=0)
    std = spread * np.sqrt(np.sum(share * (unit - mean) ** 2, axis=0))
    return low + spread * mean, np.where(std > 0, std, 1.0)
