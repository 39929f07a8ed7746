"""Pulling probes back along a recorded flow: an exact inverse, and densities that integrate to one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mfresnet.bounds import pull_back
from mfresnet.bounds.prior import stack
from mfresnet.diagnostics.divergence import log_density_ratios
from mfresnet.flow import Batch, EulerFlow, Trainer
from mfresnet.model import ScaledResNet, trainable

UNIT = (1.0, 1.0, 1.0)


@pytest.fixture(scope="module")
def run():
    """Eight Euler steps on part A with probes, every model kept; then eight more on all points."""
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        x = rng.normal(size=(24, 2))
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        y = np.sign(x[:, :1])
        all_points = Batch(jnp.asarray(x), jnp.asarray(y), jnp.ones(24))
        part = jax.tree.map(lambda v: v[:12], all_points)
        model = ScaledResNet.create(
            jax.random.key(0), inputs=2, depth=3, width=10, head_width=20, beta=2.0, dtype="float64"
        )
        trainer = Trainer(EulerFlow(jnp.asarray(0.2)), trainable(model))
        state, history = trainer.begin(model, jax.random.key(1), 12, probes=(400, 1500)), []
        for _ in range(8):
            history.append(state.model)
            state, _ = trainer.advance(state, part, jax.random.key(2), 1, 1)
        prior = state
        state, _ = trainer.advance(state, all_points, jax.random.key(2), 8, 8)
        yield stack(history), part, prior, state, trainable(model)


def test_pulling_back_inverts_the_flow_and_its_densities(run, x64):
    history, part, prior, _, trained = run
    found = pull_back(history, part, prior.ensemble.probes, h=0.2, trained=trained)
    assert found.residual < 1e-9
    for ours, theirs in zip(jax.tree.leaves(found.ensemble), jax.tree.leaves(prior.ensemble), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-8)


def test_log_ratios_between_two_times_have_mean_one_and_a_smaller_kl(run, x64):
    history, part, _, posterior, trained = run
    ensemble = posterior.ensemble
    back = pull_back(history, part, ensemble.probes, h=0.2, trained=trained)
    assert back.residual < 1e-9
    for part_name in ("encoder", "head"):
        to_start = log_density_ratios(
            *(getattr(v, part_name) for v in (ensemble.probes, ensemble.start, ensemble.log_ratio)), UNIT
        )
        of_prior = log_density_ratios(
            *(getattr(v, part_name) for v in (back.ensemble.probes, back.ensemble.start, back.ensemble.log_ratio)), UNIT
        )
        ratio = to_start - of_prior
        weight = np.exp(-ratio).ravel()
        assert abs(weight.mean() - 1) < 5 * weight.std() / np.sqrt(weight.size)
        kl, kl_to_start = np.mean(np.exp(-ratio) - 1 + ratio), np.mean(np.exp(-to_start) - 1 + to_start)
        print(f"{part_name}: KL to the prior {kl:.3g}, to the start {kl_to_start:.3g}")
        assert 0 < kl < kl_to_start
