"""What the image code downstream is handed: 8-bit pixels with whole-number labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import MfresnetError
from ..splitting import apportion


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images of one size and their classes.

    Args:
        x: pixels, uint8, shape (n, H, W, C) with C = 1 (grey) or 3 (red, green, blue); 0 is black, 255 full.
        y: classes, int32, shape (n,), each in [0, len(classes)).
        classes: the name of each class, at least two.
        name: the data set's name, or the file's.

    Raises:
        MfresnetError: the arrays do not fit together.

    >>> ImageSet(np.zeros((2, 8, 8, 1), np.uint8), np.array([0, 1], np.int32), ("cat", "dog"), "two squares")
    ImageSet('two squares', n=2, 8x8x1, 2 classes)
    """

    x: np.ndarray
    y: np.ndarray
    classes: tuple[str, ...]
    name: str

    def __post_init__(self) -> None:
        what = f"image data {self.name!r}"
        object.__setattr__(self, "x", np.ascontiguousarray(self.x))  # safetensors writes memory as it lies
        if self.x.dtype != np.uint8 or self.x.ndim != 4 or self.x.shape[3] not in (1, 3) or 0 in self.x.shape:
            raise MfresnetError(
                f"{what}: the pixels must be uint8 of shape (n, height, width, 1 or 3) with n >= 1, they are "
                f"{self.x.dtype} of shape {self.x.shape}."
            )
        if self.y.dtype != np.int32 or self.y.shape != self.x.shape[:1]:
            raise MfresnetError(
                f"{what}: {len(self.x)} images need as many int32 labels, these are {self.y.dtype} of shape "
                f"{self.y.shape}."
            )
        if len(self.classes) < 2:
            raise MfresnetError(f"{what} has {len(self.classes)} class(es): at least 2 are needed.")
        refuse_labels(self.y, len(self.classes), lambda i: f"{what}, image {i} (counted from 0),")

    def __len__(self) -> int:
        return len(self.x)

    def __repr__(self) -> str:
        n, height, width, channels = self.x.shape
        return f"ImageSet({self.name!r}, n={n}, {height}x{width}x{channels}, {len(self.classes)} classes)"

    def take(self, rows: np.ndarray) -> ImageSet:
        """The images of these row numbers.

        >>> whole = ImageSet(np.zeros((2, 8, 8, 1), np.uint8), np.array([0, 1], np.int32), ("a", "b"), "squares")
        >>> whole.take(np.array([1])).y
        array([1], dtype=int32)
        """
        return ImageSet(self.x[rows], self.y[rows], self.classes, self.name)


@dataclass(frozen=True, eq=False)
class ImageSplit:
    """A training and a test set of images of one size and with the same classes.

    Args:
        train: the training set.
        test: the test set.
        notes: one sentence for each thing that was decided: a split, a conversion, files left out.

    Raises:
        MfresnetError: the two differ in the size of the images or in the classes.

    >>> from mfresnet.data.images import load_images
    >>> load_images("synthetic-images", n=20, n_test=10).test
    ImageSet('synthetic-images', n=10, 32x32x3, 10 classes)
    """

    train: ImageSet
    test: ImageSet
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        train, test = ("x".join(map(str, part.x.shape[1:])) for part in (self.train, self.test))
        if train != test:
            raise MfresnetError(
                f"the training images of {self.train.name!r} have size {train}, the test images {test} (height x "
                "width x channels): bring all to one size."
            )
        if self.train.classes != self.test.classes:
            raise MfresnetError(f"training and test images of {self.train.name!r} have different classes.")

    @classmethod
    def from_arrays(cls, train: tuple[Any, Any], test: tuple[Any, Any], name: str = "arrays") -> ImageSplit:
        """A split of arrays that NumPy can read.

        Args:
            train, test: images, uint8 of shape (n, height, width, channels), and their classes, numbers or text. The
                classes are those of the training set, sorted.
            name: of the data set.

        Raises:
            MfresnetError: a test image of a class that no training image has, or arrays that `ImageSet` refuses.

        >>> x = np.zeros((2, 8, 8, 3), np.uint8)
        >>> split = ImageSplit.from_arrays((x, ["dog", "cat"]), (x[:1], ["cat"]))
        >>> split.train.y.tolist(), split.test.y.tolist(), split.train.classes
        ([1, 0], [0], ('cat', 'dog'))
        """
        classes = np.unique(np.asarray(train[1]))
        names = tuple(map(str, classes))

        def make(part: tuple[Any, Any], what: str) -> ImageSet:
            x, labels = map(np.asarray, part)
            if (unknown := ~np.isin(labels, classes)).any():
                row = int(np.argmax(unknown))
                raise MfresnetError(
                    f"{what} image {row} of {name!r} has class {str(labels[row])!r}, which no training image has."
                )
            return ImageSet(x, np.searchsorted(classes, labels).astype(np.int32), names, name)

        return cls(make(train, "training"), make(test, "test"))


def refuse_labels(y: np.ndarray, classes: int, place: Callable[[int], str]) -> None:
    """Raise `MfresnetError` at the first label outside [0, classes); ``place(i)`` puts row i into words.

    >>> refuse_labels(np.array([0, 7]), 2, lambda i: f"row {i}")
    Traceback (most recent call last):
    mfresnet.errors.MfresnetError: row 1 has label 7, which is out of range: the labels of 2 classes are 0 to 1.
    """
    bad = (y < 0) | (y >= classes)
    if bad.any():
        i = int(np.argmax(bad))
        raise MfresnetError(
            f"{place(i)} has label {int(y[i])}, which is out of range: the labels of {classes} classes are 0 to "
            f"{classes - 1}."
        )


def draw_stratified(y: np.ndarray, classes: int, total: int, least: int, rng: np.random.Generator) -> np.ndarray:
    """``total`` row numbers, sorted, drawn at random with the classes in proportion and ``least`` of each.

    Args:
        y: classes, shape (n,).
        classes: their number.
        total: rows to draw, between ``least`` of each class present and all of them.
        least: rows of each class at the least, where it has as many.
        rng: source of randomness.

    >>> rows = draw_stratified(np.arange(20) % 2, 2, 4, 1, np.random.default_rng(0))
    >>> np.bincount(rows % 2).tolist()
    [2, 2]
    """
    counts = np.bincount(y, minlength=classes)
    wanted = apportion(counts, total, low=np.minimum(least, counts), high=counts)
    order = [rng.permutation(np.flatnonzero(y == c))[:k] for c, k in enumerate(wanted)]
    return np.sort(np.concatenate(order))
