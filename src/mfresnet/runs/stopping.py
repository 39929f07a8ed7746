"""Orderly stopping on Ctrl-C or SIGTERM."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from ..messages import Say


class Stop:
    """Turns the first Ctrl-C (or a polite kill) into a request; a second one stops at once.

    It is in force from the first line of a run: an exception out of a signal may come up inside a callback of the
    garbage collector, where Python drops it, and the run would go on as if nobody had asked.

    Args:
        when: the moment at which the request is met, for the message.
    """

    def __init__(self, say: Say, when: str = "at the next checkpoint"):
        self.asked = False
        self.say, self.when = say, when

    def __call__(self, number: int, frame: Any) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        with suppress(RuntimeError):  # the signal came while the stream was being written to
            self.say(f"stopping {self.when}; once more to stop at once")

    @contextmanager
    def installed(self) -> Iterator[Stop]:
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = [signal.signal(number, self) for number in numbers]
        try:
            yield self
        finally:
            for number, handler in zip(numbers, before, strict=True):
                signal.signal(number, handler)


@contextmanager
def stoppable(how_to_resume: str, last: str = "") -> Iterator[None]:
    """A second Ctrl-C, which stops at once, says how to go on, and what the process may still wait for."""
    try:
        yield
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt(f"stopped: go on with {how_to_resume}.{last}") from stop
