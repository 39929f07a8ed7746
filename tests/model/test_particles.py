"""The contract of every kind of particle: what is taken of sigma(z, theta) is what its definition says.

Oracles are naive: finite differences, the Jacobian of the whole network, the Hessian's trace. All in float64. The
two-layer kind appears twice, with its closed forms and as a function like any other.
"""

from dataclasses import replace
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from mfresnet import LayeredResNet, MfresnetError, Particle, adjoint, empirical_gram, gram, gram_operator, velocities
from mfresnet.flow import Batch, Options, Probes, field
from mfresnet.model import OwnParticles, Particles, activation, particle, trainable
from mfresnet.model.blocks import attention_of
from mfresnet.model.smoothness import check_smooth


def as_function(state: int, outputs: int) -> Particle:
    """The two-layer particle without its closed forms."""
    return Particle(
        lambda z, theta: theta["out"] * jnp.tanh(theta["w"] @ z + theta["b"]),
        {"out": np.ones(outputs), "w": np.ones(state), "b": np.ones(())},
        smooth=True,
    )


class Kind(NamedTuple):
    state: int
    encoder: Particle | None
    head: Particle | None


def kind_of(name: str) -> Kind:
    if name == "two-layer":
        return Kind(3, None, None)
    if name == "function":
        return Kind(3, as_function(3, 3), as_function(3, 2))
    if name == "attention":
        return Kind(6, attention_of(2)(6, 6), attention_of(2)(6, 2))
    state = {"gated": 3, "convolution": 9}[name]
    return Kind(state, particle(name, state, state), particle(name, state, 2))


NAMES = ("two-layer", "function", "gated", "attention", "convolution")


@pytest.fixture(scope="module", params=NAMES)
def case(request):
    with jax.enable_x64(True):
        kind = kind_of(request.param)
        rng = np.random.default_rng(1)
        x = rng.normal(size=(4, kind.state))
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        options = {"particle": kind.encoder, "head_particle": kind.head, "dtype": jnp.float64}
        model = LayeredResNet.create(
            jax.random.key(0),
            inputs=kind.state,
            outputs=2,
            depth=2,
            width=3,
            head_width=4,
            alpha=1.5,
            beta=2.0,
            **options,
        )
        yield model, jnp.asarray(x), jnp.asarray(rng.normal(size=(4, 2)))


@eqx.filter_jit
def squared(model, x, y):
    return 0.5 * jnp.sum((model(x) - y) ** 2) / len(x)


@eqx.filter_jit
def evaluate(family, m, point, sigma):
    """sigma(z, theta) of particle m."""
    return jax.tree.map(lambda leaf: leaf[jnp.asarray(m)], family).evaluate(point, sigma)


def test_states_are_the_average_over_particles(case):
    model, x, _ = case
    z = np.asarray(x)
    for layer in range(2):
        family = model.encoder.layer(layer)
        moved = [[evaluate(family, m, point, model.sigma) for m in range(3)] for point in z]
        z = z + 1.5 / (2 * 3) * np.sum(np.array(moved), axis=1)
    np.testing.assert_allclose(model.states(x)[-1], z, rtol=1e-12)


def test_velocities_are_finite_differences_of_the_loss(case):
    """v = -L M dLoss/dtheta and -K dLoss/domega, by central differences (error about h^2 = 1e-10)."""
    model, x, y = case
    found = velocities(model, x, y)
    for name, mass in (("encoder", 2 * 3), ("head", 4)):
        flat, unravel = ravel_pytree(getattr(model, name))
        expected, h = np.asarray(ravel_pytree(getattr(found, name))[0]), 1e-5
        for k in np.random.default_rng(0).choice(flat.size, min(12, flat.size), replace=False):
            up, down = (squared(model_with(model, name, unravel(flat.at[k].add(sign * h))), x, y) for sign in (1, -1))
            np.testing.assert_allclose(expected[k], -mass * (up - down) / (2 * h), rtol=1e-6, atol=1e-8)


def model_with(model, name, value):
    return eqx.tree_at(lambda m: getattr(m, name), model, value)


