"""Parsers of the command line: mistakes are sentences, and every setting of a tree is a flag."""

from __future__ import annotations

import argparse
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from ..config import Config, Section, build, leaves, merge, nest
from ..errors import MfresnetError
from ..fields import allowed, is_repeated

EXIT_OK, EXIT_DIVERGED, EXIT_BAD_INPUT, EXIT_INTERRUPTED = 0, 1, 2, 130


class Parser(argparse.ArgumentParser):
    """Mistakes are exceptions; a value may be given as ``--a.b-c`` or ``--a.b_c``."""

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **options)

    @property
    def flags(self) -> list[str]:
        """Every flag, settings in their own spelling (the last of the two)."""
        return [action.option_strings[-1] for action in self._actions if action.option_strings]

    def error(self, message: str) -> NoReturn:
        raise MfresnetError(f"{message}; see `{self.prog} --help`.")


class Once(argparse.Action):
    """Keeps a value; a second one is a mistake, where argparse would silently take the last."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: Any, values: Any, option_string: Any = None) -> None:
        if getattr(namespace, self.dest, None) is not None:
            parser.error(f"{option_string} is given twice")
        setattr(namespace, self.dest, values)


def setting_arguments(parser: argparse.ArgumentParser, kind: type[Section] = Config) -> None:
    """A flag for every value of a tree, spelt with - or _, and ``--config FILE`` for a TOML file of them."""
    words = "".join(f" [{action.dest.upper()}]" for action in parser._actions if not action.option_strings)
    parser.usage = f"%(prog)s{words} [--OPTION ...] [--SETTING VALUE ...]"  # not a screen full of flags
    parser.add_argument("--config", action=Once, metavar="FILE", help="TOML file of settings; flags override it")
    groups: dict[str, Any] = {}
    for name, field in leaves(kind):
        section = name.rpartition(".")[0] or "general"
        group = groups.setdefault(section, parser.add_argument_group(f"settings: {section}"))
        default = "" if field.default in (None, ()) else f"; default {_format_default(field.default)}"
        spellings = dict.fromkeys((f"--{name.replace('_', '-')}", f"--{name}"))
        group.add_argument(
            *spellings,
            action="append" if is_repeated(field) else Once,
            dest=f"set {name}",
            metavar="VALUE",
            default=argparse.SUPPRESS,
            help=f"{field.description} ({allowed(field)}{default})".replace("%", "%%"),
        )


def _format_default(default: Any) -> str:
    """A default as it is written on the command line."""
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, tuple):
        return ",".join(f"{value:g}" if isinstance(value, float) else str(value) for value in default)
    return str(default)


def output_arguments(parser: argparse.ArgumentParser, what: str = "run", metavar: str = "RUN") -> None:
    """Where the result goes, and whether a progress bar is shown."""
    parser.add_argument("--out", action=Once, type=Path, metavar=metavar, help=f"{what} directory (default: runs/NAME)")
    parser.add_argument("--overwrite", action="store_true", help=f"replace an existing {what} directory")
    quiet_argument(parser)


def devices_argument(parser: Any, what: str) -> None:
    """``--devices``: no setting of the run itself, which is the same on any number of devices."""
    parser.add_argument("--devices", action=Once, type=int, metavar="N", help=f"devices that share {what} (default 1)")


def quiet_argument(parser: argparse.ArgumentParser) -> None:
    """``--quiet``."""
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def run_argument(parser: argparse.ArgumentParser) -> None:
    """An existing run directory."""
    parser.add_argument("run", type=Path, metavar="RUN", help="a run directory")


def read_toml(path: str | Path) -> dict[str, Any]:
    """The values of a TOML file; a missing or malformed file is one sentence."""
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise MfresnetError(f"configuration file {str(path)!r} cannot be read: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise MfresnetError(f"configuration file {str(path)!r} is no valid TOML: {error}.") from error


def settings(
    options: argparse.Namespace, kind: type[Section] = Config, given: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The tree of settings: the TOML file, then the flags over it, then what was ``given`` as an argument.

    Raises:
        MfresnetError: the file is bad on its own, or a value is given both as an argument and as a flag.
    """
    tree: dict[str, Any] = {}
    if options.config:
        tree = read_toml(options.config)
        try:
            build(tree, kind)
        except MfresnetError as error:
            raise MfresnetError(f"configuration file {options.config!r}: {error}") from error
    flat = {name[4:]: value for name, value in vars(options).items() if name.startswith("set ")}
    for name, value in (given or {}).items():
        if value is None:
            continue
        if name in flat:
            what = name.partition(".")[0]
            raise MfresnetError(f"the {what} is named twice, {value!r} and {flat[name]!r}: give one.")
        flat[name] = value
    return merge(tree, nest(flat))
