"""Commands in processes of their own, to be stopped and killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any


def _child(argv: list[str], log: str, prepare: Callable[[], None] | None) -> None:
    from mfresnet.cli import main

    if prepare is not None:
        prepare()
    # tests that were started in the background inherit an ignored Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # under another name until all is ready: a signal sent as soon as the log is there finds the command itself at work
    with open(f"{log}.new", "a", encoding="utf-8") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    os.replace(f"{log}.new", log)
    raise SystemExit(main(argv))


class Commands:
    """Starts commands in processes of their own, forked from one that has imported everything already.

    Args:
        folder: where what they write goes.
        prepare: called in each of them first.
    """

    def __init__(self, folder: Path, prepare: Callable[[], None] | None = None):
        self.context, self.prepare = multiprocessing.get_context("forkserver"), prepare
        self.context.set_forkserver_preload(
            ["mfresnet.cli", "mfresnet.runs", "mfresnet.runs.sweeps", "mfresnet.experiments.grid"]
        )
        self.log = folder / "log"

    def start(self, *argv: Any) -> Any:
        """The process of a command."""
        self.log.unlink(missing_ok=True)
        process = self.context.Process(target=_child, args=([str(a) for a in argv], str(self.log), self.prepare))
        process.start()
        return process

    def run(self, *argv: Any, code: int = 0) -> str:
        """Run a command to its end; returns what it wrote."""
        process = self.start(*argv)
        process.join(240)
        said = self.log.read_text(encoding="utf-8")
        assert process.exitcode == code, said
        return said
