"""J J^T of arbitrary functions against a plain Jacobian, and against the closed form."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mfresnet.errors import MfresnetError
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
    hidden = jnp.tanh(x @ params["first"]["w"] + params["first"]["b"])
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


def test_python_numbers_are_constants():
    """A slope kept beside the weights is no parameter; NumPy arrays are."""

    def line(p, x):
        return p["slope"] * (x @ p["w"])

    params = {"w": np.ones(3), "slope": 0.5}
    np.testing.assert_allclose(empirical_gram(line, params, np.eye(3)), 0.25 * np.eye(3))
    np.testing.assert_allclose(empirical_operator(line, params, np.eye(3)).matvec([1.0, 0.0, 0.0]), [0.25, 0.0, 0.0])
    with pytest.raises(MfresnetError, match="no floating-point array"):
        empirical_gram(lambda p, x: p * x[:, 0], 0.5, np.eye(3))
