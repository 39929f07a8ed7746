"""Numbers with the digits that their errors support."""

from __future__ import annotations

import math


def format_with_error(value: float, error: float, sign: str = "±") -> str:
    """value ± error to the first digit of the error, or the second where the first is a 1.

    Args:
        sign: between the two, "+-" for terminals.

    >>> format_with_error(0.3066, 0.0857), format_with_error(1.0303, 0.0137), format_with_error(14.7, 0.0)
    ('0.31 ± 0.09', '1.030 ± 0.014', '15')
    """
    if not (math.isfinite(error) and error > 0 and math.isfinite(value)):
        return format_plain(value)
    exponent = math.floor(math.log10(error))
    places = -exponent + (error / 10.0**exponent < 1.95)
    if not -1 <= places <= 6:
        return f"{value:.2g} {sign} {error:.1g}"
    return f"{value:,.{max(places, 0)}f} {sign} {error:,.{max(places, 0)}f}"


def format_plain(value: float, digits: int = 2) -> str:
    """A value whose error is not known, to a few significant digits, without a power of ten where it needs none.

    Whole numbers, such as steps, have no digits after the point.

    >>> format_plain(0.00516), format_plain(1000.0), format_plain(3.2e-15), format_plain(195.8), format_plain(0.0)
    ('0.0052', '1,000', '3.2e-15', '196', '0')
    >>> format_plain(3.04), format_plain(3.0), format_plain(29.7)
    ('3.0', '3', '30')
    """
    if value != 0 and (abs(value) < 1e-4 or not math.isfinite(value)):
        return f"{value:.{digits}g}"
    if abs(value) >= 10.0**digits or value == round(value):
        return f"{value:,.0f}"
    return f"{value:#.{digits}g}".rstrip(".")


def format_share(value: float, count: float) -> str:
    """A share of ``count`` points in percent, to the first digit of its binomial standard error.

    >>> format_share(8 / 1024, 1024), format_share(0.25, 40), format_share(0.0, 1024), format_share(1.0, 50)
    ('0.8 %', '25 %', '0 %', '100 %')
    """
    if not (0 <= value <= 1 and count > 0):
        return f"{format_plain(100 * value)} %" if math.isfinite(value) else "—"
    if value in (0, 1):
        return f"{100 * value:.0f} %"
    error = 100 * math.sqrt(value * (1 - value) / count)
    return f"{100 * value:.{max(0, -math.floor(math.log10(error)))}f} %"


def format_bound(value: float, digits: int = 2) -> str:
    """An upper bound in percent, rounded up; one above 1 bounds no share of points.

    >>> format_bound(0.05833), format_bound(0.058, 2), format_bound(7.5), format_bound(float("nan"))
    ('5.9 %', '5.8 %', 'above 100 %', '—')
    """
    if not math.isfinite(value):
        return "—"
    if value > 1:
        return "above 100 %"
    if value <= 0:
        return "0 %"
    percent = 100 * value
    unit = 10.0 ** (math.floor(math.log10(percent)) - digits + 1)
    places = max(0, round(-math.log10(unit)))
    return f"{math.ceil(round(percent / unit, 6)) * unit:.{places}f} %"
