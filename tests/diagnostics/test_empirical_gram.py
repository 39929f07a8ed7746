"""J J^T of arbitrary functions against a plain Jacobian, and against the closed form."""

import os
import subprocess
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from scipy import linalg

from mfresnet.diagnostics import tangent_dissipation, tangent_rate, tangent_regime, tangent_training
from mfresnet.errors import MfresnetError
from mfresnet.kernels import empirical, empirical_cost
from mfresnet.kernels.empirical import empirical_gram, empirical_operator
from mfresnet.kernels.gram import gram
from mfresnet.kernels.precision import double_precision
from mfresnet.model import LayeredResNet

RNG = np.random.default_rng(0)
PARAMS = {
    "first": {"w": RNG.normal(size=(3, 5)), "b": RNG.normal(size=5)},
    "second": {"w": RNG.normal(size=(5, 2)), "steps": np.arange(3), "none": None},
}
X, OTHER = RNG.normal(size=(7, 3)), RNG.normal(size=(4, 3))


def two_layers(params, x):
    hidden = jnp.tanh(x @ params["first"]["w"] + params["first"]["b"][None])
    return hidden @ params["second"]["w"]


def plain_jacobian(fn, params, x):
    with double_precision():
        floats = eqx.filter(jax.tree.map(jnp.asarray, params), eqx.is_inexact_array)
        found = jax.jacrev(lambda p: fn(p, jnp.asarray(x)))(floats)
        size = fn(floats, jnp.asarray(x)).size
        return {
            jax.tree_util.keystr(path, simple=True, separator="."): np.asarray(leaf).reshape(size, -1)
            for path, leaf in jax.tree_util.tree_flatten_with_path(found)[0]
        }


@pytest.mark.parametrize("block", [None, 1, 3])
def test_against_a_plain_jacobian(block):
    left, right = plain_jacobian(two_layers, PARAMS, X), plain_jacobian(two_layers, PARAMS, OTHER)
    whole = sum(left[k] @ left[k].T for k in left)
    np.testing.assert_allclose(empirical_gram(two_layers, PARAMS, X, block=block), whole, rtol=1e-10, atol=1e-12)
    cross = empirical_gram(two_layers, PARAMS, X, other=OTHER, block=block)
    np.testing.assert_allclose(cross, sum(left[k] @ right[k].T for k in left), rtol=1e-10, atol=1e-12)


def test_groups_add_up_and_the_operator_is_the_matrix():
    groups = {"first": "first", "bias": lambda path: path.endswith("b"), "second": "second.w"}
    found = empirical_gram(two_layers, PARAMS, X, groups=groups, block=4)
    jacobian = plain_jacobian(two_layers, PARAMS, X)
    np.testing.assert_allclose(found["bias"], jacobian["first.b"] @ jacobian["first.b"].T, rtol=1e-10, atol=1e-12)
    whole = empirical_gram(two_layers, PARAMS, X)
    np.testing.assert_allclose(found["first"] + found["second"], whole, rtol=1e-12, atol=1e-12)
    v = RNG.normal(size=14)
    np.testing.assert_allclose(empirical_operator(two_layers, PARAMS, X).matvec(v), whole @ v, rtol=1e-10)
    part = empirical_operator(two_layers, PARAMS, X, group="first")
    assert part.shape == (14, 14)
    np.testing.assert_allclose(part.matvec(v), found["first"] @ v, rtol=1e-10)


@pytest.mark.parametrize("scheme", ["euler", "rk4"])
def test_a_scaled_resnet_of_any_scheme(scheme):
    """The head's part is the closed form's up to K and beta, whatever the scheme; the encoder's for Euler."""
    model = LayeredResNet.create(
        jax.random.key(0), inputs=3, depth=4, width=5, head_width=6, alpha=1.5, beta=2.0, scheme=scheme
    )
    params, static = eqx.partition(model, eqx.is_inexact_array)
    found = empirical_gram(
        lambda p, x: eqx.combine(p, static)(x), params, X, groups={"encoder": "encoder", "head": "head"}
    )
    if scheme == "euler":
        closed = gram(model, X)
        np.testing.assert_allclose(found["head"] * 6 / 4, closed.head, rtol=1e-6)
        np.testing.assert_allclose(found["encoder"] * 20 / 1.5**2 / 4, closed.encoder, rtol=1e-6)
    assert np.linalg.eigvalsh(found["encoder"])[0] > -1e-12


def test_scalar_outputs_images_and_equinox_layers():
    layer = eqx.nn.Linear(12, 1, key=jax.random.key(0))
    params, static = eqx.partition(layer, eqx.is_array)
    images = RNG.normal(size=(3, 2, 6))

    def fn(p, x):
        return jax.vmap(eqx.combine(p, static))(x.reshape(len(x), -1))[:, 0]

    flat = images.reshape(3, -1)
    np.testing.assert_allclose(empirical_gram(fn, params, images), flat @ flat.T + 1, rtol=1e-12)


