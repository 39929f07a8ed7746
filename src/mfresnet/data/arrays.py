"""NPZ and NPY: plain arrays; pickled objects inside them are refused."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import MfresnetError
from .guard import call_reader, refuse_beyond_memory
from .table import Table, describe_dropped, refuse_unusable, understand


def npy_array(file: Path) -> np.ndarray:
    def read() -> np.ndarray:
        with file.open("rb") as stream:
            if stream.read(6) != b"\x93NUMPY":
                raise MfresnetError(f"file {str(file)!r} is not an NPY file.")
            stream.seek(0)
            return _plain(np.lib.format.read_array, stream, f"file {str(file)!r}")

    return call_reader(file, "NPY", read)


def npz_arrays(file: Path, target: str | None) -> tuple[np.ndarray, np.ndarray, str]:
    """Inputs, targets, and what messages call the targets."""

    def read() -> tuple[np.ndarray, np.ndarray, str]:
        with zipfile.ZipFile(file) as archive:
            sizes = {i.filename.removesuffix(".npy"): i.file_size for i in archive.infolist()}
            present = f"arrays in it: {', '.join(' '.join(sizes).split()) or 'none'}"
            x_name = next((k for k in ("x", "X") if k in sizes and k != target), None)
            y_name = target if target is not None else next((k for k in ("y", "Y") if k in sizes), None)
            if x_name is None:
                raise MfresnetError(f"file {str(file)!r} has no array 'x' or 'X' of inputs ({present}).")
            if y_name not in sizes:
                missing = "'y'" if target is None else repr(target)
                raise MfresnetError(f"file {str(file)!r} has no target array {missing} ({present}).")
            refuse_beyond_memory(2 * (sizes[x_name] + sizes[y_name]), f"file {str(file)!r}")
            out = []
            for name in (x_name, y_name):
                with archive.open(name + ".npy") as stream:
                    out.append(_plain(np.lib.format.read_array, stream, f"array {name!r} of {str(file)!r}"))
                    stream.read()  # to the end, where the archive's checksum is compared
            return out[0], out[1], f"array {y_name!r} of {str(file)!r}"

    return call_reader(file, "NPZ", read)


def _plain(read: Callable[..., np.ndarray], stream: Any, what: str) -> np.ndarray:
    try:
        return read(stream, allow_pickle=False)
    except ValueError as error:
        if "Object arrays" not in str(error) and "pickle" not in str(error):
            raise
        raise MfresnetError(f"{what} holds Python objects, and pickle is never read: save numbers or text.") from error


def from_arrays(file: Path, x: np.ndarray, y: np.ndarray, what: str, task: str, missing: str = "refuse") -> Table:
    """The table of two arrays of a file.

    Args:
        file: where they come from.
        x, y: inputs (n, d) and targets (n,) or (n, 1).
        what: how messages call the targets.
        task, missing: as in `mfresnet.data.read_file`; NaN is a missing value.
    """
    inputs = f"the inputs of {str(file)!r}"
    if x.ndim != 2 or x.shape[1] == 0:
        raise MfresnetError(f"{inputs} must have shape (rows, features), they have shape {x.shape}.")
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1:
        raise MfresnetError(f"{what} must have shape (rows,) or (rows, 1), it has shape {y.shape}.")
    if len(x) != len(y):
        raise MfresnetError(f"{inputs} have {len(x)} rows but {what} has {len(y)}.")
    for array, name in ((x, inputs), (y, what)):
        if array.dtype.kind not in ("biuf" if array is x else "biufUS"):
            raise MfresnetError(f"{name} hold values of type {array.dtype}, which are not numbers.")
    with np.errstate(over="ignore"):
        x = x.astype(np.float64)
    places, notes = np.arange(len(x)), ()
    gaps = np.isnan(x)
    if missing == "drop":
        kept = ~np.any(gaps, axis=1)
        if y.dtype.kind == "f":
            kept &= ~np.isnan(y)
        places = np.flatnonzero(kept)
        notes = describe_dropped(len(x) - len(places), len(x))
        x, y, gaps = x[kept], y[kept], gaps[kept]
    elif missing == "refuse" and gaps.any():
        i, j = np.argwhere(gaps)[0]
        raise MfresnetError(
            f"{inputs}, row {i}, column {j} (counted from 0), is nan, a missing value: set --data.missing mean or drop."
        )
    refuse_unusable(np.where(gaps, 0.0, x), lambda i, j: f"{inputs}, row {places[i]}, column {j} (counted from 0),")
    goal = understand(_array_target(file, y, what), task, what, lambda i: f"row {places[i]} (counted from 0)")
    columns = tuple(f"x{j}" for j in range(x.shape[1]))
    return Table(file.name, x, goal.values, goal.task, goal.classes, columns, notes + goal.notes)


def _array_target(file: Path, y: np.ndarray, what: str) -> np.ndarray | list[str]:
    if y.dtype.kind == "S":
        y = call_reader(file, "text", lambda: np.char.decode(y, "utf-8"))
    if y.dtype.kind == "U":
        texts = call_reader(file, "text", lambda: [str(v).encode("utf-8").decode("utf-8").strip() for v in y])
        if "" in texts:
            raise MfresnetError(f"{what}, row {texts.index('')} (counted from 0), has a missing value.")
        return texts
    if y.dtype.kind == "b":
        return ["true" if v else "false" for v in y]
    with np.errstate(over="ignore"):
        values = y.astype(np.float64)
    refuse_unusable(values, lambda i: f"{what}, row {i} (counted from 0),")
    return values
