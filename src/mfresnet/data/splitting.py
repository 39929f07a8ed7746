"""Which rows train and which test, and whose labels are flipped."""

from __future__ import annotations

import numpy as np

from ..errors import MfresnetError
from .table import Table


def split_rows(
    table: Table, n: int | None, n_test: int | None, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Disjoint training and test rows, drawn at random, with the classes in proportion.

    The test rows are drawn first, so they do not depend on ``n``; every class keeps a row to train on.

    Args:
        table: the rows.
        n: training rows (None: all that are left).
        n_test: test rows (None: a quarter, at least one).
        rng: source of randomness.

    Returns:
        Sorted row numbers, shapes (n,) and (n_test,).

    Raises:
        MfresnetError: more rows asked for than there are, or fewer training rows than classes.

    >>> table = Table("t", np.zeros((8, 1)), np.arange(8) % 2, "classification", ("a", "b"), ("x",))
    >>> train, test = split_rows(table, 4, 2, np.random.default_rng(0))
    >>> (train % 2).sum(), (test % 2).sum()
    (np.int64(2), np.int64(1))
    """
    rows = len(table.target)
    groups = table.target if table.task == "classification" else np.zeros(rows, dtype=np.int64)
    least = max(len(table.classes), 1)
    tests = n_test if n_test is not None else max(1, min(rows // 4, rows - max(least, 2)))
    trains = n if n is not None else rows - tests
    if trains < 1:
        raise MfresnetError(f"data.n_test = {tests} leaves none of the {rows} rows of {table.name!r} to train on.")
    if trains + tests > rows:
        quarter = "" if n_test is not None else " (a quarter of the rows)"
        raise MfresnetError(
            f"data.n = {trains} training rows and data.n_test = {tests}{quarter} test rows are more than the {rows} "
            f"rows of {table.name!r}."
        )
    if trains < least:
        raise MfresnetError(
            f"{trains} training rows are fewer than the {least} classes of {table.name!r}: "
            f"set data.n to at least {least}" + (" or data.n_test lower." if n is None else ".")
        )
    counts = np.bincount(groups, minlength=least)
    testing = apportion(counts, tests, low=0, high=counts - 1)
    training = apportion(counts - testing, trains, low=1, high=counts - testing)
    order = [rng.permutation(np.flatnonzero(groups == c)) for c in range(least)]
    parts = list(zip(order, training, testing, strict=True))
    return (
        np.sort(np.concatenate([o[b : b + a] for o, a, b in parts])),
        np.sort(np.concatenate([o[:b] for o, _, b in parts])),
    )


def apportion(counts: np.ndarray, total: int, low: int | np.ndarray, high: np.ndarray) -> np.ndarray:
    """Whole numbers that sum to ``total``, near ``counts`` in proportion and within [low, high].

    >>> apportion(np.array([6, 3, 1]), 5, low=0, high=np.array([6, 3, 1])).tolist()
    [3, 2, 0]
    """
    share = counts * (total / counts.sum())
    out = np.clip(np.floor(share).astype(np.int64), low, high)
    while (left := total - out.sum()) != 0:
        step = 1 if left > 0 else -1
        free = out < high if left > 0 else out > low
        out[np.argmax(np.where(free, step * (share - out), -np.inf))] += step
    return out


def flip_labels(y: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Targets with a share of the labels, ``round(share n)`` of them, moved to another class at random.

    Args:
        y: shape (n, 1) of -1/+1, or (n, C) one-hot.
        share: of the rows.
        rng: source of randomness.

    >>> flip_labels(np.ones((4, 1)), 0.5, np.random.default_rng(0)).sum()
    np.float64(0.0)
    """
    rows = rng.choice(len(y), size=round(share * len(y)), replace=False)
    out = y.copy()
    if y.shape[1] == 1:
        out[rows] = -out[rows]
        return out
    shift = rng.integers(1, y.shape[1], size=len(rows))
    out[rows] = np.eye(y.shape[1])[(y[rows].argmax(axis=1) + shift) % y.shape[1]]
    return out
