"""Parquet files of encoded images: columns img (a struct of bytes and path, or plain bytes) and label."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...errors import MfresnetError
from ..frames import parquet_frame
from ..guard import call_reader
from .cache import Say, file_sha256, load_cached
from .decoding import decode_images
from .sets import ImageSet, refuse_labels

if TYPE_CHECKING:
    import polars as pl

IMAGE, LABEL = ("img", "image"), ("label", "fine_label")
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def parquet_images(
    file: Path, cache: Path, say: Say, classes: tuple[str, ...] | None = None
) -> tuple[ImageSet, tuple[str, ...]]:
    """The images of one Parquet file and notes on what was decided; decoded once, then kept in the cache.

    The label is a whole number that counts the classes from 0, or text. Names of the classes that the file declares
    (as the Hugging Face datasets package writes them) are taken; otherwise whole numbers are called 0, 1, ..., save
    that ten classes of 32 x 32 colour images in a place called cifar10 get the names of CIFAR-10.

    Args:
        file: the Parquet file.
        cache: the cache directory.
        say: told what happens.
        classes: those of the training file, where this is the test file that goes with it.

    Raises:
        MfresnetError: a missing column, a label or an image that cannot be used, with its row.
    """
    key = call_reader(file, "Parquet", lambda: file_sha256(file))
    if classes is not None:  # the same file may be read with other classes
        key += "-" + hashlib.sha256("\0".join(classes).encode()).hexdigest()[:8]
    elif _is_called_cifar10(file):
        key += "-cifar10"
    return load_cached(cache, key, file.name, lambda: _decode_table(file, classes, say), say)


def _decode_table(file: Path, classes: tuple[str, ...] | None, say: Say) -> tuple[ImageSet, tuple[str, ...]]:
    frame, row = parquet_frame(file)
    what = f"file {str(file)!r}"
    if not len(frame):
        raise MfresnetError(f"{what} has no rows.")
    image, label = _column(frame, IMAGE, what), _column(frame, LABEL, what)

    def place(i: int) -> str:
        return f"{what}, {row(i)},"

    declared = _declared_classes(file, label.name) if classes is None else classes
    y, names = _labels(label, declared, what, place)
    data = _bytes(image, what, place)
    say(f"decoding {len(data)} images of {str(file)!r}.")
    x, notes = decode_images(data, place)
    if declared is None and x.shape[1:] == (32, 32, 3) and names == _number_classes(10) and _is_called_cifar10(file):
        names = CIFAR10
        notes += (f"the labels of {file.name!r} were taken for CIFAR-10's: 0 airplane to 9 truck.",)
    return ImageSet(x, y, names, file.name), notes


def _declared_classes(file: Path, label: str) -> tuple[str, ...] | None:
    """Class names that the file itself declares, as the Hugging Face datasets package writes them."""
    import polars as pl

    metadata = call_reader(file, "Parquet", lambda: pl.read_parquet_metadata(io.BytesIO(file.read_bytes())))
    try:
        names = json.loads(metadata["huggingface"])["info"]["features"][label]["names"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
    usable = isinstance(names, list) and len(names) >= 2 and all(isinstance(name, str) for name in names)
    return tuple(names) if usable and len(set(names)) == len(names) else None


def _is_called_cifar10(file: Path) -> bool:
    return any(re.search(r"cifar[-_]?10(?!\d)", part.lower()) for part in file.absolute().parts[-2:])


def _number_classes(count: int) -> tuple[str, ...]:
    return tuple(str(c) for c in range(count))


def _column(frame: pl.DataFrame, known: tuple[str, ...], what: str) -> pl.Series:
    for name in known:
        if name in frame.columns:
            return frame[name]
    present = ", ".join(frame.columns[:20])
    raise MfresnetError(f"{what} has no column {known[0]!r}: images need the columns img and label; it has {present}.")


def _bytes(column: pl.Series, what: str, place: Callable[[int], str]) -> list[bytes]:
    import polars as pl

    if isinstance(column.dtype, pl.Struct) and "bytes" in (field.name for field in column.dtype.fields):
        column = column.struct.field("bytes")
    if column.dtype != pl.Binary:
        raise MfresnetError(
            f"column {column.name!r} of {what} holds {column.dtype}, not encoded images: it must hold the bytes of "
            "PNG or JPEG files, plain or as the field 'bytes' of a struct."
        )
    if column.null_count():
        raise MfresnetError(f"{place(int(column.is_null().arg_true()[0]))} has no image bytes; paths are not followed.")
    return column.to_list()


def _labels(
    column: pl.Series, classes: tuple[str, ...] | None, what: str, place: Callable[[int], str]
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Class codes and names."""
    import polars as pl

    if column.null_count():
        raise MfresnetError(f"{place(int(column.is_null().arg_true()[0]))} has no label.")
    if column.dtype in (pl.String, pl.Categorical, pl.Enum):
        texts = column.cast(pl.String).to_list()
        names = classes if classes is not None else tuple(sorted(set(texts)))
        code = {name: c for c, name in enumerate(names)}
        for i, text in enumerate(texts):
            if text not in code:
                raise MfresnetError(f"{place(i)} has label {text!r}, a class that no training image has.")
        return np.array([code[text] for text in texts], np.int32), names
    if not column.dtype.is_numeric():
        raise MfresnetError(f"the labels of {what} are {column.dtype}: whole numbers from 0, or text, are needed.")
    values = column.cast(pl.Float64).to_numpy()
    broken = ~np.isfinite(values) | (values != np.floor(values))
    if broken.any():
        i = int(np.argmax(broken))
        raise MfresnetError(f"{place(i)} has label {values[i]:g}, which is not a whole number.")
    if classes is None:
        largest = min(values.max(), 2**31 - 2)
        known = np.zeros(min(int(largest), len(values)) + 1, bool) if largest >= 0 else np.zeros(0, bool)
        known[values[(values >= 0) & (values < len(known))].astype(np.int64)] = True
        count = len(known) if known.all() else int(np.argmin(known))
        classes = _number_classes(max(count, 1))
        beyond = values >= count
        if beyond.any() and values.min() >= 0:
            i = int(np.argmax(beyond))
            raise MfresnetError(
                f"{place(i)} has label {values[i]:g}, which is out of range: no image has label {count}, and labels "
                "count the classes from 0 without a gap."
            )
    codes = np.clip(values, -1, 2**31 - 1).astype(np.int64)
    refuse_labels(codes, len(classes), place)
    return codes.astype(np.int32), classes
