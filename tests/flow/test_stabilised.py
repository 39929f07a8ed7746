"""The stabilised solver: second order, an estimate of its own error, and stability to about 0.65 s^2."""

from functools import partial

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mfresnet.flow import Batch, Trainer, flow
from mfresnet.flow.integrate import integrate
from mfresnet.flow.rules import pid
from mfresnet.flow.stabilised import MOST_STAGES, RKC2, Memory, chebyshev, spectral_radius
from mfresnet.model import LayeredResNet, trainable


def stages_for(h: float, radius: float) -> int:
    """Naively: the smallest s with h radius 1.2 <= 0.65 (s^2 - 1), as the authors choose it."""
    return max(2, int(np.ceil(np.sqrt(1 + 1.54 * 1.2 * h * radius))))


def one_step(velocity, y0, h, memory=None):
    term = diffrax.ODETerm(lambda t, y, args: velocity(y))
    memory = memory or RKC2().init(term, 0.0, h, y0, None)
    y1, error, _, after, _ = RKC2().step(term, 0.0, h, y0, None, memory, False)
    return y1, error, after


def amplification(s: int, z: np.ndarray) -> np.ndarray:
    """y_1/y_0 of a step of s stages for y' = z y, h = 1, from the coefficients."""
    table = chebyshev()
    last, before = table.first[s] * z, np.zeros_like(z)
    for j in range(2, s + 1):
        slope = table.slope[s, j] * z * (1 + last) + table.start[s, j] * z
        last, before = table.mu[s, j] * last + table.nu[s, j] * before + slope, last
    return 1 + last


@pytest.mark.parametrize("s", [2, 3, 5, 10, 40, MOST_STAGES])
def test_stable_to_the_known_bound_and_not_much_further(s):
    """beta(s) = 2/3 (s^2 - 1)(1 - 2/15 eps); inside, damped by at least eps/3 away from 0 (the paper, section 2)."""
    bound = 2 / 3 * (s**2 - 1) * (1 - 2 / 15 * 2 / 13)
    inside = amplification(s, -np.linspace(0, bound, 20001))
    assert np.abs(inside).max() <= 1 + 1e-9
    assert np.abs(amplification(s, -np.linspace(1.02, 1.3, 501) * bound)).max() > 1
    assert 0.64 * (s**2 - 1) < bound < 0.66 * s**2
    # second order: 1 + z + z^2/2 + O(z^3)
    small = np.array([-1e-3, -2e-3])
    third = (amplification(s, small) - (1 + small + small**2 / 2)) / small**3
    assert np.all((third > -1e-6) & (third < 1 / 6)) and abs(third[0] - third[1]) < 1e-3


def test_the_radius_is_that_of_a_known_matrix_and_sets_the_stages(x64):
    values = jnp.asarray([-3.0, -50.0, -997.0])
    direction, radius, rounds = spectral_radius(
        lambda y: values * y,
        jnp.ones(3),
        values,
        Memory(values, values, jnp.asarray(0.0), jnp.asarray(0), jnp.asarray(0)),
    )
    assert abs(float(radius) / 997 - 1) < 1e-3 and 1 < int(rounds) < 10
    assert abs(float(direction[2]) / float(jnp.linalg.norm(direction))) > 0.999
    after = one_step(lambda y: values * y, jnp.ones(3), 0.5)[2]
    counted = int(after.evaluations) - 1 - int(rounds)
    assert counted == stages_for(0.5, float(radius)) == 31
    again = one_step(lambda y: values * y, jnp.ones(3), 0.5, after)[2]
    assert int(again.evaluations - after.evaluations) == counted  # the radius is known