def test_adjoint_is_the_derivative_by_the_state(case):
    model, x, _ = case
    q = adjoint(model, x).q

    def rest(z, first):
        for layer in range(first, 2):
            family = model.encoder.layer(layer)
            z = z + 1.5 / 2 / 3 * family.total(z, model.sigma)
        return model.read(z)[0] / model.beta

    z = model.states(x)
    for layer in range(3):
        for i in range(2):
            expected = jax.jacfwd(lambda at, layer=layer: rest(at[None], layer))(z[layer, i])
            np.testing.assert_allclose(q[layer, i], expected, rtol=1e-9, atol=1e-12)


def test_gram_matrices_are_those_of_the_naive_jacobian(case):
    """G1 = (L M / alpha^2) J_nu J_nu^T and G2 = K J_tau J_tau^T with J of f/beta; dense, cross and as an operator."""
    model, x, _ = case
    found = gram(model, x)
    naive = empirical_gram(
        lambda parts, x: (
            model_with(model_with(model, "encoder", parts["encoder"]), "head", parts["head"])(x) / model.beta
        ),
        {"encoder": model.encoder, "head": model.head},
        x,
        groups={"encoder": "encoder", "head": "head"},
    )
    np.testing.assert_allclose(found.encoder, 6 / 1.5**2 * naive["encoder"], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.head, 4 * naive["head"], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(gram(model, x, other=x[:2], block=2).total, found.total[:, :4], rtol=1e-9, atol=1e-12)
    v = np.random.default_rng(3).normal(size=8)
    np.testing.assert_allclose(gram_operator(model, x).matvec(v), found.total @ v, rtol=1e-9)


def test_depth_shared_gram(case):
    model, x, _ = case
    shared = eqx.tree_at(lambda m: m.encoder, model, jax.tree.map(lambda leaf: leaf[:1], model.encoder))
    naive = empirical_gram(lambda encoder, x: model_with(shared, "encoder", encoder)(x) / model.beta, shared.encoder, x)
    np.testing.assert_allclose(gram(shared, x).encoder, 3 / 1.5**2 * naive, rtol=1e-9, atol=1e-12)


def test_probes_see_gradient_and_laplacian_of_the_first_variation(case):
    """A probe at the place of a particle moves as it does, and the divergence it sees is the trace of the Hessian."""
    model, x, y = case
    batch = Batch(x, y, jnp.ones(len(x)))
    compiled = eqx.filter_jit(field)
    of_training = compiled(model, trainable(model), batch, Options())
    probes = Probes(model.encoder, model.head)
    seen = compiled(model, trainable(model), batch, Options(), probes, "laplacian")
    bent = compiled(model, trainable(model), batch, Options(), probes, "hessian").curvature
    closed = velocities(model, x, y)
    passes = adjoint(model, x)
    p = model.beta * jnp.einsum("nc,lncd->lnd", (passes.f - y) / len(x), passes.q)
    for name in ("encoder", "head"):
        for a, b in zip(*(jax.tree.leaves(getattr(f, name)) for f in (of_training.model, seen.probes)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(
            getattr(seen.curvature, name), getattr(closed, f"laplacian_{name}"), rtol=1e-9, atol=1e-12
        )
    particles = [[jax.tree.map(lambda leaf: leaf[layer, m], model.encoder) for m in range(3)] for layer in range(2)]  # noqa: B023
    unravel = ravel_pytree(particles[0][0])[1]

    @jax.jit
    @jax.hessian
    def hessian_of(flat, z, p):
        made = jnp.stack([unravel(flat).evaluate(point, model.sigma) for point in z])
        return 1.5 * jnp.sum(p * made)

    for layer in range(2):
        for m in range(3):
            hessian = hessian_of(ravel_pytree(particles[layer][m])[0], passes.z[layer], p[layer + 1])
            np.testing.assert_allclose(seen.curvature.encoder[layer, m], jnp.trace(hessian), rtol=1e-9, atol=1e-11)
            mixed, rest = (block[layer, m] for block in bent.encoder)
            first = mixed.shape[0]
            np.testing.assert_allclose(rest, hessian[first:, first:], rtol=1e-9, atol=1e-11)
            np.testing.assert_allclose(mixed, hessian[:first, first:], rtol=1e-9, atol=1e-11)
            np.testing.assert_allclose(hessian[:first, :first], 0, atol=1e-12)


def test_a_function_is_the_closed_form(x64):
    """Drawn places in common, everything else by automatic differentiation: the same network and Gram matrix."""
    plain = LayeredResNet.create(
        jax.random.key(0), inputs=3, depth=2, width=3, head_width=4, alpha=2.0, dtype=jnp.float64
    )
    own = model_with(plain, "encoder", OwnParticles(vars(plain.encoder) | {}, as_function(3, 3), 3, 3))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(5, 3)))
    np.testing.assert_allclose(own(x), plain(x), rtol=1e-13)
    for part in ("encoder", "head", "total"):
        np.testing.assert_allclose(getattr(gram(own, x), part), getattr(gram(plain, x), part), rtol=1e-10, atol=1e-13)
    weights = jnp.asarray(np.random.default_rng(1).normal(size=4))
    head = OwnParticles(vars(plain.head) | {}, as_function(3, 1), 3, 1)
    np.testing.assert_allclose(
        head.weighted(x, weights, plain.sigma), plain.head.weighted(x, weights, plain.sigma), rtol=1e-12
    )
    np.testing.assert_allclose(own.encoder.flat(), reordered(plain.encoder), rtol=0)


def reordered(particles: Particles) -> np.ndarray:
    """As vectors (b, out, w): the leaves of a dictionary are in the order of their names."""
    return np.concatenate([np.asarray(particles.b)[..., None], particles.out, particles.w], axis=-1)


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (lambda z, theta: theta["w"][:2] * z[0], r"makes \(2,\) of a state of shape \(3,\): return an array of shape"),
        (lambda z, theta: (theta["w"] * z).astype(jnp.bfloat16), "returns bfloat16 for a state of type float32"),
        (lambda z, theta: jnp.sqrt(theta["w"]) * z, "returns NaN or infinity at a draw of its start"),
        (lambda z, theta: jnp.round(theta["w"]) * z, "is 0 at every draw of its start, so it cannot be trained"),
        (lambda z, theta: jnp.sqrt(0 * theta["w"]) + z, "derivative of particle <lambda> is NaN or infinite"),
        (
            lambda z, theta: theta["v"] * z,
            r"<lambda>, at a state of shape \(3,\), failed with KeyError \('v'\): correct it",
        ),
        (lambda z, theta: 1 / 0, "failed with ZeroDivisionError"),
        (lambda z, theta: jnp.round(z) * theta["w"], "depends on z, but its derivative is 0 at every draw"),
        (
            lambda z, theta: jnp.sign(theta["w"][:1]) * theta["u"] * z,
            r"depends on theta\['w'\], but its derivative is 0 at every draw",
        ),
        (
            lambda z, theta: theta["w"] * jax.pure_callback(np.tanh, jax.ShapeDtypeStruct((3,), z.dtype), z),
            "the derivative of particle <lambda> failed with ValueError",
        ),
        (
            lambda z, theta: jax.pure_callback(np.tanh, jax.ShapeDtypeStruct((3,), z.dtype), theta["w"] * z),
            "the derivative of particle <lambda> failed with ValueError",
        ),
    ],
)
def test_a_function_that_is_no_block_is_refused(function, sentence):
    with pytest.raises(MfresnetError, match=sentence):
        LayeredResNet.create(
            jax.random.key(0), inputs=3, depth=2, width=2, particle=Particle(function, {"w": np.ones(3), "u": 1.0})
        )


