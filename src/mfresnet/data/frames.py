"""CSV and Parquet through polars: a table of named columns, one of them the target."""

from __future__ import annotations

import difflib
import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import MfresnetError
from .delimited import refuse_names
from .guard import call_reader, refuse_beyond_memory
from .table import FEW, Table, describe_dropped, quote, refuse_unusable, understand

if TYPE_CHECKING:
    import polars as pl

Row = Callable[[int], str]


def parquet_frame(file: Path) -> tuple[pl.DataFrame, Row]:
    """The frame of a Parquet file, and what messages call a row of it."""
    import polars as pl

    # From memory, so that the name is never taken for a pattern or an address.
    frame = call_reader(file, "Parquet", lambda: pl.read_parquet(io.BytesIO(file.read_bytes())))
    refuse_names(file, frame.columns)
    return frame, lambda i: f"row {i} (counted from 0)"


def from_frame(
    file: Path,
    frame: pl.DataFrame,
    row: Row,
    target: str | None,
    task: str,
    *,
    categories: str = "refuse",
    missing: str = "refuse",
    notes: tuple[str, ...] = (),
) -> Table:
    """The table of a frame: all columns but the target are features.

    Args:
        file: where the frame comes from, for messages.
        row: what messages call a row.
        target, task, categories, missing: as in `mfresnet.data.read_file`.
        notes: what was decided so far.

    Raises:
        MfresnetError: a column that cannot be used, with its name and row.
    """
    features = feature_names(file, frame.columns, target)
    assert target is not None, "feature_names refuses None"
    if missing == "drop":
        frame, row, dropped = drop_incomplete(frame, row)
        notes += describe_dropped(dropped, dropped + len(frame))
    if len(frame) < 2:
        raise MfresnetError(f"file {str(file)!r} has {len(frame)} row(s) of data: at least 2 are needed.")
    refuse_beyond_memory(2 * 8 * len(frame) * len(features), f"file {str(file)!r}")
    x, levels = columns_of(frame, features, row, categories=categories, missing=missing)
    what = f"target column {target!r}"
    goal = understand(_target(frame[target], what, row), task, what, row)
    return Table(file.name, x, goal.values, goal.task, goal.classes, tuple(features), notes + goal.notes, levels)


def feature_names(file: Path, names: list[str], target: str | None) -> list[str]:
    """The columns beside the target.

    Raises:
        MfresnetError: no target is named, or one that is not there, or no other column.
    """
    known = " ".join(", ".join(names[:20]).split()) + (", ..." if len(names) > 20 else "")
    if target is None:
        raise MfresnetError(f"data.target must name the column of {str(file)!r} to predict; columns: {known}.")
    if target not in names:
        close = difflib.get_close_matches(target, names, n=1, cutoff=0.5)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise MfresnetError(f"file {str(file)!r} has no column {target!r}: {hint}Columns: {known}.")
    features = [name for name in names if name != target]
    if not features:
        raise MfresnetError(f"file {str(file)!r} has no feature columns beside the target {target!r}.")
    return features


def drop_incomplete(frame: pl.DataFrame, row: Row) -> tuple[pl.DataFrame, Row, int]:
    """The rows without a missing value, what messages call them, and how many were dropped."""
    import polars as pl

    frame = frame.with_columns(pl.selectors.float().fill_nan(None))
    kept = frame.select(~pl.any_horizontal(pl.all().is_null())).to_series()
    places = kept.arg_true().to_list()
    return frame.filter(kept), lambda i: row(places[i]), len(frame) - len(places)


def columns_of(
    frame: pl.DataFrame, names: list[str], row: Row, *, categories: str, missing: str, text: tuple[str, ...] = ()
) -> tuple[np.ndarray, tuple[tuple[str, ...] | None, ...]]:
    """Named columns as in `Table`: numbers, or codes of the levels of a text column; NaN where a value is missing.

    Args:
        frame: the frame.
        names: the columns.
        row: what messages call a row.
        categories, missing: as in `mfresnet.data.read_file`.
        text: columns that are text whatever they hold, with any number of different values.

    Raises:
        MfresnetError: text or missing values where they are refused, text that is no set of categories, numbers that
            cannot be used.
    """
    import polars as pl

    x, levels = np.empty((len(frame), len(names))), []
    for j, name in enumerate(names):
        series, what = _plain(frame[name], f"column {name!r}"), f"column {name!r}"
        if series.null_count() and missing == "refuse":
            i = int(series.is_null().arg_true()[0])
            raise MfresnetError(f"{what}, {row(i)}, has a missing value: set --data.missing mean or drop.")
        unread = _first_text(series)
        if name not in text:
            if unread is None:
                x[:, j] = _numbers(series, what, row)
                levels.append(None)
                continue
            _refuse_text(series, what, row, unread, categories)
        values = series.cast(pl.String)
        texts = values.drop_nulls().unique().sort().to_list()
        code = {level: float(place) for place, level in enumerate(texts)}
        x[:, j] = [np.nan if value is None else code[value] for value in values]
        levels.append(tuple(texts))
    return x, tuple(levels)


def _refuse_text(series: pl.Series, what: str, row: Row, place: int, categories: str) -> None:
    """Refuse text, of which there is some at ``place``, where it is not asked for or is no set of categories."""
    example = quote(series[place])
    if categories == "refuse":
        raise MfresnetError(
            f"{what}, {row(place)}, holds {example}, which is not a number: set --data.categories one-hot, or drop the "
            "column."
        )
    count = series.drop_nulls().n_unique()
    if count > FEW and 2 * count > len(series):
        raise MfresnetError(
            f"{what} holds text with {count} different values in {len(series)} rows (for example {example} in "
            f"{row(place)}), which is no set of categories: encode or drop it."
        )


def _plain(series: pl.Series, what: str) -> pl.Series:
    """A column of numbers, booleans or text, null where a value is missing."""
    import polars as pl

    if series.dtype in (pl.Categorical, pl.Enum):
        return series.cast(pl.String)
    if series.dtype.is_float():
        return series.fill_nan(None)
    if not (series.dtype.is_numeric() or series.dtype in (pl.Boolean, pl.String, pl.Null)):
        raise MfresnetError(f"{what} holds {series.dtype} values, which are not numbers: convert or drop it.")
    return series


def _first_text(series: pl.Series) -> int | None:
    """Place of the first value that is no number."""
    import polars as pl

    unread = series.cast(pl.Float64, strict=False).is_null() & series.is_not_null()
    return int(unread.arg_true()[0]) if unread.any() else None


def _numbers(series: pl.Series, what: str, row: Row) -> np.ndarray:
    """Numbers as float64, NaN where a value is missing, or an error that names the first that is not usable."""
    import polars as pl

    there = series.is_not_null().to_numpy()
    values = series.cast(pl.Float64, strict=False).to_numpy().astype(np.float64)
    refuse_unusable(np.where(there, values, 0.0), lambda i: f"{what}, {row(i)},")
    return np.where(there, values, np.nan)


def _target(series: pl.Series, what: str, row: Row) -> np.ndarray | list[str]:
    """Numbers where every entry is one, text otherwise."""
    import polars as pl

    series = _plain(series, what)
    if series.null_count():
        i = int(series.is_null().arg_true()[0])
        raise MfresnetError(
            f"{what}, {row(i)}, has a missing value: set --data.missing drop, which leaves such rows out."
        )
    if series.dtype == pl.Boolean:
        return ["true" if value else "false" for value in series]
    return series.to_list() if _first_text(series) is not None else _numbers(series, what, row)
