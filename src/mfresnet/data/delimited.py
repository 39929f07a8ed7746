"""CSV text: separator, decimal sign, gzip and marks of missing values are recognised; every cell comes out as text."""

from __future__ import annotations

import csv
import gzip
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from ..errors import MfresnetError
from .guard import call_reader, refuse_beyond_memory
from .table import quote

if TYPE_CHECKING:
    import polars as pl

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
GZIP = b"\x1f\x8b"
BLOCK = 2**24
MISSING = ("NA", "N/A", "#N/A", "<NA>", "n/a", "NaN", "nan", "NULL", "null", "None", "?", "-")  # beside an empty cell
DECIMAL_COMMA = r"^[+-]?\d*,\d+([eE][+-]?\d+)?$"
THOUSANDS = r"^[+-]?[1-9]\d{0,2}(,\d{3})+$"
THOUSANDS_POINT = r"^[+-]?[1-9]\d{0,2}\.\d{3}$"


def csv_frame(file: Path) -> tuple[pl.DataFrame, Callable[[int], str], tuple[str, ...]]:
    """The cells of a CSV file with a header, as text.

    - Text that begins as gzip does is unpacked.
    - The separator is the one of comma, semicolon, tab and vertical bar that divides the header into most columns.
    - Empty cells are missing, and so are NA, N/A, NaN, NULL, None, ? and - in a column that holds numbers otherwise.
    - Where the separator is no comma, numbers may have a decimal comma; the notes name these columns.

    Returns:
        Columns of text under their names; the row of the file (the header is row 1) for a row of the frame; notes.

    Raises:
        MfresnetError: no UTF-8 text, rows longer than the header, names that are missing or not unique, numbers whose
            comma may divide thousands.
    """
    import polars as pl

    text, skipped = _text(file)
    separator = find_separator(text.decode("utf-8"))

    def read() -> pl.DataFrame:
        try:
            return pl.read_csv(io.BytesIO(text), has_header=False, infer_schema=False, separator=separator)
        except pl.exceptions.ComputeError:
            _refuse_ragged(file, text, separator, skipped)
            raise

    frame = call_reader(file, "CSV", read)
    names = [(name or "").strip() for name in frame.row(0)]
    frame = frame.with_columns(pl.all().str.strip_chars().replace("", None))
    frame = frame.with_row_index("\0row", offset=1 + skipped).slice(1)
    frame = frame.filter(~pl.all_horizontal(pl.exclude("\0row").is_null()))  # blank lines
    number = frame["\0row"].to_list()
    frame = frame.drop("\0row")
    refuse_names(file, names)
    frame = frame.rename(dict(zip(frame.columns, names, strict=True)))

    def row(i: int) -> str:
        return f"row {number[i]}"

    notes = () if separator == "," else (f"The columns of {file.name!r} are separated by {SEPARATORS[separator]}.",)
    if separator != ",":
        frame, commas = _with_decimal_points(frame, row)
        if commas:
            notes += (f"Numbers with a decimal comma were read in {', '.join(map(repr, commas))}.",)
    return frame.with_columns(_without_marks(series) for series in frame), row, notes


def find_separator(text: str) -> str:
    """The separator that divides the first record into most fields; of equals the first of comma, semicolon, tab, bar.

    >>> find_separator("a;b;c\\n1,5;2;3\\n")
    ';'
    """
    first = "".join(line for _, line in zip(range(20), io.StringIO(text), strict=False))
    return max(SEPARATORS, key=lambda separator: len(_first_record(first, separator)))


def _first_record(text: str, separator: str) -> list[str]:
    return next(csv.reader(io.StringIO(text, newline=""), delimiter=separator), [])


def _text(file: Path) -> tuple[bytes, int]:
    """UTF-8 text from its first line that is not blank, and the number of lines before it."""
    raw = call_reader(file, "CSV", file.read_bytes)
    if raw.startswith(GZIP):
        raw = call_reader(file, "gzip", lambda: _unpack(raw, file))
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise MfresnetError(f"file {str(file)!r} is not UTF-8 text (line {line}): save it as UTF-8.") from error
    if b"\0" in raw:
        raise MfresnetError(f"file {str(file)!r} holds a NUL byte: it is not a CSV text file.")
    raw = raw.removeprefix(b"\xef\xbb\xbf")
    if b"\n" not in raw:
        raw = raw.replace(b"\r", b"\n")  # the line ends of old Macs
    text = raw.lstrip(b"\r\n")
    return text, raw[: len(raw) - len(text)].count(b"\n")


