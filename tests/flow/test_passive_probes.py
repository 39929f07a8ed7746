"""Probes are passive: the network is the same to the bit with any number of them, in every precision and rule."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mfresnet.flow import Batch, Options, Trainer, field, flow
from mfresnet.flow.integrate import integrate
from mfresnet.flow.rules import pid
from mfresnet.model import LayeredResNet, trainable


def problem(n=32):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 2))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    data = Batch(*(jnp.asarray(v, jnp.float32) for v in (x, np.sign(rng.normal(size=(n, 1))), np.ones(n))))
    return data, LayeredResNet.create(jax.random.key(0), inputs=2, depth=3, width=8, head_width=10, alpha=2.0, beta=5.0)


def trained_network(solver: str, probes: tuple[int, int]) -> np.ndarray:
    data, model = problem()
    trainer = Trainer(flow(solver, 0.2, 1e-4), trainable(model))
    begin = trainer.begin(model, jax.random.key(1), 32, probes=probes)
    state, _ = trainer.advance(begin, data, jax.random.key(2), 20, 20)
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(state.model)])


@pytest.mark.exact
@pytest.mark.parametrize("solver", ["adaptive", "stabilised", "heun", "euler"])
def test_the_network_does_not_depend_on_the_number_of_probes(solver):
    ends = [trained_network(solver, probes) for probes in ((0, 0), (3, 16), (5, 40))]
    assert all(np.array_equal(end, ends[0]) for end in ends[1:])


def test_probes_see_the_field_of_the_particles_own_precision():
    """In bfloat16 the Hessian at a probe was wrong by several percent, and with it every log-determinant."""
    data, model = problem()
    model = jax.tree.map(lambda leaf: leaf + 0, model)
    probes = Trainer(flow("euler", 0.1), trainable(model)).begin(model, jax.random.key(1), 32, probes=(3, 4))
    places = probes.ensemble.probes
    low, full = (
        field(model, trainable(model), data, Options(compute=compute), places, "hessian")
        for compute in ("bfloat16", None)
    )
    assert low.model.encoder.w.dtype == jnp.float32
    assert not np.array_equal(low.model.encoder.w, full.model.encoder.w)  # the network's own field is rounded
    for a, b in zip(jax.tree.leaves(low.of_probes), jax.tree.leaves(full.of_probes), strict=True):
        np.testing.assert_array_equal(a, b)


def test_followers_are_solved_to_third_order_on_the_networks_steps(x64):
    """A linear oscillator, and its time integral as follower: both errors fall with the tolerance."""

    def solve(tolerance):
        return integrate(
            lambda y: jnp.stack([y[1], -y[0]]), jnp.asarray([1.0, 0.0]), jnp.asarray(3.0), jnp.asarray(0.01),
            flow("adaptive", 1.0).solver, pid(jnp.asarray(tolerance)), lambda y, _: y[0], jnp.asarray(0.0),
        )  # fmt: skip

    ends = [solve(tolerance) for tolerance in (1e-4, 1e-7)]
    errors = [(abs(end.network[0] - np.cos(3.0)), abs(end.followers - np.sin(3.0))) for end in ends]
    assert max(errors[0]) < 3e-3 and max(errors[1]) < 3e-6
    # third order: the steps are a tenth as long
    assert 5 < ends[1].accepted / ends[0].accepted < 15
    assert all(bool(end.success) for end in ends)


def test_a_solution_that_blows_up_ends_without_success():
    end = integrate(
        lambda y: y**2, jnp.asarray(1.0), jnp.asarray(2.0), jnp.asarray(0.1),
        flow("adaptive", 1.0).solver, pid(jnp.asarray(1e-3)), lambda y, _: y, jnp.asarray(0.0),
    )  # fmt: skip
    assert not bool(end.success)
