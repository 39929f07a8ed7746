"""Pulling probes back along a recorded flow: an exact inverse, and densities that integrate to one."""

from math import erf

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mfresnet.bounds import pull_back
from mfresnet.bounds.density import normalisation_error_of
from mfresnet.bounds.prior import stack
from mfresnet.diagnostics.divergence import log_density_ratios
from mfresnet.flow import Batch, EulerFlow, Trainer
from mfresnet.flow.determinants import log_determinants
from mfresnet.model import LayeredResNet, trainable

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
        model = LayeredResNet.create(
            jax.random.key(0), inputs=2, depth=3, width=10, head_width=20, beta=2.0, dtype="float64"
        )
        trainer = Trainer(EulerFlow(jnp.asarray(0.2)), trainable(model))
        state, history = trainer.begin(model, jax.random.key(1), 12, probes=(400, 1500)), []
        for _ in range(8):
            history.append(state.model)
            state, _ = trainer.advance(state, part, jax.random.key(2), 1, 1)
        prior = state
        long = Trainer(EulerFlow(jnp.asarray(40.0)), trainable(model))  # the same program
        folded = long.advance(
            long.begin(model, jax.random.key(1), 12, probes=(400, 1500)), part, jax.random.key(2), 1, 1
        )[0]
        state, _ = trainer.advance(state, all_points, jax.random.key(2), 8, 8)
        yield stack(history), part, prior, state, trainable(model), folded


def test_pulling_back_inverts_the_flow_and_its_densities(run, x64):
    history, part, prior, _, trained, _ = run
    found = pull_back(history, part, prior.ensemble.probes, h=0.2, trained=trained)
    assert found.residual < 1e-9
    for ours, theirs in zip(jax.tree.leaves(found.ensemble), jax.tree.leaves(prior.ensemble), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-8)


def test_log_ratios_between_two_times_have_mean_one_and_a_smaller_kl(run, x64):
    history, part, _, posterior, trained, _ = run
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


def test_long_steps_fold_space_and_say_so(run):
    prior, folded = run[2].ensemble, run[5].ensemble
    assert prior.not_one_to_one == 0 and folded.not_one_to_one > 0
    # the flags are kept: short steps after a long one do not make its map one-to-one
    assert folded.not_one_to_one == sum(int((~np.asarray(leaf)).sum()) for leaf in jax.tree.leaves(folded.one_to_one))


def test_the_mass_of_the_weights_counts_preimages():
    """x ~ N(0, 1) and T(x) = x - 1.5 tanh(2 x), which has three preimages of 0: E exp(-R) = E_P N by quadrature."""
    x = np.linspace(-9, 9, 400_001)
    image, slope = x - 1.5 * np.tanh(2 * x), 1 - 3 / np.cosh(2 * x) ** 2
    ratio = 0.5 * (image**2 - x**2) - np.log(np.abs(slope))
    draws = np.random.default_rng(0).normal(size=200_000)
    found = normalisation_error_of(np.interp(draws, x, ratio)) + 1
    turn = np.arccosh(np.sqrt(3)) / 2  # where the slope vanishes: between the images of -turn and turn N is 3, else 1
    inside = abs(turn - 1.5 * np.tanh(2 * turn))
    expected = 1 + 2 * erf(inside / np.sqrt(2))
    assert found == pytest.approx(expected, rel=0.02)  # 200,000 draws of a bounded weight


def test_the_schur_complement_decides_whether_a_step_is_monotone(x64):
    """Against eigenvalues and determinant of I - h [[0, A], [A^T, B]] itself, definite and not."""
    rng = np.random.default_rng(0)
    mixed, bend = rng.normal(size=(200, 2, 3)), rng.normal(size=(200, 3, 3))
    bend = bend + np.swapaxes(bend, 1, 2)
    hessian = np.block([[np.zeros((200, 2, 2)), mixed], [np.swapaxes(mixed, 1, 2), bend]])
    whole = np.eye(5) - 0.25 * hessian
    gain, definite = log_determinants((jnp.asarray(mixed), jnp.asarray(bend)), 0.25)
    np.testing.assert_allclose(gain, -np.log(np.abs(np.linalg.det(whole))), atol=1e-10)
    expected = np.linalg.eigvalsh(whole).min(axis=1) > 0
    assert (np.asarray(definite) == expected).all() and 20 < expected.sum() < 180
