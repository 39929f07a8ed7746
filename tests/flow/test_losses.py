"""Losses and misclassification: definitions by loops, and what is not finite."""

import jax.numpy as jnp
import numpy as np
import pytest

from mfresnet.bounds import vote
from mfresnet.flow import error, is_misclassified, mistakes

BAD = (np.nan, np.inf, -np.inf)


@pytest.mark.parametrize("array", [np.asarray, jnp.asarray])
@pytest.mark.parametrize("bad", BAD)
def test_what_is_not_finite_is_an_error_whatever_the_label(array, bad):
    for label in (-1.0, 1.0):
        assert bool(is_misclassified(array([[bad]]), array([[label]]))[0])
        assert float(error(jnp.asarray([[bad]]), jnp.asarray([[label]]), jnp.ones(1), "binary")) == 1.0
    for place in range(3):
        for label in range(3):
            f = np.zeros((1, 3), np.float32)
            f[0, label], f[0, place] = 1.0, bad  # the largest finite output is the right one
            one_hot = np.eye(3, dtype=np.float32)[[label]]
            assert bool(is_misclassified(array(f), array(one_hot))[0])
            assert bool(is_misclassified(array(f), array([label]))[0])
            assert float(mistakes(array(f), array(one_hot), "multiclass")[0]) == 1.0


def test_finite_predictions_by_a_naive_loop():
    rng = np.random.default_rng(0)
    f, y = rng.normal(size=(40, 1)), rng.choice([-1.0, 1.0], (40, 1))
    f[:5] = 0.0  # between two classes: a mistake for both
    naive = [not ((a > 0 and b > 0) or (a < 0 and b < 0)) for a, b in zip(f[:, 0], y[:, 0], strict=True)]
    assert is_misclassified(f, y).tolist() == naive and all(naive[:5])
    many, labels = rng.normal(size=(40, 4)), rng.integers(0, 4, 40)
    naive = [max(range(4), key=lambda c, row=row: row[c]) != label for row, label in zip(many, labels, strict=True)]
    assert is_misclassified(many, labels).tolist() == is_misclassified(many, np.eye(4)[labels]).tolist() == naive
    assert is_misclassified(np.stack([many, many]), labels).shape == (2, 40)


def test_a_draw_that_is_not_finite_votes_for_nothing():
    f = jnp.asarray([[[1.0], [np.nan]], [[np.nan], [np.inf]], [[np.inf], [np.nan]]])
    assert vote(f).tolist() == [1, -1]  # one finite ballot decides; without any there is no class
    many = jnp.asarray([[[0.0, 1.0]], [[np.nan, 0.0]], [[np.nan, 0.0]]])
    assert vote(many).tolist() == [1]
