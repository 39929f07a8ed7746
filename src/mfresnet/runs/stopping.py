"""Orderly stopping on Ctrl-C or SIGTERM."""

from __future__ import annotations

import gc
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from ..errors import MfresnetError
from ..messages import Say
from .files import WriteError

MOMENT = 0.05  # seconds


class Stop:
    """Turns the first Ctrl-C (or a polite kill) into a request; a second one stops at once.

    It is in force from the first line of a run: an exception out of a signal may come up inside a callback of the
    garbage collector, where Python drops it, and the run would go on as if nobody had asked. A second signal that comes
    there is sent once more a moment later.

    Args:
        when: the moment at which the request is met, for the message.
    """

    def __init__(self, say: Say, when: str = "at the next checkpoint"):
        self.asked = False
        self.say, self.when = say, when

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.asked and _collects(frame):
            again = threading.Timer(MOMENT, os.kill, (os.getpid(), number))
            again.daemon = True
            again.start()
            return
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        with suppress(RuntimeError):  # the signal came while the stream was being written to
            self.say(f"stopping {self.when}; once more to stop at once")

    @contextmanager
    def install(self) -> Iterator[Stop]:
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


def _collects(frame: FrameType | None) -> bool:
    """Whether a frame belongs to a callback of the garbage collector."""
    callbacks = {getattr(callback, "__code__", None) for callback in gc.callbacks}
    while frame is not None:
        if frame.f_code in callbacks:
            return True
        frame = frame.f_back
    return False


@contextmanager
def stoppable(how_to_resume: str, last: str = "") -> Iterator[None]:
    """A second Ctrl-C, which stops at once, and a full disk end with how to go on, and what is still waited for."""
    try:
        yield
    except WriteError as error:
        raise MfresnetError(
            f"{error.what}; what is written is kept: free space, then go on with {how_to_resume}."
        ) from error
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt(f"stopped: go on with {how_to_resume}.{last}") from stop
