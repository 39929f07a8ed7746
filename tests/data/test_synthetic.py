"""Generated sets: geometry, balance, and a teacher that is one function."""

import numpy as np
import pytest

from mfresnet.data import circles, sphere_teacher, teacher_outputs, two_spirals
from mfresnet.data.synthetic import ALPHA, DEPTH, SHIFT, WIDTH


@pytest.mark.parametrize("turns", [1.0, 2.5])
def test_spirals_are_archimedean_and_interleaved(turns):
    x, y = two_spirals(101, np.random.default_rng(0), turns=turns)
    radius = np.linalg.norm(x, axis=1)
    expected = y[:, 0] * radius * np.exp(2j * np.pi * turns * radius)  # angle proportional to radius
    np.testing.assert_allclose(x[:, 0] + 1j * x[:, 1], expected, atol=1e-12)
    assert abs(y.sum()) <= 1 and set(y.ravel()) == {-1.0, 1.0}
    assert radius.max() <= 1


def test_noise_is_gaussian_of_the_stated_size():
    clean, y = two_spirals(4000, np.random.default_rng(0))
    noisy, same = two_spirals(4000, np.random.default_rng(0), noise=0.3)
    assert np.array_equal(y, same)
    assert np.std(noisy - clean) == pytest.approx(0.3, rel=0.05)
    x, _ = circles(4000, np.random.default_rng(0), noise=0.0)
    x_noisy, _ = circles(4000, np.random.default_rng(0), noise=0.2)
    assert np.std(x_noisy - x) == pytest.approx(0.2, rel=0.05)


def test_spirals_can_be_learnt_from_neighbours():
    test, y_test = two_spirals(200, np.random.default_rng(1))
    errors = []
    for n in (16, 512):
        x, y = two_spirals(n, np.random.default_rng(2))
        nearest = np.argmin(np.linalg.norm(test[:, None] - x, axis=2), axis=1)
        errors.append(np.mean(y[nearest] != y_test))
    assert errors[1] < 0.05 < errors[0]


def naive_teacher(x, seed):
    """One point, one particle at a time (theory, section 1)."""

    def unit(rng):
        v = rng.standard_normal((1, len(x)))
        return v[0] / np.linalg.norm(v)

    z = x.copy()
    for layer in range(DEPTH):
        rng = np.random.default_rng([seed, 2, layer])
        u = unit(rng) + rng.standard_normal((WIDTH, len(x)))
        w = SHIFT * unit(rng) + rng.standard_normal((WIDTH, len(x)))
        b = rng.standard_normal(WIDTH)
        z = z + ALPHA / (DEPTH * WIDTH) * sum(u[m] * np.tanh(w[m] @ z + b[m]) for m in range(WIDTH))
    rng = np.random.default_rng([seed, 3])
    a = 1 + rng.standard_normal((WIDTH, 1))[:, 0]
    w = SHIFT * unit(rng) + rng.standard_normal((WIDTH, len(x)))
    b = rng.standard_normal(WIDTH)
    return sum(a[k] * np.tanh(w[k] @ z + b[k]) for k in range(WIDTH)) / WIDTH


def test_teacher_is_the_stated_network_whatever_the_blocks():
    x, _ = sphere_teacher(7, np.random.default_rng(0), dimension=4)
    expected = [[naive_teacher(row, seed=5)] for row in x]
    np.testing.assert_allclose(teacher_outputs(x, 5), expected, rtol=1e-10)
    np.testing.assert_allclose(teacher_outputs(x, 5, block=3), expected, rtol=1e-10)


def test_teacher_is_bounded_nontrivial_and_the_same_for_all_draws():
    x, y = sphere_teacher(400, np.random.default_rng(0), dimension=6, teacher_seed=3)
    np.testing.assert_allclose(np.linalg.norm(x, axis=1), 1.0)
    assert np.max(np.abs(y)) <= 1 and y.std() > 0.4
    design = np.hstack([x, np.ones((400, 1))])
    residual = y - design @ np.linalg.lstsq(design, y, rcond=None)[0]
    assert residual.std() > 0.02 * y.std()  # not a linear function
    few, y_few = sphere_teacher(10, np.random.default_rng(0), dimension=6, teacher_seed=3)
    np.testing.assert_allclose(few, x[:10])
    np.testing.assert_allclose(y_few, y[:10], atol=1e-12)
    _, other = sphere_teacher(400, np.random.default_rng(0), dimension=6, teacher_seed=4)
    assert np.abs(other - y).max() > 0.1
