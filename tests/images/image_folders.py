"""Tiny images on disk: three classes, told apart by their colour."""

from pathlib import Path

import numpy as np
from PIL import Image


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
