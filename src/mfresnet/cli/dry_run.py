"""``--dry-run``: what a command would cost."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ..digits import format_plain
from .parsing import EXIT_OK

if TYPE_CHECKING:
    from ..train.cost import Cost


def dry_run_argument(parser: argparse.ArgumentParser, what: str) -> None:
    """``--dry-run`` of a command."""
    parser.add_argument("--dry-run", action="store_true", help=f"print what the {what} would cost, and do nothing else")


def _compare(memory: int) -> str:
    """What the user should know of this much memory."""
    from psutil import virtual_memory

    free = virtual_memory().available
    return f", more than the {free / 2**30:.2f} GiB that are free" if memory > free else ""


def print_cost(cost: Cost, *, without: str = "compilation and measurements") -> int:
    """Print a prediction, a line for each of its numbers, and what its seconds leave out."""
    about = "" if cost.exact else " (estimated: the solver chooses its steps)"
    estimated = ("fields", "with probes")
    rows = [(name, f"{count:,}{about if name in estimated else ''}") for name, count in cost.counts.items()]
    rows += [
        ("seconds", f"{format_plain(cost.seconds)} on this machine when idle, without {without}"),
        ("limited by", cost.limit),
        ("memory", f"{cost.memory / 2**30:.2f} GiB{_compare(cost.memory)}"),
        ("files", f"{format_plain(cost.files / 1e6)} MB"),
    ]
    width = max(len(name) for name, _ in rows)
    print("\n".join(f"{name:<{width}}  {value}" for name, value in rows))
    return EXIT_OK
