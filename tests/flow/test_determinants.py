"""Log-determinants of Euler steps: NumPy as the oracle, and no call of LAPACK."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mfresnet.flow import Batch, Trainer, flow
from mfresnet.flow.determinants import PANEL, eliminate_all, log_determinants
from mfresnet.model import LayeredResNet, trainable


@pytest.mark.parametrize("size", [1, 3, PANEL, PANEL + 1, 2 * PANEL + 5])
def test_elimination_finds_determinants_and_definiteness(x64, size):
    """Of matrices around the border of the cone: pivots below 1e-3 occur, so 1e-9 leaves room for their rounding."""
    rng = np.random.default_rng(size)
    noise = rng.normal(size=(2, 50, size, size)) / size**0.5
    strength = np.linspace(0.1, 1.0, 50)[:, None, None]
    matrix = np.eye(size) + strength * (noise + np.swapaxes(noise, -1, -2))
    value, definite = jax.jit(eliminate_all)(jnp.asarray(matrix))
    np.testing.assert_allclose(value, np.linalg.slogdet(matrix)[1], rtol=0, atol=1e-9)
    expected = np.linalg.eigvalsh(matrix)[..., 0] > 0
    assert (np.asarray(definite) == expected).all() and 0 < expected.sum() < expected.size


def test_single_precision_loses_no_more_than_its_rounding():
    """Positive definite, condition number below 10: 40 pivots of relative error 1e-7 each."""
    noise = np.random.default_rng(0).normal(size=(100, 40, 40)) / 40**0.5
    matrix = np.eye(40) + 0.2 * (noise + np.swapaxes(noise, -1, -2))
    value, definite = eliminate_all(jnp.asarray(matrix, jnp.float32))
    assert np.asarray(definite).all()
    np.testing.assert_allclose(value, np.linalg.slogdet(matrix)[1], rtol=0, atol=2e-5)


def test_a_singular_matrix_and_nan_are_not_definite():
    matrix = jnp.array([[[1.0, 1.0], [1.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]], [[jnp.nan, 0.0], [0.0, 1.0]]])
    value, definite = eliminate_all(matrix)
    assert not np.asarray(definite).any()
    assert value[0] == -np.inf and np.isnan(value[2])


def test_a_step_with_probes_calls_no_lapack():
    """Two batched calls at once wait for each other's threads: a program with probes must have none."""
    model = LayeredResNet.create(jax.random.key(0), inputs=2, depth=2, width=3, head_width=3)
    trainer = Trainer(flow("euler", 0.1), trainable(model))
    state = trainer.begin(model, jax.random.key(1), 4, probes=(2, 2))
    data = Batch(jnp.ones((4, 2)), jnp.ones((4, 1)), jnp.ones(4))
    text = jax.jit(lambda s: trainer.step(s, data, jax.random.key(2))).lower(state).as_text()
    assert "stablehlo.while" in text and "lapack" not in text and "cholesky" not in text
    found = jax.jit(log_determinants).lower((jnp.ones((3, 2, 2)), jnp.ones((3, 2, 2))), 0.1).as_text()
    assert "lapack" not in found and "cholesky" not in found
