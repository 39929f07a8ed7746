"""What is done with a finished run: ``measure``, ``certify``, ``report``; and ``datasets``."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import MfresnetError
from ..messages import print_message
from .dry_run import dry_run_argument, print_cost
from .parsing import EXIT_OK, Once, run_argument


def report(options: argparse.Namespace, argv: list[str]) -> int:
    """Rebuild the page of a run."""
    from ..report import write_report

    print(write_report(options.run, options.out))
    return EXIT_OK


def report_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``report``."""
    run_argument(parser)
    parser.add_argument(
        "--out", action=Once, type=Path, metavar="FILE", help="where the page goes (default: RUN/report.html)"
    )


def report_rows(run: Path) -> list[tuple[str, str]]:
    """Write the page of a run whose result is there already; a page that cannot be written is a warning."""
    from ..report import write_report

    try:
        return [("report", str(write_report(run)))]
    except MfresnetError as error:
        print_message(f"mfresnet: warning: the result is complete, but its report is not there: {error}")
        return []


def export_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``export``."""
    run_argument(parser)
    parser.add_argument(
        "--to", action=Once, required=True, metavar="TRACKER", help="tensorboard, mlflow, wandb or trackio"
    )
    parser.add_argument(
        "--out", action=Once, type=Path, metavar="FOLDER", help="where a local tracker writes (default: RUN/TRACKER)"
    )


def export(options: argparse.Namespace, argv: list[str]) -> int:
    """Send a run's rows, settings and summary to an experiment tracker."""
    from ..runs import export as exported

    print(exported(options.run, options.to, options.out))
    return EXIT_OK


def measure_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``measure``."""
    run_argument(parser)
    parser.add_argument(
        "--points", type=int, metavar="N", help="training points of the Gram matrices (of images: test images)"
    )
    dry_run_argument(parser, "measurement")


def measure(options: argparse.Namespace, argv: list[str]) -> int:
    """Measure a run again and print a row for each kept checkpoint, or what each block of image networks does."""
    from ..runs import measure as measured
    from ..runs import predict_measure

    if options.dry_run:
        return print_cost(predict_measure(options.run, points=options.points), without="compilation")
    rows = measured(options.run, points=options.points)
    print(blocks_table(rows) if "rule" in rows[0] else points_table(rows))
    print(*(path for _, path in report_rows(options.run)))
    return EXIT_OK


def points_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A line for each checkpoint."""
    keys = {
        "step": "step",
        "train.loss": "train.loss",
        "gram.lambda_min.total": "lambda_min(G)",
        "gram.error.total": "+-",
        "gram.encoder_share": "encoder share",
        "regime.kernel_change": "kernel change",
        "kl.head.value": "KL head",
        "kl.head.stderr": "+-",
        "kl.encoder.value": "KL encoder",
        "kl.encoder.stderr": "+-",
    }
    keys = {key: name for key, name in keys.items() if any(row.get(key) is not None for row in rows)}
    lines = ["  ".join(f"{name:>13}" for name in keys.values())]
    lines += [
        "  ".join("            -" if row.get(key) is None else f"{row[key]:>13.5g}" for key in keys) for row in rows
    ]
    return "\n".join(lines)