def test_second_order_and_the_embedded_estimate(x64):
    """A nonlinear system with a known solution: y = 1/(1 + t), a rotation, and a stiff mode that has died out."""

    def velocity(y):
        return jnp.stack([-(y[0] ** 2), y[2], -y[1], -300 * (y[3] - y[0]) - y[0] ** 2])

    def exact(t):
        return np.array([1 / (1 + t), np.cos(t), -np.sin(t), 1 / (1 + t)])

    advance = jax.jit(partial(one_step, velocity))
    steps, errors = np.array([20, 40, 80, 160]), []
    for count in steps:
        y = jnp.asarray(exact(0.0))
        memory = RKC2().init(diffrax.ODETerm(lambda t, y, args: velocity(y)), 0.0, 1.0, y, None)
        for _ in range(count):
            y, _, memory = advance(y, 1 / count, memory)
        errors.append(np.abs(np.asarray(y) - exact(1.0)).max())
    slope = np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert -2.2 < slope < -1.8
    # the estimate of one step has the size of the local error, y''' h^3 times a constant of the method
    local, estimates = [], []
    for h in (0.1, 0.05, 0.025):
        y, error, _ = one_step(lambda y: jnp.stack([-(y[0] ** 2), y[2], -y[1]]), jnp.asarray(exact(0.0)[:3]), h)
        local.append(np.linalg.norm(np.asarray(y) - exact(h)[:3]))
        estimates.append(float(jnp.linalg.norm(error)))
    assert all(0.5 < ratio < 4 for ratio in np.divide(estimates, local))
    assert abs(np.polyfit(np.log([0.1, 0.05, 0.025]), np.log(estimates), 1)[0] - 3) < 0.2


def test_a_step_beyond_all_stages_is_not_accepted(x64):
    """The controller shortens it, and the solution of a very stiff problem is right."""
    end = integrate(
        lambda y: -1e7 * (y - 2.0), jnp.asarray([2.5]), jnp.asarray(1.0), jnp.asarray(1.0), RKC2(),
        pid(jnp.asarray(1e-4)),
    )  # fmt: skip
    assert bool(end.success) and abs(float(end.network[0]) - 2.0) < 1e-3
    assert int(end.attempted) > int(end.accepted)


def test_followers_have_the_networks_error(x64):
    """The integral of a solution whose fast mode dies out, beside tolerance."""

    def velocity(y):
        return jnp.stack([-500 * (y[0] - jnp.cos(y[1])), jnp.ones(())])

    def solve(tolerance):
        end = integrate(
            velocity, jnp.asarray([1.0, 0.0]), jnp.asarray(2.0), jnp.asarray(1e-3), RKC2(),
            pid(jnp.asarray(tolerance)), lambda y, z: y[0] - z, jnp.asarray(0.0),
        )  # fmt: skip
        # z' = cos t - z to 1/500, exactly from y = (cos t + sin t/500)/(1 + 500^-2) + decaying
        return end

    ends = [solve(t) for t in (1e-4, 1e-6, 1e-9)]
    errors = [abs(float(end.followers - ends[2].followers)) for end in ends[:2]]
    assert errors[0] < 1e-3 and errors[1] < 1e-5
    t = 2.0
    assert abs(float(ends[2].followers) - (np.cos(t) + np.sin(t) - np.exp(-t)) / 2) < 4e-3


def test_the_flow_of_a_network_and_its_probes_agree_with_a_classical_solver(x64):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(32, 2))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    data = Batch(*(jnp.asarray(v) for v in (x, np.sign(rng.normal(size=(32, 1))), np.ones(32))))
    sizes = {"inputs": 2, "depth": 3, "width": 8, "head_width": 10, "dtype": "float64"}
    model = LayeredResNet.create(jax.random.key(0), alpha=2.0, beta=5.0, **sizes)

    @partial(eqx.filter_jit)
    def ends(solver):
        trainer = Trainer(flow(solver, 0.5, 1e-7), trainable(model))
        begin = trainer.begin(model, jax.random.key(1), 32, probes=(2, 8))
        return trainer.advance(begin, data, jax.random.key(2), 10, 10)[0]

    a, b = ends("adaptive"), ends("stabilised")
    for of_a, of_b in zip(jax.tree.leaves((a.model, a.ensemble)), jax.tree.leaves((b.model, b.ensemble)), strict=True):
        np.testing.assert_allclose(of_a, of_b, atol=2e-3)  # 100 tolerance^(2/3)
