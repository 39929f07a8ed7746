"""One process at a time in a directory: a lock that names its holder.

It appears whole or not at all, and never replaces another: as a hard link to a written file, or, where the file system
makes no hard links, as a renamed directory with that file in it (no system replaces a directory that holds something).
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from ...errors import MfresnetError
from ..files import read_json, write_json, writing

NAME = "lock.json"
HOLDER = "holder.json"  # in a lock that is a directory
BROOM_SECONDS = 5.0  # the broom of a process that was killed with it; its work takes milliseconds
OWN = f".{NAME}."  # how the name of a process's own file begins, which the lock is a link to


def is_lock(name: str) -> bool:
    """Whether a file of that name belongs to the lock of its directory.

    >>> is_lock("lock.json"), is_lock(".lock.json.host.17.5e1f"), is_lock(".git"), is_lock("my-lock.json")
    (True, True, False, False)
    """
    return name == NAME or name.startswith((OWN, f".{OWN}"))  # the last: of a file that is being written


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a directory; one left by a process that has died on this machine is taken over.

    Whoever reads it knows the holder: host, process and the moment that process began, as numbers of processes are
    used again.

    Raises:
        MfresnetError: another process holds it, or one of another machine did and may still.
    """
    file, own = folder / NAME, folder / f"{OWN}{socket.gethostname()}.{os.getpid()}.{secrets.token_hex(4)}"
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_json(own, _me())
    held = False
    try:
        for _ in range(100):  # a stale lock is removed by one of several, and taken by one
            if held := _take(own, file):
                break
            _remove_stale(file)
        else:
            raise MfresnetError(f"{str(folder)!r} is contended: several processes want to run it; start one of them.")
        _remove_left(folder)
        yield
    finally:
        with suppress(OSError, MfresnetError):
            if held and file.is_dir() and _holder(file) == _holder(own):
                gone = own.with_name(f"{own.name}.gone")
                os.rename(file, gone)  # whole, as it came
                _remove(gone)
            elif held and file.samefile(own):
                file.unlink()
        own.unlink(missing_ok=True)


def _take(own: Path, file: Path) -> bool:
    """Make the lock of a process's own file, unless there is a lock already."""
    try:
        os.link(own, file)
    except FileExistsError:
        return False
    except OSError:  # no hard links here
        folder = own.with_name(f"{own.name}.d")
        with writing(folder):
            folder.mkdir()
            shutil.copy(own, folder / HOLDER)
        try:
            os.rename(folder, file)
        except OSError:
            shutil.rmtree(folder)
            return False
    return True


def _holder(lock: Path) -> dict[str, Any]:
    return read_json(lock / HOLDER if lock.is_dir() else lock)


def _remove(lock: Path) -> None:
    shutil.rmtree(lock) if lock.is_dir() else lock.unlink()


def _me() -> dict[str, Any]:
    return {"host": socket.gethostname(), "pid": os.getpid(), "began": psutil.Process().create_time()}


def _remove_stale(file: Path) -> None:
    """Remove the lock of a dead process of this machine, or leave that to somebody who is at it.

    Only who has the broom, a directory, removes a lock, after looking at it again. Without it, one who read the name of
    the dead too early would remove the lock of a living one.

    Raises:
        MfresnetError: its holder lives, or cannot be asked.
    """
    try:
        holder = _holder(file)
    except MfresnetError:
        if not file.exists():
            return
        raise
    where = f"{str(file.parent)!r} is being run by process {holder.get('pid')} on {holder.get('host')!r}"
    if holder.get("host") != socket.gethostname():
        raise MfresnetError(f"{where}: wait for it, or remove {str(file)!r} if that process is gone.")
    if _alive(holder):
        raise MfresnetError(f"{where}: wait for it, or stop it first.")
    broom, stale = (file.with_name(f"{OWN}{name}") for name in ("broom", f"stale.{os.getpid()}.{secrets.token_hex(4)}"))
    try:
        broom.mkdir()
    except FileExistsError:
        with suppress(OSError):
            if time.time() - broom.stat().st_mtime > BROOM_SECONDS:
                broom.rmdir()
        time.sleep(0.01)
        return
    try:
        with suppress(OSError, MfresnetError):  # it is gone
            if _holder(file) == holder:
                os.rename(file, stale)
                _remove(stale)
    finally:
        with suppress(OSError):  # taken for that of the dead, after a pause of `BROOM_SECONDS`
            broom.rmdir()


def _remove_left(folder: Path) -> None:
    """Remove the own files of processes of this machine that were killed while they had them."""
    for left in folder.glob(f"{OWN}{socket.gethostname()}.*"):
        with suppress(OSError, MfresnetError):  # its process is quicker
            if not _alive(_holder(left)):
                _remove(left)


def _alive(holder: dict[str, Any]) -> bool:
    try:
        process = psutil.Process(int(holder["pid"]))
        return process.status() != psutil.STATUS_ZOMBIE and abs(process.create_time() - float(holder["began"])) < 1.0
    except (psutil.Error, KeyError, TypeError, ValueError):
        return False