def test_values_of_constant_sum_and_unused_parameters_are_allowed():
    """Of a softmax every sum is 1, so that a derivative of the sum is 0; a zero start and an unused leaf do no harm."""
    std = {"w": np.ones(3), "u": np.zeros(3), "unused": np.ones(2)}
    for function in (
        lambda z, theta: jax.nn.softmax(theta["w"] * z),
        lambda z, theta: theta["u"] * jnp.tanh(theta["w"] @ z),
    ):
        LayeredResNet.create(jax.random.key(0), inputs=3, depth=1, width=1, particle=Particle(function, std))


def test_jumps_of_the_derivative_are_seen():
    def kinked(z, theta):
        return theta["u"] * jax.nn.relu(theta["w"] @ z)

    def stepped(z, theta):
        return theta["u"] * (jnp.floor(theta["w"] @ z) + jnp.tanh(theta["w"] @ z))

    def tilted(z, theta):
        return theta["u"] * (theta["w"] @ z + 0.001 * jnp.abs(theta["w"] @ z))  # a jump of 0.2 % of the derivative

    def bent(z, theta):
        return theta["u"] * jax.nn.relu(theta["w"] @ z) ** 2  # its gradient is continuous, its second derivative jumps

    def steep(z, theta):
        return theta["u"] * jnp.tanh(1000 * theta["w"] @ z)

    std = {"u": np.ones(3), "w": 2 * np.ones(3)}
    for function, what in ((kinked, "derivative"), (stepped, "value"), (tilted, "derivative")):
        with pytest.raises(MfresnetError, match=f"declared smooth, but its {what} jumps"):
            check_smooth(Particle(function, std, smooth=True), 3, 3)
    for function in (bent, steep):
        check_smooth(Particle(function, std, smooth=True), 3, 3)
    for name, state in (("gated", 3), ("attention", 8), ("convolution", 9)):
        check_smooth(particle(name, state, state), state, state)


