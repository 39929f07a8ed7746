"""The sweep of a family: against an unrolled loop, its symmetry, its derivative in the depth coordinate."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mfresnet.images import (
    BLOCK_RULES,
    Place,
    Plan,
    basic,
    bottleneck,
    kendall,
    make_rule,
    permute,
    stack,
    sweep,
)

KINDS = {
    "basic": lambda key: basic(key, 4, 4),
    "resnext, group norm": lambda key: bottleneck(key, 8, 4, 8, groups=2, norm_name="group"),
}
ORDER = np.array([2, 0, 1])


@pytest.mark.parametrize("kind", KINDS)
def test_sweep_is_the_unrolled_loop(kind, x64):
    """u_{j+1} = (1 - k) u_j + k u_{j-1} + h F(u_j; theta_{order_j}), states at their block's index."""
    blocks = stack(KINDS[kind], jax.random.split(jax.random.key(0), 3))
    x = jax.random.normal(jax.random.key(1), (2, 4, 4, blocks.kernels[0].shape[-2]))
    steps, mix = np.array([0.5, 1.5, 0.25]), np.array([0.3, -0.2, 0.6])

    @jax.jit
    def by_scan(blocks, x):
        return sweep(blocks, blocks.start(), x, Plan(jnp.asarray(steps), jnp.asarray(ORDER), jnp.asarray(mix)), True)

    @jax.jit
    def by_hand(blocks, x):
        states, last, u = [None] * 3, x, x
        for j, i in enumerate(ORDER):
            block = jax.tree.map(lambda leaf, i=i: leaf[i], blocks)
            branch, states[i] = block(u, block.start(), True)
            last, u = u, (1 - mix[j]) * u + mix[j] * last + steps[j] * branch
        return u, jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)

    got, expected = by_scan(blocks, x), by_hand(blocks, x)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


class Dense(eqx.Module):
    """A user's own block, without state."""

    weight: jax.Array

    def __init__(self, key):
        self.weight = jax.random.normal(key, (3, 3))

    def __call__(self, x, state, train):
        return jnp.tanh(x @ self.weight), state


@pytest.fixture(scope="module")
def mean_field():
    """loss(blocks, s) of four blocks under the mean-field rule in float64, blocks, and scattered depths."""
    with jax.enable_x64(True):
        rule, place = make_rule("mean-field", scale=1.3), Place(1, 4, 4)
        blocks = stack(Dense, jax.random.split(jax.random.key(0), 4))
        x = jax.random.normal(jax.random.key(1), (5, 3))

        @jax.jit
        def loss(blocks, s):
            order = rule.arrange({"s": s}, jnp.arange(4), 0, jax.random.key(0))
            return jnp.sum(jnp.sin(sweep(blocks, (), x, rule.plan({"s": s}, order, place), True)[0]))

        return loss, blocks, jnp.array([2.7, 0.4, 3.6, 1.9])


def test_gradient_of_depth_by_finite_differences(mean_field, x64):
    loss, blocks, s = mean_field
    gradient, h = jax.grad(loss, 1)(blocks, s), 1e-5
    for i in range(4):
        move = h * jnp.eye(4)[i]
        difference = (loss(blocks, s + move) - loss(blocks, s - move)) / (2 * h)
        # the error of a central difference is h^2 times a third derivative, plus rounding over h: both near 1e-10
        np.testing.assert_allclose(gradient[i], difference, rtol=1e-7, atol=1e-8)
    # t = s/N, so its gradient is N times the one of s
    by_t = jax.grad(lambda t: loss(blocks, 4 * t))(s / 4)
    np.testing.assert_allclose(by_t, 4 * gradient, rtol=1e-12)


def test_moving_blocks_with_their_depth_changes_nothing(mean_field, x64):
    """Sorting equivariance: gradients follow their block, too."""
    loss, blocks, s = mean_field
    move = jnp.array([3, 1, 0, 2])
    value, gradients = jax.value_and_grad(loss, (0, 1))(blocks, s)
    moved_value, moved = jax.value_and_grad(loss, (0, 1))(permute(blocks, move), s[move])
    assert value == moved_value
    for a, b in zip(jax.tree.leaves(permute(gradients, move)), jax.tree.leaves(moved), strict=True):
        np.testing.assert_array_equal(a, b)
    assert loss(permute(blocks, move), s) != value  # blocks alone: another network


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_equal_gaps_are_the_plain_network_to_the_bit(dtype):
    """Statistics included."""
    blocks, place = stack(KINDS["basic"], jax.random.split(jax.random.key(0), 3)), Place(1, 3, 3)
    rule, plain = make_rule("mean-field"), make_rule("plain")
    x = jax.random.normal(jax.random.key(1), (4, 4, 4, 4), dtype)

    @jax.jit
    def run(blocks, order):
        plans = rule.plan(rule.init(place), order, place), plain.plan({}, order, place)
        return [sweep(blocks, blocks.start(), x, plan, True) for plan in plans]

    for a, b in zip(*map(jax.tree.leaves, run(blocks, jnp.arange(3))), strict=True):
        np.testing.assert_array_equal(a, b)


