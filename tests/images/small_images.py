"""Tiny images on disk, in three classes that differ in colour, and the sizes of the runs on them."""

from pathlib import Path

import jax
import numpy as np
from PIL import Image

EPOCHS, PER_EPOCH = 4, 3
SEEDS, RATE = 2, 20.0  # lr_t: blocks of a few steps' training swap


def write_folder(path: Path, counts: dict[str, int], size: int = 8) -> Path:
    """PART/CLASS/NUMBER.png for each part, that many images of each class."""
    rng = np.random.default_rng(0)
    for part, count in counts.items():
        for channel, name in enumerate(("blue", "green", "red")):
            (path / part / name).mkdir(parents=True)
            for k in range(count):
                pixels = rng.integers(0, 128, (size, size, 3), dtype=np.uint8)
                pixels[..., 2 - channel] += 100
                Image.fromarray(pixels).save(path / part / name / f"{k}.png")
    return path


def same(a, b) -> None:
    """All arrays of two trees are equal to the bit."""
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)
