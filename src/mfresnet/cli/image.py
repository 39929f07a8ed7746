"""``mfresnet image``: image networks whose blocks follow one or several rules."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import Any

from ..config import build
from ..images.configuration import ImageConfig
from ..messages import print_message
from .dry_run import dry_run_argument, print_cost
from .finished import report_rows
from .parsing import (
    EXIT_DIVERGED,
    EXIT_INTERRUPTED,
    EXIT_OK,
    Once,
    devices_argument,
    output_arguments,
    setting_arguments,
    settings,
)

# Short spellings of what is set most often.
SHORT = {
    "model": ("model.name", "a network: resnet20, bottleneck164, resnext29-8x64d, .."),
    "blocks": ("blocks.rules", "a block rule, or several separated by commas"),
    "seeds": ("train.seeds", "networks trained at once, for each rule"),
    "epochs": ("train.epochs", "passes over the training images"),
}


def image_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``image``."""
    parser.add_argument("data", nargs="?", help="a data set's name, a Parquet file or a directory of images")
    for short, (name, what) in SHORT.items():
        parser.add_argument(f"--{short}", action=Once, metavar="VALUE", help=f"{what} (the same as --{name})")
    output_arguments(parser)
    dry_run_argument(parser, "training")
    devices_argument(parser, "each minibatch")
    setting_arguments(parser, ImageConfig)


def image(options: argparse.Namespace, argv: list[str]) -> int:
    """Train into a new run directory."""
    given = {"data.name": options.data} | {name: getattr(options, short) for short, (name, _) in SHORT.items()}
    config = build(settings(options, ImageConfig, given), ImageConfig)
    if options.dry_run:
        from ..images.cost import measure_cost
        from ..images.job import assemble_images, load_split

        return print_cost(measure_cost(assemble_images(config, load_split(config, print_message), options.devices)))
    from ..runs import fresh_path, train_images

    out = options.out or fresh_path(Path("runs"), f"{Path(config.data.name).stem}-{config.model.name}")
    command = "mfresnet " + shlex.join(argv)
    summary = train_images(
        config, out, command=command, overwrite=options.overwrite, quiet=options.quiet, devices=options.devices
    )
    return print_image_outcome(out, summary, report=config.record.report)


def print_image_outcome(out: Path, summary: dict[str, Any], *, report: bool) -> int:
    """Print errors and paired differences, write the report, and turn the status into an exit code."""
    stopped = summary["status"] == "interrupted"  # the rules are at different epochs then
    rows = [("status", summary["status"])]
    for name, rule in summary["rules"].items():
        rows.append((f"test error, {name}", in_percent(rule["test_error"]) + at_epoch(rule["tested"], stopped)))
    for name, mean in summary.get("paired", {}).items():
        said = in_percent(mean, "points") + at_epoch(mean["epoch"], stopped)
        rows.append((name, f"{said}: {mean['verdict']}"))
    rows += [("seconds", f"{summary['wall_s']:.1f}"), ("run", str(out))]
    rows += report_rows(out) if report else []
    width = max(len(name) for name, _ in rows)
    print("\n".join(f"{name:<{width}}  {value}" for name, value in rows))
    return {"completed": EXIT_OK, "diverged": EXIT_DIVERGED, "interrupted": EXIT_INTERRUPTED}[summary["status"]]


def at_epoch(epoch: int, stopped: bool) -> str:
    """Where a number of a stopped run was taken."""
    return f" at epoch {epoch}" if stopped else ""


def in_percent(mean: dict[str, Any], unit: str = "%") -> str:
    """Mean and interval, times 100: an error in per cent, a difference of errors in percentage points.

    >>> in_percent({"mean": 0.1, "low": 0.08, "high": 0.12, "seeds": 3})
    '10.00 % [8.00, 12.00] over 3 seeds'
    """
    if mean["mean"] is None:
        return "not finite"
    interval = "" if mean["low"] is None else f" [{100 * mean['low']:.2f}, {100 * mean['high']:.2f}]"
    count = mean["seeds"]
    return f"{100 * mean['mean']:.2f} {unit}{interval} over {count} seed{'s' * (count != 1)}"
