"""The continuous model against the layered one, finite differences and the depth ODE."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mfresnet.diagnostics import dissipation, first_order_share, landscape
from mfresnet.flow import Batch, Options, Trainer, field, flow, optimiser
from mfresnet.kernels import gram
from mfresnet.model import ContinuousResNet, LayeredResNet, Particles, activation, reflect, trainable

X = np.random.default_rng(0).normal(size=(5, 2))
Y = np.sign(np.random.default_rng(1).normal(size=(5, 1)))


def network(particles=7, seed=0, spread=True, **options):
    options = {"inputs": 2, "head_width": 4, "alpha": 3.0, "beta": 2.0, "dtype": "float64"} | options
    return ContinuousResNet.create(jax.random.key(seed), particles=particles, spread=spread, **options)


def data():
    return Batch(jnp.asarray(X), jnp.asarray(Y), jnp.ones(5))


def naive(model, x):
    """Theory, section 10, with the particles sorted by hand."""
    t = np.abs((np.asarray(model.t) + 1) % 2 - 1)  # reflected at 0 and at 1
    order, sigma = np.argsort(t), np.tanh
    ends = np.append(t[order][1:], 1.0)
    z = np.array(x)
    for j, end in zip(order, ends, strict=True):
        u, w, b = (np.asarray(v[j, 0]) for v in (model.encoder.u, model.encoder.w, model.encoder.b))
        z = z + float(model.alpha) * (end - t[j]) * sigma(z @ w + b)[:, None] * u
    return z


def test_states_are_those_of_the_definition_also_outside_the_interval(x64):
    model = network()
    moved = eqx.tree_at(lambda m: m.t, model, jnp.asarray([-0.3, 0.2, 1.4, 0.7, 2.1, 0.0, 0.95]))
    for candidate in (model, moved):
        np.testing.assert_allclose(candidate.sweep(jnp.asarray(X))[0], naive(candidate, X), rtol=1e-12)
    assert reflect(jnp.array([0.0, 1.0])).tolist() == [0.0, 1.0]


def test_equally_spaced_it_is_the_layered_network_of_width_one(x64):
    model = network(spread=False)
    plain = LayeredResNet(model.encoder, model.head, None, model.alpha, model.beta, model.sigma, 7)
    np.testing.assert_allclose(model(jnp.asarray(X)), plain(jnp.asarray(X)), rtol=1e-12)


def test_a_permutation_of_the_particles_changes_nothing(x64):
    model, order = network(), np.random.default_rng(2).permutation(7)
    mixed = eqx.tree_at(
        lambda m: (m.encoder, m.t), model, (jax.tree.map(lambda v: v[order], model.encoder), model.t[order])
    )
    np.testing.assert_array_equal(model(jnp.asarray(X)), mixed(jnp.asarray(X)))
    velocities = [field(m, trainable(m), data(), Options()).model for m in (model, mixed)]
    np.testing.assert_allclose(velocities[0].t[order], velocities[1].t, rtol=1e-12)
    np.testing.assert_allclose(velocities[0].encoder.w[order], velocities[1].encoder.w, rtol=1e-12)


def test_velocities_are_finite_differences_of_the_loss(x64):
    model = network()
    velocity = field(model, trainable(model), data(), Options()).model
    loss = jax.jit(lambda m: 0.5 * jnp.mean((m(jnp.asarray(X)) - Y) ** 2))
    h = 1e-6
    for where, of, mass in (
        (lambda m: m.t, lambda v: v.t, 1),
        (lambda m: m.encoder.w, lambda v: v.encoder.w, 7),
        (lambda m: m.encoder.out, lambda v: v.encoder.out, 7),
    ):
        value = where(model)
        for index in np.ndindex(*value.shape):
            up, down = (eqx.tree_at(where, model, value.at[index].add(s)) for s in (h, -h))
            slope = float(loss(up) - loss(down)) / (2 * h)
            # second order in h, and the rounding of a loss of order 1 over h
            assert float(of(velocity)[index]) == pytest.approx(-mass * slope, rel=1e-5, abs=1e-8)


def test_more_particles_on_a_smooth_law_approach_the_depth_ode_at_order_one(x64):
    def law(s):
        s = np.asarray(s)[:, None]
        u = np.hstack([np.cos(3 * s), np.sin(2 * s)])
        return Particles(*(jnp.asarray(v) for v in (u[:, None], (u[:, ::-1] + 0.5)[:, None], np.cos(s))))

    head, sigma = None, activation("tanh")

    def last(n):
        t = jnp.arange(n) / n
        plain = LayeredResNet(law(t), head, None, jnp.asarray(2.0), jnp.asarray(1.0), sigma, n)
        return ContinuousResNet.of(plain, t).sweep(jnp.asarray(X))[0]

    z, n = X.copy(), 400  # the depth ODE itself by the classical Runge-Kutta method

    def slope(s, z):
        p = law([s]).layer(0)
        return 2.0 * np.tanh(z @ np.asarray(p.w).T + np.asarray(p.b)) @ np.asarray(p.out)

    for k in range(n):
        s, h = k / n, 1 / n
        k1 = slope(s, z)
        k2 = slope(s + h / 2, z + h / 2 * k1)
        k3 = slope(s + h / 2, z + h / 2 * k2)
        z = z + h / 6 * (k1 + 2 * k2 + 2 * k3 + slope(s + h, z + h * k3))
    sizes = np.array([32, 64, 128])
    errors = [float(np.abs(np.asarray(last(int(size))) - z).max()) for size in sizes]
    assert -np.polyfit(np.log(sizes), np.log(errors), 1)[0] == pytest.approx(1, abs=0.1)


def test_training_lowers_the_loss_and_particles_swap_places(x64):
    model = network(particles=12, spread=False)
    for rule in (flow("euler", 0.02), optimiser("adam", 0.02)):
        trainer = Trainer(rule, trainable(model))
        begin = trainer.begin(model, jax.random.key(0), 5)
        with jax.numpy_dtype_promotion("standard"):  # Optax's Adam raises a number to the power of its count
            state, losses = trainer.advance(begin, data(), jax.random.key(0), 60, 60)
        assert float(losses[-1]) < 0.5 * float(losses[0])
        places = np.asarray(state.model.places)
        assert places.min() >= 0 and places.max() <= 1
        assert np.any(np.diff(places) < 0)  # no longer in the order of the start
    frozen = trainable(model, freeze="encoder")
    assert frozen.t is False and trainable(model).t is True


def test_the_dissipation_identity_holds_with_places_among_the_parameters(x64):
    model = network()
    matrices = gram(model, X)
    assert dissipation(model, X, Y, matrices).residual < 1e-10  # rounding of sums of some hundred terms
    cross = gram(model, X[:2], other=X)
    np.testing.assert_allclose(cross.total, matrices.total[:2], rtol=1e-10, atol=1e-12)


def test_landscape_and_first_order_paths():
    model = network(particles=6, alpha=0.01, dtype="float32")
    assert first_order_share(model, X) > 0.999
    found = landscape(model, X, Y, probes=8)
    assert found.lowest_encoder < 0 and 0 <= found.depth <= 1


@pytest.mark.usefixtures("unchecked")
def test_what_a_continuous_network_does_not_have():
    model = network(dtype="float32")
    with pytest.raises(ValueError, match="depth = 3 is not allowed"):
        network(depth=3)
    with pytest.raises(ValueError, match="particles = 0 is not allowed"):
        network(particles=0)
    with pytest.raises(ValueError, match="3 places need 3 layers of width 1"):
        ContinuousResNet.of(model, jnp.zeros(3))
    with pytest.raises(ValueError, match="closed form needs scheme 'euler'"):
        from mfresnet import adjoint

        adjoint(model, jnp.asarray(X, "float32"))
