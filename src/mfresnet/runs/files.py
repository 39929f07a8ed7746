"""Writing files so that nothing is ever half there: temporary file, flush to disk, rename."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import MfresnetError
from ..json_types import plain


class WriteError(MfresnetError):
    """A file could not be written: the disk is full, or may not be written.

    Args:
        what: what was not written, and why.
    """

    def __init__(self, what: str):
        super().__init__(f"{what}; free space, or use a directory that can be written.")
        self.what = what


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a failed write (full disk, no permission) into one sentence."""
    try:
        yield
    except OSError as error:
        raise WriteError(f"cannot write {str(path)!r}: {error.strerror or error}") from error


def flush_directory(path: Path) -> None:
    """Make a rename in this directory survive a power cut (where the system knows how)."""
    if os.name == "posix":
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_bytes(path: Path, data: bytes) -> None:
    """Write the whole file or leave the old one."""
    temporary = path.with_name(f".{path.name}.tmp")
    with writing(path):
        try:
            with temporary.open("wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, path)
            flush_directory(path.parent)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write JSON; numbers that are not finite become null, which every reader knows."""
    text = json.dumps(plain(value), indent=2, ensure_ascii=False) + "\n"
    write_bytes(path, text.encode(errors="backslashreplace"))  # a file name that is no UTF-8 stays valid JSON


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file, or one sentence."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise MfresnetError(f"{str(path)!r} does not exist: {str(path.parent)!r} is no run directory.") from error
    except OSError as error:
        raise MfresnetError(f"{str(path)!r} cannot be read: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise MfresnetError(f"{str(path)!r} is damaged: it is no JSON ({error}).") from error
    if not isinstance(value, dict):
        raise MfresnetError(f"{str(path)!r} is damaged: it holds no JSON object.")
    return value


def holds(path: Path, parts: Iterable[str]) -> bool:
    """Whether the file is a JSON object with all these parts."""
    try:
        value = read_json(path)
    except MfresnetError:
        return False
    return all(part in value for part in parts)
