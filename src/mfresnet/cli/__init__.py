"""The command line: thin, quick to answer, one clear sentence for a mistake."""

from __future__ import annotations

import argparse
import difflib
import os
import sys
from collections.abc import Sequence
from typing import Any

from ..cache import OFF, enable_compilation_cache
from ..errors import MfresnetError, is_out_of_memory, unknown_name
from . import finished, image, sweep, training
from .parsing import EXIT_BAD_INPUT, EXIT_INTERRUPTED, EXIT_OK, Parser


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
        if not is_out_of_memory(error):
            raise
        return _fail("out of memory: lower data.n, model.depth or model.width, or set --train.batch-size.")


def _fail(message: str) -> int:
    print(f"mfresnet: {' '.join(message.split())}", file=sys.stderr)
    return EXIT_BAD_INPUT


def _run(argv: list[str]) -> int:
    if argv and not argv[0].startswith("-") and argv[0] not in COMMANDS:
        raise unknown_name("command", argv[0], COMMANDS)
    parser = Parser(
        prog="mfresnet",
        description="Deep residual networks in the mean-field regime: trained, measured, certified.",
        epilog="examples:\n  mfresnet train two-spirals\n  mfresnet train data.csv --data.target column --out RUN\n"
        "  mfresnet resume RUN",
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser)
    for name, (summary, arguments, _) in COMMANDS.items():
        sub = commands.add_parser(name, help=summary, description=summary)
        if argv[:1] == [name]:
            arguments(sub)
            if name in COMPUTING:
                _cache_argument(sub)
    options, unknown = parser.parse_known_args(argv)
    if options.version:
        from importlib.metadata import version

        print(f"mfresnet {version('mfresnet')}")
        return EXIT_OK
    if options.command is None:
        parser.print_help()
        return EXIT_OK
    if unknown:
        raise _unknown_argument(unknown[0], _innermost(commands.choices[options.command], options))
    if options.command in COMPUTING:
        _keep_programs(not options.no_compilation_cache)
    code = COMMANDS[options.command][2](options, argv)
    sys.stdout.flush()  # so that a closed pipe is noticed here
    return code


def _innermost(parser: Parser, options: argparse.Namespace) -> Parser:
    """The parser of ``mfresnet COMMAND NAME``, where the command has such names."""
    for action in parser._actions:
        if isinstance(action.choices, dict):
            return action.choices[getattr(options, action.dest)]
    return parser


def _cache_argument(parser: argparse.ArgumentParser) -> None:
    """``--no-compilation-cache``, of the command and of each of its names."""
    parser.add_argument(
        "--no-compilation-cache", action="store_true", help="keep no compiled programs for the next start"
    )
    for action in parser._actions:
        if isinstance(action.choices, dict):
            for sub in action.choices.values():
                sub.add_argument("--no-compilation-cache", action="store_true", default=argparse.SUPPRESS)


def _keep_programs(wanted: bool) -> None:
    """Switch the compilation cache on or off, by the environment, which JAX reads when it is loaded."""
    if not wanted:
        os.environ[OFF] = "false"
    elif "jax" not in sys.modules:  # a process that has loaded JAX has decided already
        enable_compilation_cache()


def _unknown_argument(argument: str, parser: Parser) -> MfresnetError:
    spelt = argument.split("=")[0].replace("-", "_").replace("__", "--", 1)
    close = difflib.get_close_matches(spelt, [flag for flag in parser.flags if flag != "--help"], n=2)
    hint = f"did you mean {' or '.join(close)}?" if close else f"see `{parser.prog} --help`."
    return MfresnetError(f"unknown argument {argument!r}: {hint}")


def _nothing(parser: argparse.ArgumentParser) -> None:
    pass


COMPUTING = ("train", "image", "sweep", "resume", "measure", "certify")  # commands that compile programs
COMMANDS: dict[str, tuple[str, Any, Any]] = {
    "train": ("train a mean-field ResNet into a run directory", training.train_arguments, training.train),
    "image": ("train image networks under one or several block rules", image.image_arguments, image.image),
    "sweep": ("run an experiment over many trainings, with a fit and a verdict", sweep.sweep_arguments, sweep.sweep),
    "resume": ("continue an interrupted run or sweep, to the bit", training.resume_arguments, training.resume),
    "measure": (
        "measure a run again: Gram matrices, KL, regime, in float64; of images: what each block does",
        finished.measure_arguments,
        finished.measure,
    ),
    "certify": ("bound the error of a finished run on new data", finished.certify_arguments, finished.certify),
    "report": (
        "rebuild report.html of a run or sweep, without training",
        finished.report_arguments,
        finished.report,
    ),
    "export": (
        "send a run's rows to an experiment tracker: tensorboard, mlflow, wandb, trackio",
        finished.export_arguments,
        finished.export,
    ),
    "datasets": ("list the data sets known by name", _nothing, finished.datasets),
}
