"""The command line: thin, quick to answer, one clear sentence for a mistake."""

from __future__ import annotations

import argparse
import difflib
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from .errors import MfresnetError, unknown_name

EXIT_OK, EXIT_DIVERGED, EXIT_BAD_INPUT, EXIT_INTERRUPTED = 0, 1, 2, 130


class _Parser(argparse.ArgumentParser):
    """Mistakes are exceptions; a value may be given as ``--a.b-c`` or ``--a.b_c``."""

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **options)

    def error(self, message: str) -> NoReturn:
        raise MfresnetError(f"{message}; see `{self.prog} --help`.")


class _Once(argparse.Action):
    """Keeps a value; a second one is a mistake, where argparse would silently take the last."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: Any, values: Any, option_string: Any = None) -> None:
        if getattr(namespace, self.dest, None) is not None:
            parser.error(f"{option_string} is given twice")
        setattr(namespace, self.dest, values)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0 done, 1 diverged, 2 bad input, 130 interrupted."""
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        return _run(argv)
    except MfresnetError as error:
        return _fail(str(error))
    except KeyboardInterrupt as stop:
        print(f"mfresnet: {str(stop) or 'stopped.'}", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader of our output has seen enough; nothing may be written to it at exit either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK
    except OSError as error:
        where = f"{error.filename!r}: " if error.filename else ""
        return _fail(f"{where}{error.strerror or error}.")
    except Exception as error:
        if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return _fail("out of memory: lower data.n, model.depth or model.width, or set --train.batch-size.")


def _fail(message: str) -> int:
    print(f"mfresnet: {' '.join(message.split())}", file=sys.stderr)
    return EXIT_BAD_INPUT


def _run(argv: list[str]) -> int:
    if argv and not argv[0].startswith("-") and argv[0] not in COMMANDS:
        raise unknown_name("command", argv[0], COMMANDS)
    parser = _Parser(
        prog="mfresnet",
        description="Deep residual networks in the mean-field regime: trained, measured, certified.",
        epilog="examples:\n  mfresnet train two-spirals\n  mfresnet train data.csv --data.target column --out RUN\n"
        "  mfresnet resume RUN",
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)
    for name, (summary, arguments, _) in COMMANDS.items():
        sub = commands.add_parser(name, help=summary, description=summary)
        if argv[:1] == [name]:
            arguments(sub)
    options, unknown = parser.parse_known_args(argv)
    if options.version:
        from importlib.metadata import version

        print(f"mfresnet {version('mfresnet')}")
        return EXIT_OK
    if options.command is None:
        parser.print_help()
        return EXIT_OK
    if unknown:
        raise _unknown_argument(unknown[0], options.command)
    code = COMMANDS[options.command][2](options, argv)
    sys.stdout.flush()  # so that a closed pipe is noticed here
    return code


def _unknown_argument(argument: str, command: str) -> MfresnetError:
    flags = ["--quiet"] if command == "resume" else []
    if command == "train":
        flags = ["--out", "--config", "--overwrite", "--quiet", *(f"--{name}" for name in _setting_names())]
    close = difflib.get_close_matches(argument.split("=")[0].replace("-", "_").replace("__", "--", 1), flags, n=2)
    hint = f"did you mean {' or '.join(close)}?" if close else f"see `mfresnet {command} --help`."
    return MfresnetError(f"unknown argument {argument!r}: {hint}")


def _setting_names() -> list[str]:
    from .config import leaves

    return [name for name, _ in leaves()]


# --- train ---------------------------------------------------------------------------------------


def _train_arguments(parser: argparse.ArgumentParser) -> None:
    from .config import allowed, leaves

    parser.add_argument("data", nargs="?", help="a data set's name or a file (the same as --data.name)")
    _output_arguments(parser)
    parser.add_argument("--config", action=_Once, metavar="FILE", help="TOML file of settings; a flag beats it")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing run directory")
    groups: dict[str, Any] = {}
    for name, field in leaves():
        section = name.rpartition(".")[0] or "general"
        group = groups.setdefault(section, parser.add_argument_group(f"settings: {section}"))
        default = "" if field.default is None else f"; default {field.get_default(call_default_factory=True)}"
        spellings = dict.fromkeys((f"--{name.replace('_', '-')}", f"--{name}"))
        group.add_argument(
            *spellings,
            action=_Once,
            dest=f"set {name}",
            metavar="VALUE",
            default=argparse.SUPPRESS,
            help=f"{field.description} ({allowed(field)}{default})".replace("%", "%%"),
        )


def _output_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", action=_Once, type=Path, metavar="RUN", help="run directory (default: runs/NAME)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def settings(options: argparse.Namespace) -> dict[str, Any]:
    """The tree of settings: the TOML file, then the flags over it."""
    from .config import build, merged, nested, read_toml

    tree: dict[str, Any] = {}
    if options.config:
        tree = read_toml(options.config)
        try:
            build(tree)
        except MfresnetError as error:
            raise MfresnetError(f"configuration file {options.config!r}: {error}") from error
    flat = {name[4:]: value for name, value in vars(options).items() if name.startswith("set ")}
    if options.data is not None:
        if "data.name" in flat:
            raise MfresnetError(f"the data is named twice, {options.data!r} and {flat['data.name']!r}: give one.")
        flat["data.name"] = options.data
    return merged(tree, nested(flat))


def _train(options: argparse.Namespace, argv: list[str]) -> int:
    from .config import build

    config = build(settings(options))
    from .runs import fresh_path, train

    out = options.out or fresh_path(Path("runs"), Path(config.data.name).stem)
    command = "mfresnet " + shlex.join(argv)
    summary = train(config, out, command=command, overwrite=options.overwrite, quiet=options.quiet)
    return _finished(out, summary, report=config.record.report)


def _finished(out: Path, summary: dict[str, Any], *, report: bool) -> int:
    """Print what came out, write the report, and turn the status into an exit code."""
    rows = [("status", summary["status"])]
    numbers = {name: summary[name] for name in ("train.loss", "train.error", "test.error") if name in summary}
    rows += [(name, "not finite" if value is None else f"{value:.4g}") for name, value in numbers.items()]
    rows += [
        ("test.n", str(summary["test.n"])),
        *_measured(summary),
        ("seconds", f"{summary['wall_s']:.1f}"),
        ("run", str(out)),
    ]
    if report:
        from .report import write_report

        rows.append(("report", str(write_report(out))))
    width = max(len(name) for name, _ in rows)
    print("\n".join(f"{name:<{width}}  {value}" for name, value in rows))
    return {"completed": EXIT_OK, "diverged": EXIT_DIVERGED, "interrupted": EXIT_INTERRUPTED}[summary["status"]]


def _measured(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """What was measured of the laws and the Gram matrix, where it was."""
    rows = []
    for name in ("kl.head", "kl.encoder"):
        if summary.get(f"{name}.value") is not None:
            error = summary[f"{name}.stderr"]
            rows.append((name, f"{summary[f'{name}.value']:.4g} +- {float('nan') if error is None else error:.2g}"))
    name = "gram.final.lambda_min.total"
    if summary.get(name) is not None:
        rows.append(("lambda_min(G)", f"{summary[name]:.4g} +- {summary['gram.final.error.total']:.2g}"))
        rows.append(("regime", summary["regime.verdict"]))
    for name in ("pac_bayes", "kl_ball", "kernel", "held_out"):
        if summary.get(f"certificate.{name}.value") is not None:
            word = " (says nothing)" if summary[f"certificate.{name}.vacuous"] else ""
            rows.append((f"bound {name}", f"{summary[f'certificate.{name}.value']:.4g}{word}"))
    if "control.test.error" in summary:
        rows.append(("frozen encoder", f"test.error {summary['control.test.error']:.4g}"))
    return rows


# --- the other commands --------------------------------------------------------------------------


def _run_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="a run directory")


def _resume_arguments(parser: argparse.ArgumentParser) -> None:
    _run_argument(parser)
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def _resume(options: argparse.Namespace, argv: list[str]) -> int:
    from .config import build
    from .runs import RunDirectory, resume

    summary = resume(options.run, quiet=options.quiet)
    config = build(RunDirectory.open(options.run).config["config"])
    return _finished(options.run, summary, report=config.record.report)


def _report(options: argparse.Namespace, argv: list[str]) -> int:
    from .report import write_report

    print(write_report(options.run))
    return EXIT_OK


def _measure_arguments(parser: argparse.ArgumentParser) -> None:
    _run_argument(parser)
    parser.add_argument("--points", type=int, metavar="N", help="training points of the Gram matrices")


def _measure(options: argparse.Namespace, argv: list[str]) -> int:
    from .report import write_report
    from .runs import measure

    rows = measure(options.run, points=options.points)
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
    print("  ".join(f"{name:>13}" for name in keys.values()))
    for row in rows:
        print("  ".join("            -" if row.get(key) is None else f"{row[key]:>13.5g}" for key in keys))
    print(write_report(options.run))
    return EXIT_OK


def _certify_arguments(parser: argparse.ArgumentParser) -> None:
    _run_argument(parser)
    parser.add_argument("--delta", type=float, action=_Once, metavar="D", help="probability of failure (default 0.05)")
    parser.add_argument("--heads", action=_Once, metavar="K,K", help="head particles k' that are tried")
    parser.add_argument("--residuals", action=_Once, metavar="N,N", help="residual particles N' that are tried")
    parser.add_argument(
        "--settings", type=int, action=_Once, metavar="S", help="configurations tried on these training points"
    )


def _certify(options: argparse.Namespace, argv: list[str]) -> int:
    from .report import write_report
    from .runs import certify, read_certificates

    names = ("delta", "heads", "residuals", "settings")
    found = certify(options.run, **{name: getattr(options, name) for name in names})
    for certificate in found.values():
        print(f"{certificate}\n  {certificate.reading}\n")
    for name, reason in read_certificates(options.run)[1].items():
        print(f"{name}: refused, {reason}\n")
    print(write_report(options.run))
    return EXIT_OK


def _datasets(options: argparse.Namespace, argv: list[str]) -> int:
    from .data import describe_datasets

    rows = [*describe_datasets(), ("FILE", "your own .csv, .parquet, .npz or .npy (see `mfresnet train --help`, data)")]
    width = max(len(name) for name, _ in rows)
    print("\n".join(f"{name:<{width}}  {line}" for name, line in rows))
    return EXIT_OK


def _nothing(parser: argparse.ArgumentParser) -> None:
    pass


COMMANDS: dict[str, tuple[str, Any, Any]] = {
    "train": ("train a mean-field ResNet into a run directory", _train_arguments, _train),
    "resume": ("continue an interrupted run, to the bit", _resume_arguments, _resume),
    "measure": ("measure a finished run again: Gram matrices, KL, regime, in float64", _measure_arguments, _measure),
    "certify": ("bound the error of a finished run on new data", _certify_arguments, _certify),
    "report": ("rebuild report.html of a run, without training", _run_argument, _report),
    "datasets": ("list the data sets known by name", _nothing, _datasets),
}
