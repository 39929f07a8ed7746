"""Normalisation, random crop and flip on the device, against naive transcriptions in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mfresnet.images.augmentation import augment, channel_statistics, crop_and_flip, draw_views, normalise


def naive(x, offsets, mirrored, padding):
    """Pad, cut out, turn around: image by image."""
    height, width = x.shape[1:3]
    padded = np.pad(x, ((0, 0), (padding,) * 2, (padding,) * 2, (0, 0)))
    out = np.empty_like(x)
    for i, (row, column) in enumerate(offsets):
        crop = padded[i, row : row + height, column : column + width]
        out[i] = crop[:, ::-1] if mirrored[i] else crop
    return out


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(1, 256, (64, 5, 7, 3)).astype(np.uint8)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_crop_and_flip_is_pad_cut_turn(images, dtype):
    x, padding = images.astype(dtype), 2
    # every offset and both sides, the extreme ones among them
    grid = np.array([(r, c, s) for r in range(5) for c in range(5) for s in (0, 1)])[: len(x)]
    x = x[: len(grid)]
    found = jax.jit(crop_and_flip, static_argnums=3)(x, grid[:, :2], grid[:, 2] == 1, padding)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, naive(x, grid[:, :2], grid[:, 2] == 1, padding))


def test_augment_draws_for_each_image_and_is_the_same_for_the_same_key(images):
    key = jax.random.key(1)
    run = jax.jit(augment, static_argnums=(2, 3))
    found = run(key, images, 2, True)
    offsets, mirrored = draw_views(key, len(images), 2, True)
    assert found.shape == images.shape and found.dtype == jnp.uint8
    np.testing.assert_array_equal(found, naive(images, np.asarray(offsets), np.asarray(mirrored), 2))
    np.testing.assert_array_equal(found, run(key, images, 2, True))
    assert (np.asarray(found) != np.asarray(run(jax.random.key(2), images, 2, True))).any()
    np.testing.assert_array_equal(run(key, images, 0, False), images)


def test_draws_are_uniform():
    """Chi-square of the 25 places and of the sides, and no dependence between them, at 5 standard deviations."""
    n = 20_000
    offsets, mirrored = (np.asarray(a) for a in draw_views(jax.random.key(0), n, 2, True))
    counts = np.bincount(offsets[:, 0] * 10 + offsets[:, 1] * 2 + mirrored, minlength=50)
    assert counts.shape == (50,)
    chi = np.sum((counts - n / 50) ** 2 / (n / 50))
    assert abs(chi - 49) < 5 * np.sqrt(2 * 49)  # mean and variance of chi-square with 49 degrees of freedom


def test_statistics_and_normalisation_match_float64(images):
    x = images.copy()
    x[..., 1] = 7  # a constant channel
    mean, std = channel_statistics(x)
    exact = x.astype(np.float64) / 255
    np.testing.assert_allclose(mean, exact.mean(axis=(0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(std[[0, 2]], exact.std(axis=(0, 1, 2))[[0, 2]], rtol=1e-6)
    assert std[1] == 1 and mean.dtype == std.dtype == np.float32
    found = normalise(jnp.asarray(x), mean, std)
    assert found.dtype == jnp.float32
    # values up to 4, and mean/std subtracted from x/std: a few units in the last place of float32
    np.testing.assert_allclose(found, (exact - mean) / std, atol=2e-6)
    np.testing.assert_allclose(np.asarray(found)[..., [0, 2]].mean(axis=(0, 1, 2)), 0, atol=1e-5)
    half = normalise(jnp.asarray(x), mean, std, jnp.bfloat16)
    np.testing.assert_array_equal(half, found.astype(jnp.bfloat16))  # rounded once


def test_zeros_are_black_before_and_the_mean_after_normalisation():
    x = np.full((1, 4, 4, 1), 255, np.uint8)
    mean, std = np.array([0.5]), np.array([0.25])
    offsets, straight = np.array([[0, 0]]), np.array([False])
    before = normalise(crop_and_flip(jnp.asarray(x), offsets, straight, 1), mean, std)
    after = crop_and_flip(normalise(jnp.asarray(x), mean, std), offsets, straight, 1)
    assert float(before[0, 0, 0, 0]) == -2 and float(after[0, 0, 0, 0]) == 0
    assert float(before[0, 1, 1, 0]) == float(after[0, 1, 1, 0]) == 2