@pytest.mark.usefixtures("unchecked")
def test_bad_input_is_one_sentence():
    with pytest.raises(MfresnetError, match=r"x is not finite at index \(1, 0\)"):
        empirical_gram(two_layers, PARAMS, [[0.0, 0, 0], [float("nan"), 0, 0]])
    with pytest.raises(
        MfresnetError, match=r"group 'third' is empty: the parameters are first\.b, first\.w, second\.w"
    ):
        empirical_gram(two_layers, PARAMS, X, groups={"third": "third"})
    with pytest.raises(MfresnetError, match="no floating-point"):
        empirical_gram(lambda p, x: x[:, 0], {"k": np.arange(2)}, X)
    with pytest.raises(MfresnetError, match="at least one point"):
        empirical_gram(two_layers, PARAMS, np.zeros((0, 3)))
    with pytest.raises(MfresnetError, match="block = 0"):
        empirical_gram(two_layers, PARAMS, X, block=0)
    with pytest.raises(MfresnetError, match="length 3: give one of length 14"):
        empirical_operator(two_layers, PARAMS, X).matvec(np.ones(3))
    with pytest.raises(MfresnetError, match="NaN or infinite"):
        empirical_gram(lambda p, x: jnp.sqrt(x @ p), np.zeros(3), X)


@pytest.mark.parametrize(
    ("fn", "sentence"),
    [
        (lambda p, x: x @ p["lost"], r"at x of shape \(2, 3\), failed with TypeError"),
        (lambda p, x: jnp.tanh(np.asarray(x @ p)), "failed with TracerArrayConversionError"),
        (lambda p, x: jnp.sum(x @ p), r"makes \(\) of x of shape \(2, 3\): return one array of shape \(2, ...\)"),
        (lambda p, x: jnp.concatenate([x @ p] * 2), r"makes \(4, 2\) of x"),
        (lambda p, x: (x @ p, {}), "makes tuple of x"),
        (lambda p, x: jnp.argmax(x @ p, axis=1), "returns int64, which has no Jacobian"),
        (lambda p, x: 1j * x @ p, "returns complex128, which has no Jacobian"),
        (lambda p, x: jnp.log(-jnp.exp(x @ p)), "returns NaN or infinity at the first point"),
        (lambda p, x: (x - x.mean(axis=0)) @ p, "couples the points of a batch"),
        (
            lambda p, x: jax.pure_callback(np.tanh, jax.ShapeDtypeStruct((len(x), 2), x.dtype), x @ p),
            "the derivative of the function failed with ValueError",
        ),
    ],
)
@pytest.mark.usefixtures("loose_promotion")
def test_a_function_without_jacobian_point_by_point_is_one_sentence(fn, sentence):
    for way in (empirical_gram, empirical_operator):
        with pytest.raises(MfresnetError, match=sentence):
            way(fn, np.ones((3, 2)), X)


def test_the_cost_counts_what_is_computed(monkeypatch):
    """Calls of the Jacobian and bytes of the matrix, of a computation in 3 blocks that divide the points."""
    f, params, _, _ = small_model()
    x, calls = RNG.normal(size=(12, 3)), []
    whole = empirical.jacobian_rows

    def counted(*parts):
        rows, outputs, length = whole(*parts)
        return (lambda block: calls.append(len(block)) or rows(block)), outputs, length

    monkeypatch.setattr(empirical, "jacobian_rows", counted)
    matrix = empirical_gram(f, params, x, block=4)
    cost = empirical_cost(f, params, x[:4], points=12, block=4)
    assert calls == [4] * 5  # B(B + 1)/2 as the projection has it, less the one that is still held
    assert (cost.matrix_bytes, cost.parameters, cost.outputs, cost.block) == (matrix.nbytes, 25, 2, 4)
    assert cost.flops == 6 * 2 * (4 * 2) ** 2 * 25 and cost.jacobian_bytes == 2 * 4 * 2 * 25 * 8
    assert cost.seconds > 0 and "12 points, 2 outputs, 25 parameters" in str(cost)
    four = empirical_cost(f, params, x[:4], points=48, block=4)
    assert four.matrix_bytes == 16 * cost.matrix_bytes and four.flops == 13 * cost.flops  # 12 * 13/2 pairs, not 6
    with pytest.raises(MfresnetError, match="points = 0 is not allowed"):
        empirical_cost(f, params, x, points=0)


def test_what_is_not_finite_has_no_dynamics():
    f, params, x, y = small_model()
    for call in (tangent_dissipation, lambda *parts: tangent_training(*parts, [0.0])):
        with pytest.raises(MfresnetError, match="the targets have NaN or infinite entries"):
            call(f, params, x, np.where(y > 0, y, np.nan))


