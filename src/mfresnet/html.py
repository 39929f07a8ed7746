"""Tables and curves as small HTML, for notebooks: no script, no style sheet, nothing to load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from math import isfinite
from typing import Any


def table(title: str, rows: Sequence[Sequence[Any]], head: Sequence[str] = ()) -> str:
    """A table with a caption; text is escaped, numbers have four digits.

    >>> table("a < b", [("loss", 0.123456)])
    '<table><caption>a &lt; b</caption><tr><td>loss</td><td>0.1235</td></tr></table>'
    """
    lines = [f"<caption>{escape(title)}</caption>"]
    if head:
        lines.append("<tr>" + "".join(f"<th>{escape(name)}</th>" for name in head) + "</tr>")
    lines += ["<tr>" + "".join(f"<td>{escape(_text(cell))}</td>" for cell in row) + "</tr>" for row in rows]
    return f"<table>{''.join(lines)}</table>"


def curves(series: Mapping[str, Sequence[float]], width: int = 320, height: int = 120) -> str:
    """Curves over equal steps on one scale, as an SVG with their names; values that are not finite are left out.

    >>> curves({"loss": [1.0, 0.5]}, width=10, height=10).count("polyline")
    1
    """
    values = [v for one in series.values() for v in one if isfinite(v)]
    if not values:
        return ""
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    colours = ("#4477aa", "#cc6677", "#228833", "#aa7744")
    parts = [f"<svg width='{width}' height='{height + 16}' role='img' aria-label='{escape(', '.join(series))}'>"]
    for place, (name, one) in enumerate(series.items()):
        colour, last = colours[place % len(colours)], max(1, len(one) - 1)
        points = " ".join(
            f"{width * k / last:.1f},{height - height * (v - low) / span:.1f}" for k, v in enumerate(one) if isfinite(v)
        )
        parts.append(f"<polyline points='{points}' fill='none' stroke='{colour}'/>")
        parts.append(f"<text x='{90 * place}' y='{height + 13}' fill='{colour}' font-size='11'>{escape(name)}</text>")
    return "".join(parts) + "</svg>"


def _text(cell: Any) -> str:
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)
