"""How raw inputs and targets reach the unit ball: fitted on training data only, recorded, applied again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import MfresnetError, unknown_name

KINDS = {
    "sphere": "each row divided by its norm",
    "lift": "each row x replaced by (x, 1)/|(x, 1)|",
    "max": "all rows divided by the largest training norm",
    "none": "left as they are",
}


def norms(x: np.ndarray) -> np.ndarray:
    """Euclidean norm of each row, without overflow or underflow in the squares; shape (n,).

    >>> norms(np.array([[3e-200, 4e-200], [0.0, 0.0]])).tolist()
    [5e-200, 0.0]
    """
    largest = np.max(np.abs(x), axis=1, initial=0.0)
    safe = np.where(largest > 0, largest, 1.0)
    return safe * np.sqrt(np.sum((x / safe[:, None]) ** 2, axis=1))


@dataclass(frozen=True, eq=False)
class Transform:
    """The stated map from raw data to the data of [C24], Assumption 1 (docs/theory.md, section 2).

    Inputs: ``x -> (x - mean)/std`` column by column where ``mean`` is given, then, by ``kind``: "sphere" x/|x|,
    "lift" (x, 1)/|(x, 1)|, "max" x/scale with scale = max |x| over the training rows, "none" x.
    Targets: ``y -> (y - target_center)/target_scale`` (regression; 0 and 1 otherwise).

    Args:
        kind: sphere, lift, max or none.
        dimension: number of raw input columns.
        mean, std: training mean and standard deviation, shape (dimension,), or None; constant columns have std 1.
        scale: divisor of "max".
        target_center, target_scale: the affine map of the targets.

    >>> t = Transform.fit("sphere", np.array([[3.0, 4.0], [0.0, 2.0]]))
    >>> t.apply(np.array([[6.0, 8.0]])).tolist()
    [[0.6, 0.8]]
    >>> t.describe()
    'Inputs: each row divided by its norm.'
    """

    kind: str
    dimension: int
    mean: np.ndarray | None = None
    std: np.ndarray | None = None
    scale: float = 1.0
    target_center: float = 0.0
    target_scale: float = 1.0

    @classmethod
    def fit(
        cls,
        kind: str,
        x: np.ndarray,
        *,
        standardise: bool = False,
        is_part: bool = False,
        regression_target: np.ndarray | None = None,
    ) -> Transform:
        """The transform of ``kind`` for training inputs ``x`` (n, d) and, for regression, raw targets (n,).

        Args:
            is_part: ``x`` is a part of the inputs only. A column that hardly varies there may vary elsewhere and would
                outweigh all others, so its scale is at least a quarter of its range, and where it is constant the
                median of the others.

        Raises:
            MfresnetError: an unknown kind; "max" where every row is zero; a target with a single value.

        >>> Transform.fit("none", np.zeros((2, 1)), regression_target=np.array([1.0, 5.0])).target_scale
        2.0
        """
        if kind not in KINDS:
            raise unknown_name("transform", kind, KINDS)
        mean, std = _moments(x) if standardise else (None, None)
        if std is not None and is_part:
            std = _widen(std, x)
        center, half = 0.0, 1.0
        if regression_target is not None:
            low, high = float(np.min(regression_target)), float(np.max(regression_target))
            center, half = low / 2 + high / 2, high / 2 - low / 2
            if not half > 0:
                raise MfresnetError(f"the training target has the single value {low:g}: there is nothing to learn.")
        scale = 1.0
        if kind == "max":
            scale = float(np.max(norms(_standardise(x, mean, std))))
            if not scale > 0:
                raise MfresnetError("transform max: every training row is zero, there is no norm to divide by.")
        return cls(kind, x.shape[1], mean, std, scale, center, half)

    @property
    def reads_data(self) -> bool:
        """Whether the map of the inputs was fitted on rows.

        >>> Transform("lift", 1).reads_data
        False
        """
        return self.mean is not None or self.kind == "max"

    def apply(self, x: np.ndarray, rows: str = "row") -> np.ndarray:
        """The transform of raw inputs (n, d); float64, shape (n, d), or (n, d + 1) for "lift".

        Args:
            x: raw inputs.
            rows: what messages call a row ("training row", "test row").

        Raises:
            MfresnetError: wrong number of columns, a value that is not finite, a zero row under "sphere".

        >>> Transform("lift", 1).apply(np.array([[0.0]])).tolist()
        [[0.0, 1.0]]
        """
        x = np.asarray(x, dtype=np.float64)
        if x.ndim != 2 or x.shape[1] != self.dimension:
            raise MfresnetError(f"inputs of shape (n, {self.dimension}) expected, these have shape {x.shape}.")
        # A test row may lie so far outside the training range that it overflows: found below, with its row.
        with np.errstate(over="ignore", invalid="ignore"):
            out = _standardise(x, self.mean, self.std) / (self.scale if self.kind == "max" else 1.0)
            if self.kind == "lift":
                out = np.hstack([out, np.ones((len(out), 1))])
            finite = np.isfinite(out).all(axis=1)
            if not finite.all():
                raise MfresnetError(f"{rows} {np.argmin(finite)} is not finite, or too large for the transform.")
            if self.kind not in ("sphere", "lift"):
                return out
            length = norms(out)
        if not length.all():
            raise MfresnetError(
                f"{rows} {np.argmin(length)} is zero{' after standardisation' if self.mean is not None else ''}, "
                "so x/|x| does not exist: remove it, or set data.transform to lift or max."
            )
        # In two steps, because the norm of a row of subnormal numbers is too coarse to divide by.
        largest = np.max(np.abs(out), axis=1, keepdims=True)
        out = out / largest
        return out / norms(out)[:, None]

    def apply_target(self, y: np.ndarray) -> np.ndarray:
        """Raw regression targets on the scale of training: ``(y - target_center)/target_scale``.

        >>> Transform("none", 1, target_center=3.0, target_scale=2.0).apply_target(np.array([5.0])).tolist()
        [1.0]
        """
        return (np.asarray(y, dtype=np.float64) - self.target_center) / self.target_scale

    def invert_target(self, y: np.ndarray) -> np.ndarray:
        """Predictions in the units of the raw target: ``target_center + target_scale y``.

        >>> Transform("none", 1, target_center=3.0, target_scale=2.0).invert_target(np.array([1.0])).tolist()
        [5.0]
        """
        return self.target_center + self.target_scale * np.asarray(y, dtype=np.float64)

    def describe(self) -> str:
        """What is done, in one sentence.

        >>> Transform.fit("sphere", np.eye(2), standardise=True).describe()
        'Inputs: 2 columns standardised by training mean and standard deviation, then each row divided by its norm.'
        """
        text = "Inputs: "
        if self.mean is not None:
            text += f"{self.dimension} columns standardised by training mean and standard deviation, then "
        text += KINDS[self.kind] + (f" ({self.scale:.6g})" if self.kind == "max" else "")
        if (self.target_center, self.target_scale) != (0.0, 1.0):
            text += f"; targets: y replaced by (y - {self.target_center:.6g})/{self.target_scale:.6g}"
        return text + "."

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and text: JSON keeps every bit.

        >>> Transform("none", 2).to_dict()["kind"]
        'none'
        """
        lists = {key: None if (v := getattr(self, key)) is None else v.tolist() for key in ("mean", "std")}
        return {**{key: getattr(self, key) for key in self.__dataclass_fields__}, **lists}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Transform:
        """The transform that ``to_dict`` wrote.

        Raises:
            MfresnetError: unknown or missing entries, or moments of the wrong length.

        >>> Transform.from_dict(Transform("sphere", 2).to_dict()).kind
        'sphere'
        """
        if set(values) != set(cls.__dataclass_fields__) or values["kind"] not in KINDS:
            raise MfresnetError(f"not a recorded transform: entries {', '.join(sorted(values)) or '(none)'}.")
        arrays = {key: None if values[key] is None else np.asarray(values[key], float) for key in ("mean", "std")}
        shapes = {None if a is None else a.shape for a in arrays.values()}
        if shapes not in ({None}, {(values["dimension"],)}):
            raise MfresnetError(f"not a recorded transform: mean and std must have length {values['dimension']}.")
        return cls(**{**values, **arrays})


def _moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each column; a constant column gives its value and 1."""
    low = x.min(axis=0)
    spread = x.max(axis=0) - low
    # Scaled to [0, 1] first: neither huge nor tiny columns lose their deviation to rounding.
    unit = (x - low) / np.where(spread > 0, spread, 1.0)
    std = spread * unit.std(axis=0)
    return low + spread * unit.mean(axis=0), np.where(std > 0, std, 1.0)


def _widen(std: np.ndarray, x: np.ndarray) -> np.ndarray:
    """At least a quarter of each column's range; for a constant column the median of the others."""
    quarter = x.max(axis=0) / 4 - x.min(axis=0) / 4
    varies = quarter > 0
    wide = np.maximum(std, quarter)
    return np.where(varies, wide, np.median(wide[varies]) if varies.any() else 1.0)


def _standardise(x: np.ndarray, mean: np.ndarray | None, std: np.ndarray | None) -> np.ndarray:
    return x.astype(np.float64) if mean is None or std is None else (x - mean) / std
