"""The user's own file: CSV, Parquet, NPZ, or a pair of NPY files. Pickle is never read."""

from __future__ import annotations

from pathlib import Path

from ..errors import MfresnetError
from .arrays import from_arrays, npy_array, npz_arrays
from .frames import csv_frame, from_frame, parquet_frame
from .guard import refuse_beyond_memory
from .table import Table

SUFFIXES = (".csv", ".parquet", ".npz", ".npy")


def read_file(path: str, target: str | None = None, labels: str | None = None, task: str = "auto") -> Table:
    """The rows of a user's file as a `Table`.

    ``.csv`` (UTF-8, commas, a header) and ``.parquet``: ``target`` names the column to predict, all others are
    features and must be numbers. ``.npz``: arrays x (or X), and y or the array that ``target`` names. ``.npy``:
    inputs, with ``labels`` the NPY file of the targets. x has shape (n, d); y has shape (n,) or (n, 1).

    Raises:
        MfresnetError: one sentence for whatever is wrong with the file, naming row and column where there is one.

    >>> import tempfile, pathlib
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder, "points.csv")
    ...     _ = file.write_text("a,b,kind\\n1,2,no\\n2,1,yes\\n1,3,no\\n3,1,yes\\n")
    ...     read_file(str(file), target="kind").classes
    ('no', 'yes')
    """
    file = _existing(path)
    suffix = file.suffix.lower()
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
        return from_arrays(file, npy_array(file), npy_array(_existing(labels)), f"file {labels!r}", task)
    if suffix == ".npz":
        return from_arrays(file, *npz_arrays(file, target), task)
    frame, row = csv_frame(file) if suffix == ".csv" else parquet_frame(file)
    return from_frame(file, frame, row, target, task)


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
