"""A generated stand-in for small colour images: quick to make, learnable, and not linearly separable."""

from __future__ import annotations

import numpy as np

SIZE = 32
ORIENTATIONS, FREQUENCIES = 5, (2.5, 5.0)  # periods per image
CLASSES = tuple(f"{kind} {180 * k // ORIENTATIONS} deg" for kind in ("coarse", "fine") for k in range(ORIENTATIONS))
ANGLE_JITTER, FREQUENCY_JITTER = 0.08, 0.08  # standard deviations, radians and relative


def gratings(n: int, rng: np.random.Generator, noise: float = 0.15) -> tuple[np.ndarray, np.ndarray]:
    """Patches of an oriented grating: the class is one of 5 orientations and 2 frequencies, all else is drawn.

    With p the position in [-1/2, 1/2]^2, in each colour channel k,

        x_k = 255 clip(b_k + a_k exp(-|p - p0|^2/(2 s^2)) cos(2 pi f u.p + phi) + noise N(0, 1), 0, 1),

    u = (cos theta, sin theta) and f the class's orientation and frequency, each with a small jitter; background b,
    signed contrast a, place p0, width s and phase phi are drawn for each image. Phase and sign are uniform, so every
    class has the same mean image and a linear classifier stays close to chance.

    Args:
        n: images; the classes take turns, so they are balanced.
        rng: source of randomness.
        noise: standard deviation of the pixel noise, as a share of full scale.

    Returns:
        uint8 images of shape (n, 32, 32, 3) and int32 classes of shape (n,).

    >>> x, y = gratings(12, np.random.default_rng(0))
    >>> x.shape, x.dtype.name, y.tolist()
    ((12, 32, 32, 3), 'uint8', [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1])
    """
    y = (np.arange(n) % len(CLASSES)).astype(np.int32)
    x = np.empty((n, SIZE, SIZE, 3), np.uint8)
    for start in range(0, n, 1024):  # blocks, so that memory stays small
        part = slice(start, start + 1024)
        x[part] = _block(y[part], rng, noise)
    return x, y


def _block(y: np.ndarray, rng: np.random.Generator, noise: float) -> np.ndarray:
    def draw(low: float, high: float, count: int = 1) -> np.ndarray:
        return rng.uniform(low, high, (len(y), 1, 1, count)).astype(np.float32)

    def jitter(scale: float) -> np.ndarray:
        return scale * rng.standard_normal((len(y), 1, 1), dtype=np.float32)

    angle = (np.pi / ORIENTATIONS * (y % ORIENTATIONS))[:, None, None] + jitter(ANGLE_JITTER)
    frequency = np.array(FREQUENCIES)[y // ORIENTATIONS, None, None] * np.exp(jitter(FREQUENCY_JITTER))
    axis = (np.arange(SIZE, dtype=np.float32) + 0.5) / SIZE - 0.5
    row, column = axis[:, None], axis[None, :]
    along = np.cos(angle) * column + np.sin(angle) * row
    wave = np.cos(2 * np.pi * (frequency * along + draw(0, 1)[..., 0])).astype(np.float32)
    place, width = draw(-0.15, 0.15, 2), draw(0.18, 0.3)[..., 0]
    window = np.exp(-((row - place[..., 0]) ** 2 + (column - place[..., 1]) ** 2) / (2 * width**2))
    background, contrast = draw(0.35, 0.65, 3), draw(0.15, 0.35, 3)
    pixels = background + contrast * (window * wave)[..., None]
    pixels += noise * rng.standard_normal(pixels.shape, dtype=np.float32)
    return np.rint(255 * np.clip(pixels, 0, 1)).astype(np.uint8)