def test_hutchinson_is_unbiased_and_its_error_falls(x64):
    """Over 4096 directions the mean lies within 5 standard errors of the exact Laplacian (false alarm 6e-7)."""
    kind = particle("gated", 3, 3)
    family = OwnParticles.draw(jax.random.key(0), (2,), kind, state=3, outputs=3, dtype=jnp.float64)
    rng = np.random.default_rng(0)
    z, p = jnp.asarray(rng.normal(size=(5, 3))), jnp.asarray(rng.normal(size=(5, 3)))
    sigma = activation("tanh")
    signs = jnp.asarray(rng.choice([-1.0, 1.0], size=(2, 4096, kind.size)))
    exact = family.laplacian(z, p, sigma)
    each = jnp.stack([family.laplacian(z, p, sigma, signs[:, k : k + 1]) for k in range(64)])
    spread = np.asarray(each).std(axis=0) / 4096**0.5
    assert np.all(np.abs(family.laplacian(z, p, sigma, signs) - exact) < 5 * 1.5 * spread)
    one, four = (replace(kind, directions=k) for k in (1, 4))
    shapes = [OwnParticles.draw(jax.random.key(0), (2,), k, state=3, outputs=3).directions().shape for k in (one, four)]
    assert shapes == [(2, 1, kind.size), (2, 4, kind.size)]


@pytest.mark.parametrize(
    "std", [{}, {"w": np.array([np.nan])}, {"w": "wide"}, {"w": np.array([-1.0])}, {"w": np.ones(0)}]
)
def test_a_start_that_is_no_law_is_refused(std):
    with pytest.raises(MfresnetError, match="give"):
        Particle(lambda z, theta: theta["w"] * z, std)


@pytest.mark.usefixtures("unchecked")
def test_what_makes_no_particle():
    with pytest.raises(MfresnetError, match=r"is a int: give sigma\(z, theta\)"):
        Particle(3, {"w": np.ones(3)})  # pyright: ignore[reportArgumentType]
    for directions in (0, 2.5):
        with pytest.raises(MfresnetError, match="give a whole number >= 1"):
            Particle(lambda z, theta: z, {"w": np.ones(3)}, directions=directions)  # pyright: ignore[reportArgumentType]


def test_names_and_factories(tmp_path, monkeypatch):
    (tmp_path / "toy_particles.py").write_text(
        "def broken(state, outputs):\n    return 3\n\n\ndef lost(state):\n    return 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MfresnetError, match=r"made a int: return an mfresnet\.Particle"):
        particle("toy_particles:broken", 2, 2)
    with pytest.raises(MfresnetError, match=r"'toy_particles:lost', called with \(2, 2\), failed with TypeError"):
        particle("toy_particles:lost", 2, 2)
    with pytest.raises(MfresnetError, match="unknown particle 'gate': did you mean 'gated'"):
        particle("gate", 2, 2)
    assert particle("gated", 2, 2) is particle("gated", 2, 2)
    with pytest.raises(MfresnetError, match="no square image"):
        particle("convolution", 7, 7)
    with pytest.raises(MfresnetError, match="no sequence of tokens"):
        particle("attention", 7, 7)
