"""Data that are in memory already: arrays of any library, or a data frame."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..config import DataConfig
from ..errors import MfresnetError
from .arrays import from_arrays
from .dataset import Split
from .frames import from_frame
from .loading import split_table
from .table import Table


def split_of(data: Any, config: DataConfig, seed: int = 0, *, map_share: float = 1.0) -> Split:
    """A training and a test set from data in memory, by the settings that hold for a file of the same content.

    Args:
        data: a pair (x, y) of arrays that NumPy can read, inputs (n, d) and targets (n,): numbers, or labels; a data
            frame of polars or pandas, whose column ``config.target`` is the target; a `Table`; or a `Split`, which is
            returned as it is.
        config: the section ``data`` of the configuration; its name is not used.
        seed: of the split.
        map_share: what ``config.map_share`` = None stands for.

    Raises:
        MfresnetError: data of another type, values that are not allowed, a column that is not there.

    >>> x = np.linspace(-1, 1, 40).reshape(20, 2)
    >>> split_of((x, np.where(x[:, 0] > 0, "right", "left")), DataConfig()).train
    Dataset('arrays', n=15, d=2, C=1, binary)
    """
    if isinstance(data, Split):
        return data
    return split_table(_table(data, config), config, seed, map_share=map_share)


def _table(data: Any, config: DataConfig) -> Table:
    if isinstance(data, Table):
        return data
    if isinstance(data, tuple) and len(data) == 2:
        x, y = (np.asarray(part) for part in data)
        return from_arrays(Path("arrays"), x, y, "the target", config.task, config.missing)
    if hasattr(data, "columns") and hasattr(data, "__getitem__"):
        return from_frame(
            Path("data frame"),
            _polars(data),
            lambda i: f"row {i} (counted from 0)",
            config.target,
            config.task,
            categories=config.categories,
            missing=config.missing,
        )
    raise MfresnetError(
        f"data of type {type(data).__name__} cannot be used: give (x, y), a data frame of polars or pandas, or a Split."
    )


def _polars(frame: Any) -> Any:
    """The frame in polars; columns of pandas go through NumPy, their missing values as null."""
    import polars as pl

    if isinstance(frame, pl.DataFrame):
        return frame
    columns = {}
    for name in frame.columns:
        values = np.asarray(frame[name])
        if values.dtype.kind == "O":
            missing = np.asarray(frame[name].isna())
            values = [None if gone else value for value, gone in zip(values.tolist(), missing, strict=True)]
        columns[str(name)] = pl.Series(str(name), values, strict=False)
    return pl.DataFrame(columns)
