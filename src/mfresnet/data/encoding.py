"""Text columns as columns of 0 and 1, means for missing values: fitted on rows, recorded, applied again to new ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import MfresnetError
from .guard import refuse_beyond_memory
from .table import Table

Levels = tuple[tuple[str, ...] | None, ...]


@dataclass(frozen=True, eq=False)
class Encoding:
    """The stated map from the columns of a table to numbers, before a `Transform`.

    - A column of numbers is left as it is.
    - A text column becomes one column for each of its values among the rows of the fit, 1 where a row has that value
      and 0 elsewhere. A value that none of these rows has gives 0 in all of them; `unseen` counts such rows.
    - A missing value becomes the mean of the column over the rows of the fit that have one; for a text column that is
      the share of each value.

    Args:
        columns: names of the raw columns.
        levels: for each raw column the values that have a column of their own, or None for numbers.
        fill: means of the encoded columns, shape (number of encoded columns,), or None where a missing value is
            refused.

    >>> x = np.array([[0.0, 1.0], [1.0, np.nan], [0.0, 3.0]])
    >>> table = Table("t", x, np.zeros(3), "regression", (), ("colour", "size"), (), (("blue", "red"), None))
    >>> encoding = Encoding.fit(table, np.array([0, 1, 2]), missing="mean")
    >>> encoding.names, encoding.apply(table.x, table.levels).tolist()
    (('colour=blue', 'colour=red', 'size'), [[1.0, 0.0, 1.0], [0.0, 1.0, 2.0], [1.0, 0.0, 3.0]])
    """

    columns: tuple[str, ...]
    levels: Levels
    fill: np.ndarray | None = None

    @classmethod
    def fit(cls, table: Table, rows: np.ndarray, *, missing: str = "refuse") -> Encoding:
        """The encoding of a table, from some of its rows.

        Args:
            table: the table.
            rows: places of the rows that fix values and means.
            missing: "mean" fills missing values; anything else refuses them.

        Raises:
            MfresnetError: a column without any value in these rows, or too many columns for the memory.
        """
        levels = table.levels or (None,) * table.x.shape[1]
        kept: list[tuple[str, ...] | None] = []
        for j, (name, own) in enumerate(zip(table.feature_names, levels, strict=True)):
            present = table.x[rows, j][~np.isnan(table.x[rows, j])]
            if not len(present):
                raise MfresnetError(
                    f"column {name!r} has no value in the {len(rows)} rows that fix the map of the inputs: drop it."
                )
            kept.append(None if own is None else tuple(own[int(code)] for code in np.unique(present)))
        plain = cls(table.feature_names, tuple(kept))
        refuse_beyond_memory(3 * 8.0 * len(table.x) * len(plain.names), f"data set {table.name!r}, encoded,")
        if missing != "mean":
            return plain
        return cls(plain.columns, plain.levels, np.nanmean(plain._encode(table.x[rows], levels), axis=0))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the encoded columns: ``colour=red`` for the value red of the text column colour."""
        pairs = zip(self.columns, self.levels, strict=True)
        return tuple(name for column, own in pairs for name in ([column] if own is None else _names(column, own)))

    @property
    def reads_data(self) -> bool:
        """Whether anything of it was fitted on rows."""
        return self.fill is not None or any(own is not None for own in self.levels)

    def apply(self, x: np.ndarray, levels: Levels = ()) -> np.ndarray:
        """Raw rows, as in `Table`, as numbers; shape (n, number of encoded columns).

        Args:
            x: raw rows (n, number of raw columns).
            levels: those of the table that the rows come from; () where all columns are numbers.

        Raises:
            MfresnetError: another number of columns, text where there were numbers, a missing value without a mean.
        """
        levels = levels or (None,) * x.shape[1]
        if x.shape[1] != len(self.columns):
            raise MfresnetError(f"rows of {len(self.columns)} columns expected, these have {x.shape[1]}.")
        for name, own, new in zip(self.columns, self.levels, levels, strict=True):
            if (own is None) != (new is None):
                then, now = ("numbers", "text") if own is None else ("text", "numbers")
                raise MfresnetError(f"column {name!r} held {then} where the map was fitted, and holds {now} here.")
        out = self._encode(x, levels)
        gaps = np.isnan(out)
        if self.fill is None and gaps.any():
            i, j = np.argwhere(gaps)[0]
            raise MfresnetError(f"row {i} has no value of {self.names[j]!r}, and no mean was fitted to fill it.")
        return out if self.fill is None else np.where(gaps, self.fill, out)

    def unseen(self, x: np.ndarray, levels: Levels) -> dict[str, int]:
        """Rows whose text none of the rows of the fit had, for each column with such rows."""
        counts = {}
        for j, (name, own, new) in enumerate(zip(self.columns, self.levels, levels, strict=False)):
            if own is not None and new is not None:
                strange = [code for code, level in enumerate(new) if level not in own]
                counts[name] = int(np.isin(x[:, j], strange).sum())
        return {name: count for name, count in counts.items() if count}

    def describe(self) -> tuple[str, ...]:
        """What is done, one sentence for text columns and one for missing values, where there is something.

        >>> Encoding(("colour",), (("blue", "red"),)).describe()
        ("Text columns became a column of 0 and 1 for each value among the rows that fix the map: 'colour' (2).",)
        """
        sizes = [f"{c!r} ({len(own)})" for c, own in zip(self.columns, self.levels, strict=True) if own is not None]
        shown = ", ".join(sizes[:8]) + (f" and {len(sizes) - 8} more" if len(sizes) > 8 else "")
        text = f"Text columns became a column of 0 and 1 for each value among the rows that fix the map: {shown}."
        return (text,) if sizes else ()

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and text: JSON keeps every bit.

        >>> Encoding(("a",), (None,)).to_dict()
        {'columns': ['a'], 'levels': [None], 'fill': None}
        """
        return {
            "columns": list(self.columns),
            "levels": [None if own is None else list(own) for own in self.levels],
            "fill": None if self.fill is None else self.fill.tolist(),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Encoding:
        """The encoding that ``to_dict`` wrote.

        Raises:
            MfresnetError: unknown or missing entries, or lists of different lengths.

        >>> Encoding.from_dict(Encoding(("a",), (("x", "y"),)).to_dict()).names
        ('a=x', 'a=y')
        """
        if set(values) != {"columns", "levels", "fill"} or len(values["columns"]) != len(values["levels"]):
            raise MfresnetError(f"not a recorded encoding: entries {', '.join(sorted(values)) or '(none)'}.")
        fill = None if values["fill"] is None else np.asarray(values["fill"], np.float64)
        encoding = cls(
            tuple(values["columns"]), tuple(None if own is None else tuple(own) for own in values["levels"]), fill
        )
        if fill is not None and fill.shape != (len(encoding.names),):
            raise MfresnetError(f"not a recorded encoding: {len(encoding.names)} means expected, {fill.size} encoding.")
        return encoding

    def _encode(self, x: np.ndarray, levels: Levels) -> np.ndarray:
        """Numbers and indicators, NaN where the raw value is missing."""
        if not any(levels):
            return np.array(x, np.float64)
        parts = []
        for j, (own, new) in enumerate(zip(self.levels, levels, strict=True)):
            column = x[:, j]
            if own is None or new is None:
                parts.append(column[:, None])
                continue
            place = {level: k for k, level in enumerate(own)}
            code = np.array([place.get(level, -1) for level in new])
            there = ~np.isnan(column)
            block = np.full((len(x), len(own)), np.nan)
            block[there] = code[column[there].astype(int), None] == np.arange(len(own))
            parts.append(block)
        return np.hstack(parts).astype(np.float64)


def _names(column: str, levels: tuple[str, ...]) -> list[str]:
    return [f"{column}={level}" for level in levels]
