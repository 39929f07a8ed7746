"""Guards: what cannot fit is refused before it is allocated, what a library raises becomes one sentence."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import psutil

from ..errors import MfresnetError

T = TypeVar("T")


def call_reader(file: Path, kind: str, read: Callable[[], T]) -> T:
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


def refuse_beyond_memory(needed: float, what: str) -> None:
    """Raise `MfresnetError` if ``needed`` bytes are not available now.

    >>> refuse_beyond_memory(1e18, "data set 'circles' with n = 10")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    mfresnet.errors.MfresnetError: data set 'circles' with n = 10 needs about 1e+09 GB of memory, ...
    """
    available = psutil.virtual_memory().available
    if needed > available:
        raise MfresnetError(
            f"{what} needs about {needed / 1e9:.3g} GB of memory, {available / 1e9:.3g} GB are available: "
            "take fewer points or features."
        )
