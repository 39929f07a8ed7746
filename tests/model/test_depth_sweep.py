"""The depth sweep against a naive loop, its order against the depth ODE, its memory against depth."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mfresnet.model import ACTIVATIONS, InitialScales, LayeredResNet, Particles, activation, trainable


def naive_forward(model: LayeredResNet, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Theory, section 1, transcribed with explicit sums."""
    sigma = lambda v: float(model.sigma(jnp.asarray(v)))  # noqa: E731
    encoder, head = model.encoder, model.head
    z = np.array(x if model.embedding is None else x @ np.asarray(model.embedding).T, dtype=float)
    layers, width = encoder.w.shape[:2]
    for step in range(model.depth):
        layer = 0 if layers == 1 else step
        moved = z.copy()
        for i in range(len(z)):
            for m in range(width):
                bias = 0.0 if encoder.b is None else float(encoder.b[layer, m])
                pre = float(np.dot(encoder.w[layer, m], z[i])) + bias
                moved[i] += float(model.alpha) / (model.depth * width) * np.asarray(encoder.u[layer, m]) * sigma(pre)
        z = moved
    if head is None:
        return z, z
    f = np.zeros((len(z), head.a.shape[-1]))
    for i in range(len(z)):
        for k in range(head.width):
            bias = 0.0 if head.b is None else float(head.b[k])
            pre = float(np.dot(head.w[k], z[i])) + bias
            f[i] += float(model.beta) / head.width * np.asarray(head.a[k]) * sigma(pre)
    return z, f


@pytest.mark.parametrize("seed", range(4))
def test_forward_equals_the_naive_transcription_on_random_shapes(seed, x64):
    rng = np.random.default_rng(seed)
    d, c, depth, width, k = (int(v) for v in rng.integers(1, 5, size=5))
    options = [
        {},
        {"bias": False, "sigma": "erf"},
        {"shared": True, "sigma": "gelu"},
        {"embedding": d + 2, "sigma": "softplus", "initial": InitialScales(u=0.5, head_w=2.0)},
    ][seed]
    model = LayeredResNet.create(
        jax.random.key(seed), inputs=d, outputs=c, depth=depth + 1, width=width, head_width=k,
        alpha=1.3, beta=0.7, dtype="float64", **options,
    )  # fmt: skip
    x = rng.normal(size=(3, d))
    z, f = naive_forward(model, x)
    np.testing.assert_allclose(model.states(jnp.asarray(x))[-1], z, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(model(jnp.asarray(x)), f, rtol=1e-12, atol=1e-13)


def test_without_head_the_state_is_the_prediction(x64):
    model = LayeredResNet.create(jax.random.key(0), inputs=3, outputs=3, head=False, beta=7.0, dtype="float64")
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)))
    np.testing.assert_array_equal(model(x), model.states(x)[-1])
    with pytest.raises(ValueError, match=r"without head returns its state of dimension 3, but the data has 1"):
        LayeredResNet.create(jax.random.key(0), inputs=3, outputs=1, head=False)


@pytest.mark.parametrize(("scheme", "order"), [("euler", 1), ("midpoint", 2), ("rk4", 4)])
def test_order_of_the_schemes_against_the_depth_ode(scheme, order, x64):
    """One law at every depth makes the ODE smooth, so each scheme shows its full order."""
    x = jnp.asarray(np.random.default_rng(1).normal(size=(5, 2)))
    depths = np.array([8, 16, 32, 64])

    def model(depth, scheme):
        return LayeredResNet.create(
            jax.random.key(3), inputs=2, depth=int(depth), width=7, alpha=3.0, shared=True, scheme=scheme,
            dtype="float64",
        )  # fmt: skip

    limit = model(8, "euler").limit_state(x, tolerance=1e-12)
    errors = [float(jnp.abs(model(depth, scheme).sweep(x)[0] - limit).max()) for depth in depths]
    slope = -np.polyfit(np.log(depths), np.log(errors), 1)[0]
    # the fit still contains the next order: a quarter of an order is what these depths allow
    assert slope == pytest.approx(order, abs=0.25)


def test_the_limit_of_a_layered_law_solves_each_layer(x64):
    """With a law per layer, fine steps within each layer approach the same limit."""
    model = LayeredResNet.create(jax.random.key(0), inputs=2, depth=3, width=4, alpha=2.0, dtype="float64")
    x = jnp.asarray(np.random.default_rng(2).normal(size=(4, 2)))
    fine = jax.tree.map(lambda leaf: jnp.repeat(leaf, 400, axis=0), model.encoder)
    dense = LayeredResNet(fine, model.head, None, model.alpha, model.beta, model.sigma, 1200, "midpoint")
    np.testing.assert_allclose(dense.sweep(x)[0], model.limit_state(x, 1e-11), atol=1e-7)  # (1/1200)^2 times a constant


