"""One process at a time in a run or sweep directory: a lock of the kernel, which ends with its process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import MfresnetError
from .files import writing

NAME = ".lock"  # stays in the directory: removing it would let two processes lock two files of that name


@contextmanager
def hold_lock(folder: Path) -> Iterator[None]:
    """Hold the lock of a directory, which is made where it is missing.

    Raises:
        MfresnetError: another process holds it, or the directory cannot be written.
    """
    file = folder / NAME
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        file.open("ab").close()
    lock = FileLock(file, thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise MfresnetError(f"{str(folder)!r} is in use by another process: wait for it, or stop it first.") from error
    try:
        yield
    finally:
        lock.release()
