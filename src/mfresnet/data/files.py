"""The user's own file: CSV, Parquet, NPZ, or a pair of NPY files. Pickle is never read."""

from __future__ import annotations

import csv
import difflib
import io
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import MfresnetError
from .memory import refuse_beyond_memory
from .table import Table, refuse_unusable, understand

if TYPE_CHECKING:
    import polars as pl

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
        return _from_arrays(file, _npy(file), _npy(_existing(labels)), f"file {labels!r}", task)
    if suffix == ".npz":
        return _from_arrays(file, *_npz(file, target), task)
    frame, row = _csv(file) if suffix == ".csv" else _parquet(file)
    return _from_frame(file, frame, row, target, task)


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


def _guarded(file: Path, kind: str, read: Callable[[], Any]) -> Any:
    """What ``read`` returns; any failure of the library behind it as one sentence."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return read()
    except MfresnetError:
        raise
    except BaseException as error:
        # Rust panics of polars on a damaged file are no Exception, but they are a damaged file.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        reason = " ".join(str(error).split())[:160].rstrip(". ") or type(error).__name__
        raise MfresnetError(f"file {str(file)!r} cannot be read as {kind}: {reason}.") from error


# Tables of columns


def _csv(file: Path) -> tuple[pl.DataFrame, Callable[[int], str]]:
    """Text columns under their names, and the row of the file (the header is row 1) for a row of the frame."""
    import polars as pl

    raw = _guarded(file, "CSV", file.read_bytes)
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

    frame = _guarded(file, "CSV", read)
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


def _parquet(file: Path) -> tuple[pl.DataFrame, Callable[[int], str]]:
    import polars as pl

    # From memory, so that the name is never taken for a pattern or an address.
    frame = _guarded(file, "Parquet", lambda: pl.read_parquet(io.BytesIO(file.read_bytes())))
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


def _from_frame(file: Path, frame: pl.DataFrame, row: Callable[[int], str], target: str | None, task: str) -> Table:
    names = frame.columns
    shown = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
    if target is None:
        raise MfresnetError(f"data.target must name the column of {str(file)!r} to predict; columns: {shown}.")
    if target not in names:
        if len(names) == 1 and any(sign in names[0] for sign in ";\t|"):
            raise MfresnetError(f"file {str(file)!r} has the single column {names[0]!r}: separate columns by commas.")
        close = difflib.get_close_matches(target, names, n=1, cutoff=0.5)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise MfresnetError(f"file {str(file)!r} has no column {target!r}: {hint}Columns: {shown}.")
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
        raise MfresnetError(f"{what}, {row(i)}, holds {_short(series[i])}, which is not a number: encode or drop it.")
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


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


# Arrays


def _npy(file: Path) -> np.ndarray:
    def read() -> np.ndarray:
        with file.open("rb") as stream:
            if stream.read(6) != b"\x93NUMPY":
                raise MfresnetError(f"file {str(file)!r} is not an NPY file.")
            stream.seek(0)
            return _plain(np.lib.format.read_array, stream, f"file {str(file)!r}")

    return _guarded(file, "NPY", read)


def _npz(file: Path, target: str | None) -> tuple[np.ndarray, np.ndarray, str]:
    """Inputs, targets, and what messages call the targets."""

    def read() -> tuple[np.ndarray, np.ndarray, str]:
        with zipfile.ZipFile(file) as archive:
            sizes = {i.filename.removesuffix(".npy"): i.file_size for i in archive.infolist()}
            present = f"arrays in it: {', '.join(sizes) or 'none'}"
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

    return _guarded(file, "NPZ", read)


def _plain(read: Callable[..., np.ndarray], stream: Any, what: str) -> np.ndarray:
    try:
        return read(stream, allow_pickle=False)
    except ValueError as error:
        if "Object arrays" not in str(error) and "pickle" not in str(error):
            raise
        raise MfresnetError(f"{what} holds Python objects, and pickle is never read: save numbers or text.") from error


def _from_arrays(file: Path, x: np.ndarray, y: np.ndarray, what: str, task: str) -> Table:
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
    refuse_unusable(x, lambda i, j: f"{inputs}, row {i}, column {j} (counted from 0),")
    goal = understand(_array_target(file, y, what), task, what, lambda i: f"row {i} (counted from 0)")
    columns = tuple(f"x{j}" for j in range(x.shape[1]))
    return Table(file.name, x, goal.values, goal.task, goal.classes, columns, goal.notes)


def _array_target(file: Path, y: np.ndarray, what: str) -> np.ndarray | list[str]:
    if y.dtype.kind == "S":
        y = _guarded(file, "text", lambda: np.char.decode(y, "utf-8"))
    if y.dtype.kind == "U":
        texts = _guarded(file, "text", lambda: [str(v).encode("utf-8").decode("utf-8").strip() for v in y])
        if "" in texts:
            raise MfresnetError(f"{what}, row {texts.index('')} (counted from 0), has a missing value.")
        return texts
    if y.dtype.kind == "b":
        return ["true" if v else "false" for v in y]
    with np.errstate(over="ignore"):
        values = y.astype(np.float64)
    refuse_unusable(values, lambda i: f"{what}, row {i} (counted from 0),")
    return values
