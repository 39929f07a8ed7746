"""What is done to a batch of images on the device: normalisation, random crop and flip."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Int, Shaped


def channel_statistics(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel over all images and pixels, of pixel values scaled to [0, 1].

    Computed exactly from the counts of the 256 values: with c_v the share of value v, ``mean = sum_v c_v v/255`` and
    ``std = sqrt(sum_v c_v (v/255 - mean)^2)``; a constant channel gets std 1, so that it can be divided by.

    Args:
        x: uint8 images, shape (n, H, W, C); the training set.

    Returns:
        mean and std, float32, shape (C,).

    >>> mean, std = channel_statistics(np.array([0, 255], np.uint8).reshape(1, 2, 1, 1))
    >>> mean.tolist(), std.tolist()
    ([0.5], [0.5])
    """
    counts = np.zeros((x.shape[-1], 256))
    for start in range(0, len(x), 4096):  # blocks, because counting widens the pixels
        for channel, row in enumerate(counts):
            row += np.bincount(x[start : start + 4096, ..., channel].ravel(), minlength=256)
    share, value = counts / counts.sum(axis=1, keepdims=True), np.arange(256) / 255
    mean = share @ value
    std = np.sqrt(np.sum(share * (value - mean[:, None]) ** 2, axis=1))
    return mean.astype(np.float32), np.where(std > 0, std, 1.0).astype(np.float32)


def normalise(
    x: Shaped[Array, "... height width channels"], mean: np.ndarray | Array, std: np.ndarray | Array, dtype=jnp.float32
) -> Array:
    """``(x/255 - mean)/std``, computed in float32 and rounded once to ``dtype``.

    Args:
        x: images with values 0 to 255, shape (..., H, W, C).
        mean, std: of each channel on the scale [0, 1], shape (C,), as `channel_statistics` returns them.
        dtype: of the result.

    >>> float(normalise(jnp.full((1, 1, 1), 255, jnp.uint8), np.array([0.5]), np.array([0.25]))[0, 0, 0])
    2.0
    """
    scale = 1 / jnp.asarray(std, jnp.float32)
    return (x.astype(jnp.float32) * (scale / 255) - jnp.asarray(mean, jnp.float32) * scale).astype(dtype)


def augment(key: Array, x: Shaped[Array, "n height width channels"], padding: int = 4, flip: bool = True) -> Array:
    """Each image padded by ``padding`` zeros on every side, cropped back at random, and mirrored with probability 1/2.

    The offset is uniform on the (2 padding + 1)^2 places, independent for each image, as is the mirroring about the
    vertical axis. What the zeros mean depends on where this stands: on uint8 images, *before* `normalise`, they are
    black; on normalised images, *after* it, they are the training mean, as in the experiments of He et al. (2016).

    Args:
        key: of the draws.
        x: images of any type, shape (n, H, W, C).
        padding: pixels, at least 0 (static).
        flip: whether to mirror (static).

    Returns:
        Images of the shape and type of ``x``.

    Source: He, Zhang, Ren and Sun, Identity mappings in deep residual networks, 2016; docs/theory.md, section 10.

    >>> augment(jax.random.key(0), jnp.zeros((2, 8, 8, 3), jnp.uint8)).shape
    (2, 8, 8, 3)
    """
    offsets, mirrored = draw_views(key, x.shape[0], padding, flip)
    return crop_and_flip(x, offsets, mirrored, padding)


def draw_views(key: Array, n: int, padding: int, flip: bool) -> tuple[Int[Array, "n 2"], Bool[Array, " n"]]:
    """The draws of `augment`: the crop's row and column in the padded image, in [0, 2 padding], and who is mirrored.

    >>> offsets, mirrored = draw_views(jax.random.key(0), 5, 2, False)
    >>> offsets.shape, bool(mirrored.any())
    ((5, 2), False)
    """
    place, side = jax.random.split(key)
    offsets = jax.random.randint(place, (2 * n,), 0, 2 * padding + 1).reshape(n, 2)  # see `model.draws`
    mirrored = jax.random.bernoulli(side, 0.5, (n,)) if flip else jnp.zeros(n, bool)
    return offsets, mirrored


def crop_and_flip(
    x: Shaped[Array, "n height width channels"], offsets: Int[Array, "n 2"], mirrored: Bool[Array, " n"], padding: int
) -> Array:
    """The crop of image i at ``offsets[i]`` of its padded version, mirrored where ``mirrored[i]``.

    >>> x = jnp.arange(1, 4).reshape(1, 1, 3, 1)
    >>> crop_and_flip(x, jnp.array([[1, 0]]), jnp.array([True]), 1).ravel().tolist()
    [2, 1, 0]
    """
    padded = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))

    def crop(image: Array, offset: Array) -> Array:
        return jax.lax.dynamic_slice(image, (offset[0], offset[1], 0), x.shape[1:])

    cropped = jax.vmap(crop)(padded, offsets)
    return jnp.where(mirrored[:, None, None, None], cropped[:, :, ::-1], cropped)
