"""Convergence, regime and landscape: identities, closed forms against the trained network, known answers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mfresnet.diagnostics.convergence import convergence_certificate, dissipation, radius
from mfresnet.diagnostics.landscape import first_order_share, landscape
from mfresnet.diagnostics.regime import linearised_predictions, regime, verdict
from mfresnet.flow import Batch, Trainer, flow, squared
from mfresnet.kernels.gram import gram
from mfresnet.model import LayeredResNet, trainable


def problem(seed=0, *, n=5, d=3, outputs=1, **options):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    y = np.sign(rng.normal(size=(n, outputs))) / outputs
    options = {"depth": 4, "width": 6, "head_width": 7, "alpha": 1.5, "beta": 2.0} | options
    model = LayeredResNet.create(jax.random.key(seed), inputs=d, outputs=outputs, dtype="float64", **options)
    return model, x, y


@pytest.mark.parametrize("options", [{}, {"outputs": 3}, {"shared": True}, {"bias": False, "sigma": "gelu"}])
def test_dissipation_identity_holds_to_rounding(options, x64):
    model, x, y = problem(**options)
    found = dissipation(model, x, y, gram(model, x))
    assert found.residual < 1e-12
    assert 0 < found.encoder_share < 1


def test_dissipation_is_the_derivative_of_the_loss_along_the_flow(x64):
    model, x, y = problem(1)
    data = Batch(jnp.asarray(x), jnp.asarray(y), jnp.ones(len(x)))
    h = 1e-5
    trainer = Trainer(flow("heun", h), trainable(model))
    state = trainer.begin(model, jax.random.key(0), len(x))
    after = trainer.step(state, data, jax.random.key(0))[0]
    losses = [float(squared(m(data.x), data.y, data.weights)) for m in (model, after.model)]
    found = dissipation(model, x, y, gram(model, x))
    # a forward difference: relative error h times the ratio of the second to the first derivative
    assert (losses[0] - losses[1]) / h == pytest.approx(found.rate, rel=1e-3)


def test_loss_stays_below_its_certificate_along_a_flow(x64):
    """With lambda_min measured densely, section 5's inequality holds up to the quadrature error in between."""
    model, x, y = problem(2, n=4, head_width=60, width=40)
    data = Batch(jnp.asarray(x), jnp.asarray(y), jnp.ones(len(x)))
    trainer = Trainer(flow("adaptive", 0.05, 1e-8), trainable(model))
    state = trainer.begin(model, jax.random.key(0), len(x))
    losses, lows = [], []
    for _ in range(25):
        losses.append(float(squared(state.model(data.x), data.y, data.weights)))
        lows.append(np.linalg.eigvalsh(gram(state.model, x).total)[0])
        state, _ = trainer.advance(state, data, jax.random.key(0), jnp.asarray(4), 4)
    bound = convergence_certificate(losses[0], 0.2 * np.arange(25), np.array(lows), np.zeros(25), beta=2.0, n=4)
    assert np.all(losses <= bound * (1 + 1e-12))
    assert bound[-1] < 0.8 * bound[0]  # not vacuous


def test_convergence_certificate_uses_lower_ends_and_a_lower_sum():
    """Equal to the integral of the largest step function below all lower ends, at most the one of the true curve."""
    times, low, error = np.array([0.0, 1.0, 3.0]), np.array([1.0, 3.0, 2.0]), np.array([0.5, 0.5, 4.0])
    bound = convergence_certificate(2.0, times, low, error, beta=1.0, n=2)
    np.testing.assert_allclose(bound, 2.0 * np.exp(-np.array([0.0, 0.5, 0.5])))  # 2 - 4 < 0 counts as 0
    fine = np.linspace(0, 3, 301)
    for curve in (np.sqrt, np.exp):  # monotone curves: a lower sum is below their integral
        exact = 2.0 * np.exp(-np.concatenate([[0], np.cumsum(np.diff(fine) * curve(fine[:-1] + 0.005))]))
        coarse = convergence_certificate(2.0, times, curve(times), np.zeros(3), beta=1.0, n=2)
        assert np.all(coarse >= exact[[0, 100, 300]] * (1 - 1e-3))


