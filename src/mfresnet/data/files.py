"""The user's own file: CSV, Parquet, NPZ, or a pair of NPY files. Pickle is never read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import MfresnetError
from .arrays import from_arrays, npy_array, npz_arrays
from .delimited import csv_frame
from .encoding import Encoding
from .frames import Row, columns_of, from_frame, parquet_frame
from .guard import refuse_beyond_memory
from .table import Table
from .transform import Transform

if TYPE_CHECKING:
    import polars as pl

TEXT = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
SUFFIXES = (*TEXT, ".parquet", ".npz", ".npy")


def read_file(
    path: str,
    target: str | None = None,
    labels: str | None = None,
    task: str = "auto",
    *,
    categories: str = "refuse",
    missing: str = "refuse",
) -> Table:
    """The rows of a user's file as a `Table`.

    ``.csv`` and ``.tsv`` (UTF-8 with a header, separated by commas, semicolons, tabs or vertical bars, also packed by
    gzip as ``.csv.gz``; see `mfresnet.data.delimited.csv_frame`) and ``.parquet``: ``target`` names the column to
    predict, all others are features. ``.npz``: arrays x (or X), and y or the array that ``target`` names. ``.npy``:
    inputs, with ``labels`` the NPY file of the targets. x has shape (n, d); y has shape (n,) or (n, 1).

    Args:
        path: the file.
        target, labels: where the target is.
        task: auto, classification or regression.
        categories: refuse text in features, or "one-hot": see `mfresnet.data.Encoding`.
        missing: refuse missing values; "mean" keeps them as NaN for `mfresnet.data.Encoding`; "drop" drops their rows.

    Raises:
        MfresnetError: one sentence for whatever is wrong with the file, naming row and column where there is one.

    >>> import tempfile, pathlib
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder, "points.csv")
    ...     _ = file.write_text("a;b;kind\\n1,5;2;no\\n2;1;yes\\n1;3;no\\n3;1;yes\\n")
    ...     read_file(str(file), target="kind").x[0].tolist()
    [1.5, 2.0]
    """
    file = _existing(path)
    suffix = _suffix(file)
    if suffix not in SUFFIXES:
        pickled = " (pickle is never read)" if suffix in (".pkl", ".pickle", ".joblib") else ""
        raise MfresnetError(f"file {path!r} has an ending that cannot be read{pickled}: use {', '.join(SUFFIXES)}.")
    if labels is not None and suffix != ".npy":
        raise MfresnetError(f"data.labels goes with an NPY file of inputs, not with {path!r}: use data.target.")
    if suffix == ".npy":
        if target is not None:
            raise MfresnetError(f"data.target does not apply to {path!r}: data.labels names the NPY file of targets.")
        if labels is None:
            raise MfresnetError(f"file {path!r} holds inputs only: data.labels must name the NPY file of the targets.")
        return from_arrays(file, npy_array(file), npy_array(_existing(labels)), f"file {labels!r}", task, missing)
    if suffix == ".npz":
        return from_arrays(file, *npz_arrays(file, target), task, missing)
    frame, row, notes = _frame(file, suffix)
    return from_frame(file, frame, row, target, task, categories=categories, missing=missing, notes=notes)


def read_inputs(path: str, encoding: Encoding, transform: Transform) -> tuple[np.ndarray, tuple[str, ...]]:
    """The inputs of new rows of a CSV or Parquet file, brought to where a network was trained.

    Columns are taken by their names; others, such as the target, are left out.

    Args:
        path: the file.
        encoding, transform: those of the `mfresnet.data.Split` of the training, or those recorded in the
            ``config.json`` of a run (``data``, ``map``) by their ``from_dict``.

    Returns:
        Inputs (n, d), and a note for each text column with values that the training did not have.

    Raises:
        MfresnetError: a file that cannot be read, a column that is missing from it, values that cannot be used.
    """
    file = _existing(path)
    suffix = _suffix(file)
    if suffix not in (*TEXT, ".parquet"):
        raise MfresnetError(f"file {path!r} has no named columns: use {', '.join((*TEXT, '.parquet'))}.")
    frame, row, _ = _frame(file, suffix)
    for name in encoding.columns:
        if name not in frame.columns:
            raise MfresnetError(f"file {path!r} has no column {name!r}, which the network was trained on.")
    missing = "refuse" if encoding.fill is None else "mean"
    text = tuple(name for name, own in zip(encoding.columns, encoding.levels, strict=True) if own is not None)
    x, levels = columns_of(frame, list(encoding.columns), row, categories="one-hot", missing=missing, text=text)
    notes = tuple(
        f"{count} of {len(x)} rows have a value of {name!r} that was not seen in training: its columns are all 0 there."
        for name, count in encoding.unseen(x, levels).items()
    )
    return transform.apply(encoding.apply(x, levels)), notes


def _suffix(file: Path) -> str:
    return next((ending for ending in SUFFIXES if file.name.lower().endswith(ending)), file.suffix.lower())


def _frame(file: Path, suffix: str) -> tuple[pl.DataFrame, Row, tuple[str, ...]]:
    """Named columns, what messages call a row, and notes."""
    return csv_frame(file) if suffix in TEXT else (*parquet_frame(file), ())


def _existing(path: str) -> Path:
    file = Path(path)
    try:
        if file.is_dir():
            raise MfresnetError(f"{path!r} is a directory: name a file inside it.")
        if not file.exists():
            raise MfresnetError(f"file {path!r} does not exist.")
        if (size := file.stat().st_size) == 0:
            raise MfresnetError(f"file {path!r} is empty.")
        refuse_beyond_memory(2.0 * size, f"file {path!r}")
    except OSError as error:
        raise MfresnetError(f"file {path!r} cannot be read: {error.strerror or error}.") from error
    return file