@pytest.mark.parametrize("depth", [7, 230])
@pytest.mark.parametrize("shared", [False, True])
def test_recomputed_gradient_equals_the_stored_one(depth, shared, x64):
    model = LayeredResNet.create(
        jax.random.key(0), inputs=2, depth=depth, width=3, alpha=2.0, shared=shared, dtype="float64"
    )
    x = jnp.asarray(np.random.default_rng(0).normal(size=(6, 2)))

    def loss(encoder: Particles, recompute: bool):
        network = LayeredResNet(encoder, model.head, None, model.alpha, model.beta, model.sigma, depth)
        return jnp.sum(network(x, recompute=recompute) ** 2)

    stored = jax.grad(loss)(model.encoder, False)
    again = jax.grad(loss)(model.encoder, True)
    # the same operations in another order of summation: rounding only
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-15), stored, again)


def test_memory_of_activations_grows_slower_than_depth():
    """Compiled temporary memory of a gradient, without the gradients themselves (the issue's sizes)."""

    def temporary(depth: int) -> int:
        model = LayeredResNet.create(jax.random.key(0), inputs=2, depth=depth, width=64, head_width=64)
        x = jnp.zeros((512, 2))

        def loss(encoder: Particles):
            network = LayeredResNet(encoder, model.head, None, model.alpha, model.beta, model.sigma, depth)
            return jnp.sum(network(x, recompute=True) ** 2)

        memory = jax.jit(jax.grad(loss)).lower(model.encoder).compile().memory_analysis()
        return memory.temp_size_in_bytes - sum(leaf.nbytes for leaf in jax.tree.leaves(model.encoder))

    assert temporary(10_000) <= 4 * temporary(100)


def test_the_trainable_tree_marks_what_moves():
    model = LayeredResNet.create(jax.random.key(0), inputs=2, embedding=3)
    flags = trainable(model, freeze="encoder", embedding=True)
    assert not any(jax.tree.leaves(flags.encoder))
    assert all(jax.tree.leaves(flags.head))
    assert flags.embedding is True
    assert flags.alpha is False and flags.beta is False


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_contract(name, x64):
    """Derivatives by finite differences, bounds on a fine grid: met, and not exceeded by more than rounding."""
    sigma = activation(name)
    x = jnp.linspace(-30, 30, 120_001) + 1e-5  # off the kink of relu
    h = 1e-6
    np.testing.assert_allclose(sigma.first(x), (sigma(x + h) - sigma(x - h)) / (2 * h), atol=1e-8)
    values = [sigma(x), sigma.first(x)]
    if sigma.second is not None:
        np.testing.assert_allclose(sigma.second(x), (sigma.first(x + h) - sigma.first(x - h)) / (2 * h), atol=1e-8)
        values.append(sigma.second(x))
    for bound, value in zip(sigma.bounds, values, strict=False):
        if np.isfinite(bound):
            assert float(jnp.abs(value).max()) == pytest.approx(bound, abs=1e-6)


def test_assumption_3_is_stated_per_activation():
    assert activation("tanh").assumption3() == ()
    assert activation("relu").assumption3() == ("it has no second derivative",)
    assert activation("identity").assumption3() == ("it is a polynomial, so its Hermite series is finite",)


def test_activations_of_ones_own_and_unknown_ones(monkeypatch):
    from mfresnet.model import Activation, activations

    own = Activation.from_function("swish", lambda v: v * jax.nn.sigmoid(v))
    monkeypatch.setattr(activations, "OWN", own, raising=False)
    assert activation("mfresnet.model.activations:OWN") is own
    assert activation(own) is own
    with pytest.raises(ValueError, match=r"unknown activation 'tanhh': did you mean 'tanh'"):
        activation("tanhh")
    with pytest.raises(ValueError, match=r"cannot be loaded: No module named 'nowhere'"):
        activation("nowhere:thing")
    with pytest.raises(ValueError, match=r"is a function, not an mfresnet.Activation"):
        activation("mfresnet.model.activations:activation")


def test_antithetic_particles_start_exactly_at_the_limit():
    model = LayeredResNet.create(jax.random.key(0), inputs=2, depth=4, width=6, head_width=8, antithetic=True)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(5, 2)), jnp.float32)
    # pairs cancel up to the order of summation in float32
    np.testing.assert_allclose(model.states(x)[-1], x, atol=1e-6)
    np.testing.assert_allclose(model(x), 0, atol=1e-6)
    with pytest.raises(ValueError, match=r"antithetic particles come in pairs, and 5 is odd"):
        LayeredResNet.create(jax.random.key(0), inputs=2, width=5, antithetic=True)