def test_python_numbers_are_constants():
    """A slope kept beside the weights is no parameter; NumPy arrays are."""

    def line(p, x):
        return p["slope"] * (x @ p["w"])

    params = {"w": np.ones(3), "slope": 0.5}
    np.testing.assert_allclose(empirical_gram(line, params, np.eye(3)), 0.25 * np.eye(3))
    np.testing.assert_allclose(empirical_operator(line, params, np.eye(3)).matvec([1.0, 0.0, 0.0]), [0.25, 0.0, 0.0])
    with pytest.raises(MfresnetError, match="no floating-point array"):
        empirical_gram(lambda p, x: p * x[:, 0], 0.5, np.eye(3))


def small_model():
    rng = np.random.default_rng(0)
    params = {"w": jnp.asarray(rng.normal(size=(3, 5))), "u": jnp.asarray(rng.normal(size=(5, 2)))}
    return (lambda p, x: jnp.tanh(x @ p["w"]) @ p["u"]), params, rng.normal(size=(7, 3)), rng.normal(size=(7, 2))


@pytest.mark.parametrize("block", [None, 1, 3, 7, 50])
def test_the_operator_in_blocks_of_points(block, x64):
    f, params, x, _ = small_model()
    v = np.random.default_rng(1).normal(size=14)
    found = empirical_operator(f, params, x, block=block).matvec(v)
    np.testing.assert_allclose(found, empirical_gram(f, params, x) @ v, rtol=1e-12)


def test_dissipation_rate_and_regime_of_any_model(x64):
    f, params, x, y = small_model()
    flow, matrix = tangent_dissipation(f, params, x, y), empirical_gram(f, params, x)
    assert flow.residual < 1e-12
    h = 1e-6  # a step of gradient descent lowers the loss by h times the rate, to first order

    def loss(p):
        return 0.5 * jnp.sum((f(p, x) - y) ** 2) / 7

    moved = jax.tree.map(lambda p, g: p - h * g, params, jax.grad(loss)(params))
    assert float((loss(params) - loss(moved)) / h) == pytest.approx(flow.rate, rel=1e-4)
    assert flow.decay == pytest.approx(flow.rate / float(loss(params)))
    assert flow.decay >= 2 * np.linalg.eigvalsh(matrix)[0] / 7
    assert tangent_rate(f, params, x, block=3).value == pytest.approx(np.linalg.eigvalsh(matrix)[-1] / 7, rel=1e-5)
    assert tangent_regime(f, params, params, x, y).kernel_change == 0
    with pytest.raises(MfresnetError, match="make them equal"):
        tangent_dissipation(f, params, x, y[:, 0])


def test_linearised_training_of_any_model(x64):
    """Against the linear differential equation of the parameters themselves, by the exponential of its matrix."""
    f, params, x, y = small_model()
    flat, unravel = ravel_pytree(params)
    jacobian = np.asarray(jax.jacrev(lambda p: f(unravel(p), x).ravel())(flat))
    other = x[:2] + 0.1
    of_other = np.asarray(jax.jacrev(lambda p: f(unravel(p), other).ravel())(flat))
    begun = np.asarray(f(params, x)).ravel()
    fit, guess = tangent_training(f, params, x, y, [0.0, 0.7], other=other)
    # d delta/dt = -J^T (J delta + f - y)/n, with a constant appended to delta
    size = flat.size
    a = np.zeros((size + 1, size + 1))
    a[:size, :size], a[:size, size] = -jacobian.T @ jacobian / 7, -jacobian.T @ (begun - y.ravel()) / 7
    delta = linalg.expm(0.7 * a)[:size, size]
    np.testing.assert_allclose(fit[1].ravel(), begun + jacobian @ delta, rtol=1e-9)
    np.testing.assert_allclose(guess[1].ravel(), np.asarray(f(params, other)).ravel() + of_other @ delta, rtol=1e-9)
    np.testing.assert_allclose(fit[0].ravel(), begun, rtol=1e-12)


def test_the_operator_shared_over_devices(tmp_path):
    """Three devices, 7 points in blocks of 2: the last device has one point and repeats."""
    code = """
import jax, jax.numpy as jnp, numpy as np
from mfresnet import empirical_gram, empirical_operator
rng = np.random.default_rng(0)
params = {"w": rng.normal(size=(3, 5)), "u": rng.normal(size=(5, 2))}
f = lambda p, x: jnp.tanh(x @ p["w"]) @ p["u"]
x, v = rng.normal(size=(7, 3)), rng.normal(size=14)
assert len(jax.devices()) == 3
for block in (None, 2):
    product = empirical_operator(f, params, x, block=block, devices=jax.devices()).matvec(v)
    np.testing.assert_allclose(product, empirical_gram(f, params, x) @ v, rtol=1e-12)
"""
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=3", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