OPTIONS = {"scaled": {"alpha": 9.0}}
PLACE = Place(first=2, count=3, total=9)


@pytest.mark.parametrize("name", BLOCK_RULES.names())
def test_contract_of_every_rule(name):
    """An order is a permutation, evaluation takes the mean step of training, and training reduces the loss."""
    rule = make_rule(name, **OPTIONS.get(name, {}))
    coordinates, order = rule.init(PLACE), jnp.arange(3, dtype=jnp.int32)
    assert all(value.shape == (3,) for value in coordinates.values())
    arranged = rule.arrange(coordinates, order, jnp.asarray(1), jax.random.key(4))
    assert sorted(np.asarray(arranged)) == [0, 1, 2] and arranged.dtype == order.dtype
    assert bool(jnp.any(arranged != order)) <= rule.reorders
    np.testing.assert_array_equal(rule.evaluation_order(coordinates, arranged), order)
    still = rule.plan(coordinates, order, PLACE)
    for plan in (still, rule.plan(coordinates, arranged, PLACE, jax.random.key(0))):
        assert plan.steps.shape == (3,) and bool(jnp.isfinite(plan.steps).all())
        assert (plan.order is not None) == rule.reorders
    keys = jax.random.split(jax.random.key(5), 300)
    drawn = jax.vmap(lambda key: rule.plan(coordinates, order, PLACE, key).steps)(keys)
    # 4.5 standard errors of a mean of 300 Bernoulli draws are at most 0.13
    np.testing.assert_allclose(jnp.mean(drawn, 0), still.steps, atol=0.13)
    assert all(value.shape == (3,) for value in rule.observe(coordinates, PLACE).values())

    blocks = stack(Dense, jax.random.split(jax.random.key(0), 3))
    x, y = jax.random.normal(jax.random.key(1), (2, 8, 3))

    def loss(trained, order, key):
        blocks, coordinates = trained
        return jnp.mean((sweep(blocks, (), x, rule.plan(coordinates, order, PLACE, key), True)[0] - y) ** 2)

    @jax.jit
    def step(trained, order, k):
        order = rule.arrange(trained[1], order, k, jax.random.key(k))
        gradient = jax.grad(loss)(trained, order, jax.random.key(k))
        return jax.tree.map(lambda p, g: p - 0.05 * g, trained, gradient), order

    trained, before = (blocks, coordinates), float(loss((blocks, coordinates), order, None))
    for k in range(60):
        trained, order = step(trained, order, k)
    assert float(loss(trained, rule.evaluation_order(trained[1], order), None)) < 0.8 * before
    if coordinates:  # they are trained, not only carried
        assert all(not np.allclose(trained[1][key], coordinates[key]) for key in coordinates)


def test_known_steps():
    depth = make_rule("stochastic-depth", survival=0.4)
    np.testing.assert_allclose(depth.plan({}, jnp.arange(3), Place(1, 3, 3)).steps, [0.8, 0.6, 0.4], rtol=1e-6)
    drawn = jnp.stack([depth.plan({}, None, Place(1, 3, 3), jax.random.key(k)).steps for k in range(300)])
    assert set(np.unique(drawn)) == {0.0, 1.0}
    # 4.5 standard errors of a mean of 300 Bernoulli draws are at most 0.13
    np.testing.assert_allclose(drawn.mean(0), [0.8, 0.6, 0.4], atol=0.13)
    np.testing.assert_allclose(make_rule("scaled", alpha=3.0).plan({}, None, PLACE).steps, 3 / 9, rtol=1e-6)


def test_depth_is_reflected_at_both_ends():
    """The network sees the reflection into [0, N]: order, steps and what is recorded."""
    rule, free = make_rule("mean-field"), {"s": jnp.array([-0.5, 3.25, 7.0])}
    np.testing.assert_allclose(rule.observe(free, PLACE)["t"], np.array([0.5, 2.75, 1.0]) / 3, rtol=1e-6)
    order = rule.evaluation_order(free, jnp.arange(3))
    np.testing.assert_array_equal(order, [0, 2, 1])
    np.testing.assert_allclose(rule.plan(free, order, PLACE).steps, [0.5, 1.75, 0.25])


def test_cadence_keeps_the_order_between_sorts():
    rule, order = make_rule("mean-field", cadence=4), jnp.array([0, 1, 2], jnp.int32)
    depths = {"s": jnp.array([2.0, 1.0, 0.0])}
    np.testing.assert_array_equal(rule.arrange(depths, order, jnp.asarray(3), None), order)
    np.testing.assert_array_equal(rule.arrange(depths, order, jnp.asarray(4), None), [2, 1, 0])


def test_kendall_counts_swaps_of_neighbours():
    """Against bubble sort."""
    rng = np.random.default_rng(0)
    for _ in range(5):
        order, count = list(rng.permutation(6)), 0
        expected = jnp.array(order)
        for i in range(6):
            for j in range(5 - i):
                if order[j] > order[j + 1]:
                    order[j], order[j + 1], count = order[j + 1], order[j], count + 1
        assert int(kendall(jnp.arange(6), expected)) == count
