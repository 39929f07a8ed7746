"""The modules of mfresnet that a command passes, and how often it calls back into a module that it has left.

    python tools/call_path.py train two-spirals --data.n 32 --train.steps 2 --out /tmp/run

A call path is the sequence of modules whose functions are called, repetitions in a row left out. A return is a pair
(caller, callee) of different modules whose callee was entered before; each pair counts once, so that loops do not.
Importing is no part of the path: the command is run twice in this process, and the second run is recorded.
"""

from __future__ import annotations

import contextlib
import io
import shutil
import sys
from pathlib import Path
from types import FrameType
from typing import Any


class CallPath:
    """A profile function that records the modules of a package in the order in which they are called."""

    def __init__(self, package: str) -> None:
        self.package, self.modules, self.returns = package, dict[str, None](), set[tuple[str, str]]()
        self.last = ""

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        """Take an event of `sys.setprofile` into account."""
        name = frame.f_globals.get("__name__", "")
        if event != "call" or name.partition(".")[0] != self.package or frame.f_code.co_name == "<module>":
            return
        if name != self.last:
            if name in self.modules:
                self.returns.add((self.last, name))
            self.modules[name] = None
            self.last = name


def run(arguments: list[str]) -> None:
    """Run a command of mfresnet, without its output; a directory named by ``--out`` is made anew."""
    from mfresnet.cli import main

    if "--out" in arguments:
        shutil.rmtree(Path(arguments[arguments.index("--out") + 1]), ignore_errors=True)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as errors:
        code = main(arguments)
    if code:
        sys.exit(f"mfresnet {' '.join(arguments)} ended with {code}: {errors.getvalue()}")


def main(arguments: list[str]) -> None:
    """Print the path of the command."""
    run(arguments)
    path = CallPath("mfresnet")
    sys.setprofile(path)
    try:
        run(arguments)
    finally:
        sys.setprofile(None)
    print(*(f"  {name.removeprefix('mfresnet.')}" for name in path.modules), sep="\n")
    print(f"{arguments[0]}: {len(path.modules)} modules, {len(path.returns)} returns to a module already left")


if __name__ == "__main__":
    main(sys.argv[1:])
