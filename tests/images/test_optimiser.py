"""Optimisers of image training: the old formulas by hand, any optimiser of Optax, schedules."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mfresnet import MfresnetError
from mfresnet.images import Descent, schedule
from mfresnet.images.training import cross_entropy
from mfresnet.model import reflect


def test_label_smoothing():
    """Against -sum q log p with q written out."""
    logits, y = jax.random.normal(jax.random.key(0), (4, 5)), jnp.array([0, 4, 2, 2])
    q = 0.9 * jax.nn.one_hot(y, 5) + 0.1 / 5
    np.testing.assert_allclose(cross_entropy(logits, y, 0.1), -jnp.sum(q * jax.nn.log_softmax(logits), -1), rtol=1e-5)


@pytest.mark.parametrize(("clip", "warmup"), [(None, 0), (0.3, 2)])
def test_the_default_is_momentum_by_hand(clip, warmup, x64):
    """v <- mu v + g + decay w, w <- w - rate v; coordinates without decay, at their own multiple of the rate."""
    rng, per_epoch, epochs = np.random.default_rng(0), 2, 4
    options = {"rate": 0.1, "schedule": "step", "warmup": warmup, "decay": 0.01, "clip": clip}
    transformation = Descent.named("momentum", momentum=0.8, **options).transformation(0.5, per_epoch, epochs)
    tree = {"network": {"w": jnp.asarray(rng.normal(size=4))}, "coordinates": ({"s": jnp.array([0.6, 1.3])},)}
    state, w, s = transformation.init(tree), np.asarray(tree["network"]["w"]), np.array([0.6, 1.3])
    v, u = np.zeros(4), np.zeros(2)
    for step in range(per_epoch * epochs):
        g, h = rng.normal(size=4), rng.normal(size=2)
        gradient = {"network": {"w": jnp.asarray(g)}, "coordinates": ({"s": jnp.asarray(h)},)}
        updates, state = transformation.update(gradient, state, tree)
        tree = optax.apply_updates(tree, updates)
        norm = np.sqrt(np.sum(g**2) + np.sum(h**2))
        factor = 1.0 if clip is None else min(1.0, clip / norm)
        rate = 0.1 * (1 if step < 4 else 0.1 if step < 6 else 0.01) * min(1.0, (step + 1) / max(2 * warmup, 1))
        v = 0.8 * v + factor * g + 0.01 * w
        u = 0.8 * u + factor * h
        w, s = w - rate * v, s - 0.5 * rate * u
    # eight steps of a few operations each, in float64
    np.testing.assert_allclose(tree["network"]["w"], w, rtol=1e-12)
    np.testing.assert_allclose(tree["coordinates"][0]["s"], s, rtol=1e-12)
    rates = [value for _, value in optax.tree.get_all_with_path(state, "learning_rate") if isinstance(value, jax.Array)]
    np.testing.assert_allclose(sorted(map(float, rates)), [0.5 * rate, rate], rtol=1e-12)


def test_a_reflected_depth_turns_its_momentum(x64):
    """s on the free line, seen through its reflection, against a particle that bounces off the ends by hand."""
    transformation = Descent.named("momentum", rate=0.4, schedule="constant").transformation(1.0, 10, 2)
    tree = {"network": jnp.zeros(1), "coordinates": jnp.array([0.2, 1.9])}
    state, s, v = transformation.init(tree), np.array([0.2, 1.9]), np.zeros(2)
    force = lambda x: jnp.sum(0.1 * jnp.sin(x) + jnp.array([1.0, -1.0]) * x)  # noqa: E731
    bounces = 0
    for _ in range(20):
        slope = jax.grad(lambda free: force(reflect(free, 2)))(tree["coordinates"])
        updates, state = transformation.update({"network": jnp.zeros(1), "coordinates": slope}, state, tree)
        tree = optax.apply_updates(tree, updates)
        v = 0.9 * v + np.asarray(jax.grad(force)(jnp.asarray(s)))
        s = s - 0.4 * v
        while (out := (s < 0) | (s > 2)).any():
            s, v, bounces = np.where(s < 0, -s, np.where(s > 2, 4 - s, s)), np.where(out, -v, v), bounces + out.sum()
        # float64 rounding; so weak a curvature lets it grow by little over 20 steps
        np.testing.assert_allclose(reflect(tree["coordinates"], 2), s, rtol=1e-9)
    assert bounces > 5


@pytest.mark.parametrize("name", ["sgd", "adam", "optax:adamw", "optax:lion", "optax:rmsprop", "optax:lamb"])
def test_any_optimiser_of_optax(name):
    """Weights move as the optimiser moves them alone; depth coordinates decay under none."""
    transformation = Descent.named(name, rate=0.01, schedule="constant", decay=0.0).transformation(2.0, 5, 1)
    alone = (optax.sgd if name == "sgd" else getattr(optax, name.removeprefix("optax:")))(0.01)
    tree = {"network": jnp.arange(1.0, 4.0), "coordinates": jnp.array([1.0, 2.0])}
    state, w, own = transformation.init(tree), tree["network"], alone.init(tree["network"])
    for _ in range(3):
        gradient = {"network": jnp.sin(w), "coordinates": jnp.zeros(2)}
        updates, state = transformation.update(gradient, state, tree)
        tree = optax.apply_updates(tree, updates)
        updates, own = alone.update(jnp.sin(w), own, w)
        w = optax.apply_updates(w, updates)
    np.testing.assert_allclose(tree["network"], w, rtol=1e-6)  # float32, three steps
    np.testing.assert_array_equal(tree["coordinates"], [1.0, 2.0])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("optax:adamx", "unknown rule 'optax:adamx'"),
        ("optax:polyak_sgd", "'optax:polyak_sgd' needs more than gradients and parameters"),
        ("optax:clip_by_block_rms_of", "unknown rule"),
    ],
)
def test_optimisers_that_cannot_be_used(name, words):
    with pytest.raises(MfresnetError, match=words):
        Descent.named(name)


def test_schedules():
    cosine = schedule("cosine", 0.4, 100, warmup=10)
    np.testing.assert_allclose([cosine(0), cosine(50), cosine(99)], [0.04, 0.2, 0.0001], rtol=0.02)
    step = schedule("step", 0.1, 300)
    np.testing.assert_allclose([step(149), step(150), step(224), step(225)], [0.1, 0.01, 0.01, 0.001], rtol=1e-5)
    with pytest.raises(MfresnetError, match="unknown schedule 'stair'"):
        schedule("stair", 0.1, 10)
