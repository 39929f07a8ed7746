"""CSV and Parquet through polars: a table of named columns, one of them the target."""

from __future__ import annotations

import csv
import difflib
import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import MfresnetError
from .guard import guarded, refuse_beyond_memory
from .table import Table, refuse_unusable, shown, understand

if TYPE_CHECKING:
    import polars as pl


def csv_frame(file: Path) -> tuple[pl.DataFrame, Callable[[int], str]]:
    """Text columns under their names, and the row of the file (the header is row 1) for a row of the frame."""
    import polars as pl

    raw = guarded(file, "CSV", file.read_bytes)
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise MfresnetError(f"file {str(file)!r} is not UTF-8 text (line {line}): save it as UTF-8.") from error
    if b"\0" in raw:
        raise MfresnetError(f"file {str(file)!r} holds a NUL byte: it is not a CSV text file.")
    if b"\n" not in raw:
        raw = raw.replace(b"\r", b"\n")  # the line ends of old Macs
    text = raw.lstrip(b"\r\n")
    skipped = raw[: len(raw) - len(text)].count(b"\n")

    def read() -> pl.DataFrame:
        try:
            return pl.read_csv(io.BytesIO(text), has_header=False, infer_schema=False)
        except pl.exceptions.ComputeError:
            _refuse_ragged(file, text, skipped)
            raise

    frame = guarded(file, "CSV", read)
    names = [(name or "").strip() for name in frame.row(0)]
    frame = frame.with_columns(pl.all().str.strip_chars().replace("", None))
    frame = frame.with_row_index("\0row", offset=1 + skipped).slice(1)
    frame = frame.filter(~pl.all_horizontal(pl.exclude("\0row").is_null()))  # blank lines
    number = frame["\0row"].to_list()
    frame = frame.drop("\0row")
    _refuse_names(file, names)
    return frame.rename(dict(zip(frame.columns, names, strict=True))), lambda i: f"row {number[i]}"


def _refuse_ragged(file: Path, text: bytes, skipped: int) -> None:
    """Name the first row with more fields than the header, if that is what is wrong."""
    rows = csv.reader(io.StringIO(text.decode("utf-8"), newline=""))
    width = len(next(rows, []))
    for number, fields in enumerate(rows, start=2 + skipped):
        if len(fields) > width:
            raise MfresnetError(f"file {str(file)!r}, row {number}, has {len(fields)} fields, the header has {width}.")


def parquet_frame(file: Path) -> tuple[pl.DataFrame, Callable[[int], str]]:
    import polars as pl

    # From memory, so that the name is never taken for a pattern or an address.
    frame = guarded(file, "Parquet", lambda: pl.read_parquet(io.BytesIO(file.read_bytes())))
    _refuse_names(file, frame.columns)
    return frame, lambda i: f"row {i} (counted from 0)"


def _refuse_names(file: Path, names: list[str]) -> None:
    for place, name in enumerate(names, start=1):
        if not name:
            raise MfresnetError(
                f"column {place} of {str(file)!r} has no name: name it, or remove it if it only counts the rows."
            )
        if name in names[: place - 1]:
            raise MfresnetError(f"column name {name!r} appears twice in {str(file)!r}.")


def from_frame(file: Path, frame: pl.DataFrame, row: Callable[[int], str], target: str | None, task: str) -> Table:
    names = frame.columns
    known = " ".join(", ".join(names[:20]).split()) + (", ..." if len(names) > 20 else "")
    if target is None:
        raise MfresnetError(f"data.target must name the column of {str(file)!r} to predict; columns: {known}.")
    if target not in names:
        if len(names) == 1 and any(sign in names[0] for sign in ";\t|"):
            raise MfresnetError(f"file {str(file)!r} has the single column {names[0]!r}: separate columns by commas.")
        close = difflib.get_close_matches(target, names, n=1, cutoff=0.5)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise MfresnetError(f"file {str(file)!r} has no column {target!r}: {hint}Columns: {known}.")
    features = [name for name in names if name != target]
    if not features:
        raise MfresnetError(f"file {str(file)!r} has no feature columns beside the target {target!r}.")
    if len(frame) < 2:
        raise MfresnetError(f"file {str(file)!r} has {len(frame)} row(s) of data: at least 2 are needed.")
    refuse_beyond_memory(2 * 8 * len(frame) * len(features), f"file {str(file)!r}")
    x = np.empty((len(frame), len(features)))
    for j, name in enumerate(features):
        x[:, j] = _numbers(frame[name], f"column {name!r}", row)
    what = f"target column {target!r}"
    goal = understand(_target(frame[target], what, row), task, what, row)
    return Table(file.name, x, goal.values, goal.task, goal.classes, tuple(features), goal.notes)


def _numbers(series: pl.Series, what: str, row: Callable[[int], str]) -> np.ndarray:
    """A column as finite float64, or an error that names its first bad row."""
    import polars as pl

    _refuse_missing(series, what, row)
    if not (series.dtype.is_numeric() or series.dtype in (pl.Boolean, pl.String, pl.Categorical, pl.Enum, pl.Null)):
        raise MfresnetError(f"{what} holds {series.dtype} values, which are not numbers: convert or drop it.")
    if series.dtype in (pl.Categorical, pl.Enum):
        series = series.cast(pl.String)
    numbers = series.cast(pl.Float64, strict=False)
    unread = numbers.is_null()
    if unread.any():
        i = int(unread.arg_true()[0])
        raise MfresnetError(f"{what}, {row(i)}, holds {shown(series[i])}, which is not a number: encode or drop it.")
    values = numbers.to_numpy().astype(np.float64)
    refuse_unusable(values, lambda i: f"{what}, {row(i)},")
    return values


def _target(series: pl.Series, what: str, row: Callable[[int], str]) -> np.ndarray | list[str]:
    """Numbers where every entry is one, text otherwise."""
    import polars as pl

    _refuse_missing(series, what, row)
    if series.dtype == pl.Boolean:
        return ["true" if value else "false" for value in series]
    if series.dtype in (pl.String, pl.Categorical, pl.Enum):
        series = series.cast(pl.String)
        if series.cast(pl.Float64, strict=False).is_null().any():
            return series.to_list()
    return _numbers(series, what, row)


def _refuse_missing(series: pl.Series, what: str, row: Callable[[int], str]) -> None:
    if series.null_count():
        i = int(series.is_null().arg_true()[0])
        raise MfresnetError(f"{what}, {row(i)}, has a missing value: fill it or drop the row.")
