"""Decoded images in the user's cache directory, so that a second start is quick."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from .sets import ImageSet

Say = Callable[[str], None]
Found = tuple[ImageSet, tuple[str, ...]]  # images, and notes on what was decided
FORMAT = "1"  # of the decoded files; a change of what decoding yields raises it


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A stream to a temporary file that takes the name ``path`` once it is whole; after an error nothing is left."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def file_sha256(file: Path) -> str:
    """The SHA-256 of a file, as hexadecimal text."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def load_cached(cache: Path, key: str, name: str, decode: Callable[[], Found], say: Say) -> Found:
    """The decoded images under ``key``: from the cache, or from ``decode`` and then kept there.

    The file is safetensors with the SHA-256 of its content, checked at every reading: a damaged file is said and
    made again. A cache that cannot be written costs time, not the result.

    Args:
        cache: the cache directory.
        key: identifies the source and the part of it, as a file name.
        name: of the set that is returned.
        decode: makes the set and the notes.
        say: told what happens.

    Returns:
        The `ImageSet` and its notes.
    """
    file = cache / f"{key}-decoded{FORMAT}.safetensors"
    if file.is_file():
        if (stored := _read(file, name)) is not None:
            return stored
        say(f"{str(file)!r} is damaged: decoding again.")
    images, notes = decode()
    try:
        with replacing(file) as stream:
            stream.write(_content(images, notes))
    except OSError as error:
        say(f"decoded images are not kept: {str(file)!r} cannot be written ({error.strerror or error}).")
    return images, notes


def _content(images: ImageSet, notes: tuple[str, ...]) -> bytes:
    from safetensors.numpy import save

    text = json.dumps({"classes": images.classes, "notes": notes})
    return save({"x": images.x, "y": images.y}, {"text": text, "sha256": _digest(images.x, images.y, text)})


def _read(file: Path, name: str) -> Found | None:
    """What a cache file holds, or None if it is not what was written."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="numpy") as content:
            x, y, written = content.get_tensor("x"), content.get_tensor("y"), content.metadata()
        if written["sha256"] != _digest(x, y, written["text"]):
            return None
        text = json.loads(written["text"])
        return ImageSet(x, y, tuple(text["classes"]), name), tuple(text["notes"])
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        return None


def _digest(x: np.ndarray, y: np.ndarray, text: str) -> str:
    digest = hashlib.sha256(json.dumps([x.shape, x.dtype.str, y.shape, y.dtype.str, text]).encode())
    for array in (x, y):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
