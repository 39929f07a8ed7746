"""``mfresnet sweep NAME``, and what resuming and reporting a sweep print."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import Any

from ..config import Section, build
from ..errors import MfresnetError
from .dry_run import dry_run_argument, print_cost
from .finished import report_rows
from .parsing import (
    EXIT_INTERRUPTED,
    EXIT_OK,
    Once,
    Parser,
    output_arguments,
    setting_arguments,
    settings,
)


def sweep_arguments(parser: argparse.ArgumentParser) -> None:
    """A command for each experiment, with its settings as flags."""
    from ..experiments import EXPERIMENTS

    commands = parser.add_subparsers(dest="experiment", metavar="NAME", required=True, parser_class=Parser)
    for name in EXPERIMENTS:
        entry = EXPERIMENTS[name]
        sub = commands.add_parser(name, help=entry.summary, description=entry.summary)
        output_arguments(sub, "sweep", "SWEEP")
        dry_run_argument(sub, "sweep")
        executor_arguments(sub)
        setting_arguments(sub, entry.settings_type())


def executor_arguments(parser: argparse.ArgumentParser) -> None:
    """Where the cells run."""
    parser.add_argument("--executor", action=Once, metavar="NAME", help="local (default) or ray")
    parser.add_argument(
        "--address", action=Once, metavar="HOST:PORT", help="of a Ray cluster (default: start one here)"
    )


def sweep(options: argparse.Namespace, argv: list[str]) -> int:
    """Run an experiment into a new sweep directory."""
    from ..experiments import entry
    from ..runs import fresh_path
    from ..runs.sweeps import sweep as run

    kind = entry(options.experiment).settings_type()
    values = build(settings(options, kind), kind)
    if options.dry_run:
        return dry_run(options.experiment, values)
    out = options.out or fresh_path(Path("runs"), options.experiment)
    summary = run(
        options.experiment,
        values,
        out,
        executor=options.executor or "local",
        address=options.address,
        command="mfresnet " + shlex.join(argv),
        overwrite=options.overwrite,
        quiet=options.quiet,
    )
    return print_sweep_outcome(out, summary)


def dry_run(name: str, values: Section) -> int:
    """Print what a sweep would cost.

    Raises:
        MfresnetError: no model of the experiment's cells is known.
    """
    from ..runs.sweeps import predict_sweep

    cost = predict_sweep(name, values)
    if cost is None:
        raise MfresnetError(f"the cost of experiment {name!r} is not known: run it with few cells to see.")
    return print_cost(cost)


def resume_sweep(options: argparse.Namespace) -> int:
    """Continue a sweep."""
    from ..runs.sweeps import resume_sweep as go_on

    summary = go_on(options.run, executor=options.executor or "local", address=options.address, quiet=options.quiet)
    return print_sweep_outcome(options.run, summary)


def print_sweep_outcome(out: Path, summary: dict[str, Any]) -> int:
    """Print what came out, write the report, and turn the status into an exit code."""
    from ..runs.sweeps import SweepDirectory

    rows = [
        ("status", summary["status"]),
        ("cells", f"{summary['done']} of {summary['cells']} done, {summary['diverged']} diverged"),
    ]
    result = SweepDirectory(out).result if summary["status"] == "completed" else {}
    if result:
        passed = {True: "passed", False: "failed"}.get(result["passed"])
        rows += [("result", passed)] if passed else []
        rows += [("verdict", result["verdict"]), *[("note", note) for note in result["notes"]]]
    rows += [("seconds", f"{summary['seconds']:.1f}"), ("sweep", str(out))]
    rows += report_rows(out) if result else []
    width = max(len(name) for name, _ in rows)
    print("\n".join(f"{name:<{width}}  {value}" for name, value in rows))
    return EXIT_OK if summary["status"] == "completed" else EXIT_INTERRUPTED