def blocks_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Under each rule a line for each block: change of the error, in points, when it is removed or swapped with the
    next one, and its share of the Gram matrix's trace.

    >>> one = {"images": 9, "removal": {"stage 1, block 1": 0.5}, "swap": {}, "first_order_share": 0.25}
    >>> print(blocks_table([{"step": 3, "rule": "plain", "epoch": 1.0, "sensitivity": one}]))
    plain, step 3 (epoch 1), first seed, 9 test images: single-block paths explain 0.250 of f - f_0
                           removed     swapped     Gram, %
    stage 1, block 1        +50.00           -           -
    """
    keys = {"removal": "+.2f", "swap": "+.2f", "gram_share": ".2f"}
    lines = []
    for row in rows:
        one, share = row["sensitivity"], row["sensitivity"]["first_order_share"]
        lines.append(
            f"{row['rule']}, step {row['step']} (epoch {row['epoch']:.4g}), first seed, {one['images']} test images: "
            f"single-block paths explain {'-' if share is None else f'{share:.3f}'} of f - f_0"
        )
        lines.append(f"{'':18}" + "".join(f"{title:>12}" for title in ("removed", "swapped", "Gram, %")))
        for block in dict.fromkeys(name for key in keys for name in one.get(key, {})):
            values = {key: one.get(key, {}).get(block) for key in keys}
            cells = ["-" if value is None else f"{100 * value:{keys[key]}}" for key, value in values.items()]
            lines.append(f"{block:<18}" + "".join(f"{cell:>12}" for cell in cells))
    return "\n".join(lines)


def certify_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``certify``: of a run, or of any predictor by its errors on held-out points."""
    parser.add_argument("run", type=Path, nargs="?", metavar="RUN", help="a run directory (or --errors and --points)")
    held_out = parser.add_argument_group("any predictor, by its errors on points that nothing was fitted to")
    held_out.add_argument("--errors", type=int, action=Once, metavar="K", help="errors on the held-out points")
    held_out.add_argument("--points", type=int, action=Once, metavar="M", help="held-out points")
    held_out.add_argument(
        "--compared", type=int, action=Once, metavar="C", help="predictors compared on these points (default 1)"
    )
    held_out.add_argument(
        "--guessing", type=float, action=Once, metavar="E", help="error of guessing the largest class (default 0.5)"
    )
    parser.add_argument("--delta", type=float, action=Once, metavar="D", help="probability of failure (default 0.05)")
    parser.add_argument("--heads", action=Once, metavar="K,K", help="head particles k' that are tried")
    parser.add_argument("--residuals", action=Once, metavar="N,N", help="residual particles N' that are tried")
    parser.add_argument(
        "--settings", type=int, action=Once, metavar="S", help="configurations tried on these training points"
    )
    dry_run_argument(parser, "certificates of a run")


def certify(options: argparse.Namespace, argv: list[str]) -> int:
    """Certify a finished run and print each certificate, or one predictor by its errors on held-out points."""
    counts = ("errors", "points", "compared", "guessing")
    given = [name for name in counts if getattr(options, name) is not None]
    if options.run is None:
        return certify_counts(options, given)
    if given:
        raise MfresnetError(f"--{given[0]} is for a predictor outside of a run: leave it out, or leave RUN out.")
    from ..runs import certify as certified
    from ..runs import predict_certify, read_certificates

    wanted = {name: getattr(options, name) for name in ("delta", "heads", "residuals", "settings")}
    if options.dry_run:
        return print_cost(predict_certify(options.run, **wanted), without="compilation")
    certificates = certified(options.run, **wanted)
    for certificate in certificates.values():
        print(f"{certificate}\n  {certificate.reading}\n")
    for name, reason in read_certificates(options.run)[1].items():
        print(f"{name}: refused, {reason}\n")
    print(*(path for _, path in report_rows(options.run)))
    return EXIT_OK


def certify_counts(options: argparse.Namespace, given: Sequence[str]) -> int:
    """Print the exact binomial certificate of counts from anywhere."""
    from ..bounds import held_out_certificate

    if not {"errors", "points"} <= set(given):
        raise MfresnetError("nothing to certify: give a run directory, or --errors and --points.")
    for name in ("heads", "residuals", "settings", "dry_run"):
        if getattr(options, name) not in (None, False):
            raise MfresnetError(f"--{name.replace('_', '-')} is for a run: leave it out, or give a run directory.")
    more = {name: getattr(options, name) for name in ("delta", *given) if getattr(options, name) is not None}
    certificate = held_out_certificate(**more)
    print(f"{certificate}\n  {certificate.reading}")
    return EXIT_OK


def datasets(options: argparse.Namespace, argv: list[str]) -> int:
    """List the data sets known by name."""
    from ..data import describe_datasets
    from ..data.images import describe_image_datasets

    sections = {
        "Points (`mfresnet train NAME`)": [
            *describe_datasets(),
            ("FILE", "your own .csv, .parquet, .npz or .npy (see `mfresnet train --help`, data)"),
        ],
        "Images (`mfresnet image NAME`)": [
            *describe_image_datasets(),
            ("FILE", "your own .parquet with the columns img and label (or a folder of train.parquet, test.parquet)"),
            ("FOLDER", "your own train/CLASS/*.png or .jpg, and test/CLASS/... (without: a quarter is set aside)"),
        ],
    }
    width = max(len(name) for rows in sections.values() for name, _ in rows)
    for title, rows in sections.items():
        print(title, *(f"  {name:<{width}}  {line}" for name, line in rows), sep="\n")
    return EXIT_OK
