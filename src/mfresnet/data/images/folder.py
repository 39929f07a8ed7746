"""A folder of image files: train/CLASS/*.png|jpg|jpeg and test/CLASS/..."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...errors import MfresnetError
from .decoding import decode_images
from .sets import ImageSet

SUFFIXES = (".png", ".jpg", ".jpeg")


def folder_images(folder: Path) -> tuple[ImageSet, ImageSet | None, tuple[str, ...]]:
    """The images below ``train`` (or, where there is no such folder, below the folder itself) and below ``test``.

    The classes are the names of the folders with training images, sorted; hidden files are ignored, files of other
    kinds are counted in a note. Files are read anew at every start.

    Raises:
        MfresnetError: no class folders, a class without images, test images of a class that has no training images,
            or a file that cannot be used.
    """
    root = folder / "train" if (folder / "train").is_dir() else folder
    classes = _classes(root)
    if root == folder:
        classes = [name for name in classes if name != "test"]
    if not classes:
        raise MfresnetError(
            f"folder {str(folder)!r} has no images: expected are train/CLASS/*.png or .jpg (and test/CLASS/...)."
        )
    if len(classes) < 2:
        raise MfresnetError(f"folder {str(root)!r} has the single class {classes[0]!r}: at least 2 are needed.")
    train, notes = _part(root, classes, classes, folder.name)
    if not (folder / "test").is_dir():
        return train, None, notes
    others = _classes(folder / "test")
    for name in others:
        if name not in classes:
            raise MfresnetError(f"folder {str(folder / 'test' / name)!r} is a class that has no training images.")
    if not others:
        raise MfresnetError(f"folder {str(folder / 'test')!r} has no class folders: fill it, or remove it to split.")
    test, more = _part(folder / "test", others, classes, folder.name)
    return train, test, (*notes, *(f"test: {note}" for note in more))


def _classes(root: Path) -> list[str]:
    return sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _part(root: Path, present: list[str], classes: list[str], name: str) -> tuple[ImageSet, tuple[str, ...]]:
    files: list[Path] = []
    y: list[int] = []
    others = 0
    for kind in present:
        inside = sorted(f for f in (root / kind).iterdir() if f.is_file() and not f.name.startswith("."))
        images = [f for f in inside if f.suffix.lower() in SUFFIXES]
        if not images:
            raise MfresnetError(f"folder {str(root / kind)!r} has no {', '.join(SUFFIXES)} files: fill or remove it.")
        files += images
        y += [classes.index(kind)] * len(images)
        others += len(inside) - len(images)
    x, notes = decode_images([f.read_bytes for f in files], lambda i: f"image {str(files[i])!r}")
    if others:
        notes += (f"{others} file{'s' if others > 1 else ''} that are neither PNG nor JPEG were left out.",)
    return ImageSet(x, np.array(y, np.int32), tuple(classes), name), notes