def test_linearised_model_is_the_limit_of_lazy_training(x64):
    """With large beta the network follows its linearisation, train and test, with an error like 1/beta."""
    gaps = []
    for beta in (20.0, 80.0):
        model, x, y = problem(3, n=4, beta=beta, alpha=0.5, head_width=40, width=20)
        # a wide output at the start would dominate: train towards a target close to f(0), as lazy theory does
        f = np.asarray(model(jnp.asarray(x)))
        y = f + 0.1 * y
        test = np.asarray(problem(9, n=3)[1])
        times = np.array([0.0, 1.0]) * 4 / beta**2
        fit, guess = linearised_predictions(
            gram(model, x).total, gram(model, test, other=x).total, f, np.asarray(model(jnp.asarray(test))), y, times,
            beta=beta,
        )  # fmt: skip
        data = Batch(jnp.asarray(x), jnp.asarray(y), jnp.ones(len(x)))
        trainer = Trainer(flow("adaptive", times[1], 1e-10), trainable(model))
        state = trainer.step(trainer.begin(model, jax.random.key(0), 4), data, jax.random.key(0))[0]
        np.testing.assert_allclose(fit[0], f, atol=1e-12)
        moved = np.abs(guess[1] - guess[0]).max()
        gaps.append(np.abs(np.asarray(state.model(jnp.asarray(test))) - guess[1]).max() / moved)
        assert gaps[-1] < 20 / beta * 0.05
    assert gaps[1] < gaps[0] / 2.5  # 4 times the beta, about a quarter of the gap


def test_regime_and_radius_of_known_matrices():
    g, y = np.diag([2.0, 1.0]), np.array([[1.0], [0.0]])
    assert regime(g, g, y).kernel_change == 0 and regime(g, g, y).verdict == "lazy"
    assert regime(g, 2 * g, y).kernel_change == pytest.approx(1.0)
    assert verdict(1.0) == "feature learning"
    assert radius(np.array([2.0, 1.5, 0.9, 3.0]), np.array([0.0, 1.0, 2.0, 3.0]), 2.0) == 1.0
    assert np.isnan(radius(np.zeros(2), np.array([0.0, 1.0]), 0.0))


def test_landscape_is_flat_at_a_perfect_fit_and_not_before(x64):
    model, x, _ = problem(4)
    y = np.asarray(model(jnp.asarray(x)))
    fit = landscape(model, x, y)
    # y was computed by a program compiled apart: equal to rounding
    assert abs(fit.lowest_encoder) < 1e-14 and abs(fit.lowest_head) < 1e-14
    off = landscape(model, x, y + 1)
    assert off.lowest_head < -off.spread_head < 0


def test_first_variation_predicts_the_loss_of_an_added_particle(x64):
    """Mixing a little mass of the lowest place into the head lowers the loss by its first variation."""
    model, x, y = problem(5)
    found = landscape(model, x, y, probes=64, seed=3)
    data = jnp.asarray(x)
    key = jax.random.split(jax.random.key(3))[1]
    from mfresnet.model import Particles

    spots = Particles.gaussian(key, (64,), state=3, outputs=1, dtype=jnp.float64)
    z = model.states(data)[-1]
    eps = 1e-6
    y = jnp.asarray(y)

    def change(spot):
        alone = jax.tree.map(lambda leaf: leaf[None], spot)
        f = model(data) + eps * model.beta * alone.total(z, model.sigma)
        return (squared(f, y, jnp.ones(len(x))) - squared(model(data), y, jnp.ones(len(x)))) / eps

    changes = jax.jit(jax.vmap(change))(spots)
    assert float(changes.min()) == pytest.approx(found.lowest_head, rel=1e-4)


def test_first_order_paths_explain_a_shallow_network_and_not_a_strong_one(x64):
    weak, x, _ = problem(6, alpha=1e-3)
    assert first_order_share(weak, x) > 1 - 1e-5
    strong, x, _ = problem(6, alpha=30.0)
    assert first_order_share(strong, x) < first_order_share(problem(6, alpha=1.0)[0], x)