def _unpack(raw: bytes, file: Path) -> bytes:
    """The content of a gzip file, refused as soon as it is larger than memory."""
    parts, size = [], 0
    with gzip.GzipFile(fileobj=io.BytesIO(raw)) as stream:
        while block := stream.read(BLOCK):
            parts.append(block)
            size += len(block)
            refuse_beyond_memory(3.0 * size, f"file {str(file)!r}, unpacked,")
    return b"".join(parts)


def _refuse_ragged(file: Path, text: bytes, separator: str, skipped: int) -> None:
    """Name the first row with more fields than the header, if that is what is wrong."""
    rows = csv.reader(io.StringIO(text.decode("utf-8"), newline=""), delimiter=separator)
    width = len(next(rows, []))
    for number, fields in enumerate(rows, start=2 + skipped):
        if len(fields) > width:
            raise MfresnetError(f"file {str(file)!r}, row {number}, has {len(fields)} fields, the header has {width}.")


def refuse_names(file: Path, names: list[str]) -> None:
    """Refuse columns without a name, and two of one name."""
    for place, name in enumerate(names, start=1):
        if not name:
            raise MfresnetError(
                f"column {place} of {str(file)!r} has no name: name it, or remove it if it only counts the rows."
            )
        if name in names[: place - 1]:
            raise MfresnetError(f"column name {name!r} appears twice in {str(file)!r}.")


def _with_decimal_points(frame: pl.DataFrame, row: Callable[[int], str]) -> tuple[pl.DataFrame, list[str]]:
    """Decimal points for the commas of every column of numbers, and the names of these columns.

    Raises:
        MfresnetError: all commas of a column, or all points beside decimal commas in others, may divide thousands.
    """
    changed, names = [], []
    for series in frame:
        commas = series.str.contains(DECIMAL_COMMA).fill_null(False)
        if not commas.any():
            continue
        pointed = series.str.replace(",", ".").zip_with(commas, series)
        if not _holds_numbers(pointed):
            continue
        if series.filter(commas).str.contains(THOUSANDS).all():
            _refuse_ambiguous(series, int(commas.arg_true()[0]), row)
        changed.append(pointed)
        names.append(series.name)
    for series in frame if names else ():  # where commas are decimal, points may divide thousands
        points = series.str.contains(".", literal=True).fill_null(False)
        alike = points.any() and series.filter(points).str.contains(THOUSANDS_POINT).all()
        if alike and (series.name in names or _holds_numbers(series)):
            _refuse_ambiguous(series, int(points.arg_true()[0]), row)
    return frame.with_columns(changed), names


def _holds_numbers(series: pl.Series) -> bool:
    """Whether all cells of a column of text are numbers, but for marks of missing values."""
    import polars as pl

    rest = series.filter(~_is_mark(series))
    return rest.cast(pl.Float64, strict=False).null_count() == rest.null_count()


def _refuse_ambiguous(series: pl.Series, place: int, row: Callable[[int], str]) -> NoReturn:
    """Refuse a column whose commas, or points beside decimal commas elsewhere, may divide thousands."""
    text = series[place]
    raise MfresnetError(
        f"column {series.name!r}, {row(place)}, holds {quote(text)}, which may be {text.replace(',', '.')} or "
        f"{re.sub('[,.]', '', text)}: write the numbers of this column with a decimal point, and thousands without a "
        "separator."
    )


def _without_marks(series: pl.Series) -> pl.Series:
    """Null for the marks of missing values, in a column that holds numbers otherwise."""
    import polars as pl

    marks = _is_mark(series)
    if not marks.any():
        return series
    rest = series.filter(~marks)
    if rest.null_count() == len(rest) or rest.cast(pl.Float64, strict=False).null_count() > rest.null_count():
        return series
    return series.set(marks, None)


def _is_mark(series: pl.Series) -> pl.Series:
    return series.is_in(list(MISSING)).fill_null(False)
