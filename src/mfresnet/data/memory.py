"""Refusing what cannot fit, before it is allocated."""

from __future__ import annotations

import psutil

from ..errors import MfresnetError


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
