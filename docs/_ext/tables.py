"""Numbers, tables and facts of the benchmark page, as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any


def number(value: Any, digits: int = 3) -> str:
    """A value with sensible digits."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if not isinstance(value, float):
        return str(value)
    shown = f"{value:.{digits}g}"
    if "e" in shown and 1e-3 <= abs(value) < 1e6:
        shown = f"{value:,.0f}"
    return shown


def interval(pair: Sequence[float] | None, digits: int = 2) -> str:
    """An interval in brackets."""
    return "" if pair is None else f"[{pair[0]:.{digits}f}, {pair[1]:.{digits}f}]"


def percent(value: float) -> str:
    """A share in percent."""
    return f"{100 * value:.1f} %"


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    """A Markdown table; columns after the first are numbers."""
    lines = ["| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 1) + "|"]
    return [*lines, *("| " + " | ".join(number(value) for value in row) + " |" for row in rows), ""]


def machine(facts: dict) -> list[str]:
    """One line on where and when a file was measured."""
    versions = facts.get("versions", {})
    names = ", ".join(f"{name} {versions[name]}" for name in ("jax", "torch") if versions.get(name))
    return [
        f"*Measured {facts['date'][:10]} on {facts['cores']} cores ({facts['cpu']}), {facts['memory_gib']} GiB; "
        f"{names}{', commit ' + facts['commit'] if facts.get('commit') else ''}.*",
        "",
    ]
