"""From a name or a path to a split of images: the one way in."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np

from ...cache import cache_directory
from ...errors import MfresnetError, unknown_name
from ..guard import refuse_beyond_memory
from . import synthetic
from .archives import SOURCES, cifar
from .cache import Say
from .folder import folder_images
from .parquet import parquet_images
from .sets import ImageSet, ImageSplit, draw_stratified

GENERATED = "synthetic-images"
NAMES = {
    "cifar10": "50,000 + 10,000 photographs, 32 x 32, 10 classes (fetched once, 170 MB)",
    "cifar100": "50,000 + 10,000 photographs, 32 x 32, 100 classes (fetched once, 169 MB)",
    GENERATED: "oriented gratings with noise, 32 x 32 in colour, 10 classes (generated)",
}
# Each use of randomness has a stream of its own, so that no setting of one changes another.
SPLIT, TRAIN, TEST = range(3)


def describe_image_datasets() -> list[tuple[str, str]]:
    """Every image data set by name, with one line about it (for ``mfresnet datasets``).

    >>> describe_image_datasets()[-1]
    ('synthetic-images', 'oriented gratings with noise, 32 x 32 in colour, 10 classes (generated)')
    """
    return list(NAMES.items())


def load_images(
    name: str,
    *,
    cache: Path | None = None,
    seed: int = 0,
    n: int | None = None,
    n_test: int | None = None,
    say: Say | None = None,
) -> ImageSplit:
    """Images for training and testing; the same seed gives the same bits.

    ``name`` is one of

    - ``cifar10``, ``cifar100``: fetched once into the cache directory, checked by SHA-256, read without pickle;
    - ``synthetic-images``: generated, 5000 + 1000 images unless ``n`` and ``n_test`` say otherwise;
    - a ``.parquet`` file with the columns img and label, or a directory with ``train.parquet`` and ``test.parquet``;
    - a directory ``train/CLASS/*.png|jpg|jpeg`` and ``test/CLASS/...`` (or, without test images, CLASS/... alone).

    Without a test part, a quarter of the images (or ``n_test``) is set aside at random, with the classes in
    proportion. ``n`` and ``n_test`` below what there is draw that many in the same way. What was decided is told in
    ``notes``.

    Args:
        name: see above.
        cache: the cache directory (default: ``MFRESNET_CACHE``, else ``$XDG_CACHE_HOME/mfresnet``, else
            ``~/.cache/mfresnet``).
        seed: of generation, split and draws.
        n: training images (None: all).
        n_test: test images (None: all, or a quarter where there is no test part).
        say: told what takes time, one line each (None: printed to standard error).

    Raises:
        MfresnetError: one sentence for whatever cannot be used: an unknown name, no network, a damaged archive, an
            image or a label that does not fit, counts that are not there.

    Source: CIFAR-10 and -100: Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009.

    >>> load_images("synthetic-images", n=30, n_test=20).train
    ImageSet('synthetic-images', n=30, 32x32x3, 10 classes)
    """
    say = say or _aloud
    for field, value in (("n", n), ("n_test", n_test)):
        if value is not None and value < 1:
            raise MfresnetError(f"{field} = {value}: at least one image is needed.")
    if name == GENERATED:
        return _generate(seed, n or 5000, n_test or 1000)
    train, test, notes = _read(name, cache_directory(cache), say)
    return _draw_split(train, test, notes, seed, n, n_test)


def _aloud(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _read(name: str, cache: Path, say: Say) -> tuple[ImageSet, ImageSet | None, tuple[str, ...]]:
    """The training images, the test images where the source has them, and notes."""
    if name in SOURCES:
        return cifar(name, cache, say)
    path = Path(name)
    if not name:
        raise unknown_name("image data set", name, NAMES)
    try:
        if path.is_dir():
            if (path / "train.parquet").is_file():
                return _parquet_pair(path, cache, say)
            return folder_images(path)
        if path.is_file():
            if path.suffix.lower() != ".parquet":
                raise MfresnetError(f"file {name!r} is no .parquet file: images come as one, or as a folder.")
            train, notes = parquet_images(path, cache, say)
            return train, None, notes
    except (OSError, ValueError) as error:
        if isinstance(error, MfresnetError):
            raise
        raise MfresnetError(f"{name!r} cannot be read: {getattr(error, 'strerror', None) or error}.") from error
    if path.suffix or os.sep in name:
        raise MfresnetError(f"{name!r} does not exist: use a .parquet file, a folder of images, or {', '.join(NAMES)}.")
    raise unknown_name("image data set", name, NAMES)


def _parquet_pair(path: Path, cache: Path, say: Say) -> tuple[ImageSet, ImageSet | None, tuple[str, ...]]:
    train, notes = parquet_images(path / "train.parquet", cache, say)
    if not (path / "test.parquet").exists():
        return train, None, notes
    test, more = parquet_images(path / "test.parquet", cache, say, train.classes)
    named = [f"test: {note}" for note in more]
    return _rename(train, path.name), _rename(test, path.name), (*notes, *named)


def _rename(images: ImageSet, name: str) -> ImageSet:
    return ImageSet(images.x, images.y, images.classes, name or images.name)


def _generate(seed: int, n: int, n_test: int) -> ImageSplit:
    pixels = synthetic.SIZE**2 * 3
    refuse_beyond_memory(2.0 * (n + n_test) * pixels, f"data set {GENERATED!r} with {n} + {n_test} images")
    parts = []
    for count, purpose in ((n, TRAIN), (n_test, TEST)):
        x, y = synthetic.gratings(count, _stream(seed, purpose))
        parts.append(ImageSet(x, y, synthetic.CLASSES, GENERATED))
    return ImageSplit(parts[0], parts[1], (f"{n} training and {n_test} test images were generated from seed {seed}.",))


def _draw_split(
    train: ImageSet, test: ImageSet | None, notes: tuple[str, ...], seed: int, n: int | None, n_test: int | None
) -> ImageSplit:
    """The split, with as many images as were asked for."""
    classes = len(train.classes)
    if test is None:
        rows = len(train)
        tests = n_test if n_test is not None else max(1, rows // 4)
        if rows - tests < classes:
            raise MfresnetError(
                f"{train.name!r} has {rows} images and no test part: with {tests} of them to test, fewer than one for "
                f"each of the {classes} classes are left to train on."
            )
        counts = np.bincount(train.y, minlength=classes)
        if counts[lonely := int(np.argmin(counts))] < 2:
            raise MfresnetError(
                f"class {train.classes[lonely]!r} of {train.name!r} has {counts[lonely]} image(s): at least 2 are "
                "needed, one to train and one to test."
            )
        training = draw_stratified(train.y, classes, rows - tests, 1, _stream(seed, SPLIT))
        testing = np.setdiff1d(np.arange(rows), training)
        train, test = train.take(training), train.take(testing)
        notes += (
            f"{train.name!r} has no test part: {tests} of {rows} images were set aside to test, drawn at random "
            f"(seed {seed}) with the classes in proportion.",
        )
    if n is not None:
        if n < classes:
            raise MfresnetError(f"n = {n} training images are fewer than the {classes} classes of {train.name!r}.")
        train, notes = _fewer(train, n, 1, "training", notes, _stream(seed, TRAIN))
    if n_test is not None:
        test, notes = _fewer(test, n_test, 0, "test", notes, _stream(seed, TEST))
    return ImageSplit(train, test, notes)


def _fewer(
    images: ImageSet, count: int, least: int, part: str, notes: tuple[str, ...], rng: np.random.Generator
) -> tuple[ImageSet, tuple[str, ...]]:
    if count > len(images):
        raise MfresnetError(f"{count} {part} images were asked for, {images.name!r} has {len(images)}.")
    if count == len(images):
        return images, notes
    rows = draw_stratified(images.y, len(images.classes), count, least, rng)
    return images.take(rows), (*notes, f"{count} of {len(images)} {part} images were drawn, classes in proportion.")


def _stream(seed: int, purpose: int) -> np.random.Generator:
    return np.random.default_rng([seed, 6, purpose])
