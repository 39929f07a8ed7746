"""Rows as they come from a file or a package, before they are split: raw inputs and a target that is understood."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..errors import MfresnetError

HUGE = 1e150  # the square of a larger number overflows
FEW = 20  # this many different whole numbers can be classes


@dataclass(frozen=True, eq=False)
class Table:
    """Raw rows: x (n, d) float64, target (n,) class codes (int) or numbers (float64).

    Args:
        name: of the data set or file.
        x: raw inputs; a text column holds the places of its values in its levels, and NaN is a missing value.
        target: 0-based class codes for classification, numbers for regression.
        task: classification or regression.
        classes: labels of the codes (empty for regression).
        feature_names: of the columns of x.
        notes: how the file was read and the target understood, where that was a choice.
        levels: for each column of x its different texts, in order, or None for numbers; () where all are numbers.

    >>> Table("t", np.eye(2), np.array([0, 1]), "classification", ("a", "b"), ("p", "q")).classes
    ('a', 'b')
    """

    name: str
    x: np.ndarray
    target: np.ndarray
    task: Literal["classification", "regression"]
    classes: tuple[str, ...]
    feature_names: tuple[str, ...]
    notes: tuple[str, ...] = ()
    levels: tuple[tuple[str, ...] | None, ...] = ()


@dataclass(frozen=True)
class Target:
    """A target understood: codes or numbers, what they are, and a note where that was a choice."""

    values: np.ndarray
    task: Literal["classification", "regression"]
    classes: tuple[str, ...]
    notes: tuple[str, ...]


def understand(
    values: np.ndarray | Sequence[str], task: str, what: str, row: Callable[[int], str] = "row {}".format
) -> Target:
    """Text or finite numbers as classes or as numbers, by ``task`` (auto, classification, regression).

    auto: text is classes; whole numbers are classes if there are at most 2 different ones, or at most 20 and on
    average two rows of each; other numbers are a regression target.

    Args:
        values: an array of finite floats, or a sequence of texts.
        task: auto, classification or regression.
        what: how messages call the target.
        row: how messages call a row.

    Raises:
        MfresnetError: one class, a class with one member, text for regression, fewer than 2 rows.

    >>> understand(["b", "a", "b", "a"], "auto", "target column 'y'").values.tolist()
    [1, 0, 1, 0]
    """
    n = len(values)
    if n < 2:
        raise MfresnetError(f"{what} has {n} row{'s' * (n != 1)}: at least 2 are needed, one to train and one to test.")
    numeric = isinstance(values, np.ndarray)
    labels: list = sorted(np.unique(values).tolist()) if numeric else sorted(set(values))
    if task == "regression" and not numeric:
        bad = next(i for i, v in enumerate(values) if not _is_number(v))
        raise MfresnetError(f"{what}, {row(bad)}, holds {quote(values[bad])}: data.task = regression needs numbers.")
    notes: tuple[str, ...] = ()
    if task == "auto":
        whole = numeric and all(v.is_integer() for v in labels[: FEW + 1])
        few = len(labels) <= 2 or (len(labels) <= FEW and 2 * len(labels) <= n)
        task = "classification" if not numeric or (whole and few) else "regression"
        if task == "classification" and not few and 2 * len(labels) > n:
            bad = next((i for i, v in enumerate(values) if not _is_number(v)), 0)
            raise MfresnetError(
                f"{what} holds text with {len(labels)} different values in {n} rows (for example "
                f"{quote(values[bad])} in {row(bad)}), which is neither a set of classes nor numbers."
            )
        if numeric:
            kind = f"{len(labels)} classes" if task == "classification" else "numbers (regression)"
            other = "regression" if task == "classification" else "classification"
            notes = (f"{what[0].upper()}{what[1:]} was read as {kind}; set data.task to {other} if it is not.",)
    if len(labels) < 2:
        raise MfresnetError(f"{what} has the single value {quote(labels[0])}: there is nothing to learn.")
    if task == "regression":
        return Target(np.asarray(values, dtype=np.float64), "regression", (), notes)
    codes = np.searchsorted(np.array(labels), values) if numeric else _codes(values, labels)
    counts = np.bincount(codes, minlength=len(labels))
    if counts.min() < 2:
        only = quote(labels[int(np.argmin(counts))])
        raise MfresnetError(
            f"class {only} of {what} has one member, {row(int(np.argmin(counts[codes])))}: "
            "at least 2 are needed, one to train and one to test."
        )
    return Target(codes.astype(np.int64), "classification", tuple(_label(v) for v in labels), notes)


def refuse_unusable(values: np.ndarray, name: Callable[..., str]) -> None:
    """Raise `MfresnetError` at the first entry that is NaN, infinite or too large to square.

    ``name(*index)`` puts the entry's place into words.

    >>> refuse_unusable(np.array([1.0, np.nan]), lambda i: f"row {i}")
    Traceback (most recent call last):
    mfresnet.errors.MfresnetError: row 1 is nan: every value must be a finite number.
    """
    with np.errstate(invalid="ignore"):
        bad = ~(np.abs(values) <= HUGE)
    if not bad.any():
        return
    index = np.unravel_index(int(np.argmax(bad)), bad.shape)
    value = float(values[index])
    place = name(*(int(i) for i in index))
    if np.isfinite(value):
        raise MfresnetError(f"{place} is {value:g}: values beyond 1e150 overflow when squared, rescale the column.")
    raise MfresnetError(f"{place} is {value}: every value must be a finite number.")


def describe_dropped(dropped: int, rows: int) -> tuple[str, ...]:
    """The note on rows that were dropped, if any were.

    >>> describe_dropped(0, 10)
    ()
    """
    if not dropped:
        return ()
    return (
        f"{dropped} of {rows} rows have a missing value and were dropped: errors and certificates are of the others.",
    )


def quote(value: object) -> str:
    """A value as a message quotes it: on one line and not too long.

    >>> quote("a\\nb"), quote(2.0)
    ("'a\\\\nb'", '2')
    """
    text = _label(value) if isinstance(value, float) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _codes(values: Sequence[str], labels: list[str]) -> np.ndarray:
    code = {label: i for i, label in enumerate(labels)}
    return np.array([code[v] for v in values])


def _label(value: str | float) -> str:
    if isinstance(value, str):
        return value
    return str(int(value)) if float(value).is_integer() else repr(value)


def _is_number(text: str | float) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
